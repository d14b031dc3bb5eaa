"""Encoders: timm backbones that publish what the rest of a network must know about them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from depthkit.errors import RecipeError
from depthkit.models.weights.backbone import check_name, load_backbone

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class TimmEncoder(nn.Module):
    """A timm backbone as an encoder: a normalised image in, a list of feature maps out, finest first.

    Args:
        name: timm's name of the model, for example ``resnet18.a1_in1k``.
        pretrained: True downloads timm's weights; False draws random ones and downloads nothing; otherwise a weight file, or
            ``package:NAME`` for the weight file inside an installed Python package.
        strides: strides of the maps to return [px]. None takes ``out_indices``.
        out_indices: positions of the maps to return, for backbones whose maps all have one stride (the blocks of a ViT).
        mean: mean of an input channel, in [0, 1]; by default that of the images these weights were trained on.
        std: standard deviation of an input channel; likewise.
        options: further arguments of ``timm.create_model``, for example ``{"dynamic_img_size": True}``.

    Attributes:
        channels: channels of each map.
        strides: input pixels per pixel of each map.
        mean: mean of each input channel.
        std: standard deviation of each input channel.
        patch_size: side of a ViT's patch [px]; None for other backbones.

    Raises:
        RecipeError: timm has no such model, or the model no map at such a stride.
        CheckpointError: the weights cannot be had, or do not fit.
    """

    backbone: Any

    def __init__(
        self,
        name: str,
        *,
        pretrained: bool | str | Path = True,
        strides: Sequence[int] | None = (4, 8, 16, 32),
        out_indices: Sequence[int] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        options = dict(options or {})
        if out_indices is None and strides is not None:
            out_indices = _indices(name, strides, options)
        if out_indices is not None:
            options["out_indices"] = tuple(out_indices)
        self.backbone = load_backbone(name, pretrained, **options)
        self.channels: tuple[int, ...] = tuple(self.backbone.feature_info.channels())
        self.strides: tuple[int, ...] = tuple(self.backbone.feature_info.reduction())
        self._channels_last = str(getattr(self.backbone, "output_fmt", "NCHW")).endswith("NHWC")  # Swin and others
        configuration = self.backbone.pretrained_cfg
        self.mean: tuple[float, ...] = tuple(configuration["mean"] if mean is None else mean)
        self.std: tuple[float, ...] = tuple(configuration["std"] if std is None else std)
        self.patch_size: int | None = self.strides[0] if len(set(self.strides)) == 1 else None

    def forward(self, image: Tensor) -> list[Tensor]:
        """Feature maps ``(B, channels[k], H / strides[k], W / strides[k])`` of a normalised image ``(B, 3, H, W)``."""
        maps = self.backbone(image)
        return [x.permute(0, 3, 1, 2) for x in maps] if self._channels_last else list(maps)


def _indices(name: str, strides: Sequence[int], options: Mapping[str, Any]) -> tuple[int, ...]:
    check_name(name)
    with torch.device("meta"):
        backbone: Any = timm.create_model(name, features_only=True, **options)
    there = backbone.feature_info.reduction()
    if any(there.count(stride) != 1 for stride in strides):
        raise RecipeError(
            f"expected one feature map of {name} at each stride of {tuple(strides)}; its maps have strides {tuple(there)}. "
            "Choose others of them as strides, or maps by position with out_indices."
        )
    return tuple(there.index(stride) for stride in strides)
