"""How differently two images look at each pixel."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from depthkit.errors import RecipeError, ShapeError
from depthkit.precision import in_float32

_C1, _C2 = 0.01**2, 0.03**2  # SSIM's constants for images in [0, 1]
_SQUARED_NORM_FLOOR = 1e-6


@in_float32
def photometric_error(a: Tensor, b: Tensor, *, ssim_weight: float = 0.85) -> Tensor:
    r"""Compute the photometric error of Godard et al. (2019), eq. 3, after Wang et al. (2004), one value per pixel.

    .. math:: pe = \alpha \, \overline{\operatorname{clamp}(\tfrac{1 - SSIM}{2}, 0, 1)} + (1 - \alpha) \, \overline{|a - b|}

    Bars are means over channels. SSIM compares means and variances over 3x3 windows of equal weight, the images mirrored at
    their borders; the half is inside the clamp.

    Args:
        a: image in [0, 1], ``(B, 3, H, W)``; or more leading axes, which broadcast against those of ``b``.
        b: image in [0, 1], ``(B, 3, H, W)``, with such leading axes. The arguments may be swapped.
        ssim_weight: alpha in [0, 1]; 0 is plain L1.

    Returns:
        Error [1], in [0, 1], ``(B, 1, H, W)``.

    Raises:
        ShapeError: images of different sizes or channels, without a batch axis, or less than 2 pixels high or wide.
        RecipeError: ``ssim_weight`` outside [0, 1].

    Example:
        >>> import torch
        >>> a = torch.rand(1, 3, 4, 4)
        >>> bool((photometric_error(a, a) == 0).all())
        True
    """
    if not 0 <= ssim_weight <= 1:
        raise RecipeError(f"expected ssim_weight in [0, 1]; got {ssim_weight}. 0 is plain L1.")
    _check_images(a, b)
    l1 = (a - b).abs().mean(-3, keepdim=True)
    if ssim_weight == 0:
        return l1
    return ssim_weight * _ssim_error(a, b).mean(-3, keepdim=True) + (1 - ssim_weight) * l1


def _ssim_error(a: Tensor, b: Tensor) -> Tensor:
    a, b = _mirrored(a), _mirrored(b)
    mean_a, mean_b = _window_mean(a), _window_mean(b)
    squared_a, squared_b, product = mean_a**2, mean_b**2, mean_a * mean_b
    variances = (_window_mean(a**2) - squared_a) + (_window_mean(b**2) - squared_b)
    covariance = _window_mean(a * b) - product
    ssim = ((2 * product + _C1) * (2 * covariance + _C2)) / ((squared_a + squared_b + _C1) * (variances + _C2))
    return ((1 - ssim) / 2).clamp(0, 1)


def _mirrored(x: Tensor) -> Tensor:
    return F.pad(x.flatten(0, -4), (1, 1, 1, 1), mode="reflect").unflatten(0, x.shape[:-3])


def _window_mean(x: Tensor) -> Tensor:
    """Average over the 3x3 window around every pixel but those of the border; ``(..., H, W) -> (..., H - 2, W - 2)``."""
    if x.device.type == "cpu":  # where pooling is not vectorised and takes several times as long
        return _WindowMean.apply(x)
    return F.avg_pool2d(x.flatten(0, -4), 3, 1).unflatten(0, x.shape[:-3])


class _WindowMean(torch.autograd.Function):
    """Nine shifted images added up, in the order in which pooling adds, so that both round alike."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        height, width = x.shape[-2] - 2, x.shape[-1] - 2
        first, second, *others = (
            x[..., row : row + height, column : column + width] for row in range(3) for column in range(3)
        )
        total = first + second
        for shifted in others:
            total.add_(shifted)
        return total.div_(9)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # a pixel's gradient is the mean over the windows that hold it
        return _WindowMean.apply(F.pad(gradient, (2, 2, 2, 2)))


def _check_images(a: Tensor, b: Tensor) -> None:
    if min(a.ndim, b.ndim) < 4 or a.shape[-3:] != b.shape[-3:]:
        raise ShapeError(
            f"expected two images of one shape (B, 3, H, W); got {tuple(a.shape)} and {tuple(b.shape)}. "
            "Compare a warped image with the target at the same size."
        )
    if min(a.shape[-2:]) < 2:
        raise ShapeError(f"expected images of at least 2 x 2 pixels; got {tuple(a.shape)}. Use fewer scales or larger images.")


class PhotometricError(nn.Module):
    """``photometric_error`` with its weight; two images ``(B, 3, H, W)`` to ``(B, 1, H, W)``.

    ``ssim_weight=0`` is the row without SSIM of Monodepth2's ablation.
    """

    def __init__(self, *, ssim_weight: float = 0.85) -> None:
        super().__init__()
        self.ssim_weight = ssim_weight

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Compute the error per pixel, ``(B, 1, H, W)``."""
        return photometric_error(a, b, ssim_weight=self.ssim_weight)


@in_float32
def feature_l1_error(a: Tensor, b: Tensor) -> Tensor:
    """Compare two feature maps, each pixel's vector scaled to length 1, by the mean absolute difference (Godard et al. 2019).

    The supplement says "normalised" and not how; unit length makes the error the same for any gain of the extractor.

    Args:
        a: features of an image, ``(B, C, H, W)``; or more leading axes, which broadcast against those of ``b``.
        b: features of another image, ``(B, C, H, W)``, with such leading axes.

    Returns:
        Error [1], ``(B, 1, H, W)``; gradients are finite where all features are 0.

    Raises:
        ShapeError: maps of different sizes or channels, or without a batch axis.
    """
    if min(a.ndim, b.ndim) < 4 or a.shape[-3:] != b.shape[-3:]:
        raise ShapeError(f"expected two feature maps of one shape (B, C, H, W); got {tuple(a.shape)} and {tuple(b.shape)}.")
    return (_unit_length(a) - _unit_length(b)).abs().mean(-3, keepdim=True)


def _unit_length(x: Tensor) -> Tensor:
    return x * (x.square().sum(-3, keepdim=True) + _SQUARED_NORM_FLOOR).rsqrt()


class FeatureL1Error(nn.Module):
    """``feature_l1_error`` of two images: Monodepth2's choice for hand-held video, where SSIM left artefacts at edges.

    Args:
        features: maps an image in [0, 1], ``(N, 3, H, W)``, to features ``(N, C, H, W)`` of the same size, for example
            ``depthkit.models.vgg16_relu1_1()``. It is frozen here and stays in evaluation mode.

    Raises:
        ShapeError: (in ``forward``) the features are not of the image's size.
    """

    def __init__(self, features: nn.Module) -> None:
        super().__init__()
        self.features = features.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "FeatureL1Error":
        """Set the mode as in torch, but keep the extractor in evaluation mode."""
        super().train(mode)
        self.features.eval()
        return self

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Compare two images ``(B, 3, H, W)``, with broadcasting leading axes; the error per pixel is ``(B, 1, H, W)``."""
        _check_images(a, b)
        return feature_l1_error(self._extract(a), self._extract(b))

    def _extract(self, image: Tensor) -> Tensor:
        found: Tensor = self.features(image.flatten(0, -4))
        if found.shape[-2:] != image.shape[-2:]:
            raise ShapeError(
                f"expected features of the image's size {tuple(image.shape[-2:])}; got {tuple(found.shape[-2:])}. "
                "Take a layer before the first pooling, such as relu1_1 of VGG16."
            )
        return found.unflatten(0, image.shape[:-3])
