"""Laws of the scale-and-shift-invariant loss and of the alignment inside it."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from depthkit.alignment import align_pair
from depthkit.errors import RecipeError
from depthkit.losses import GradientMatchingLoss
from depthkit.losses.functional import gradient_matching_loss, ssi_loss
from tests.contracts.loss import random_pair, value_and_gradient

VARIANTS = [
    {"align": align, "penalty": penalty, "trim": trim}
    for align in ("least_squares", "median")
    for penalty in ("l1", "l2")
    for trim in (0.0, 0.2)
]
every_variant = pytest.mark.parametrize("options", VARIANTS, ids=lambda o: "-".join(map(str, o.values())))


def loss(options):
    return lambda pred, target, valid: ssi_loss(pred, target, valid, **options)


def numpy_ssi(pred, target, valid, align, penalty, trim):
    """One image at a time on its valid pixels only."""
    values = []
    for p, t, v in zip(pred.double().numpy(), target.double().numpy(), valid.numpy(), strict=True):
        p, t = p[v], t[v]
        if align == "least_squares":
            design = np.stack([p, np.ones_like(p)], 1)
            p = design @ np.linalg.lstsq(design, t, rcond=None)[0]
        else:
            p, t = ((x - np.median(x)) / np.abs(x - np.median(x)).mean() for x in (p, t))
        residual = np.sort(np.abs(p - t) ** (1 if penalty == "l1" else 2))
        values.append(residual[: len(residual) - int(np.ceil(trim * len(residual) - 1e-9))].sum() / (2 * len(residual)))
    return torch.tensor(values)


@every_variant
def test_it_equals_the_formula_on_compacted_arrays(options):
    pred, target, valid = random_pair(batch=5, dtype=torch.float64)
    assert_close(ssi_loss(pred, target, valid, **options), numpy_ssi(pred, target, valid, **options))


@every_variant
@pytest.mark.parametrize(("a", "b"), [(3.0, 0.0), (0.5, 2.0), (7.0, -4.0), (1e-4, 0.0), (1.0, 100.0)])
def test_it_ignores_scale_and_shift_of_the_prediction(options, a, b):
    pred, target, valid = random_pair()
    assert_close(
        ssi_loss(a * pred + b, target, valid, **options), ssi_loss(pred, target, valid, **options), rtol=2e-4, atol=1e-6
    )


@pytest.mark.parametrize(("a", "b"), [(3.0, 0.0), (0.5, 2.0), (7.0, -4.0), (1.0, 100.0)])
def test_the_robust_loss_ignores_scale_and_shift_of_the_label_too(a, b):
    pred, target, valid = random_pair()
    options = {"align": "median", "trim": 0.2}
    assert_close(
        ssi_loss(pred, a * target + b, valid, **options), ssi_loss(pred, target, valid, **options), rtol=2e-4, atol=1e-6
    )


@pytest.mark.parametrize("align", ["least_squares", "median"])
def test_an_affine_prediction_has_no_error_even_at_offset_100_in_float32(align):
    _, target, valid = random_pair()
    assert (ssi_loss(3 * target + 100, target, valid, align=align) < 1e-4).all()


@every_variant
def test_the_gradient_is_orthogonal_to_one_and_to_the_prediction(options):
    """Exact invariance to a d + b means no slope along b and none along a: nothing is detached."""
    pred, target, valid = random_pair(dtype=torch.float64)
    _, gradient = value_and_gradient(loss(options), pred, target, valid)
    size = gradient.abs().sum((1, 2, 3))
    assert (size > 1e-3).all()
    assert (gradient.sum((1, 2, 3)).abs() < 1e-12 * size).all()
    assert ((gradient * pred).sum((1, 2, 3)).abs() < 1e-12 * size).all()


@pytest.mark.parametrize("trim", [0.1, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("pixels", [1, 2, 5, 10, 37])
def test_trimming_keeps_exactly_the_floor_of_its_share_and_divides_by_all(trim, pixels):
    residual = 1 + torch.randperm(pixels).double()
    pred, target = residual.view(1, 1, 1, -1), torch.zeros(1, 1, 1, pixels, dtype=torch.double)
    keep = int(np.floor(np.round((1 - trim) * pixels, 6)))
    value, gradient = value_and_gradient(loss({"align": None, "trim": trim}), pred, target, target == 0)
    assert_close(value, torch.tensor([keep * (keep + 1) / 2 / (2 * pixels)], dtype=torch.double))
    assert_close(gradient.flatten(), (residual <= keep).double() / (2 * pixels))


def test_trimming_is_per_image():
    pred, target, valid = random_pair(batch=2)
    alone = ssi_loss(pred[:1], target[:1], valid[:1], align="median", trim=0.2)
    target[1] = torch.rand_like(target[1]) * 1000
    assert_close(ssi_loss(pred, target, valid, align="median", trim=0.2)[:1], alone)


def test_tied_residuals_share_what_the_trim_leaves():
    pred = torch.ones(1, 1, 1, 10)
    value, gradient = value_and_gradient(loss({"align": None, "trim": 0.25}), pred, 0 * pred, pred > 0)
    assert_close(value, torch.tensor([7 / 20]))
    assert_close(gradient, torch.full_like(pred, 7 / 200))


@every_variant
def test_the_order_of_the_pixels_does_not_matter(options):
    pred, target, valid = (x.double() if x.is_floating_point() else x for x in random_pair())
    order = torch.randperm(pred[0].numel())
    shuffled = [x.flatten(1)[:, order].view_as(x) for x in (pred, target, valid)]
    assert_close(ssi_loss(*shuffled, **options), ssi_loss(pred, target, valid, **options))


@every_variant
def test_a_constant_label_gives_exactly_zero_with_zero_gradient(options):
    pred, target, valid = random_pair()
    target[0], target[1] = 100.1, 0
    value, gradient = value_and_gradient(loss(options), pred, target, valid)
    assert (value[:2] == 0).all()
    assert (gradient[:2] == 0).all()
    assert value[2] > 0


@every_variant
@pytest.mark.parametrize("constant", [0.0, 5.0, 1e4])
def test_a_constant_prediction_scores_as_the_best_constant_and_has_a_bounded_gradient_that_is_not_zero(options, constant):
    pred, target, valid = random_pair()
    pred = torch.full_like(pred, constant)
    value, gradient = value_and_gradient(loss(options), pred, target, valid)
    centre = torch.stack(
        [t[v].mean() if options["align"] == "least_squares" else t[v].median() for t, v in zip(target, valid, strict=True)]
    )
    reference = ssi_loss(centre.view(-1, 1, 1, 1).expand_as(pred), target, valid, **options)
    assert_close(value, reference, rtol=1e-4, atol=1e-5)
    assert (gradient.flatten(1).abs().amax(1) > 0).all()
    assert (gradient.abs() < 1).all()


def test_the_l2_loss_of_a_constant_is_half_the_variance_of_the_label():
    _, target, valid = random_pair()
    expected = torch.stack([t[v].var(correction=0) / 2 for t, v in zip(target, valid, strict=True)])
    assert_close(ssi_loss(torch.ones_like(target), target, valid, penalty="l2"), expected)


def test_least_squares_rewards_an_inverted_map_unless_a_positive_scale_is_required():
    _, target, valid = random_pair()
    assert (ssi_loss(-target, target, valid) < 1e-6).all()
    assert (ssi_loss(-target, target, valid, align="median") > 0.9).all()
    positive = ssi_loss(-3 * target, target, valid, penalty="l2", require_positive_scale=True)
    assert_close(positive, torch.stack([2 * t[v].var(correction=0) for t, v in zip(target, valid, strict=True)]))


def test_with_a_positive_scale_the_l2_loss_falls_as_the_correlation_rises():
    target, noise = torch.randn(2, 1, 1, 32, 32, dtype=torch.double)
    valid = torch.ones_like(target, dtype=torch.bool)
    angles = torch.linspace(0, torch.pi, 31)
    losses = torch.cat(
        [ssi_loss(a.cos() * target + a.sin() * noise, target, valid, penalty="l2", require_positive_scale=True) for a in angles]
    )
    assert (losses.diff() > 0).all()


def test_a_positive_scale_changes_nothing_where_the_fit_is_positive():
    pair = random_pair()
    assert_close(ssi_loss(*pair, require_positive_scale=True), ssi_loss(*pair), rtol=0, atol=0)


@pytest.mark.parametrize("align", ["least_squares", "median"])
def test_one_alignment_serves_both_terms(align):
    pair = random_pair()
    aligned = align_pair(*pair, align=align)
    assert_close(ssi_loss(*aligned, align=None, trim=0.2), ssi_loss(*pair, align=align, trim=0.2), rtol=0, atol=0)
    assert_close(gradient_matching_loss(*aligned), gradient_matching_loss(*pair, align=align), rtol=0, atol=0)


def test_robust_alignment_gives_each_map_median_0_and_mean_deviation_1():
    pred, target, valid = align_pair(*random_pair(), align="median")
    for p, v in [*zip(pred, valid, strict=True), *zip(target, valid, strict=True)]:
        assert abs(np.median(p[v].numpy())) < 1e-6
        assert p[v].abs().mean() == pytest.approx(1, abs=1e-5)


def test_gradient_matching_accepts_affine_labels_only_if_it_aligns():
    assert "shift_scale" in GradientMatchingLoss(align="median").accepts
    assert "shift_scale" not in GradientMatchingLoss().accepts


def test_medians_need_no_demand_for_a_positive_scale():
    with pytest.raises(RecipeError, match="leave it out"):
        align_pair(*random_pair(), align="median", require_positive_scale=True)
