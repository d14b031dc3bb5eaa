"""Fit the scale, or the scale and shift, that a prediction lacks: every fit once, for losses, metrics and protocols.

All fits are per image, batch first and differentiable; nothing is detached. ``fit_scale`` and ``fit_scale_shift`` return
numbers in float64, ``align_pair`` two maps that a loss compares, and ``Alignment`` is a fit as data, for metrics and protocols.
A fit that does not exist is reported as NaN, never as a silent 0 or 1. What a file here needs of a map (its centre, its
spread, whether it varies at all) is in ``centring``; conversions between representations belong to the callers.
"""

from depthkit.alignment.alignment import Alignment, Degrees, Fit
from depthkit.alignment.fits import ScaleMethod, ScaleShiftMethod, apply_scale_shift, fit_scale, fit_scale_shift
from depthkit.alignment.pair import Align, align_pair, aligned_residual, check_align, difference

__all__ = [
    "Align",
    "Alignment",
    "Degrees",
    "Fit",
    "ScaleMethod",
    "ScaleShiftMethod",
    "align_pair",
    "aligned_residual",
    "apply_scale_shift",
    "check_align",
    "difference",
    "fit_scale",
    "fit_scale_shift",
]
