"""The losses that MiDaS's figure 3 compares with its own, against their formulas in NumPy, and what each leaves open."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from depthkit.losses import GradientMatchingLoss, OrdinalLoss, SILogLoss, SSILoss
from depthkit.losses.functional import drawn_pairs, normalised_gradient_loss, ordinal_loss, silog_loss, ssi_loss
from depthkit.types import Ambiguity
from tests.contracts.loss import random_pair, value_and_gradient

UP_TO_SCALE = {Ambiguity.METRIC, Ambiguity.SCALE}


def pair(seed=0, batch=2, height=11, width=13):
    torch.manual_seed(seed)
    return random_pair(batch, height, width, torch.float64)


def of_images(pred, target, valid):
    return zip(pred[:, 0].numpy(), target[:, 0].numpy(), valid[:, 0].numpy(), strict=True)


def test_simse_is_the_least_halved_mean_square_over_all_factors():
    pred, target, valid = pair()
    found = ssi_loss(pred, target, valid, align="scale", penalty="l2")
    for value, (d, truth, there) in zip(found.tolist(), of_images(pred, target, valid), strict=True):
        errors = [((s * d[there] - truth[there]) ** 2).mean() / 2 for s in np.linspace(0, 2, 20_001)]
        assert value == pytest.approx(min(errors), rel=1e-6)
        assert value < errors[0]


def test_simse_does_not_know_a_factor_of_the_prediction_and_sees_a_shift():
    pred, target, valid = pair()
    once, scaled = (ssi_loss(x, target, valid, align="scale", penalty="l2") for x in (pred, 3 * pred))
    assert_close(scaled, once)
    assert (ssi_loss(target + 1, target, valid, align="scale", penalty="l2") > 1e-3).all()
    _, gradient = value_and_gradient(SSILoss(align="scale", penalty="l2"), pred, target, valid)
    assert (gradient * pred).sum((1, 2, 3)).abs().max() < 1e-12  # orthogonal to the prediction: s is not detached


def test_a_label_or_a_prediction_of_zeros_has_no_factor():
    pred, target, valid = pair()
    zeros = torch.zeros_like(pred)
    value, gradient = value_and_gradient(SSILoss(align="scale"), pred, zeros, valid)
    assert (value == 0).all()
    assert (gradient == 0).all()
    value, gradient = value_and_gradient(SSILoss(align="scale", penalty="l2"), zeros, target, valid)
    assert_close(gradient, (-target / valid.sum((1, 2, 3), keepdim=True)).where(valid, 0))  # that of an unscaled map


def test_silog_is_the_least_halved_mean_square_of_logarithms_over_all_factors():
    pred, target, valid = pair()
    found = silog_loss(pred, target, valid, variance_focus=1, factor=0.5)
    assert_close(silog_loss(1 / pred, 1 / target, valid, variance_focus=1, factor=0.5), found)  # depth as disparity
    for value, (d, truth, there) in zip(found.tolist(), of_images(pred, target, valid), strict=True):
        ratio = np.log(d[there]) - np.log(truth[there])
        assert value == pytest.approx(min(((s + ratio) ** 2).mean() / 2 for s in np.linspace(-1, 1, 20_001)), rel=1e-6)


def test_the_normalised_gradient_loss_sums_over_pairs_of_both_directions_and_all_spacings():
    pred, target, valid = pair()
    found = normalised_gradient_loss(pred, target, valid, spacings=(2, 8))
    for value, (d, truth, there) in zip(found.tolist(), of_images(pred, target, valid), strict=True):
        slopes, wanted = [], []
        for k in (2, 8):
            for y, x in np.argwhere(there):
                for v, u in ((y + k, x), (y, x + k)):
                    if v < d.shape[0] and u < d.shape[1] and there[v, u]:
                        slopes.append(d[v, u] - d[y, x])
                        wanted.append(truth[v, u] - truth[y, x])
        g, h = np.array(slopes), np.array(wanted)
        factor = np.abs(h).sum() / np.abs(g).sum()
        assert value == pytest.approx(np.abs(factor * g - h).sum() / there.sum())


def test_the_normalised_gradient_loss_ignores_shift_and_scale_of_the_prediction_and_a_shift_of_the_label():
    pred, target, valid = pair()
    value, gradient = value_and_gradient(normalised_gradient_loss, pred, target, valid)
    assert_close(normalised_gradient_loss(5 * pred - 2, target, valid), value)
    assert_close(normalised_gradient_loss(pred, 3 * target + 7, valid), 3 * value)
    for direction in (pred, torch.ones_like(pred)):
        assert (gradient * direction.where(valid, 0)).sum((1, 2, 3)).abs().max() < 1e-12
    assert (normalised_gradient_loss(-pred, target, valid) > value).all()


def test_spacings_beyond_the_image_find_no_pair_and_a_constant_map_divides_by_nothing():
    pred, target, valid = pair()
    assert (normalised_gradient_loss(pred, target, valid, spacings=(64,)) == 0).all()
    for constant in (torch.full_like(pred, 0.3), 1e4 + 1e-4 * target):  # or varies by less than a millionth of its value
        value, gradient = value_and_gradient(normalised_gradient_loss, pred, constant, valid)
        assert (value == 0).all()
        assert (gradient == 0).all()
    value, gradient = value_and_gradient(normalised_gradient_loss, torch.full_like(pred, 1e4), target, valid)
    assert (value > 0).all()
    assert gradient.abs().max() <= 4 * 4 / valid.sum((1, 2, 3)).min()  # each of a pixel's differences counts once


def test_drawn_pairs_lie_on_valid_pixels_and_have_the_order_of_the_label():
    _, target, valid = pair()
    target = (8 * target).round() / 8  # differences at the tolerance
    target.view(2, -1)[:, :2], valid.view(2, -1)[:, :2] = torch.tensor([0.0, 2.0]), True
    points, order = drawn_pairs(target, valid, pairs=4000, tolerance=0.125)
    assert points.shape == (2, 4000, 4)
    for (_, truth, there), quads, signs in zip(of_images(target, target, valid), points.numpy(), order.numpy(), strict=True):
        first, second = truth[quads[:, 0], quads[:, 1]], truth[quads[:, 2], quads[:, 3]]
        assert there[quads[:, 0], quads[:, 1]].all()
        assert there[quads[:, 2], quads[:, 3]].all()
        apart = (first - second) / (truth[there].max() - truth[there].min())
        np.testing.assert_array_equal(signs, np.where(np.abs(apart) <= 0.125, 0, np.sign(apart)))
        drawn = np.bincount(quads[:, 0] * truth.shape[1] + quads[:, 1], minlength=truth.size)[there.ravel()]
        assert 0.3 * drawn.mean() < drawn.min() <= drawn.max() < 2 * drawn.mean()  # every pixel as often


def test_the_order_of_a_label_does_not_know_its_scale_and_shift():
    _, target, valid = pair()
    orders = []
    for label in (target, 7 * target - 20):
        torch.manual_seed(0)
        orders.append(drawn_pairs(label, valid)[1])
    assert_close(orders[1], orders[0])


def test_an_image_without_an_order_has_padding_alone():
    _, target, valid = pair(batch=4)
    valid[0] = False
    target[1], target[2] = 2.5, 1e4 + 1e-4 * target[2]
    points, _ = drawn_pairs(target, valid, pairs=50)
    assert (points[:3] == -1).all()
    assert (points[3] >= 0).all()


def test_the_ordinal_loss_is_chens_on_the_drawn_pairs():
    pred, target, valid = pair()
    torch.manual_seed(3)
    points, order = (x.numpy() for x in drawn_pairs(target, valid, pairs=300, tolerance=0.2))
    torch.manual_seed(3)
    found = ordinal_loss(pred, target, valid, pairs=300, tolerance=0.2)
    assert 0.1 < (order == 0).mean() < 0.9
    for value, (d, _, _), quads, signs in zip(found.tolist(), of_images(pred, target, valid), points, order, strict=True):
        terms = []
        for (ya, xa, yb, xb), sign in zip(quads, signs, strict=True):
            ahead = d[ya, xa] - d[yb, xb]
            terms.append(ahead**2 if sign == 0 else np.log1p(np.exp(-sign * ahead)))
        assert value == pytest.approx(np.mean(terms))


def test_each_says_what_a_label_may_leave_open():
    assert SSILoss(align="scale").accepts == UP_TO_SCALE
    assert GradientMatchingLoss(align="scale").accepts == UP_TO_SCALE
    assert GradientMatchingLoss(representation="log_disparity").accepts == UP_TO_SCALE
    assert SILogLoss(variance_focus=1).accepts == UP_TO_SCALE
    assert SILogLoss(variance_focus=0.99).accepts == {Ambiguity.METRIC}
    assert (OrdinalLoss().pairs, OrdinalLoss().tolerance) == (5000, 0.02)
