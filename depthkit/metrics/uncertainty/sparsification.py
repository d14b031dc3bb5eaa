"""Sparsification: the error that remains when the most uncertain pixels are left out, beside that of the best order."""

from enum import StrEnum
from typing import Any

import torch
from torch import Tensor

from depthkit.checks import check_choice
from depthkit.errors import RecipeError
from depthkit.metrics.uncertainty.inputs import scorable, scored_maps
from depthkit.metrics.uncertainty.metric import UncertaintyMetric


class PixelError(StrEnum):
    """Errors of a pixel that are averaged over those that remain: relative, or squared with the root of the mean."""

    ABS_REL = "abs_rel"
    RMSE = "rmse"


def sparsification_curve(
    pred: Tensor,
    target: Tensor,
    valid: Tensor,
    uncertainty: Tensor,
    *,
    error: PixelError | str = PixelError.ABS_REL,
    steps: int = 50,
    normalised: bool = False,
) -> Tensor:
    r"""Error of what remains when the share k / K of the pixels, k = 0..K, is left out, by uncertainty and by the error itself.

    As Poggi et al. (2020) compute it: the pixels whose uncertainty is within the percentile 1 - k / K remain, at least one, and
    0 stands where all are left out. Pixels of equal uncertainty are in random order, of which this is the expected mean
    (squared) error: the order of the pixels does not matter, and a constant uncertainty gives a random order's curve.

    Args:
        pred: predicted depth [m], ``(B, 1, H, W)``.
        target: labelled depth [m], ``(B, 1, H, W)``; any value where not valid.
        valid: bool, ``(B, 1, H, W)``.
        uncertainty: ``(B, 1, H, W)``; only its order matters.
        error: "abs_rel" [1] or "rmse" [m]; the root is taken of what remains.
        steps: K.
        normalised: divide by the error of all pixels, as Ilg et al. (2018) do; Poggi et al. do not.

    Returns:
        float64 ``(B, 2, steps + 1)``: by uncertainty, and by the error, the best order (the oracle's); NaN for an image
        without a valid pixel, or with a valid label that is no depth.

    Raises:
        ShapeError: the maps do not fit together.
        RecipeError: an unknown error, or no step.
    """
    error = check_choice("error", error, PixelError)
    check_steps(steps)
    pred, target, valid, uncertainty = scored_maps(pred, target, valid, uncertainty)
    wrong = (pred - target).abs() / target if error == PixelError.ABS_REL else (pred - target) ** 2
    curves = pred.new_full((len(pred), 2, steps + 1), torch.nan)
    for row, (each, by, seen, scored) in enumerate(zip(wrong, uncertainty, valid, scorable(target, valid), strict=True)):
        if scored:
            curves[row] = torch.stack([_remaining(each[seen], by[seen], steps), _remaining(each[seen], each[seen], steps)])
    curves = curves.sqrt() if error == PixelError.RMSE else curves
    whole = curves[:, :, :1]
    return curves / whole.where(whole != 0, 1) if normalised else curves


def check_steps(steps: int) -> None:
    """Raise a ``RecipeError`` unless there is a step."""
    if steps < 1:
        raise RecipeError(f"expected 1 step or more; got {steps}.")


def _remaining(error: Tensor, by: Tensor, steps: int) -> Tensor:
    """Average what remains of errors ``(N,)`` after each share is left out, the largest ``by`` first, ``(steps + 1,)``."""
    ascending = by.argsort(stable=True)
    _, counts = by[ascending].unique_consecutive(return_counts=True)
    ends = counts.cumsum(0)
    sums = error[ascending].cumsum(0)[ends - 1].diff(prepend=error.new_zeros(1))
    total = (sums / counts).repeat_interleave(counts).cumsum(0)
    shares = torch.arange(steps, dtype=torch.float64, device=error.device) / steps
    kept = ((len(error) - 1) * (1 - shares)).round(decimals=6).floor().long() + 1
    return torch.cat([total[kept - 1] / kept, error.new_zeros(1)])


def area_between(curves: Tensor) -> Tensor:
    """Integrate the distance of two curves ``(..., 2, K + 1)`` over the share left out by trapezoids, ``(...)``."""
    above = curves[..., 0, :] - curves[..., 1, :]
    return torch.trapezoid(above, dx=1 / (curves.shape[-1] - 1))


def ause(
    pred: Tensor,
    target: Tensor,
    valid: Tensor,
    uncertainty: Tensor,
    *,
    error: PixelError | str = PixelError.ABS_REL,
    steps: int = 50,
    normalised: bool = False,
) -> Tensor:
    r"""Area under the sparsification error: between the curve by uncertainty and the best one, float64 ``(B,)``.

    0 if the pixels called most uncertain are those most wrong, all the way. Arguments and errors of ``sparsification_curve``.

    Example:
        >>> depth = torch.rand(1, 1, 8, 8) + 1
        >>> pred = depth * (1 + 0.1 * torch.rand(1, 1, 8, 8))
        >>> ause(pred, depth, depth > 0, pred / depth).item()
        0.0
    """
    return area_between(sparsification_curve(pred, target, valid, uncertainty, error=error, steps=steps, normalised=normalised))


class SparsificationCurve(UncertaintyMetric):
    """The mean over images of ``sparsification_curve``, float64 ``(2, steps + 1)``; NaN if no image was scored.

    Args:
        error: see ``sparsification_curve``.
        steps: see ``sparsification_curve``.
        normalised: see ``sparsification_curve``.

    Raises:
        RecipeError: an unknown error, or no step.
    """

    higher_is_better = False

    def __init__(self, *, error: PixelError | str = PixelError.ABS_REL, steps: int = 50, normalised: bool = False) -> None:
        check_steps(steps)
        super().__init__(2, steps + 1)
        self.options: dict[str, Any] = {"error": check_choice("error", error, PixelError), "steps": steps}
        self.options["normalised"] = normalised

    def values(self, pred: Tensor, target: Tensor, valid: Tensor, uncertainty: Tensor) -> Tensor:
        """Compute the curves of each image."""
        return sparsification_curve(pred, target, valid, uncertainty, **self.options)


class AUSE(SparsificationCurve):
    """Area under the sparsification error, the mean over images of ``ause``, float64 scalar; NaN if no image was scored.

    Args:
        error: see ``sparsification_curve``.
        steps: see ``sparsification_curve``.
        normalised: see ``sparsification_curve``.
    """

    def compute(self) -> Tensor:
        """Compute the area over everything seen."""
        return area_between(self.mean())
