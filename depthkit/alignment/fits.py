"""Fit a scale, or a scale and a shift, per image, and apply them."""

from enum import StrEnum

import torch
from torch import Tensor

from depthkit.alignment.centring import Centred, Pixels, about_mean, about_median, slope
from depthkit.checks import check_choice, check_map_pair
from depthkit.devices import readable_at_once
from depthkit.masked import centred, masked_mean, masked_median, masked_sum, per_image
from depthkit.precision import to_float64, where_float64_exists


class ScaleMethod(StrEnum):
    """How ``fit_scale`` finds a factor; see its table."""

    MEDIAN_RATIO = "median_ratio"
    RATIO_OF_MEDIANS = "ratio_of_medians"
    LEAST_SQUARES = "least_squares"
    LOG_MEDIAN = "log_median"
    LOG_L1 = "log_l1"


class ScaleShiftMethod(StrEnum):
    """How ``fit_scale_shift`` finds a line."""

    LEAST_SQUARES = "least_squares"
    MEDIAN = "median"
    L1 = "l1"


def fit_scale(pred: Tensor, target: Tensor, valid: Tensor, *, method: ScaleMethod | str = ScaleMethod.MEDIAN_RATIO) -> Tensor:
    r"""Fit the factor ``s`` per image for which ``s * pred`` is nearest to ``target``.

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
        ``s`` in float64, ``(B,)``, differentiable; NaN where the fit does not exist: no valid pixel, a prediction of 0 where a
        ratio is needed, a value that is not positive where a logarithm is.

    Raises:
        ShapeError: the three do not fit together.
        RecipeError: unknown ``method``.

    Example:
        >>> x = torch.rand(2, 1, 4, 4) + 1
        >>> fit_scale(x, 3 * x, x > 0).round(decimals=4)
        tensor([3., 3.], dtype=torch.float64)
    """
    check_map_pair(pred, target, valid)
    method = check_choice("method", method, ScaleMethod)
    pred, target, valid = where_float64_exists(pred, target, valid)
    x, y = (to_float64(each.where(valid, 1)) for each in (pred, target))
    if method == ScaleMethod.MEDIAN_RATIO:
        exists = (x != 0).flatten(1).all(1)
        scale = masked_median(y / x.where(x != 0, 1), valid)
    elif method == ScaleMethod.RATIO_OF_MEDIANS:
        divisor = masked_median(x, valid)
        exists = divisor != 0
        scale = masked_median(y, valid) / divisor.where(exists, 1)
    elif method == ScaleMethod.LEAST_SQUARES:
        energy = masked_sum(x * x, valid)
        exists = energy > 0
        scale = masked_sum(x * y, valid) / energy.where(exists, 1)
    else:
        exists = ((x > 0) & (y > 0)).flatten(1).all(1)
        log_x, log_y = (each.where(each > 0, 1).log() for each in (x, y))
        if method == ScaleMethod.LOG_MEDIAN:
            scale = (masked_median(log_y, valid) - masked_median(log_x, valid)).exp()
        else:
            scale = masked_median(log_y - log_x, valid).exp()
    return scale.where(exists & valid.flatten(1).any(1), torch.nan)


