"""Bring a prediction and its label to a common scale and shift, inside the graph."""

from typing import Literal, get_args

from torch import Tensor

from depthkit.errors import RecipeError
from depthkit.masked import (
    NEGLIGIBLE_SPREAD,
    centred,
    masked_count,
    masked_median,
    per_image,
    zeroed_mean,
)
from depthkit.precision import in_float32

Align = Literal["least_squares", "median"]


@in_float32
def align_pair(
    pred: Tensor, target: Tensor, valid: Tensor, *, align: Align, require_positive_scale: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    r"""The two maps, made comparable, and the pixels where they are: what every affine-invariant loss starts with.

    ``"least_squares"`` moves the prediction onto the label by the scale and shift of least squared error (MiDaS eqs 2-4)
    and leaves the label's scale alone. ``"median"`` gives each map median 0 and mean absolute deviation 1 (eqs 5-6). Nothing is
    detached, so the gradient of any function of the result is orthogonal to 1 and to ``pred``. Losses that share one
    alignment call this once and take its result with ``align=None``.

    Args:
        pred: predicted map, ``(B, 1, H, W)``.
        target: labelled map, ``(B, 1, H, W)``; any value where not valid.
        valid: bool, ``(B, 1, H, W)``.
        align: one of the above.
        require_positive_scale: where the least-squares scale is negative or zero (the prediction is inverted), use the positive
            scale that gives it the label's standard deviation. The L2 loss is then decreasing in the correlation over all of
            [-1, 1], where a negative scale would reward an inverted map as much as a right one.

    Returns:
        ``pred`` and ``target`` up to a common offset, 0 where not valid, and ``valid``, which an image whose label is
        constant leaves altogether: it determines no scale. A constant prediction only loses its offset, so that its gradient
        is that of an unscaled map and not infinite.

    Raises:
        RecipeError: unknown ``align``, or ``require_positive_scale`` without least squares (the median's scale is positive).
    """
    if align not in get_args(Align):
        raise RecipeError(f"expected align to be one of {', '.join(get_args(Align))}; got {align!r}.")
    _check_positive(align, require_positive_scale)
    count, weight = masked_count(valid), valid.to(pred.dtype)  # once finite, a product masks faster than a selection
    pred, target = pred.where(valid, 0), target.where(valid, 0)
    if align == "median":
        pred, _ = standardise(pred, masked_median(pred, valid), weight, count)
        target, exists = standardise(target, masked_median(target, valid), weight, count)
        return pred, target, valid & per_image(exists, valid)
    pred_mean, target_mean = zeroed_mean(pred, count), zeroed_mean(target, count)
    pred, target = centred(pred, pred_mean) * weight, centred(target, target_mean) * weight
    variance, target_variance = zeroed_mean(pred**2, count), zeroed_mean(target**2, count)
    varies = _is_spread(variance, pred_mean, power=2)
    variance = variance.where(varies, 1)
    scale = zeroed_mean(pred * target, count) / variance
    if require_positive_scale:
        same_spread = (target_variance.where(target_variance > 0, 1) / variance).sqrt()
        scale = scale.where(scale > 0, same_spread)
    scale = scale.where(varies, 1)
    exists = _is_spread(target_variance, target_mean, power=2)
    return pred * per_image(scale, pred), target, valid & per_image(exists, valid)


def aligned_residual(
    pred: Tensor, target: Tensor, valid: Tensor, *, align: Align | None, require_positive_scale: bool = False
) -> tuple[Tensor, Tensor]:
    """The aligned maps' difference, 0 where not valid, and the pixels that count; ``align=None`` takes them as they are."""
    if align is None:
        _check_positive(align, require_positive_scale)
        return difference(pred, target, valid), valid
    pred, target, valid = align_pair(pred, target, valid, align=align, require_positive_scale=require_positive_scale)
    return pred - target, valid


def standardise(x: Tensor, centre: Tensor, weight: Tensor, count: Tensor, *, power: int = 1) -> tuple[Tensor, Tensor]:
    """``x`` minus ``centre`` ``(B,)`` over its spread, 0 where not valid; and whether ``(B,)`` it has one.

    ``x`` is finite where not valid, ``weight`` is 1 where valid and 0 elsewhere, ``count`` ``(B,)`` its sum. An image without
    spread is only centred. The spread is the mean absolute deviation from ``centre`` (``power`` 1) or the sample standard
    deviation (``power`` 2).
    """
    x = centred(x, centre) * weight
    spread = zeroed_mean(x.abs(), count) if power == 1 else zeroed_mean(x**2, count - 1)
    exists = _is_spread(spread, centre, power=power)
    spread = spread.where(exists, 1)
    return x / per_image(spread if power == 1 else spread.sqrt(), x), exists


def _check_positive(align: Align | None, require_positive_scale: bool) -> None:
    if require_positive_scale and align != "least_squares":
        raise RecipeError(f'require_positive_scale belongs to align="least_squares"; leave it out with align={align!r}.')


def _is_spread(spread: Tensor, centre: Tensor, *, power: int) -> Tensor:
    """Whether a spread, raised to ``power``, is more than the rounding of values around ``centre``; NaN passes, to be seen."""
    return ~(spread <= (NEGLIGIBLE_SPREAD * centre.abs()) ** power)


def difference(pred: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """``pred - target`` where valid, 0 elsewhere."""
    return (pred - target).where(valid, 0)
