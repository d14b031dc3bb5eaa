"""DPT: a transformer's tokens made into a pyramid and fused (Ranftl et al. 2021), as in Depth Anything (Yang et al. 2024)."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from depthkit.errors import RecipeError
from depthkit.models.build import architecture
from depthkit.models.encoders.survey import survey
from depthkit.models.encoders.timm_encoder import TimmEncoder
from depthkit.models.encoders.tokens import TokenEncoder
from depthkit.models.encoders.vit import Hooks, HookSet, PositionInterpolation, ViTEncoder, is_vit
from depthkit.models.net import DepthNet
from depthkit.models.networks.heads import MidasHead, OutputActivation
from depthkit.models.networks.midas import FusionBlock, require_pyramid
from depthkit.types import Representation


class Reassemble(nn.Module):
    """Resize one of four maps of a transformer to its level of a pyramid: a 1x1 convolution, then another size.

    Args:
        channels: channels in.
        out_channels: channels out.
        level: 0 enlarges 4 times, 1 twice, 2 keeps the size, 3 halves it, rounding up.
    """

    def __init__(self, channels: int, out_channels: int, level: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels, out_channels, 1)
        self.resize = (
            nn.ConvTranspose2d(out_channels, out_channels, 4, stride=4),
            nn.ConvTranspose2d(out_channels, out_channels, 2, stride=2),
            nn.Identity(),
            nn.Conv2d(out_channels, out_channels, 3, stride=2, padding=1),
        )[level]

    def forward(self, x: Tensor) -> Tensor:
        """Resize, ``(B, channels, h, w) -> (B, out_channels, h', w')``."""
        return self.resize(self.project(x))


class DPTDecoder(nn.Module):
    """The decoder of DPT: reassemble maps of one stride into a pyramid, then fuse its levels from coarse to fine.

    Args:
        encoder_channels: channels of the encoder's maps: four of one stride, or a pyramid's, finest first.
        encoder_strides: their strides [px].
        features: channels of the decoder's maps.
        out_channels: channels of the four reassembled maps; by default 1, 2, 4 and 8 times three quarters of ``features``.
            Not for a pyramid, which is not reassembled.

    Attributes:
        channels: channels of the output, ``features``.
        stride: its stride [px]: half of the pyramid's finest; an eighth of a patch, which need not be whole.

    Raises:
        RecipeError: the strides are neither four equal ones nor doubling, or ``out_channels`` are not four or not wanted.
    """

    def __init__(
        self,
        encoder_channels: Sequence[int],
        encoder_strides: Sequence[int],
        *,
        features: int = 256,
        out_channels: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.reassemble = nn.ModuleList()
        self.channels = features
        channels = list(encoder_channels)
        if len(set(encoder_strides)) == 1:
            widths = [features * 3 * 2**level // 4 for level in range(4)] if out_channels is None else list(out_channels)
            if not len(encoder_channels) == len(widths) == 4:
                raise RecipeError(
                    f"expected four maps of stride {encoder_strides[0]} and four out_channels; got {len(encoder_channels)} "
                    f"maps and out_channels {tuple(widths)}. Hook four blocks."
                )
            self.reassemble.extend(Reassemble(channels[level], widths[level], level) for level in range(4))
            channels = widths
            self.stride = encoder_strides[0] / 8
        else:
            require_pyramid(type(self).__name__, encoder_strides)
            if out_channels is not None:
                raise RecipeError(
                    f"expected no out_channels for an encoder with maps of strides {tuple(encoder_strides)}, a pyramid "
                    f"already; got {tuple(out_channels)}. Leave them out."
                )
            self.stride = encoder_strides[0] / 2
        self.lateral = nn.ModuleList(nn.Conv2d(width, features, 3, padding=1, bias=False) for width in channels)
        self.fusion = nn.ModuleList(  # coarsest first, the order in which they run
            FusionBlock(features, features, rectified_identity=False, has_skip=k > 0) for k in range(len(channels))
        )

        self.to(memory_format=torch.channels_last)  # as tokens come; a third faster on a CPU, and the head follows

    def forward(self, features: list[Tensor]) -> Tensor:
        """Fuse the encoder's maps to one, ``(B, channels, H / stride, W / stride)``."""
        return self.levels(features)[-1]

    def levels(self, features: list[Tensor]) -> list[Tensor]:
        """Return the coarsest level before fusion, then every fused level, finest last; ``(B, channels, h, w)`` each."""
        if len(self.reassemble):
            features = [reassemble(x) for reassemble, x in zip(self.reassemble, features, strict=True)]
        coarsest, *finer = [conv(x) for conv, x in zip(self.lateral, features, strict=True)][::-1]
        levels = [coarsest]
        for fuse, skip, finer_skip in zip(self.fusion, [None, *finer], [*finer, None], strict=True):
            size = None if finer_skip is None else finer_skip.shape[-2:]  # an odd grid's half, doubled, is one too large
            levels.append(fuse(levels[-1], skip, size))
        return levels


class DPTHead(MidasHead):
    """The head of Depth Anything: the head of MiDaS with corners aligned when it enlarges. Arguments as of ``MidasHead``."""

    align_corners = True


class SigmoidDepthHead(DPTHead):
    """The head of Depth Anything v2's metric networks: depth between 0 and ``max_depth``.

    Args:
        channels: channels of the decoder's map.
        stride: its stride [px].
        max_depth: greatest depth [m] the network can express; weights need the value that they were trained with.
    """

    def __init__(self, channels: int, stride: float, *, max_depth: float) -> None:
        super().__init__(channels, stride, representation=Representation.DEPTH, output_activation=OutputActivation.NONE)
        if not max_depth > 0:
            raise RecipeError(f"expected max_depth > 0 m; got {max_depth}.")
        self.max_depth = max_depth

    def map(self, hidden: Tensor) -> Tensor:
        """Compute depth [m] from the hidden map; at least a millionth of ``max_depth``, for 0 has no logarithm."""
        return self.max_depth * super().map(hidden).sigmoid().clamp(min=1e-6)


