"""A fit recovers what was applied, minimises what it says, and says so when it does not exist."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor
from torch.testing import assert_close

from depthkit.alignment import Align, align_pair, apply_scale_shift, fit_scale, fit_scale_shift
from depthkit.errors import RecipeError, ShapeError

SCALE_METHODS = ["median_ratio", "ratio_of_medians", "least_squares", "log_median", "log_l1"]
SHIFT_METHODS = ["least_squares", "median", "l1"]
scale_method = pytest.mark.parametrize("method", SCALE_METHODS)
shift_method = pytest.mark.parametrize("method", SHIFT_METHODS)


def maps(batch=3, dtype=torch.float32, noise=0.2):
    pred = 0.5 + torch.rand(batch, 1, 11, 13, dtype=dtype)
    return pred, 2 * pred + noise * torch.rand_like(pred), torch.rand(batch, 1, 11, 13) < 0.6


@scale_method
@pytest.mark.parametrize("scale", [1e-3, 0.4, 250.0])
def test_a_scale_is_recovered(method, scale):
    pred, _, valid = maps()
    assert_close(fit_scale(pred, scale * pred, valid, method=method), torch.full((3,), scale).double(), rtol=1e-5, atol=0)


def test_every_factor_is_the_formula_of_its_name():
    """Of an even number of pixels the medians of ratios, of maps and of logarithms are five different numbers."""
    pred, target = torch.tensor([[1.0, 2.0, 4.0, 5.0], [3.0, 1.0, 9.0, 20.0]], dtype=torch.double).view(2, 1, 1, 1, 4)
    expected = {
        "median_ratio": (9 / 4 + 3) / 2,  # of 3, 1/2, 9/4, 4
        "ratio_of_medians": 6 / 3,
        "least_squares": (3 + 2 + 36 + 100) / (1 + 4 + 16 + 25),
        "log_median": (3 * 9) ** 0.5 / (2 * 4) ** 0.5,
        "log_l1": (9 / 4 * 3) ** 0.5,
    }
    found = {method: fit_scale(pred, target, pred > 0, method=method).item() for method in SCALE_METHODS}
    assert found == pytest.approx(expected)


def test_the_median_fit_maps_median_and_mean_absolute_deviation():
    pred, target, valid = maps(dtype=torch.double, noise=2.0)
    scale, shift = fit_scale_shift(pred, target, valid, method="median")
    for i in range(3):
        p, t = pred[i][valid[i]].numpy(), target[i][valid[i]].numpy()
        spread = [np.abs(x - np.median(x)).mean() for x in (p, t)]
        assert scale[i].item() == pytest.approx(spread[1] / spread[0])
        assert shift[i].item() == pytest.approx(np.median(t) - spread[1] / spread[0] * np.median(p))


@shift_method
@pytest.mark.parametrize(("scale", "shift"), [(3.0, -5.0), (1e-3, 0.2), (40.0, 100.0)])
def test_scale_and_shift_are_recovered(method, scale, shift):
    pred, _, valid = maps()
    target = scale * pred.double() + shift
    fitted = fit_scale_shift(pred.double(), target, valid, method=method)
    assert_close(fitted, (torch.full((3,), scale).double(), torch.full((3,), shift).double()), rtol=1e-6, atol=1e-9)


@shift_method
def test_an_offset_of_100_in_float32_costs_no_digits(method):
    """The determinant form of least squares in float32 returns 0.354 or 0.336 here."""
    target = torch.rand(4, 1, 64, 64)
    pred = 3 * target + 100
    scale, shift = fit_scale_shift(pred, target, target >= 0, method=method)
    assert_close(scale, torch.full((4,), 1 / 3).double(), rtol=1e-4, atol=0)
    assert_close(apply_scale_shift(pred, scale, shift), target, rtol=0, atol=2e-4)


@shift_method
@pytest.mark.parametrize("poison", [torch.nan, torch.inf, -1.0, 0.0])
def test_invalid_pixels_do_not_move_a_fit(method, poison):
    pred, target, valid = maps()
    clean = fit_scale_shift(pred, target, valid, method=method)
    poisoned = fit_scale_shift(pred.where(valid, poison), target.where(valid, poison), valid, method=method)
    assert_close(poisoned, clean, rtol=0, atol=0)


@scale_method
@pytest.mark.parametrize("poison", [torch.nan, torch.inf, -1.0, 0.0])
def test_invalid_pixels_do_not_move_a_scale(method, poison):
    pred, target, valid = maps()
    poisoned = fit_scale(pred.where(valid, poison), target.where(valid, poison), valid, method=method)
    assert_close(poisoned, fit_scale(pred, target, valid, method=method), rtol=0, atol=0)


@shift_method
def test_aligning_twice_is_aligning_once(method):
    pred, target, valid = maps(dtype=torch.double)
    aligned = apply_scale_shift(pred, *fit_scale_shift(pred, target, valid, method=method))
    scale, shift = fit_scale_shift(aligned, target, valid, method=method)
    assert_close(scale, torch.ones(3).double(), rtol=1e-9, atol=0)
    assert_close(shift, torch.zeros(3).double(), rtol=0, atol=1e-9)


def test_least_squares_is_numpys():
    pred, target, valid = maps(dtype=torch.double)
    scale, shift = fit_scale_shift(pred, target, valid)
    scale_only = fit_scale(pred, target, valid, method="least_squares")
    for i in range(3):
        p, t = pred[i][valid[i]].numpy(), target[i][valid[i]].numpy()
        expected = np.linalg.lstsq(np.stack([p, np.ones_like(p)], 1), t, rcond=None)[0]
        assert_close(torch.stack([scale[i], shift[i]]), torch.from_numpy(expected))
        assert scale_only[i].item() == pytest.approx(np.linalg.lstsq(p[:, None], t, rcond=None)[0].item())


@pytest.mark.parametrize("sign", [1, -1])
def test_l1_reaches_the_optimum_of_the_linear_programme(sign):
    pred, target, valid = maps(dtype=torch.double, noise=2.0)
    target = sign * target
    scale, shift = fit_scale_shift(pred, target, valid, method="l1")
    for i in range(3):
        p, t = pred[i][valid[i]].numpy(), target[i][valid[i]].numpy()
        n = len(p)
        line = np.stack([p, np.ones(n)], 1)
        bounds = np.block([[line, -np.eye(n)], [-line, -np.eye(n)]])
        cost = np.r_[0, 0, np.ones(n)]
        best = linprog(cost, A_ub=bounds, b_ub=np.r_[t, -t], bounds=[(None, None)] * 2 + [(0, None)] * n).fun
        assert np.abs(line @ [scale[i].item(), shift[i].item()] - t).sum() == pytest.approx(best, rel=1e-9)


def test_log_l1_is_the_best_factor_for_the_absolute_log_error():
    pred, target, valid = maps(dtype=torch.double, noise=2.0)
    scale = fit_scale(pred, target, valid, method="log_l1")
    for i in range(3):
        ratio = (target[i][valid[i]] / pred[i][valid[i]]).log()
        least = (ratio - scale[i].log()).abs().sum()  # of an even number, the same between the two in the middle
        assert all(least <= (ratio - scale[i].log() - step).abs().sum() + 1e-9 for step in (-0.1, -1e-4, 1e-4, 0.1))


def test_an_inverted_map_has_a_negative_least_squares_scale_and_a_positive_robust_one():
    pred, _, valid = maps()
    assert (fit_scale_shift(pred, -pred, valid)[0] < 0).all()
    assert (fit_scale_shift(pred, -pred, valid, method="median")[0] > 0).all()


@shift_method
def test_a_fit_that_does_not_exist_is_nan_and_leaves_the_other_images_alone(method):
    pred, target, valid = maps(batch=4)
    alone = fit_scale_shift(pred[3:], target[3:], valid[3:], method=method)
    valid[0] = False
    pred[1], pred[2] = 7.7, 0.0
    scale, shift = fit_scale_shift(pred, target, valid, method=method)
    assert scale[:3].isnan().all()
    assert shift[:3].isnan().all()
    assert_close((scale[3:], shift[3:]), alone)


@scale_method
def test_a_scale_that_does_not_exist_is_nan(method):
    pred, target, valid = maps()
    valid[0] = False
    pred[1] = 0
    scale = fit_scale(pred, target, valid, method=method)
    assert scale.isnan().tolist() == [True, True, False]


@pytest.mark.parametrize("method", ["log_median", "log_l1"])
def test_a_logarithm_of_something_negative_is_no_fit(method):
    pred, target, _ = maps()
    target[0, 0, 0, 0] = -1
    assert fit_scale(pred, target, pred > 0, method=method).isnan().tolist() == [True, False, False]


@pytest.mark.quick(method=["least_squares", "median", "log_median", "ratio_of_medians"])
@pytest.mark.parametrize(
    ("fit", "method"),
    [*((fit_scale, method) for method in SCALE_METHODS), *((fit_scale_shift, method) for method in SHIFT_METHODS)],
)
def test_every_fit_has_the_gradient_of_its_numbers(fit, method):
    """Nothing is detached; an odd number of pixels, so that medians and the least absolute line have one slope."""
    pred, target, valid = (x[..., :6, :7].clone() for x in maps(batch=1, dtype=torch.double, noise=2.0))
    valid[valid.cumsum(3) + valid.flatten(1).sum() > 10_000] = False
    if valid.sum() % 2 == 0:
        valid.view(-1)[valid.view(-1).nonzero()[0]] = False

    def fitted(p, t):
        found = fit(p, t, valid, method=method)
        return found if isinstance(found, Tensor) else torch.stack(found)

    inputs = (pred.requires_grad_(), target.requires_grad_())
    assert torch.autograd.gradcheck(fitted, inputs, eps=1e-7, atol=1e-5, rtol=1e-4)


def test_the_two_pixels_on_the_least_absolute_line_alone_move_its_slope():
    x, y = torch.tensor([[0.0, 1.0, 10.0, 10.0], [0.0, 1.0, 10 + 1e-6, 5.0]], dtype=torch.double).view(2, 1, 1, 1, 4)
    scale, shift = fit_scale_shift(x, y.requires_grad_(), x >= 0, method="l1")
    assert_close(torch.stack([scale, shift]), torch.tensor([[1.0], [0.0]], dtype=torch.double))
    (gradient,) = torch.autograd.grad(scale.sum(), y)
    assert gradient.flatten().tolist() == [-1, 1, 0, 0]


@shift_method
def test_an_aligned_map_has_no_slope_along_the_scale_or_the_shift_of_the_prediction(method):
    pred, target, valid = maps(dtype=torch.double, noise=2.0)
    pred.requires_grad_()
    aligned = apply_scale_shift(pred, *fit_scale_shift(pred, target, valid, method=method))
    weight = torch.rand_like(pred)
    (gradient,) = torch.autograd.grad((weight * aligned).sum(), pred)
    size = gradient.abs().sum((1, 2, 3))
    assert (size > 1e-3).all()
    assert (gradient.sum((1, 2, 3)).abs() < 1e-9 * size).all()
    assert ((gradient * pred).sum((1, 2, 3)).abs() < 1e-9 * size).all()


@scale_method
def test_an_image_without_a_fit_spoils_no_gradient(method):
    pred, target, valid = maps()
    pred[0], valid[1] = 0.0, False
    pred.requires_grad_()
    fit_scale(pred, target, valid, method=method)[2].backward()
    assert pred.grad.isfinite().all()
    assert not pred.grad[:2].any()
    assert pred.grad[2].any()


@shift_method
def test_an_image_without_a_line_spoils_no_gradient(method):
    pred, target, valid = maps()
    pred[0], valid[1] = 7.7, False
    pred.requires_grad_()
    scale, shift = fit_scale_shift(pred, target, valid, method=method)
    (scale + shift)[2].backward()
    assert pred.grad.isfinite().all()
    assert not pred.grad[:2].any()
    assert pred.grad[2].any()


@pytest.mark.parametrize("fit", [fit_scale, fit_scale_shift])
def test_an_unknown_method_is_named_with_the_choices(fit):
    with pytest.raises(RecipeError, match=r"expected method to be one of .*least_squares.*; got 'best'"):
        fit(*maps(), method="best")


def test_maps_of_different_size_are_refused():
    pred, target, valid = maps()
    with pytest.raises(ShapeError, match="expected pred and target of one shape"):
        fit_scale_shift(pred[..., 1:], target, valid)


def test_a_map_that_varies_by_a_hundred_thousandth_is_fitted():
    pred, _, valid = maps(dtype=torch.double)
    scale, _ = fit_scale_shift(1 + 1e-5 * pred, pred, valid)
    assert_close(scale, torch.full((3,), 1e5).double(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("align", list(Align))
def test_an_image_with_a_constant_label_leaves_the_mask(align):
    pred, target, valid = maps()
    target[1], target[2] = 2.0, 0.0
    has_a_fit = align == Align.SCALE  # any label but 0 has a scale
    assert align_pair(pred, target, valid, align=align)[2].flatten(1).any(1).tolist() == [True, has_a_fit, False]
