"""Light-Weight RefineNet as GP2 released it (Romanov et al. 2020, arXiv 2009.12419).

The decoder takes one map of the encoder per stride, by default the last one. The released networks, and ``released_taps=True``,
take some maps earlier: EfficientNet-B0 to B5 the stem's map at stride 2, B0 also the ninth block's map at stride 16, Lite0 the
eighth block's map at stride 16.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

from depthkit.models.build import architecture
from depthkit.models.encoders.blocks import EfficientNetEncoder
from depthkit.models.encoders.timm_encoder import IMAGENET_MEAN, IMAGENET_STD, TimmEncoder
from depthkit.models.net import DepthNet
from depthkit.models.networks.heads import LogDisparityHead
from depthkit.models.networks.midas import require_pyramid


class ChainedPooling(nn.Module):
    """Chained residual pooling: add to a map a chain of its 5x5 max-poolings, each followed by a 1x1 convolution.

    Args:
        channels: channels in and out.
        stages: links of the chain.
        average: divide the sum by its ``stages + 1`` terms; without it GP2's training was unstable.
        norm: put a BatchNorm after each convolution.
    """

    def __init__(self, channels: int, *, stages: int, average: bool, norm: bool) -> None:
        super().__init__()
        self.average = average
        self.enter = _conv1x1(channels, norm)
        self.links = nn.ModuleList(_conv1x1(channels, norm) for _ in range(stages))

    def forward(self, x: Tensor) -> Tensor:
        """Pool a map ``(B, channels, h, w)``, keeping its shape."""
        x = top = self.enter(x)
        for conv in self.links:
            top = conv(F.max_pool2d(top, 5, stride=1, padding=2))
            x = x + top
        return x / (len(self.links) + 1) if self.average else x


class LightRefineNetDecoder(nn.Module):
    """GP2's Light-Weight RefineNet: no lateral convolutions, no non-linearity but max-pooling, the encoder's own channels.

    Args:
        encoder_channels: channels of the encoder's maps, finest first.
        encoder_strides: their strides [px], each twice the one before.
        crp_stages: links of each level's pooling chain.
        crp_average: divide each chain's sum by its number of terms.
        crp_bn: put a BatchNorm after each convolution of the chains.

    Attributes:
        channels: channels of the output, equal to those of the encoder's finest map.
        stride: its stride [px].

    Raises:
        RecipeError: the strides do not double.
    """

    def __init__(
        self,
        encoder_channels: Sequence[int],
        encoder_strides: Sequence[int],
        *,
        crp_stages: int = 4,
        crp_average: bool = True,
        crp_bn: bool = True,
    ) -> None:
        super().__init__()
        require_pyramid(type(self).__name__, encoder_strides)
        coarse_to_fine = list(encoder_channels)[::-1]
        self.narrow = nn.ModuleList(nn.Conv2d(coarse, fine, 1) for coarse, fine in pairwise(coarse_to_fine))
        self.pool = nn.ModuleList(
            ChainedPooling(channels, stages=crp_stages, average=crp_average, norm=crp_bn) for channels in coarse_to_fine
        )
        self.channels = encoder_channels[0]
        self.stride = encoder_strides[0]

    def forward(self, features: list[Tensor]) -> Tensor:
        """Fuse the encoder's maps, finest first, to ``(B, channels, H / stride, W / stride)``."""
        coarsest, *finer = features[::-1]
        x = self.pool[0](coarsest)
        for narrow, pool, skip in zip(self.narrow, self.pool[1:], finer, strict=True):
            x = pool(F.interpolate(narrow(x), scale_factor=2, mode="bilinear", align_corners=False) + skip)
        return x


def _conv1x1(channels: int, norm: bool) -> nn.Sequential:
    conv = nn.Conv2d(channels, channels, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels)) if norm else nn.Sequential(conv)


