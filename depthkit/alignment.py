"""Fit the scale, or the scale and shift, that a prediction lacks, one fit per image; then apply it.

Fits are for evaluation and for robust statistics: they run in float64 and are exact for offsets far larger than the
spread. A fit that does not exist is reported as NaN, never as a silent 0 or 1: an image without a valid pixel, a
constant prediction where a scale is sought, a non-positive value where a ratio or logarithm is needed.
"""

from typing import Literal

import torch
from torch import Tensor

from depthkit.checks import check_map_pair
from depthkit.errors import AlignmentError
from depthkit.masked import (
    NEGLIGIBLE_SPREAD,
    centred,
    masked_count,
    masked_mean,
    masked_mean_absolute_deviation,
    masked_median,
    masked_sum,
    per_image,
)

ScaleMethod = Literal["median_ratio", "ratio_of_medians", "least_squares", "log_median", "log_l1"]
ScaleShiftMethod = Literal["least_squares", "median", "l1"]


@torch.no_grad()
def fit_scale(pred: Tensor, target: Tensor, valid: Tensor, *, method: ScaleMethod = "median_ratio") -> Tensor:
    r"""The factor ``s`` per image for which ``s * pred`` fits ``target``.

    ====================  ================================================  ==================================
    method                ``s``                                             used by
    ====================  ================================================  ==================================
    ``median_ratio``      median(target / pred)                             plumbline
    ``ratio_of_medians``  median(target) / median(pred)                     monodepth2, vidar, DUSt3R
    ``least_squares``     sum(pred target) / sum(pred^2)                    minimises the squared error
    ``log_median``        exp(median(log target) - median(log pred))        ratio of medians, taken in log
    ``log_l1``            exp(median(log target - log pred))                GP2: minimises the L1 error in log
    ====================  ================================================  ==================================

    Args:
        pred: predicted map, ``(B, 1, H, W)``.
        target: labelled map in the same representation, ``(B, 1, H, W)``; any value where not valid.
        valid: bool, ``(B, 1, H, W)``.
        method: a row of the table.

    Returns:
        ``s`` in float64, ``(B,)``; NaN where the fit does not exist.

    Example:
        >>> x = torch.rand(2, 1, 4, 4) + 1
        >>> fit_scale(x, 3 * x, x > 0).round(decimals=4)
        tensor([3., 3.], dtype=torch.float64)
    """
    check_map_pair(pred, target, valid)
    x, y = _sanitised(pred, valid), _sanitised(target, valid)
    positive = ((x > 0) & (y > 0)).where(valid, True).flatten(1).all(1)
    if method == "median_ratio":
        scale = masked_median(y / x.where(x != 0, torch.nan).nan_to_num(1), valid)
        exists = ((x != 0) | ~valid).flatten(1).all(1)
    elif method == "ratio_of_medians":
        divisor = masked_median(x, valid)
        scale, exists = masked_median(y, valid) / divisor, divisor != 0
    elif method == "least_squares":
        energy = masked_sum(x * x, valid)
        scale, exists = masked_sum(x * y, valid) / energy, energy > 0
    elif method == "log_median":
        scale, exists = (masked_median(_log(y), valid) - masked_median(_log(x), valid)).exp(), positive
    elif method == "log_l1":
        scale, exists = masked_median(_log(y) - _log(x), valid).exp(), positive
    else:
        raise AlignmentError(f"unknown method {method!r}; fit_scale takes one of {', '.join(ScaleMethod.__args__)}.")
    return scale.where(exists & (masked_count(valid) > 0), torch.nan)


