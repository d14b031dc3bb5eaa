"""Bring a prediction and its label to a common scale and shift, inside the graph."""

from typing import Literal, get_args

import torch
from torch import Tensor

from depthkit.errors import RecipeError
from depthkit.masked import (
    NEGLIGIBLE_SPREAD,
    centred,
    masked_mean,
    masked_median,
    masked_variance,
    per_image,
)
from depthkit.precision import in_float32

Align = Literal["least_squares", "median"]


@in_float32
def align_pair(
    pred: Tensor, target: Tensor, valid: Tensor, *, align: Align | None, require_positive_scale: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    r"""The two maps, made comparable, and the pixels where they are: what every affine-invariant loss starts with.

    ``"least_squares"`` moves the prediction onto the label by the scale and shift of least squared error (MiDaS eqs 2-4)
    and leaves the label's scale alone. ``"median"`` gives each map median 0 and mean absolute deviation 1 (eqs 5-6). None takes
    the maps as they are. Nothing is detached, so the gradient of any function of the result is orthogonal to 1 and to
    ``pred``. Losses that share one alignment call this once and take its result with ``align=None``.

    Args:
        pred: predicted map, ``(B, 1, H, W)``.
        target: labelled map, ``(B, 1, H, W)``; any value where not valid.
        valid: bool, ``(B, 1, H, W)``.
        align: one of the above.
        require_positive_scale: where the least-squares scale is negative or zero (the prediction is inverted), use the positive
            scale that gives it the label's standard deviation. The L2 loss is then decreasing in the correlation over all of
            [-1, 1], where a negative scale would reward an inverted map as much as a right one.

    Returns:
        ``pred`` and ``target`` up to a common offset, finite where not valid, and ``valid``, which an image whose label is
        constant leaves altogether: it determines no scale. A constant prediction only loses its offset, so that its gradient
        is that of an unscaled map and not infinite.

    Raises:
        RecipeError: unknown ``align``, or ``require_positive_scale`` without least squares (the median's scale is positive).
    """
    if align not in (None, *get_args(Align)):
        raise RecipeError(f"expected align to be one of {', '.join(get_args(Align))} or None; got {align!r}.")
    if require_positive_scale and align != "least_squares":
        raise RecipeError(f'require_positive_scale belongs to align="least_squares"; leave it out with align={align!r}.')
    pred, target = pred.where(valid, 1), target.where(valid, 1)
    if align is None:
        return pred, target, valid
    if align == "median":
        pred, _ = standardise(pred, masked_median(pred, valid), valid)
        target, exists = standardise(target, masked_median(target, valid), valid)
        return pred, target, valid & per_image(exists, valid)
    pred_mean, target_mean = masked_mean(pred, valid), masked_mean(target, valid)
    pred, target = centred(pred, pred_mean), centred(target, target_mean)
    variance, target_variance = masked_mean(pred**2, valid), masked_mean(target**2, valid)
    varies = _is_spread(variance, pred_mean, power=2)
    variance = variance.where(varies, 1)
    scale = masked_mean(pred * target, valid) / variance
    if require_positive_scale:
        same_spread = (target_variance.where(target_variance > 0, 1) / variance).sqrt()
        scale = scale.where(scale > 0, same_spread)
    scale = scale.where(varies, 1)
    exists = _is_spread(target_variance, target_mean, power=2)
    return pred * per_image(scale, pred), target, valid & per_image(exists, valid)


def standardise(x: Tensor, centre: Tensor, valid: Tensor, *, power: int = 1) -> tuple[Tensor, Tensor]:
    """``x`` minus ``centre`` ``(B,)``, divided by its spread, and where ``(B,)`` it has one; elsewhere it is only centred.

    The spread is the mean absolute deviation from ``centre`` (``power`` 1) or the sample standard deviation (``power`` 2).
    """
    x = centred(x, centre)
    spread = masked_mean(x.abs(), valid) if power == 1 else masked_variance(x, valid, correction=1)
    exists = _is_spread(spread, centre, power=power)
    spread = spread.where(exists, 1)
    return x / per_image(spread if power == 1 else spread.sqrt(), x), exists


def _is_spread(spread: Tensor, centre: Tensor, *, power: int) -> Tensor:
    """Whether a spread, raised to ``power``, is more than the rounding of values around ``centre``; NaN passes, to be seen."""
    return ~(spread <= (NEGLIGIBLE_SPREAD * centre.abs()) ** power)


def difference(pred: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """``pred - target`` where valid, 0 elsewhere."""
    return torch.where(valid, pred, 1) - torch.where(valid, target, 1)
