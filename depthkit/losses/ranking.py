"""The ranking loss on pairs of points: annotated ones, or drawn from dense labels."""

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from depthkit.checks import check_map, check_map_pair
from depthkit.devices import readable_at_once
from depthkit.errors import RecipeError, ShapeError
from depthkit.masked import NEGLIGIBLE_SPREAD, masked_count, masked_mean, masked_range
from depthkit.precision import in_float32
from depthkit.types import Ambiguity, Representation


@in_float32
def ranking_loss(disparity: Tensor, pairs: Tensor, order: Tensor) -> Tensor:
    r"""Ranking loss of Chen et al. (2016) and Xian et al. (2018), MiDaS eq. 9, one value per image.

    .. math::
        L = \frac{1}{P} \sum_p \begin{cases}
            \ln(1 + \exp(-l_p (D_a - D_b))) & l_p = \pm 1 \\ (D_a - D_b)^2 & l_p = 0 \end{cases}

    Args:
        disparity: predicted disparity, larger is closer, ``(B, 1, H, W)``.
        pairs: row a, column a, row b, column b [px], int64 ``(B, P, 4)``; a pair whose first number is -1 only pads.
        order: +1 if a is closer, -1 if b is closer, 0 if they are the same, integer ``(B, P)``; any value in padding.

    Returns:
        Loss, ``(B,)``: the mean over the image's pairs; 0 with gradient 0 for an image without one.

    Raises:
        ShapeError: wrong shape or dtype, or a point outside the map (looked for on the CPU only, not in compiled code).

    Example:
        >>> d = torch.tensor([[[[2.0, 0.0]]]])
        >>> ranking_loss(d, torch.tensor([[[0, 0, 0, 1]]]), torch.tensor([[1]]))
        tensor([0.1269])
    """
    check_map("disparity", disparity)
    batch, _, height, width = disparity.shape
    if pairs.shape != (batch, pairs.shape[1], 4) or pairs.dtype != torch.int64 or order.shape != pairs.shape[:2]:
        raise ShapeError(
            f"expected pairs as int64 of shape ({batch}, P, 4) and order of shape ({batch}, P); got {pairs.dtype} of shape "
            f"{tuple(pairs.shape)} and shape {tuple(order.shape)}. Pad images that have fewer pairs with -1."
        )
    real = pairs[..., 0] != -1
    points = pairs.where(real[..., None], 0)
    if readable_at_once(points) and bool(((points < 0) | (points >= torch.tensor([height, width] * 2))).any()):
        raise ShapeError(
            f"expected pairs as rows and columns inside a map of {height} x {width} pixels; some lie outside. "
            "Scale the points with the image, and subtract 1 if they count from 1."
        )
    row_a, column_a, row_b, column_b = points.unbind(-1)
    values = disparity.flatten(1)
    value_a, value_b = values.gather(1, row_a * width + column_a), values.gather(1, row_b * width + column_b)
    closer = value_a.where(real, 0) - value_b.where(real, 0)
    return masked_mean(torch.where(order == 0, closer**2, softplus(-closer * order)), real)


class RankingLoss(nn.Module):
    """``ranking_loss``; ``disparity`` ``(B, 1, H, W)``, ``pairs`` ``(B, P, 4)``, ``order`` ``(B, P)`` to ``(B,)``."""

    representation = Representation.DISPARITY
    accepts = frozenset({Ambiguity.ORDINAL})

    def forward(self, disparity: Tensor, pairs: Tensor, order: Tensor) -> Tensor:
        """Compute the loss per image, ``(B,)``."""
        return ranking_loss(disparity, pairs, order)


def drawn_pairs(target: Tensor, valid: Tensor, *, pairs: int = 5000, tolerance: float = 0.02) -> tuple[Tensor, Tensor]:
    """Draw pairs of valid pixels and order them by the label, as MiDaS trains with an ordinal loss on dense labels (figure 3).

    Points are drawn alike for all images of a batch, as shares of the way through each one's valid pixels, from torch's global
    generator on the device.

    Args:
        target: labelled disparity up to scale and shift, ``(B, 1, H, W)``; any value where not valid.
        valid: bool, ``(B, 1, H, W)``.
        pairs: number of pairs per image.
        tolerance: difference up to which two points count as the same, as a share of the label's range.

    Returns:
        ``pairs`` and ``order`` as ``ranking_loss`` reads them; only padding for an image without a valid pixel or with a
        constant label.

    Raises:
        ShapeError: the maps are not ``(B, 1, H, W)`` of one size, or ``valid`` is not bool.
        RecipeError: there is no pair to draw, or ``tolerance`` lies outside [0, 1).
    """
    check_map_pair(target, target, valid)
    if pairs < 1 or not 0 <= tolerance < 1:
        raise RecipeError(f"expected pairs of at least 1 and tolerance in [0, 1); got {pairs} and {tolerance}.")
    count, width = masked_count(valid), valid.shape[-1]
    share = torch.rand(2 * pairs, device=valid.device)
    rank = (share * count[:, None]).long().clamp_max((count - 1).clamp_min(0)[:, None])
    place = torch.searchsorted(valid.flatten(1).cumsum(1), rank + 1).clamp_max(valid[0].numel() - 1)
    low, high = masked_range(target, valid)
    first, second = target.flatten(1).gather(1, place).chunk(2, 1)
    ahead = (first - second) / (high - low).where(high > low, 1)[:, None]
    order = ahead.where(ahead.abs() > tolerance, 0).sign().long()
    rows, columns = place // width, place % width
    points = torch.stack([x for each in zip(rows.chunk(2, 1), columns.chunk(2, 1), strict=True) for x in each], -1)
    points = points.where((high - low > NEGLIGIBLE_SPREAD * high.abs())[:, None, None], -1)
    return points, order


@in_float32
def ordinal_loss(disparity: Tensor, target: Tensor, valid: Tensor, *, pairs: int = 5000, tolerance: float = 0.02) -> Tensor:
    """Compute the ranking loss on pairs drawn from a dense label, one value per image; see ``drawn_pairs``, ``ranking_loss``.

    Args:
        disparity: predicted disparity, larger is closer, ``(B, 1, H, W)``.
        target: labelled disparity up to scale and shift, ``(B, 1, H, W)``; any value where not valid.
        valid: bool, ``(B, 1, H, W)``.
        pairs: number of pairs per image.
        tolerance: difference up to which two points count as the same, as a share of the label's range.

    Returns:
        Loss, ``(B,)``; 0 with gradient 0 for an image that has no valid pixel or whose label is constant.

    Raises:
        ShapeError: the maps are not ``(B, 1, H, W)`` of one size, or ``valid`` is not bool.
        RecipeError: there is no pair to draw, or ``tolerance`` lies outside [0, 1).
    """
    check_map_pair(disparity, target, valid)
    return ranking_loss(disparity, *drawn_pairs(target, valid, pairs=pairs, tolerance=tolerance))


class OrdinalLoss(nn.Module):
    """``ordinal_loss`` with its options; ``disparity, target, valid``, ``(B, 1, H, W)`` each, to ``(B,)``."""

    representation = Representation.DISPARITY
    accepts = frozenset({Ambiguity.METRIC, Ambiguity.SCALE, Ambiguity.SHIFT_SCALE})

    def __init__(self, *, pairs: int = 5000, tolerance: float = 0.02) -> None:
        super().__init__()
        self.pairs, self.tolerance = pairs, tolerance

    def forward(self, disparity: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """Compute the loss per image, ``(B,)``."""
        return ordinal_loss(disparity, target, valid, pairs=self.pairs, tolerance=self.tolerance)
