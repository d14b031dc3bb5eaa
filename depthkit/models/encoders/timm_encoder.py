"""Encoders: timm backbones that publish the facts from which the rest of a network is built."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from depthkit.errors import RecipeError
from depthkit.models.encoders.survey import survey
from depthkit.models.weights.backbone import load_backbone

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class TimmEncoder(nn.Module):
    """A timm backbone as an encoder, from a normalised image to a list of feature maps, finest first.

    Backbones whose maps have their channels last (Swin) are permuted. Backbones of a fixed image size are opened to any size by
    timm's own options, or refused if it has none.

    Args:
        name: timm's name of the model, for example ``resnet18.a1_in1k``.
        pretrained: True downloads timm's weights; False draws random ones and downloads nothing; otherwise a weight file, or
            ``package:NAME`` for the weight file inside an installed Python package.
        strides: strides of the maps to return [px]. None takes ``out_indices``.
        out_indices: positions of the maps to return, for backbones whose maps all have one stride (the blocks of a ViT).
        mean: mean of each input channel, in [0, 1]; default: of the images that timm's weights were trained on.
        std: standard deviation of each input channel, with the same default.
        options: further arguments of ``timm.create_model``, for example ``{"dynamic_img_size": True}``.

    Attributes:
        channels: channels of each map.
        strides: input pixels per pixel of each map.
        mean: mean of each input channel.
        std: standard deviation of each input channel.
        patch_size: side of a ViT's patch [px]; None for other backbones.

    Raises:
        RecipeError: timm has no such model, the model has no map at such a stride, or takes images of one size only.
        CheckpointError: the weights cannot be found or read, or do not fit.
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
        chosen = {} if out_indices is None else {"out_indices": tuple(out_indices)}
        found = survey(name, {**(options or {}), **chosen})
        if out_indices is None and strides is not None:
            chosen = {"out_indices": _indices(name, strides, found.strides)}
        self.backbone = load_backbone(name, pretrained, **{**found.options, **chosen})
        self.channels: tuple[int, ...] = tuple(self.backbone.feature_info.channels())
        self.strides: tuple[int, ...] = tuple(self.backbone.feature_info.reduction())
        self._channels_last = found.channels_last
        configuration = self.backbone.pretrained_cfg
        self.mean: tuple[float, ...] = tuple(configuration["mean"] if mean is None else mean)
        self.std: tuple[float, ...] = tuple(configuration["std"] if std is None else std)
        self.patch_size: int | None = self.strides[0] if len(set(self.strides)) == 1 else None

    def forward(self, image: Tensor) -> list[Tensor]:
        """Compute feature maps ``(B, channels[k], H / strides[k], W / strides[k])`` of normalised images ``(B, 3, H, W)``."""
        maps = self.backbone(image)
        return [x.permute(0, 3, 1, 2) for x in maps] if self._channels_last else list(maps)


def _indices(name: str, strides: Sequence[int], there: Sequence[int]) -> tuple[int, ...]:
    if any(list(there).count(stride) != 1 for stride in strides):
        raise RecipeError(
            f"expected one feature map of {name} at each stride of {tuple(strides)}; its maps have strides {tuple(there)}. "
            "Choose others of them as strides, or maps by position with out_indices."
        )
    return tuple(list(there).index(stride) for stride in strides)