def fit_scale_shift(
    pred: Tensor, target: Tensor, valid: Tensor, *, method: ScaleShiftMethod | str = ScaleShiftMethod.LEAST_SQUARES
) -> tuple[Tensor, Tensor]:
    """Fit the scale ``s`` and shift ``t`` per image for which ``s * pred + t`` is nearest to ``target``.

    ``least_squares`` minimises the squared error (MiDaS eqs 2-4; ``s`` may come out negative for an inverted map).
    ``median`` maps the median and the mean absolute deviation of ``pred`` onto those of ``target`` (MiDaS eqs 5-6; ``s`` is
    positive). ``l1`` minimises the absolute error exactly.

    Args:
        pred: predicted map, ``(B, 1, H, W)``.
        target: labelled map in the same representation, ``(B, 1, H, W)``; any value where not valid.
        valid: bool, ``(B, 1, H, W)``.
        method: one of the three above.

    Returns:
        ``s`` and ``t`` in float64, ``(B,)`` each, differentiable; both NaN for an image without a valid pixel or whose
        prediction is constant over its valid pixels.

    Raises:
        ShapeError: the three do not fit together.
        RecipeError: unknown ``method``.

    Example:
        >>> x = torch.rand(2, 1, 4, 4)
        >>> scale, shift = fit_scale_shift(x, 3 * x - 5, x >= 0)
        >>> scale.round(decimals=4), shift.round(decimals=4)
        (tensor([3., 3.], dtype=torch.float64), tensor([-5., -5.], dtype=torch.float64))
    """
    check_map_pair(pred, target, valid)
    method = check_choice("method", method, ScaleShiftMethod)
    pred, target, valid = where_float64_exists(pred, target, valid)
    x, y = (to_float64(each.where(valid, 0)) for each in (pred, target))
    pixels = Pixels.of(valid, x)
    if method == ScaleShiftMethod.MEDIAN:
        a, b = about_median(x, pixels), about_median(y, pixels)
        scale, shift = b.spread / a.spread.where(a.varies, 1), b.centre
    elif method == ScaleShiftMethod.LEAST_SQUARES:
        a, b = about_mean(x, pixels), about_mean(y, pixels)
        scale, shift = slope(a, b, pixels), b.centre
    else:
        a = about_mean(x, pixels)
        scale, shift = _least_absolute_line(a, y, valid)
    return scale.where(a.varies, torch.nan), (shift - scale * a.centre).where(a.varies, torch.nan)


def apply_scale_shift(x: Tensor, scale: Tensor, shift: Tensor | float = 0.0) -> Tensor:
    """Return ``scale * x + shift`` in the dtype of ``x``, ``(B, 1, H, W)``; one scale and shift per image, ``(B,)`` each."""
    moved = to_float64(x)
    scale = per_image(scale, x).to(moved.device)
    return (scale * moved + (per_image(shift, x).to(moved.device) if isinstance(shift, Tensor) else shift)).to(x)


def _least_absolute_line(x: Centred, y: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Fit the line of least absolute error, slope and height at the centre of ``x``, ``(B,)`` each.

    The search finds which two pixels the line runs through; the line is then made of their values, with their gradient.
    """
    with torch.no_grad():
        found = _search_slope(x.x, y, valid)
        residual = (y - per_image(found, y) * x.x).where(valid, 0)
        height = masked_median(residual, valid)
        off = centred(residual, height).abs().where(valid, torch.inf).flatten(1)
        first = off.argmin(1, keepdim=True)
        on_line = off <= off.gather(1, first) + 1e-9 * masked_mean(y.abs(), valid)[:, None]
        apart = (x.x.flatten(1) - x.x.flatten(1).gather(1, first)).abs().where(on_line, -1)
        second = apart.argmax(1, keepdim=True)
    (x1, x2), (y1, y2) = ([each.flatten(1).gather(1, i)[:, 0] for i in (first, second)] for each in (x.x, y))
    through = (y2 - y1) / (x2 - x1).where(x2 != x1, 1)
    scale = (found + (through - through.detach())).where(x.varies, 0)  # a constant map has no slope, and gives no gradient
    return scale, masked_median(y - per_image(scale, y) * x.x, valid)


def _search_slope(x: Tensor, y: Tensor, valid: Tensor) -> Tensor:
    """Bisect for the slope of least absolute error, ``(B,)``.

    For a given slope ``a`` the best intercept is the median of ``y - a x``; what remains is convex in ``a`` with subgradient
    ``-sum(x sign(y - a x - b))``, so its sign halves the bracket.
    """

    def rising(slope: Tensor) -> Tensor:
        offset = y - per_image(slope, x) * x
        return masked_sum(x * centred(offset, masked_median(offset, valid)).sign(), valid)

    high = y.new_ones(len(y))
    low = -high
    for _ in range(60):  # widen until the bracket holds the minimum
        falls_low, rises_high = rising(low) < 0, rising(high) > 0
        if readable_at_once(low) and not bool((falls_low | rises_high).any()):
            break  # elsewhere the rest of the loop changes nothing, and nothing waits
        low, high = torch.where(falls_low, 2 * low, low), torch.where(rises_high, 2 * high, high)
    for _ in range(60):
        middle = (low + high) / 2
        above = rising(middle) > 0
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    return (low + high) / 2
