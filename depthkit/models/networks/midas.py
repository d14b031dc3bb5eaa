"""MiDaS v2 and v2.1: a RefineNet-style decoder without normalisation (Ranftl et al. 2020, the released networks)."""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

from depthkit.errors import RecipeError
from depthkit.models.build import architecture
from depthkit.models.encoders.timm_encoder import IMAGENET_MEAN, IMAGENET_STD, TimmEncoder
from depthkit.models.net import DepthNet
from depthkit.models.networks.heads import MidasHead, OutputActivation
from depthkit.types import Representation


class ResidualConvUnit(nn.Module):
    """Residual unit: two 3x3 convolutions, each after a ReLU, added to the input.

    Args:
        channels: channels in and out.
        rectified_identity: add to ReLU of the input instead of the input. The first ReLU of the released MiDaS v2 works in
            place, so its weights need this; v2.1 small and DPT add the input itself.
    """

    def __init__(self, channels: int, *, rectified_identity: bool) -> None:
        super().__init__()
        self.rectified_identity = rectified_identity
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Refine a map ``(B, channels, h, w)``."""
        rectified = F.relu(x)
        return self.conv2(F.relu(self.conv1(rectified))) + (rectified if self.rectified_identity else x)


class FusionBlock(nn.Module):
    """Fusion of two levels: add a refined skip connection, refine the sum, double its size.

    Args:
        channels: channels of both inputs.
        out_channels: channels after a closing 1x1 convolution; None for no such convolution.
        rectified_identity: see ``ResidualConvUnit``.
        has_skip: False in the coarsest block. Its ``skip_unit`` exists because published weights hold one, but never runs
            and is frozen, or distributed training would wait for its gradient.
    """

    def __init__(self, channels: int, out_channels: int | None, *, rectified_identity: bool, has_skip: bool) -> None:
        super().__init__()
        self.skip_unit = ResidualConvUnit(channels, rectified_identity=rectified_identity).requires_grad_(has_skip)
        self.unit = ResidualConvUnit(channels, rectified_identity=rectified_identity)
        self.out = nn.Identity() if out_channels is None else nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor, skip: Tensor | None = None, size: Sequence[int] | None = None) -> Tensor:
        """Fuse maps ``(B, channels, h, w)`` to ``(B, out_channels, 2 h, 2 w)``, or to another ``size``."""
        x = x if skip is None else x + self.skip_unit(skip)
        size = [2 * side for side in x.shape[-2:]] if size is None else size
        return self.out(F.interpolate(self.unit(x), size=size, mode="bilinear", align_corners=True))


class MidasDecoder(nn.Module):
    """The decoder of MiDaS: a 3x3 convolution of each encoder map, then fusion from coarse to fine.

    Args:
        encoder_channels: channels of the encoder's maps, finest first.
        encoder_strides: their strides [px], each twice the one before.
        features: channels of the decoder's map.
        expand: as in MiDaS v2.1 small, double ``features`` with every coarser level, end each block in a 1x1 convolution to
            the next level's channels, and let residual units add their input itself.

    Attributes:
        channels: channels of the output, ``features``.
        stride: its stride [px], half of the encoder's finest.

    Raises:
        RecipeError: the strides do not double.
    """

    def __init__(
        self, encoder_channels: Sequence[int], encoder_strides: Sequence[int], *, features: int = 256, expand: bool = False
    ) -> None:
        super().__init__()
        require_pyramid(type(self).__name__, encoder_strides)
        widths = [features * 2**level if expand else features for level in range(len(encoder_channels))]
        self.lateral = nn.ModuleList(
            nn.Conv2d(channels, width, 3, padding=1, bias=False)
            for channels, width in zip(encoder_channels, widths, strict=True)
        )
        coarsest = len(widths) - 1
        self.fusion = nn.ModuleList(  # coarsest first, the order in which they run
            FusionBlock(
                widths[level],
                widths[max(level - 1, 0)] if expand else None,
                rectified_identity=not expand,
                has_skip=level != coarsest,
            )
            for level in range(coarsest, -1, -1)
        )
        self.channels = features
        self.stride = encoder_strides[0] // 2

    def forward(self, features: list[Tensor]) -> Tensor:
        """Fuse the encoder's maps, finest first, to ``(B, channels, H / stride, W / stride)``."""
        coarsest, *finer = [conv(x) for conv, x in zip(self.lateral, features, strict=True)][::-1]
        x = self.fusion[0](coarsest)
        for fuse, skip in zip(self.fusion[1:], finer, strict=True):
            x = fuse(x, skip)
        return x


