"""The ranking loss on annotated pairs of points."""

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from depthkit.checks import check_map
from depthkit.errors import ShapeError
from depthkit.masked import masked_mean
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
        ShapeError: wrong shape or dtype, or a point outside the map (not looked for in compiled code).

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
    size = torch.tensor([height, width] * 2, device=pairs.device)
    if not torch.compiler.is_compiling() and bool(((points < 0) | (points >= size)).any()):
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
