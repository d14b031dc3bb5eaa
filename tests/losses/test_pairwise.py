"""Laws of the losses over all pairs, and of their pointwise counterparts."""

import math

import pytest
import torch
from torch.testing import assert_close

from depthkit.losses import PointwiseLoss
from depthkit.losses.functional import (
    pairwise_l1_si_loss,
    pairwise_l1_ssi_loss,
    pairwise_l2_si_loss,
    pointwise_loss,
    silog_loss,
)
from tests.contracts.loss import random_pair, value_and_gradient


def all_pairs(residual):
    return residual[:, None] - residual[None, :]


def l1_si(pred, target, valid):
    return torch.stack([all_pairs(p[v] - t[v]).abs().mean() for p, t, v in zip(pred, target, valid, strict=True)])


def l1_ssi(pred, target, valid):
    return torch.stack(
        [all_pairs(p[v] / p[v].std() - t[v] / t[v].std()).abs().mean() for p, t, v in zip(pred, target, valid, strict=True)]
    )


def l2_si(pred, target, valid):
    return torch.stack([(all_pairs(p[v] - t[v]) ** 2).mean() / 2 for p, t, v in zip(pred, target, valid, strict=True)])


DEFINITIONS = [(pairwise_l1_si_loss, l1_si), (pairwise_l1_ssi_loss, l1_ssi), (pairwise_l2_si_loss, l2_si)]


@pytest.mark.parametrize(("loss", "definition"), DEFINITIONS)
def test_the_fast_form_is_the_definition_over_all_pairs_with_its_gradient(loss, definition):
    pred, target, valid = random_pair(2, 20, 20)
    exact, exact_gradient = value_and_gradient(definition, pred.double(), target.double(), valid)
    value, gradient = value_and_gradient(loss, pred, target, valid)
    assert_close(value.double(), exact, rtol=1e-6, atol=0)
    assert (gradient.double() - exact_gradient).abs().max() < 1e-6 * exact_gradient.abs().max() + 1e-9


@pytest.mark.parametrize("pixels", [1, 2, 3])
def test_few_pixels_are_no_special_case(pixels):
    pred, target, _ = random_pair(2, 3, 3, dtype=torch.double)
    valid = (torch.arange(9) < pixels).view(1, 1, 3, 3).expand_as(pred)
    assert_close(pairwise_l1_si_loss(pred, target, valid), l1_si(pred, target, valid))
    assert pairwise_l1_ssi_loss(pred, target, valid).isfinite().all()


def test_ties_have_the_value_of_the_definition():
    pred = torch.randint(3, (2, 1, 8, 8)).double()
    target = torch.randint(3, (2, 1, 8, 8)).double()
    assert_close(pairwise_l1_si_loss(pred, target, pred >= 0), l1_si(pred, target, pred >= 0))


@pytest.mark.parametrize("loss", [pairwise_l1_si_loss, pairwise_l1_ssi_loss, pairwise_l2_si_loss])
def test_the_gradient_sums_to_zero(loss):
    _, gradient = value_and_gradient(loss, *random_pair(dtype=torch.double))
    assert_close(gradient.sum((1, 2, 3)), torch.zeros(3, dtype=torch.double))


def test_no_pixel_of_the_si_loss_pulls_harder_than_two_over_n():
    pred, target, valid = random_pair()
    pred[:, :, 3, 3] = 1e4
    _, gradient = value_and_gradient(pairwise_l1_si_loss, pred, target, valid)
    assert (gradient.abs().flatten(1).amax(1) <= 2 / valid.flatten(1).sum(1)).all()


@pytest.mark.parametrize("loss", [pairwise_l1_si_loss, pairwise_l1_ssi_loss])
def test_the_order_of_the_pixels_does_not_matter(loss):
    pair = random_pair(dtype=torch.double)
    order = torch.randperm(pair[0][0].numel())
    assert_close(loss(*(x.flatten(1)[:, order].view_as(x) for x in pair)), loss(*pair))


@pytest.mark.parametrize("scale", [0.01, 3.0, 1e4])
def test_si_ignores_one_factor_on_depth(scale):
    pred, target, valid = random_pair()
    for loss in (pairwise_l1_si_loss, pairwise_l2_si_loss):
        assert_close(loss(pred + math.log(scale), target, valid), loss(pred, target, valid), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("a", "b"), [(3.0, 0.0), (0.5, 2.0), (7.0, -4.0), (1.0, 100.0), (1e-4, 0.0)])
def test_ssi_ignores_scale_and_shift_of_both_disparities(a, b):
    pred, target, valid = random_pair()
    reference = pairwise_l1_ssi_loss(pred, target, valid)
    assert_close(pairwise_l1_ssi_loss(a * pred + b, target, valid), reference, rtol=1e-3, atol=1e-5)
    assert_close(pairwise_l1_ssi_loss(pred, a * target + b, valid), reference, rtol=1e-3, atol=1e-5)


