"""The prior that disparity changes where the image does."""

from torch import Tensor, nn

from depthkit.checks import check_image, check_map
from depthkit.errors import ShapeError
from depthkit.masked import per_image
from depthkit.precision import in_float32

_EPSILON = 1e-7


@in_float32
def edge_aware_smoothness_loss(disparity: Tensor, image: Tensor) -> Tensor:
    r"""Edge-aware smoothness of Godard et al. (2019), eq. 4, one value per image.

    .. math:: L = \overline{|\partial_x d^*| e^{-|\partial_x I|}} + \overline{|\partial_y d^*| e^{-|\partial_y I|}},
        \qquad d^* = d / \bar d

    Differences are forward ones, absolute image gradients are means over channels, and dividing by the mean keeps the
    disparity from shrinking to please the loss. Monodepth2 gives it the sigmoid of each scale, before ``sigmoid_to_disparity``,
    and that scale's image without colour augmentation.

    Args:
        disparity: positive, in any unit, ``(B, 1, H, W)``.
        image: RGB in [0, 1], ``(B, 3, H, W)``.

    Returns:
        Loss [1], ``(B,)``.

    Raises:
        ShapeError: not of these shapes, or less than 2 pixels high or wide.

    Example:
        >>> import torch
        >>> d, image = torch.rand(1, 1, 6, 8), torch.rand(1, 3, 6, 8)
        >>> loss = edge_aware_smoothness_loss(d, image)
        >>> torch.testing.assert_close(edge_aware_smoothness_loss(5 * d, image), loss)
    """
    check_map("disparity", disparity)
    check_image("image", image)
    if image.shape[-2:] != disparity.shape[-2:] or len(image) != len(disparity) or min(image.shape[-2:]) < 2:
        raise ShapeError(
            f"expected a disparity and an image of one size, at least 2 x 2; got {tuple(disparity.shape)} and "
            f"{tuple(image.shape)}. Resize the image to the disparity's scale."
        )
    disparity = disparity / per_image(disparity.flatten(1).mean(1) + _EPSILON, disparity)
    return sum((_along(dim, disparity, image) for dim in (3, 2)), start=disparity.new_zeros(len(disparity)))


def _along(dim: int, disparity: Tensor, image: Tensor) -> Tensor:
    weight = (-image.diff(dim=dim).abs().mean(1, keepdim=True)).exp()
    return (disparity.diff(dim=dim).abs() * weight).flatten(1).mean(1)


class EdgeAwareSmoothnessLoss(nn.Module):
    """``edge_aware_smoothness_loss``; disparity ``(B, 1, H, W)`` and image ``(B, 3, H, W)`` to ``(B,)``."""

    def forward(self, disparity: Tensor, image: Tensor) -> Tensor:
        """Compute the loss per image, ``(B,)``."""
        return edge_aware_smoothness_loss(disparity, image)
