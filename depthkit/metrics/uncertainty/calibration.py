"""Calibration: how often depth lies within the interval that an uncertainty promises."""

import torch
from torch import Tensor

from depthkit.errors import RecipeError
from depthkit.masked import masked_mean
from depthkit.metrics.uncertainty.inputs import scorable, scored_maps
from depthkit.metrics.uncertainty.metric import UncertaintyMetric


def nominal_levels(levels: int) -> Tensor:
    """List the shares of pixels that intervals promise, in the middle of equal parts of [0, 1], float64 ``(levels,)``.

    Raises:
        RecipeError: there is none.
    """
    if levels < 1:
        raise RecipeError(f"expected 1 level or more; got {levels}.")
    return (torch.arange(levels, dtype=torch.float64) + 0.5) / levels


def calibration_curve(pred: Tensor, target: Tensor, valid: Tensor, uncertainty: Tensor, *, levels: int = 20) -> Tensor:
    r"""Share of pixels whose label lies in the interval that promises the share p, for each nominal level p.

    An uncertainty b, a fraction of depth, is the scale of a Laplace distribution of ln depth, so that the interval of p is
    :math:`|\ln d - \ln d^*| \le -b \ln(1 - p)`.

    Args:
        pred: predicted depth [m], ``(B, 1, H, W)``; a depth of 0 or less lies in no interval.
        target: labelled depth [m], ``(B, 1, H, W)``; any value where not valid.
        valid: bool, ``(B, 1, H, W)``.
        uncertainty: as a fraction of depth, 0 or more, ``(B, 1, H, W)``.
        levels: number of levels; they are the middles of equal parts of [0, 1], see ``nominal_levels``.

    Returns:
        float64 ``(B, levels)``; NaN for an image without a valid pixel, or with a valid label that is no depth.

    Raises:
        ShapeError: the maps do not fit together.
        RecipeError: no level.
    """
    pred, target, valid, uncertainty = scored_maps(pred, target, valid, uncertainty)
    wrong = (pred.where(pred > 0, torch.nan).log() - target.log()).abs()
    promised = -(1 - nominal_levels(levels).to(pred.device)).log()
    found = [masked_mean((wrong <= uncertainty * p).double(), valid) for p in promised]
    return torch.stack(found, -1).where(scorable(target, valid)[:, None], torch.nan)


def distance_from_nominal(coverage: Tensor) -> Tensor:
    """Average how far shares found ``(..., levels)`` are from those promised, ``(...)``."""
    return (coverage - nominal_levels(coverage.shape[-1]).to(coverage.device)).abs().mean(-1)


def calibration_error(pred: Tensor, target: Tensor, valid: Tensor, uncertainty: Tensor, *, levels: int = 20) -> Tensor:
    """Mean distance of the shares found from those promised, float64 ``(B,)``; arguments of ``calibration_curve``.

    An uncertainty of 0 everywhere has 0.5, as has one without end.
    """
    return distance_from_nominal(calibration_curve(pred, target, valid, uncertainty, levels=levels))


class CalibrationCurve(UncertaintyMetric):
    """The mean over images of ``calibration_curve``, float64 ``(levels,)``; NaN if no image was scored.

    Args:
        levels: see ``calibration_curve``.

    Raises:
        RecipeError: no level.
    """

    def __init__(self, *, levels: int = 20) -> None:
        super().__init__(len(nominal_levels(levels)))
        self.levels = levels

    def values(self, pred: Tensor, target: Tensor, valid: Tensor, uncertainty: Tensor) -> Tensor:
        """Compute the curve of each image."""
        return calibration_curve(pred, target, valid, uncertainty, levels=self.levels)


class CalibrationError(CalibrationCurve):
    """Mean distance of the curve of all images from the diagonal, float64 scalar in [0, 0.5]; see ``CalibrationCurve``.

    That of one image by itself, ``calibration_error``, is larger: errors within an image go together.

    Args:
        levels: see ``calibration_curve``.
    """

    higher_is_better = False

    def compute(self) -> Tensor:
        """Compute the distance over everything seen."""
        return distance_from_nominal(self.mean())
