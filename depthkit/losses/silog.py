"""The scale-invariant log error."""

from torch import Tensor, nn

from depthkit.checks import check_map_pair
from depthkit.masked import masked_mean, masked_variance
from depthkit.precision import in_float32
from depthkit.types import Ambiguity, Representation


@in_float32
def silog_loss(
    depth: Tensor, target: Tensor, valid: Tensor, *, variance_focus: float = 0.85, root: bool = False, factor: float = 1.0
) -> Tensor:
    r"""Scale-invariant log error of Eigen et al. (2014), eq. 4, one value per image.

    .. math:: L = \overline{g^2} - \lambda\,\bar{g}^2, \qquad g = \ln d - \ln d^*

    By default no root and no factor. The name has rivals: Depth Anything V2 trains with the root of this at lambda 0.5,
    ZoeDepth with ten times the root at 0.85, KITTI reports a hundred times the root at 1, and MiDaS's eq. 8 is half of it at 1.

    Args:
        depth: predicted depth [m], > 0, ``(B, 1, H, W)``.
        target: labelled depth [m], > 0 where valid, ``(B, 1, H, W)``; any value elsewhere.
        valid: bool, ``(B, 1, H, W)``.
        variance_focus: lambda in [0, 1]; 1 ignores global scale, 0 is the mean squared log error.
        root: take the square root; an image without error has gradient 0.
        factor: multiplies the result.

    Returns:
        Loss [1], ``(B,)``; 0 with gradient 0 for an image with no valid pixel.

    Raises:
        ShapeError: the maps are not ``(B, 1, H, W)`` of one size, or ``valid`` is not bool.

    Example:
        >>> import torch
        >>> d = torch.full((1, 1, 2, 2), 3.0)
        >>> silog_loss(2 * d, d, d > 0, variance_focus=1.0) < 1e-6
        tensor([True])
    """
    check_map_pair(depth, target, valid)
    log_ratio = depth.where(valid, 1).log() - target.where(valid, 1).log()
    loss = masked_variance(log_ratio, valid) + (1 - variance_focus) * masked_mean(log_ratio, valid) ** 2
    if root:
        some = ~(loss <= 0)  # a NaN passes, to be seen
        loss = loss.where(some, 1).sqrt().where(some, 0)
    return factor * loss


class SILogLoss(nn.Module):
    """``silog_loss`` with its options; ``depth, target, valid``, ``(B, 1, H, W)`` each, to ``(B,)``."""

    representation = Representation.DEPTH

    def __init__(self, *, variance_focus: float = 0.85, root: bool = False, factor: float = 1.0) -> None:
        super().__init__()
        self.variance_focus, self.root, self.factor = variance_focus, root, factor

    @property
    def accepts(self) -> frozenset[Ambiguity]:
        """What a label may leave undetermined: a factor, if global scale is ignored."""
        return frozenset({Ambiguity.METRIC, Ambiguity.SCALE} if self.variance_focus == 1 else {Ambiguity.METRIC})

    def forward(self, depth: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """Compute the loss per image, ``(B,)``."""
        return silog_loss(depth, target, valid, variance_focus=self.variance_focus, root=self.root, factor=self.factor)