def test_a_wrong_shift_of_disparity_costs_nothing_in_ssi_and_something_in_si():
    _, disparity, valid = random_pair()
    shifted = 2 * disparity + 0.7
    assert (pairwise_l1_ssi_loss(shifted, disparity, valid) < 1e-5).all()
    assert (pairwise_l1_si_loss(shifted.log(), disparity.log(), valid) > 0.05).all()


def test_ssi_penalises_an_inverted_map():
    disparity = torch.randn(1, 1, 100, 100)
    assert_close(
        pairwise_l1_ssi_loss(-disparity, disparity, disparity.isfinite()),
        torch.tensor([4 / math.sqrt(math.pi)]),
        rtol=0.03,
        atol=0,
    )


def test_ssi_of_a_constant_label_is_zero_with_zero_gradient_and_of_a_constant_prediction_finite():
    pred, target, valid = random_pair()
    target[0], pred[1] = 3.3, 2.2
    value, gradient = value_and_gradient(pairwise_l1_ssi_loss, pred, target, valid)
    assert value[0] == 0
    assert (gradient[0] == 0).all()
    assert value[1] > 0.5
    assert gradient.isfinite().all()
    assert (gradient[1] != 0).any()


def test_a_million_pixels_neither_overflow_nor_lose_digits():
    """Gini's mean difference of N(0, s) is 2 s / sqrt(pi); against the same formula in float64."""
    residual = torch.randn(1, 1, 1000, 1000) * 3 + 100
    valid = torch.ones_like(residual, dtype=torch.bool)
    value, gradient = value_and_gradient(pairwise_l1_si_loss, residual, torch.zeros_like(residual), valid)
    ordered = residual.double().flatten().sort().values
    exact = (2 * (2 * torch.arange(1, 10**6 + 1).double() - 10**6 - 1) * ordered).sum() / 1e12
    assert_close(value[0].double(), exact, rtol=1e-6, atol=0)
    assert value.item() == pytest.approx(6 / math.sqrt(math.pi), rel=0.01)
    assert gradient.abs().max() == pytest.approx(2e-6, rel=1e-5)
    assert abs(gradient.double().sum()) < 1e-6


def test_half_precision_input_keeps_the_rank_weights():
    pred, target = torch.rand(2, 1, 1, 300, 300).half()
    valid = torch.ones_like(pred, dtype=torch.bool)
    assert_close(pairwise_l1_si_loss(pred, target, valid), pairwise_l1_si_loss(pred.float(), target.float(), valid))


def test_the_pairwise_and_the_pointwise_l2_losses_are_one():
    pair = random_pair()
    assert_close(pairwise_l2_si_loss(*pair), pointwise_loss(*pair, norm="l2", scale_invariant=True))
    log_pair = [x.log() if x.is_floating_point() else x for x in pair]
    assert_close(silog_loss(*pair, variance_focus=1.0), pairwise_l2_si_loss(*log_pair))


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("factor", [-0.2, -0.01, 0.01, 0.3])
def test_the_scale_invariant_pointwise_loss_is_the_least_over_all_scales(norm, factor):
    pred, target, valid = random_pair()
    best = pointwise_loss(pred, target, valid, norm=norm, scale_invariant=True)
    residual = [p[v] - t[v] for p, t, v in zip(pred, target, valid, strict=True)]
    centre = torch.stack([r.median() if norm == "l1" else r.mean() for r in residual]).view(-1, 1, 1, 1)
    assert (pointwise_loss(pred - centre + factor, target, valid, norm=norm) >= best - 1e-7).all()
    assert_close(pointwise_loss(pred + factor, target, valid, norm=norm, scale_invariant=True), best)


def test_only_scale_invariant_losses_accept_labels_up_to_scale():
    assert "scale" in PointwiseLoss(scale_invariant=True).accepts
    assert "scale" not in PointwiseLoss().accepts


def test_silog_is_the_squared_log_error_less_a_share_of_its_squared_mean():
    pred, target, valid = random_pair(dtype=torch.double)
    for focus in (0.0, 0.5, 0.85, 1.0):
        g = [(p[v] / t[v]).log() for p, t, v in zip(pred, target, valid, strict=True)]
        expected = torch.stack([(r**2).mean() - focus * r.mean() ** 2 for r in g])
        assert_close(silog_loss(pred, target, valid, variance_focus=focus), expected)


def test_a_root_of_silog_is_the_error_itself_however_small():
    _, target, valid = random_pair(dtype=torch.double)
    found = silog_loss((1 + 1e-6) * target, target, valid, variance_focus=0.0, root=True)
    assert_close(found, torch.full_like(found, 1e-6), rtol=1e-5, atol=0)
