"""The normalised multi-scale gradient loss, of web stereo videos."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from depthkit.checks import check_map_pair
from depthkit.errors import RecipeError
from depthkit.masked import NEGLIGIBLE_SPREAD, masked_count, per_image, zeroed_mean
from depthkit.precision import in_float32
from depthkit.types import Ambiguity, Representation

SPACINGS = (2, 8, 32, 64)
"""Distances of the pixels that are compared [px], those of Wang et al."""


@in_float32
def normalised_gradient_loss(pred: Tensor, target: Tensor, valid: Tensor, *, spacings: Sequence[int] = SPACINGS) -> Tensor:
    r"""Compute the normalised multi-scale gradient loss of Wang et al. (2019), MiDaS eq. 10, one value per image.

    .. math:: L = \frac{1}{M} \sum_k \sum_i |s \nabla_x^k d_i - \nabla_x^k d^*_i| + |s \nabla_y^k d_i - \nabla_y^k d^*_i|

    Differences of pixels ``k`` apart do not know a shift, and s, the ratio of the label's to the prediction's mean absolute
    difference over all spacings, takes away scale. Its gradient is followed, too. MiDaS states neither s nor the spacings.

    Args:
        pred: predicted disparity up to scale and shift, ``(B, 1, H, W)``.
        target: labelled disparity up to scale and shift, ``(B, 1, H, W)``; any value where not valid.
        valid: bool, ``(B, 1, H, W)``; a difference counts if both of its pixels are valid.
        spacings: the distances k [px].

    Returns:
        Loss in the target's unit, ``(B,)``; 0 with gradient 0 for an image that has no valid pixel or whose label is constant.

    Raises:
        ShapeError: the maps are not ``(B, 1, H, W)`` of one size, or ``valid`` is not bool.
        RecipeError: there is no spacing, or one below 1.

    Example:
        >>> d = torch.rand(2, 1, 16, 16)
        >>> bool((normalised_gradient_loss(3 * d - 5, d, d >= 0) < 1e-4).all())
        True
    """
    check_map_pair(pred, target, valid)
    if not spacings or min(spacings) < 1:
        raise RecipeError(f"expected spacings of at least 1 pixel; got {tuple(spacings)}.")
    weight, count = valid.to(pred.dtype), masked_count(valid)
    pred, target = pred.where(valid, 0), target.where(valid, 0)
    slopes, truth = (_differences(x, weight, spacings) for x in (pred, target))
    (size, varies), (wanted, determines) = (_magnitude(g, x, count) for g, x in ((slopes, pred), (truth, target)))
    factor = (wanted / size.where(varies, 1)).where(varies, 1)  # a constant prediction keeps its unit
    return zeroed_mean((per_image(factor, slopes) * slopes - truth).abs(), count).where(determines, 0)


def _differences(x: Tensor, weight: Tensor, spacings: Sequence[int]) -> Tensor:
    """List the differences of all valid pairs in a row or a column, ``(B, N)``; 0 for a pair that is not valid."""
    found = []
    for k in spacings:
        across = (x[..., k:] - x[..., :-k]) * (weight[..., k:] * weight[..., :-k])
        down = (x[..., k:, :] - x[..., :-k, :]) * (weight[..., k:, :] * weight[..., :-k, :])
        found += [across.flatten(1), down.flatten(1)]
    return torch.cat(found, 1)


def _magnitude(differences: Tensor, x: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the mean absolute difference, ``(B,)``, and whether it is more than rounding, bool ``(B,)``; NaN passes."""
    size = zeroed_mean(differences.abs(), count)
    return size, ~(size.detach() <= NEGLIGIBLE_SPREAD * zeroed_mean(x.detach().abs(), count))


class NormalisedGradientLoss(nn.Module):
    """``normalised_gradient_loss`` with its options; ``pred, target, valid``, ``(B, 1, H, W)`` each, to ``(B,)``."""

    representation = Representation.DISPARITY
    accepts = frozenset({Ambiguity.METRIC, Ambiguity.SCALE, Ambiguity.SHIFT_SCALE})

    def __init__(self, *, spacings: Sequence[int] = SPACINGS) -> None:
        super().__init__()
        self.spacings = tuple(spacings)

    def forward(self, pred: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """Compute the loss per image, ``(B,)``."""
        return normalised_gradient_loss(pred, target, valid, spacings=self.spacings)