@torch.no_grad()
def fit_scale_shift(
    pred: Tensor, target: Tensor, valid: Tensor, *, method: ScaleShiftMethod = "least_squares"
) -> tuple[Tensor, Tensor]:
    """The scale ``s`` and shift ``t`` per image for which ``s * pred + t`` fits ``target``.

    ``least_squares`` minimises the squared error (MiDaS eqs 2-4; ``s`` may come out negative for an inverted map).
    ``median`` maps the median and the mean absolute deviation of ``pred`` onto those of ``target`` (MiDaS eqs 5-6; ``s`` is
    positive). ``l1`` minimises the absolute error exactly.

    Args:
        pred: predicted map, ``(B, 1, H, W)``.
        target: labelled map in the same representation, ``(B, 1, H, W)``; any value where not valid.
        valid: bool, ``(B, 1, H, W)``.
        method: one of the three above.

    Returns:
        ``s`` and ``t`` in float64, ``(B,)`` each; both NaN for an image without a valid pixel or whose prediction is
        constant over its valid pixels.

    Example:
        >>> x = torch.rand(2, 1, 4, 4)
        >>> scale, shift = fit_scale_shift(x, 3 * x - 5, x >= 0)
        >>> scale.round(decimals=4), shift.round(decimals=4)
        (tensor([3., 3.], dtype=torch.float64), tensor([-5., -5.], dtype=torch.float64))
    """
    check_map_pair(pred, target, valid)
    x, y = _sanitised(pred, valid), _sanitised(target, valid)
    mean = masked_mean(x, valid)
    deviation = centred(x, mean)
    variance = masked_mean(deviation**2, valid)
    exists = variance.sqrt() > NEGLIGIBLE_SPREAD * masked_mean(x.abs(), valid)
    if method == "least_squares":
        scale = masked_mean(deviation * y, valid) / variance
        shift = masked_mean(y, valid) - scale * mean
    elif method == "median":
        scale = masked_mean_absolute_deviation(y, valid) / masked_mean_absolute_deviation(x, valid)
        shift = masked_median(y, valid) - scale * masked_median(x, valid)
    elif method == "l1":
        scale, shift = _least_absolute_line(deviation, y, valid)
        shift = shift - scale * mean
    else:
        raise AlignmentError(f"unknown method {method!r}; fit_scale_shift takes one of {', '.join(ScaleShiftMethod.__args__)}.")
    return scale.where(exists, torch.nan), shift.where(exists, torch.nan)


def apply_scale_shift(x: Tensor, scale: Tensor, shift: Tensor | float = 0.0) -> Tensor:
    """``scale * x + shift`` with one scale and shift per image, ``(B,)`` each, in the dtype of ``x`` ``(B, 1, H, W)``."""
    moved = per_image(scale, x) * x.double() + (per_image(shift, x) if isinstance(shift, Tensor) else shift)
    return moved.to(x.dtype)


def _sanitised(x: Tensor, valid: Tensor) -> Tensor:
    return x.where(valid, 1).double()


def _log(x: Tensor) -> Tensor:
    return x.where(x > 0, 1).log()


def _least_absolute_line(x: Tensor, y: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """The line of least absolute error, by bisection on its slope.

    For a given slope ``a`` the best intercept is the median of ``y - a x``; what remains is convex in ``a`` with subgradient
    ``-sum(x sign(y - a x - b))``, so its sign halves the bracket.
    """

    def residual(slope: Tensor) -> Tensor:
        offset = y - per_image(slope, x) * x
        return centred(offset, masked_median(offset, valid))

    spread = masked_mean(x**2, valid).sqrt()
    reach = 1 + masked_mean(y.where(valid, 0).abs(), valid) / spread
    low, high = -reach, reach.clone()
    for _ in range(60):  # widen until the bracket holds the minimum
        falls_low = masked_sum(x * residual(low).sign(), valid) < 0
        rises_high = masked_sum(x * residual(high).sign(), valid) > 0
        if not bool((falls_low | rises_high).any()):
            break
        low, high = torch.where(falls_low, 2 * low, low), torch.where(rises_high, 2 * high, high)
    for _ in range(60):
        middle = (low + high) / 2
        rising = masked_sum(x * residual(middle).sign(), valid) > 0
        low, high = torch.where(rising, middle, low), torch.where(rising, high, middle)
    slope = (low + high) / 2
    return slope, masked_median(y - per_image(slope, x) * x, valid)
