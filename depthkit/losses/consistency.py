"""Consistency of the depth of two frames of a film, against flicker."""

from torch import Tensor, nn

from depthkit.checks import check_map
from depthkit.errors import ShapeError
from depthkit.precision import in_float32


@in_float32
def depth_consistency_loss(computed: Tensor, sampled: Tensor, weight: Tensor) -> Tensor:
    r"""Mean relative difference of one frame's depth, seen from another frame, and that frame's own (Bian et al. 2019, eq. 3).

    .. math:: \frac{\sum_i w_i\, |c_i - s_i| / (c_i + s_i)}{\sum_i w_i}

    Args:
        computed: depth of each pixel's point in the other frame, positive, ``(B, 1, H, W)``.
        sampled: depth that the other frame predicts there, positive, ``(B, 1, H, W)``.
        weight: of each pixel, such as 1 where the other frame shows it and else 0, ``(B, 1, H, W)``.

    Returns:
        Loss in [0, 1], ``(B,)``; 0 where all weights are 0.

    Raises:
        ShapeError: not three maps of one size.

    Example:
        >>> import torch
        >>> depth_consistency_loss(torch.full((1, 1, 2, 2), 3.0), torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2))
        tensor([0.5000])
    """
    check_map("computed", computed)
    if computed.shape != sampled.shape or computed.shape != weight.shape:
        raise ShapeError(
            f"expected three maps of one size; got {tuple(computed.shape)}, {tuple(sampled.shape)} and {tuple(weight.shape)}."
        )
    error = (computed - sampled).abs() / (computed + sampled)
    total = weight.flatten(1).sum(1)
    return (error * weight).flatten(1).sum(1) / total.where(total != 0, 1)


class DepthConsistencyLoss(nn.Module):
    """``depth_consistency_loss``; three maps ``(B, 1, H, W)`` to ``(B,)``."""

    def forward(self, computed: Tensor, sampled: Tensor, weight: Tensor) -> Tensor:
        """Compute the loss per image, ``(B,)``."""
        return depth_consistency_loss(computed, sampled, weight)