@architecture
def dpt_timm(
    backbone: str,
    *,
    pretrained: bool | str | Path = True,
    hooks: Hooks = HookSet.V2,
    features: int = 64,
    out_channels: Sequence[int] | None = None,
    max_depth: float | None = None,
    output_activation: OutputActivation | str = OutputActivation.RELU,
    position_interpolation: PositionInterpolation | str = PositionInterpolation.TRANSFORMERS,
    options: dict[str, Any] | None = None,
) -> DepthNet:
    """Build Depth Anything's network on any timm backbone: a transformer, or one with maps at strides 4, 8, 16 and 32.

    Args:
        backbone: timm's name of the encoder, such as ``tf_efficientnet_lite0.in1k`` or ``vit_small_patch16_dinov3.lvd1689m``.
        pretrained: weights of the encoder, see ``TimmEncoder``.
        hooks: see ``ViTEncoder``; of no effect on a convolutional backbone.
        features: channels of the decoder.
        out_channels: see ``DPTDecoder``.
        max_depth: None gives disparity of unknown scale and shift; a number [m] depth by a ``SigmoidDepthHead``.
        output_activation: for disparity, see ``MidasHead``; or "exp" for depth by an exponential, as of Depth Anything 3.
        position_interpolation: see ``ViTEncoder``; of no effect on other backbones.
        options: see ``TimmEncoder``.

    Example:
        >>> model = dpt_timm("test_vit", pretrained=False, features=16)
        >>> model.representation.value, model.size_multiple, model(torch.zeros(1, 3, 32, 48)).shape
        ('disparity', 16, torch.Size([1, 1, 32, 48]))
        >>> dpt_timm("test_resnet", pretrained=False, features=16, max_depth=80).representation.value
        'depth'
    """
    encoder: nn.Module
    if is_vit(backbone):
        encoder = ViTEncoder(
            backbone, pretrained=pretrained, hooks=hooks, position_interpolation=position_interpolation, options=options
        )
    elif len(set(survey(backbone, options or {}).strides)) == 1:  # EVA-02, DINOv3 and other transformers
        encoder = TokenEncoder(backbone, pretrained=pretrained, hooks=hooks, options=options)
    else:
        encoder = TimmEncoder(backbone, pretrained=pretrained, options=options)
    if max_depth is not None and output_activation != OutputActivation.RELU:
        raise RecipeError(
            f"expected no output_activation beside max_depth={max_depth}, a sigmoid; got {str(output_activation)!r}."
        )
    predicts = Representation.DEPTH if output_activation == OutputActivation.EXP else Representation.DISPARITY
    return DepthNet(
        encoder,
        partial(DPTDecoder, features=features, out_channels=out_channels),
        partial(DPTHead, representation=predicts, output_activation=output_activation)
        if max_depth is None
        else partial(SigmoidDepthHead, max_depth=max_depth),
    )


def _dinov2(size: str, features: int, out_channels: Sequence[int], arguments: Mapping[str, Any]) -> DepthNet:
    return dpt_timm(f"vit_{size}_patch14_dinov2.lvd142m", features=features, out_channels=out_channels, **arguments)


@architecture
def dpt_dinov2_small(
    *,
    pretrained: bool | str | Path = True,
    hooks: Hooks = HookSet.V1,
    max_depth: float | None = None,
    output_activation: OutputActivation | str = OutputActivation.RELU,
    position_interpolation: PositionInterpolation | str = PositionInterpolation.TRANSFORMERS,
) -> DepthNet:
    """Build Depth Anything Small: DINOv2 ViT-S/14 and DPT, 24.8 M parameters, made for images of about 518x518.

    ``pretrained=True`` gives the encoder DINOv2's weights, from which the paper trains. For the published depth weights see
    ``load_published``.

    Args:
        pretrained: the encoder's weights, see ``ViTEncoder``.
        hooks: "v1" or "v2", the version of Depth Anything; see ``ViTEncoder``.
        max_depth: None for disparity; v2's metric networks have 20 and 80 m; see ``dpt_timm``.
        output_activation: see ``dpt_timm``.
        position_interpolation: see ``ViTEncoder``.
    """
    return _dinov2("small", 64, (48, 96, 192, 384), dict(locals()))


@architecture
def dpt_dinov2_base(
    *,
    pretrained: bool | str | Path = True,
    hooks: Hooks = HookSet.V1,
    max_depth: float | None = None,
    output_activation: OutputActivation | str = OutputActivation.RELU,
    position_interpolation: PositionInterpolation | str = PositionInterpolation.TRANSFORMERS,
) -> DepthNet:
    """Build Depth Anything Base: DINOv2 ViT-B/14 and DPT, 97.5 M parameters; arguments of ``dpt_dinov2_small``."""
    return _dinov2("base", 128, (96, 192, 384, 768), dict(locals()))


@architecture
def dpt_dinov2_large(
    *,
    pretrained: bool | str | Path = True,
    hooks: Hooks = HookSet.V1,
    max_depth: float | None = None,
    output_activation: OutputActivation | str = OutputActivation.RELU,
    position_interpolation: PositionInterpolation | str = PositionInterpolation.TRANSFORMERS,
) -> DepthNet:
    """Build Depth Anything Large: DINOv2 ViT-L/14 and DPT, 335.3 M parameters; arguments of ``dpt_dinov2_small``."""
    return _dinov2("large", 256, (256, 512, 1024, 1024), dict(locals()))