@architecture
def lrn_timm(
    backbone: str,
    *,
    pretrained: bool | str | Path = True,
    taps: Sequence[int] | None = None,
    crp_stages: int = 4,
    crp_average: bool = True,
    crp_bn: bool = True,
) -> DepthNet:
    """Build GP2's network on any timm backbone with maps at strides 2, 4, 8, 16 and 32; the output is log-disparity.

    As released, every encoder's input is normalised with ImageNet's mean and std, whatever its weights were trained with.

    Args:
        backbone: timm's name of the encoder.
        pretrained: the encoder's weights, see ``TimmEncoder``.
        taps: number of blocks before each map, see ``EfficientNetEncoder``; None takes the last map of each stride.
        crp_stages: see ``LightRefineNetDecoder``.
        crp_average: see ``LightRefineNetDecoder``.
        crp_bn: see ``LightRefineNetDecoder``.
    """
    tapped: Callable[..., TimmEncoder]
    tapped = partial(TimmEncoder, strides=(2, 4, 8, 16, 32)) if taps is None else partial(EfficientNetEncoder, taps=taps)
    encoder = tapped(backbone, pretrained=pretrained, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    decoder = partial(LightRefineNetDecoder, crp_stages=crp_stages, crp_average=crp_average, crp_bn=crp_bn)
    return DepthNet(encoder, decoder, LogDisparityHead)


@architecture
def lrn_mobilenetv2(*, pretrained: bool | str | Path = True) -> DepthNet:
    """Build GP2's MN-LRN: 2.4 M parameters. ``pretrained``: the encoder's weights, see ``TimmEncoder``."""
    return lrn_timm("mobilenetv2_100.ra_in1k", pretrained=pretrained)


@architecture
def lrn_efficientnet_lite0(*, pretrained: bool | str | Path = True, released_taps: bool = False) -> DepthNet:
    """Build GP2's Lite0-LRN: 3.6 M parameters.

    Args:
        pretrained: the encoder's weights, see ``TimmEncoder``.
        released_taps: take the encoder's maps where the released network does, as its published weights need.
    """
    return lrn_timm("tf_efficientnet_lite0.in1k", pretrained=pretrained, taps=(1, 3, 5, 8, 16) if released_taps else None)


@architecture
def lrn_efficientnet_b0(*, pretrained: bool | str | Path = True, released_taps: bool = False) -> DepthNet:
    """Build GP2's B0-LRN: 4.2 M parameters. Arguments as of ``lrn_efficientnet_lite0``."""
    return lrn_timm("tf_efficientnet_b0.aa_in1k", pretrained=pretrained, taps=(0, 3, 5, 9, 16) if released_taps else None)


@architecture
def lrn_efficientnet_b1(*, pretrained: bool | str | Path = True, released_taps: bool = False) -> DepthNet:
    """Build GP2's B1-LRN: 6.7 M parameters. Arguments as of ``lrn_efficientnet_lite0``."""
    return lrn_timm("tf_efficientnet_b1.aa_in1k", pretrained=pretrained, taps=(0, 5, 8, 16, 23) if released_taps else None)


@architecture
def lrn_efficientnet_b2(*, pretrained: bool | str | Path = True, released_taps: bool = False) -> DepthNet:
    """Build GP2's B2-LRN: 8 M parameters. Arguments as of ``lrn_efficientnet_lite0``."""
    return lrn_timm("tf_efficientnet_b2.aa_in1k", pretrained=pretrained, taps=(0, 5, 8, 16, 23) if released_taps else None)


@architecture
def lrn_efficientnet_b3(*, pretrained: bool | str | Path = True, released_taps: bool = False) -> DepthNet:
    """Build GP2's B3-LRN: 11 M parameters. Arguments as of ``lrn_efficientnet_lite0``."""
    return lrn_timm("tf_efficientnet_b3.aa_in1k", pretrained=pretrained, taps=(0, 5, 8, 18, 26) if released_taps else None)


@architecture
def lrn_efficientnet_b4(*, pretrained: bool | str | Path = True, released_taps: bool = False) -> DepthNet:
    """Build GP2's B4-LRN: 18 M parameters. Arguments as of ``lrn_efficientnet_lite0``."""
    return lrn_timm("tf_efficientnet_b4.aa_in1k", pretrained=pretrained, taps=(0, 6, 10, 22, 32) if released_taps else None)


@architecture
def lrn_efficientnet_b5(*, pretrained: bool | str | Path = True, released_taps: bool = False) -> DepthNet:
    """Build GP2's B5-LRN: 29 M parameters. Arguments as of ``lrn_efficientnet_lite0``."""
    return lrn_timm("tf_efficientnet_b5.aa_in1k", pretrained=pretrained, taps=(0, 8, 13, 27, 39) if released_taps else None)
