"""The network of Xian et al. (2018), which learned relative depth from web stereo images and on which MiDaS builds."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from depthkit.models.build import architecture
from depthkit.models.encoders.timm_encoder import TimmEncoder
from depthkit.models.net import DepthNet
from depthkit.models.networks.heads import OutputConv
from depthkit.models.networks.midas import require_pyramid
from depthkit.types import Representation


class FeatureTransfer(nn.Module):
    """Feature transfer: a 3x3 convolution to other channels, a residual pair of 3x3 convolutions, ReLU."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.branch = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Transfer, ``(B, in_channels, h, w) -> (B, channels, h, w)``."""
        x = self.enter(x)
        return F.relu(x + self.branch(x))


class FeatureFusion(nn.Module):
    """Feature fusion: transfer the encoder's map, add the coarser one, transfer, double the size."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.skip = FeatureTransfer(in_channels, channels)
        self.merge = FeatureTransfer(channels, channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Fuse ``(B, channels, h, w)`` and ``(B, in_channels, h, w)`` to ``(B, channels, 2 h, 2 w)``."""
        return _double(self.merge(self.skip(skip) + x))


class RedWebDecoder(nn.Module):
    """The decoder of Xian et al.: feature transfer and fusion blocks with BatchNorm, from coarse to fine.

    Args:
        encoder_channels: channels of the encoder's maps, finest first.
        encoder_strides: their strides [px], each twice the one before.
        features: channels of the decoder's map; the coarsest level has twice as many.

    Attributes:
        channels: channels of the output, ``features``.
        stride: its stride [px], half of the encoder's finest.

    Raises:
        RecipeError: the strides do not double.
    """

    def __init__(self, encoder_channels: Sequence[int], encoder_strides: Sequence[int], *, features: int = 256) -> None:
        super().__init__()
        require_pyramid(type(self).__name__, encoder_strides)
        *finer, coarsest = encoder_channels
        self.enter = FeatureTransfer(coarsest, 2 * features)
        self.narrow = nn.Conv2d(2 * features, features, 3, padding=1)
        self.fusion = nn.ModuleList(FeatureFusion(channels, features) for channels in reversed(finer))  # coarsest first
        self.channels = features
        self.stride = encoder_strides[0] // 2
        self.apply(_init)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Fuse the encoder's maps, finest first, to ``(B, channels, H / stride, W / stride)``."""
        *finer, coarsest = features
        x = _double(self.narrow(self.enter(coarsest)))
        for fuse, skip in zip(self.fusion, reversed(finer), strict=True):
            x = fuse(x, skip)
        return x


class RedWebHead(nn.Module):
    """The adaptive output of Xian et al.: halve the channels, convolve to one, enlarge to the input's size; any sign.

    Args:
        channels: channels of the decoder's map.
        stride: its stride [px].
        representation: of the output.
    """

    def __init__(self, channels: int, stride: float, *, representation: Representation = Representation.DISPARITY) -> None:
        super().__init__()
        self.representation = Representation(representation)
        self.stride = stride
        self.reduce = nn.Sequential(nn.Conv2d(channels, channels // 2, 3, padding=1), nn.BatchNorm2d(channels // 2), nn.ReLU())
        self.output = OutputConv(channels // 2, 1, 3, padding=1)
        self.apply(_init)

    def forward(self, x: Tensor) -> Tensor:
        """Predict, ``(B, channels, H / stride, W / stride) -> (B, 1, H, W)``."""
        x = self.output(self.reduce(x))
        return F.interpolate(x, scale_factor=self.stride, mode="bilinear", align_corners=True)


@architecture
def redweb_resnet50(*, pretrained: bool | str | Path = True, features: int = 256) -> DepthNet:
    """Build the network of Xian et al. (2018) on ResNet-50, the baseline that MiDaS starts from.

    Args:
        pretrained: the encoder's weights, see ``TimmEncoder``.
        features: channels of the decoder.
    """
    encoder = TimmEncoder("resnet50.tv_in1k", pretrained=pretrained)
    return DepthNet(encoder, partial(RedWebDecoder, features=features), RedWebHead)


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


def _init(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, std=0.01)
        nn.init.zeros_(cast(Tensor, module.bias))
