"""Known answers, a second implementation in NumPy, and laws of the metrics of uncertainty."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from depthkit.errors import RecipeError, ShapeError
from depthkit.metrics import AUSE, CalibrationCurve, CalibrationError, SparsificationCurve
from depthkit.metrics.functional import ause, calibration_curve, calibration_error, sparsification_curve

ERRORS = pytest.mark.parametrize("error", ["abs_rel", "rmse"])


def maps(batch: int = 2, height: int = 9, width: int = 11) -> tuple[torch.Tensor, ...]:
    size = (batch, 1, height, width)
    target, by = torch.rand(size, dtype=torch.float64) + 1, torch.rand(size, dtype=torch.float64)
    return target * (1 + 0.3 * torch.randn(size, dtype=torch.float64)), target, torch.rand(size) > 0.2, by


def pixel_error(pred: torch.Tensor, target: torch.Tensor, error: str) -> torch.Tensor:
    return (pred - target).abs() / target if error == "abs_rel" else (pred - target) ** 2


def by_percentile(pred: np.ndarray, target: np.ndarray, by: np.ndarray, error: str, steps: int) -> np.ndarray:
    """As the reference computes it: what is within a percentile of the uncertainty remains."""
    found = []
    for k in range(steps):
        kept = by <= np.percentile(by, 100 * (1 - k / steps)) + 1e-12  # which a pixel's own value may miss by rounding
        wrong = abs(pred - target)[kept]
        found.append(np.mean(wrong / target[kept]) if error == "abs_rel" else np.sqrt(np.mean(wrong**2)))
    return np.array([*found, 0.0])


@ERRORS
def test_it_is_what_percentiles_give(error: str) -> None:
    pred, target, valid, by = maps()
    found = sparsification_curve(pred, target, valid, by, error=error, steps=10)
    for row in range(2):
        seen = valid[row].numpy()
        p, g, u = (x[row].numpy()[seen] for x in (pred, target, by))
        expected = (
            by_percentile(p, g, u, error, 10),
            by_percentile(p, g, abs(p - g) / g if error == "abs_rel" else abs(p - g), error, 10),
        )
        np.testing.assert_allclose(found[row].numpy(), np.stack(expected), rtol=1e-9)
        area = sum((a + b) / 20 for a, b in zip(expected[0] - expected[1], (expected[0] - expected[1])[1:], strict=False))
        np.testing.assert_allclose(ause(pred, target, valid, by, error=error, steps=10)[row], area, rtol=1e-9)


@ERRORS
def test_a_perfect_order_has_no_area_and_the_reverse_the_largest(error: str) -> None:
    pred, target, valid, by = maps()
    wrong = pixel_error(pred, target, error)
    assert_close(ause(pred, target, valid, wrong**3, error=error), torch.zeros(2, dtype=torch.float64), atol=1e-12, rtol=0)
    worst, some = (ause(pred, target, valid, x, error=error) for x in (-wrong, by.double()))
    assert (worst > some).all()
    assert (some > 0).all()


@ERRORS
def test_a_constant_is_what_random_orders_give_on_average(error: str) -> None:
    pred, target, valid, _ = maps(batch=1)
    draws = [torch.rand(valid.shape) for _ in range(300)]
    curves = torch.cat([sparsification_curve(pred, target, valid, by, error=error, steps=5) for by in draws])
    curves = curves**2 if error == "rmse" else curves  # the expected mean square, of which the root is taken
    constant = sparsification_curve(pred, target, valid, torch.ones_like(pred), error=error, steps=5)[0, 0]
    constant = constant**2 if error == "rmse" else constant
    away = (curves[:, 0].mean(0) - constant).abs() / (curves[:, 0].std(0) / 300**0.5).clamp_min(1e-9)
    assert float(away[1:-1].max()) < 5
    assert_close(constant[:-1], constant[0].expand(5))
    whole = pixel_error(pred, target, error)[valid].mean()
    assert_close(constant[0], whole)


def test_neither_pixels_order_nor_the_scale_of_uncertainty_nor_invalid_pixels_matter() -> None:
    pred, target, valid, by = maps()
    by = (5 * by).round().double()  # with ties
    clean = sparsification_curve(pred, target, valid, by)
    order = torch.randperm(pred[0].numel())
    shuffled = [x.flatten(1)[:, order].view_as(x) for x in (pred, target, valid, by)]
    assert_close(sparsification_curve(*shuffled), clean)
    assert_close(sparsification_curve(pred, target, valid, by.exp()), clean)
    poisoned = (x.where(valid, torch.nan) for x in (pred, target))
    assert_close(sparsification_curve(*poisoned, valid, by.where(valid, torch.inf)), clean, rtol=0, atol=0)
    assert_close(sparsification_curve(pred, target, valid, by, normalised=True)[:, :, 0], torch.ones(2, 2).double())


def test_metrics_are_means_over_images_whatever_the_batches() -> None:
    pred, target, valid, by = maps(batch=4)
    valid[2] = False
    scored = [0, 1, 3]
    for metric, function in ((AUSE, ause), (SparsificationCurve, sparsification_curve), (CalibrationCurve, calibration_curve)):
        one, parts = metric(), metric()
        one.update(pred, target, valid, by)
        for row in range(4):
            parts.update(*(x[row : row + 1] for x in (pred, target, valid, by)))
        assert_close(one.compute(), parts.compute())
        values = function(pred, target, valid, by)
        assert values[2].isnan().all()
        assert_close(one.compute(), values[scored].mean(0))
        assert (int(one.n_images), int(one.n_left_out)) == (3, 1)
    error = CalibrationError()
    error.update(pred, target, valid, by)
    promised = (torch.arange(20).double() + 0.5) / 20
    assert_close(error.compute(), (calibration_curve(pred, target, valid, by)[scored].mean(0) - promised).abs().mean())


def test_intervals_of_the_true_distribution_hold_what_they_promise() -> None:
    size = (1, 1, 200, 200)
    b = 0.05 + 0.3 * torch.rand(size, dtype=torch.float64)
    target = torch.rand(size, dtype=torch.float64) + 1
    pred = target * torch.distributions.Laplace(torch.zeros_like(b), b).sample().exp()
    valid = torch.ones(size, dtype=torch.bool)
    assert_close(calibration_curve(pred, target, valid, b)[0], (torch.arange(20).double() + 0.5) / 20, atol=0.015, rtol=0)
    assert calibration_error(pred, target, valid, b) < 0.01
    assert calibration_error(pred, target, valid, 4 * b) > 0.1
    assert calibration_error(pred, target, valid, b / 4) > 0.1
    assert_close(calibration_error(pred, target, valid, 0 * b).item(), 0.5)
    assert_close(calibration_error(-pred, target, valid, 100 * b).item(), 0.5)


def test_the_coverage_is_a_count() -> None:
    pred = torch.tensor([1.0, 2.0, 4.0, 8.0]).view(1, 1, 2, 2)
    target = torch.ones(1, 1, 2, 2)
    b = torch.ones_like(pred)
    expected = [sum(np.log(x) <= -np.log(1 - p) for x in (1, 2, 4, 8)) / 4 for p in (0.125, 0.375, 0.625, 0.875)]
    assert calibration_curve(pred, target, target > 0, b, levels=4)[0].tolist() == expected


def test_what_does_not_fit_is_named() -> None:
    pred, target, valid, by = maps()
    with pytest.raises(ShapeError, match="expected uncertainty of pred's shape"):
        ause(pred, target, valid, by[..., :4])
    with pytest.raises(RecipeError, match="expected error to be one of abs_rel, rmse; got 'mae'"):
        AUSE(error="mae")
    with pytest.raises(RecipeError, match="1 step or more"):
        SparsificationCurve(steps=0)
    with pytest.raises(RecipeError, match="1 level or more"):
        CalibrationCurve(levels=0)