def require_pyramid(decoder: str, strides: Sequence[int]) -> None:
    """Check that strides double from map to map, as a decoder needs that doubles the size at each level.

    Raises:
        RecipeError: they do not.
    """
    if strides[0] < 2 or any(coarse != 2 * fine for fine, coarse in pairwise(strides)):
        raise RecipeError(
            f"expected an encoder whose strides double from map to map, for {decoder}; got {tuple(strides)}. "
            "Choose a convolutional backbone, or a decoder for maps of one stride."
        )


@architecture
def midas_timm(
    backbone: str,
    *,
    pretrained: bool | str | Path = True,
    features: int = 256,
    representation: Representation = Representation.DISPARITY,
    output_activation: OutputActivation | str = OutputActivation.RELU,
) -> DepthNet:
    """Build the MiDaS v2 network on any timm backbone with feature maps at strides 4, 8, 16 and 32.

    The paper's other encoders (Fig. 4) are ``resnet50.tv_in1k``, ``resnet101.tv_in1k``, ``densenet161.tv_in1k`` and
    ``resnext101_32x8d.tv_in1k``. For small runs: ``tf_efficientnet_lite0.in1k`` with 64 features.

    Args:
        backbone: timm's name of the encoder.
        pretrained: the encoder's weights, see ``TimmEncoder``.
        features: channels of the decoder.
        representation: of the output.
        output_activation: see ``MidasHead``.
    """
    return DepthNet(
        TimmEncoder(backbone, pretrained=pretrained),
        partial(MidasDecoder, features=features),
        partial(MidasHead, representation=representation, output_activation=output_activation),
    )


@architecture
def midas_resnext101(
    *, pretrained: bool | str | Path = True, output_activation: OutputActivation | str = OutputActivation.RELU
) -> DepthNet:
    """Build MiDaS v2 or v2.1 large: 105,363 k parameters, 103 G multiply-adds at 384x384 (Ranftl et al. 2020, "MIX 5").

    ``pretrained=True`` gives the encoder the weights that the paper starts from (trained on weakly labelled images;
    CC BY-NC 4.0: not for commercial use). For the published depth weights see ``load_published``.

    Args:
        pretrained: the encoder's weights, see ``TimmEncoder``.
        output_activation: see ``MidasHead``.
    """
    return midas_timm("resnext101_32x8d.fb_wsl_ig1b_ft_in1k", pretrained=pretrained, output_activation=output_activation)


@architecture
def midas_small(
    *, pretrained: bool | str | Path = True, output_activation: OutputActivation | str = OutputActivation.RELU
) -> DepthNet:
    """Build MiDaS v2.1 small: 21.3 M parameters, made for images of about 256x256.

    As released, the input is normalised with ImageNet's mean and std, which differ from those of the encoder's training.

    Args:
        pretrained: the encoder's weights, see ``TimmEncoder``.
        output_activation: see ``MidasHead``.
    """
    return DepthNet(
        TimmEncoder("tf_efficientnet_lite3.in1k", pretrained=pretrained, mean=IMAGENET_MEAN, std=IMAGENET_STD),
        partial(MidasDecoder, features=64, expand=True),
        partial(MidasHead, output_activation=output_activation),
    )
