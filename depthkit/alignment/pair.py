"""Bring a prediction and its label to a common scale and shift, inside the graph: what affine-invariant losses start with."""

from enum import StrEnum

from torch import Tensor

from depthkit.alignment.centring import Pixels, about_mean, about_median, slope
from depthkit.checks import check_choice
from depthkit.errors import RecipeError
from depthkit.masked import per_image
from depthkit.precision import in_float32


class Align(StrEnum):
    """How two maps are made comparable; see ``align_pair``."""

    LEAST_SQUARES = "least_squares"
    MEDIAN = "median"
    SCALE = "scale"


@in_float32
def align_pair(
    pred: Tensor, target: Tensor, valid: Tensor, *, align: Align | str, require_positive_scale: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Make two maps comparable; return both and the pixels where they are.

    ``"least_squares"`` moves the prediction onto the label by the scale and shift of least squared error (MiDaS eqs 2-4)
    and leaves the label's scale alone. ``"median"`` gives each map median 0 and mean absolute deviation 1 (eqs 5-6).
    ``"scale"`` multiplies the prediction by the factor of least squared error and moves nothing: for labels whose shift is
    known, figure 3's simse. Nothing is detached, so the gradient of any function of the result is orthogonal to ``pred``, and
    to 1 where a shift is fitted. Losses that share one alignment call this once and take its result with ``align=None``.

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
        constant (of ``"scale"``: 0) leaves altogether: it determines no scale. A constant prediction only loses its offset, so
        that its gradient is that of an unscaled map and not infinite.

    Raises:
        RecipeError: unknown ``align``, or ``require_positive_scale`` without least squares (the median's scale is positive).
    """
    align = check_choice("align", align, Align)
    check_align(align, require_positive_scale=require_positive_scale)
    pixels = Pixels.of(valid, pred)
    pred, target = pred.where(valid, 0), target.where(valid, 0)
    if align == Align.SCALE:
        energy, something = pixels.mean(pred**2), ~(pixels.mean(target**2) <= 0)  # a NaN passes, to be seen
        factor = pixels.mean(pred * target) / energy.where(energy > 0, 1)
        return pred * per_image(factor.where(energy > 0, 1), pred), target, valid & per_image(something, valid)
    if align == Align.MEDIAN:
        x, y = about_median(pred, pixels), about_median(target, pixels)
        return x.over_spread(), y.over_spread(), valid & per_image(y.varies, valid)
    x, y = about_mean(pred, pixels), about_mean(target, pixels)
    scale = slope(x, y, pixels)
    if require_positive_scale:
        same_spread = (y.spread.where(y.spread > 0, 1) / x.spread.where(x.varies, 1)).sqrt()
        scale = scale.where(scale > 0, same_spread)
    scale = scale.where(x.varies, 1)
    return x.x * per_image(scale, pred), y.x, valid & per_image(y.varies, valid)


def aligned_residual(
    pred: Tensor, target: Tensor, valid: Tensor, *, align: Align | str | None, require_positive_scale: bool = False
) -> tuple[Tensor, Tensor]:
    """Subtract the aligned maps, 0 where not valid; also return the pixels that count. ``align=None`` aligns nothing."""
    if align is None:
        check_align(align, require_positive_scale=require_positive_scale)
        return difference(pred, target, valid), valid
    pred, target, valid = align_pair(pred, target, valid, align=align, require_positive_scale=require_positive_scale)
    return pred - target, valid


def check_align(align: Align | str | None, *, require_positive_scale: bool = False) -> Align | None:
    """Return ``align`` as a member, or None.

    Raises:
        RecipeError: it is unknown, or ``require_positive_scale`` is set without least squares.
    """
    if require_positive_scale and align != Align.LEAST_SQUARES:
        shown = None if align is None else str(align)
        raise RecipeError(f'require_positive_scale belongs to align="least_squares"; leave it out with align={shown!r}.')
    return None if align is None else check_choice("align", align, Align)


def difference(pred: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Return ``pred - target`` where valid, 0 elsewhere."""
    return (pred - target).where(valid, 0)
