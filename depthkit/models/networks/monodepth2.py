"""The depth networks of Monodepth2 (Godard et al. 2019): a U-Net whose sigmoids at four scales are disparities."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from depthkit.errors import RecipeError
from depthkit.models.build import architecture
from depthkit.models.encoders.timm_encoder import TimmEncoder
from depthkit.models.net import DepthNet
from depthkit.models.networks.heads import OutputConv
from depthkit.models.networks.midas import require_pyramid
from depthkit.representation import sigmoid_to_disparity
from depthkit.types import Representation

MEAN, STD = (0.45,) * 3, (0.225,) * 3
"""How the released encoders, of depth and of pose, normalise an image."""
_CHANNELS = (16, 32, 64, 128, 256)


class UpBlock(nn.Module):
    """Decoder block: convolve to fewer channels, double the size by repeating pixels, append the encoder's map, convolve."""

    def __init__(self, in_channels: int, skip_channels: int, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(in_channels, channels, 3, padding=1, padding_mode="reflect")
        self.merge = nn.Conv2d(channels + skip_channels, channels, 3, padding=1, padding_mode="reflect")

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
        """Fuse ``(B, in_channels, h, w)`` and ``(B, skip_channels, 2 h, 2 w)`` to ``(B, channels, 2 h, 2 w)``."""
        x = F.interpolate(F.elu(self.reduce(x), inplace=True), scale_factor=2, mode="nearest")
        return F.elu(self.merge(x if skip is None else torch.cat([x, skip], 1)), inplace=True)


class Monodepth2Decoder(nn.Module):
    """The U-Net decoder of Monodepth2: ELU, reflection padding, no BatchNorm.

    Args:
        encoder_channels: channels of the encoder's maps, finest first.
        encoder_strides: their strides [px], each twice the one before; a level without a map of its size gets no skip.
        scales: number of maps that ``pyramid`` returns.

    Attributes:
        channels: channels of the output, which is as large as the image.
        stride: 1.
        min_size: least height and width of an image [px]: reflection takes two pixels of the coarsest map.
        scale_channels: channels of the maps of ``pyramid``, finest first.

    Raises:
        RecipeError: the strides do not double, or are not powers of 2 from 2 to 32.
    """

    def __init__(self, encoder_channels: Sequence[int], encoder_strides: Sequence[int], *, scales: int = 4) -> None:
        super().__init__()
        require_pyramid(type(self).__name__, encoder_strides)
        depth = int(math.log2(encoder_strides[-1]))
        if 2**depth != encoder_strides[-1] or not scales <= depth <= len(_CHANNELS) or scales < 1:
            raise RecipeError(
                f"expected 1 to 5 scales and an encoder whose coarsest stride is a power of 2 between 2^scales and 32; got "
                f"{scales} and {tuple(encoder_strides)}. Choose fewer scales or another backbone."
            )
        at_stride = dict(zip(encoder_strides, encoder_channels, strict=True))
        skips = [at_stride.get(2**level, 0) for level in range(depth)]
        widths = [*_CHANNELS[:depth], encoder_channels[-1]]
        self.up = nn.ModuleList(UpBlock(widths[k + 1], skips[k], widths[k]) for k in reversed(range(depth)))  # coarsest first
        self.skipped = tuple(channels > 0 for channels in reversed(skips))
        self.channels, self.stride, self.min_size = widths[0], 1, 2 * encoder_strides[-1]
        self.scale_channels = tuple(widths[:scales])

    def forward(self, features: list[Tensor]) -> Tensor:
        """Decode the encoder's maps, finest first, to ``(B, channels, H, W)``."""
        return self.pyramid(features)[0]

    def pyramid(self, features: list[Tensor]) -> list[Tensor]:
        """Decode the encoder's maps, finest first, to one map per scale ``(B, scale_channels[s], H / 2^s, W / 2^s)``."""
        finer, x, maps = list(features[:-1]), features[-1], []
        for up, skipped in zip(self.up, self.skipped, strict=True):
            x = up(x, finer.pop() if skipped else None)
            maps.append(x)
        return maps[::-1][: len(self.scale_channels)]


class SigmoidHeads(nn.ModuleList):
    """Heads of all scales: a 3x3 convolution with a sigmoid each.

    Args:
        channels: channels of the maps of the scales, finest first.
        outputs: channels of each output.
    """

    def __init__(self, channels: Sequence[int], *, outputs: int = 1) -> None:
        super().__init__(OutputConv(c, outputs, 3, padding=1, padding_mode="reflect") for c in channels)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Convert maps ``(B, channels[s], h, w)`` of any number of scales to ``(B, outputs, h, w)`` in [0, 1]."""
        return [conv(x).sigmoid() for conv, x in zip(list(self)[: len(maps)], maps, strict=True)]


class Monodepth2Head(nn.Module):
    """The head of Monodepth2: a sigmoid per scale, of which the finest becomes the disparity.

    Args:
        channels: channels of the decoder's map at each scale, finest first.
        min_depth: depth [m] where the sigmoid is 1.
        max_depth: depth [m] where it is 0.
    """

    representation = Representation.DISPARITY

    def __init__(self, channels: Sequence[int], *, min_depth: float = 0.1, max_depth: float = 100.0) -> None:
        super().__init__()
        self.output = SigmoidHeads(channels)
        self.min_depth, self.max_depth = min_depth, max_depth
        sigmoid_to_disparity(torch.zeros(()), min_depth=min_depth, max_depth=max_depth)  # a wrong range fails here

    def forward(self, x: Tensor) -> Tensor:
        """Predict disparity from the finest map, ``(B, channels[0], H, W) -> (B, 1, H, W)``."""
        return self.to_disparity(self.output([x])[0])

    def to_disparity(self, sigmoid: Tensor) -> Tensor:
        """Convert a sigmoid of any shape to disparity [1/m]."""
        return sigmoid_to_disparity(sigmoid, min_depth=self.min_depth, max_depth=self.max_depth)


class Monodepth2Net(DepthNet):
    """A depth network that also predicts coarser scales, for self-supervised training.

    Example:
        >>> model = monodepth2_timm("test_resnet", pretrained=False)
        >>> [tuple(sigmoid.shape) for sigmoid in model.multiscale(torch.zeros(1, 3, 64, 96))]
        [(1, 1, 64, 96), (1, 1, 32, 48), (1, 1, 16, 24), (1, 1, 8, 12)]
    """

    def multiscale(self, image: Tensor) -> list[Tensor]:
        """Predict the sigmoid of each scale, ``(B, 1, H / 2^s, W / 2^s)``, finest first; ``to_disparity`` gives them a unit.

        Arguments and errors are those of ``forward``.
        """
        return self.multiscale_of(self.encode(image))

    def multiscale_of(self, features: list[Tensor]) -> list[Tensor]:
        """Predict as ``multiscale`` does from the feature maps of ``encode``, for networks that share the encoder."""
        return self.head.output(self.decoder.pyramid(features))

    def to_disparity(self, sigmoid: Tensor) -> Tensor:
        """Convert a sigmoid to disparity [1/m] between 1 / max_depth and 1 / min_depth."""
        return self.head.to_disparity(sigmoid)


class PredictiveMask(nn.Module):
    """The mask of Zhou et al. (2017) as Monodepth2 tried it: a second decoder, one channel per source.

    Args:
        encoder_channels: see ``Monodepth2Decoder``; by default those of ResNet-18.
        encoder_strides: see ``Monodepth2Decoder``.
        sources: number of source views, the stereo partner included.
        scales: number of scales.
    """

    def __init__(
        self,
        encoder_channels: Sequence[int] = (64, 64, 128, 256, 512),
        encoder_strides: Sequence[int] = (2, 4, 8, 16, 32),
        *,
        sources: int = 2,
        scales: int = 4,
    ) -> None:
        super().__init__()
        self.encoder_channels = tuple(encoder_channels)
        self.decoder = Monodepth2Decoder(encoder_channels, encoder_strides, scales=scales)
        self.output = SigmoidHeads(self.decoder.scale_channels, outputs=sources)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Predict one mask per scale from the depth encoder's maps, ``(B, sources, H / 2^s, W / 2^s)`` in [0, 1]."""
        return self.output(self.decoder.pyramid(features))


@architecture
def monodepth2_timm(
    backbone: str,
    *,
    pretrained: bool | str | Path = True,
    strides: Sequence[int] = (2, 4, 8, 16, 32),
    scales: int = 4,
    min_depth: float = 0.1,
    max_depth: float = 100.0,
    options: dict[str, Any] | None = None,
) -> Monodepth2Net:
    """Build Monodepth2's depth network on any timm backbone with doubling strides; the output is disparity.

    As released, every encoder's input is normalised by (x - 0.45) / 0.225, whatever its weights were trained with.

    Args:
        backbone: timm's name of the encoder.
        pretrained: the encoder's weights, see ``TimmEncoder``.
        strides: of the encoder's maps to use; (4, 8, 16, 32) for backbones without a finer map, such as ConvNeXt.
        scales: number of scales of ``multiscale``.
        min_depth: least depth [m] the network can express; in video without a known scale, the unit is arbitrary.
        max_depth: greatest depth [m] the network can express.
        options: see ``TimmEncoder``.
    """
    encoder = TimmEncoder(backbone, pretrained=pretrained, strides=strides, mean=MEAN, std=STD, options=options)
    decoder = Monodepth2Decoder(encoder.channels, encoder.strides, scales=scales)
    return Monodepth2Net(encoder, decoder, Monodepth2Head(decoder.scale_channels, min_depth=min_depth, max_depth=max_depth))


@architecture
def monodepth2_resnet18(
    *, pretrained: bool | str | Path = True, scales: int = 4, min_depth: float = 0.1, max_depth: float = 100.0
) -> Monodepth2Net:
    """Build Monodepth2 on ResNet-18, 14.3 M parameters; arguments as of ``monodepth2_timm``."""
    return monodepth2_timm("resnet18.tv_in1k", pretrained=pretrained, scales=scales, min_depth=min_depth, max_depth=max_depth)


@architecture
def monodepth2_resnet50(
    *, pretrained: bool | str | Path = True, scales: int = 4, min_depth: float = 0.1, max_depth: float = 100.0
) -> Monodepth2Net:
    """Build Monodepth2 on ResNet-50, 32.5 M parameters; arguments as of ``monodepth2_timm``."""
    return monodepth2_timm("resnet50.tv_in1k", pretrained=pretrained, scales=scales, min_depth=min_depth, max_depth=max_depth)
