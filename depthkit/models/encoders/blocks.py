"""EfficientNets with feature maps after given blocks, for networks whose levels do not end with timm's stages."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from timm.models import EfficientNetFeatures
from torch import Tensor, nn

from depthkit.errors import RecipeError
from depthkit.models.encoders.timm_encoder import TimmEncoder


class EfficientNetEncoder(TimmEncoder):
    """A timm EfficientNet or MobileNetV2 as an encoder, with maps from anywhere along its chain of blocks.

    Args:
        name: timm's name of the model, for example ``tf_efficientnet_b0.aa_in1k``.
        taps: number of blocks before each map, finest first; 0 takes the map of the stem.
        pretrained: see ``TimmEncoder``.
        mean: see ``TimmEncoder``.
        std: see ``TimmEncoder``.

    Raises:
        RecipeError: timm has no such model, it is not a chain of such blocks, or has fewer blocks.
        CheckpointError: the weights cannot be found or read, or do not fit.

    Example:
        >>> encoder = EfficientNetEncoder("tf_efficientnet_b0", taps=(0, 3, 5, 9, 16), pretrained=False)
        >>> encoder.channels, encoder.strides
        ((32, 24, 40, 112, 320), (2, 4, 8, 16, 32))
    """

    def __init__(
        self,
        name: str,
        *,
        taps: Sequence[int],
        pretrained: bool | str | Path = True,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__(name, pretrained=pretrained, strides=None, mean=mean, std=std)
        if not isinstance(self.backbone, EfficientNetFeatures) or not all(hasattr(b, "conv_dw") for b in self._blocks()):
            raise RecipeError(
                f"expected an EfficientNet or MobileNetV2 for maps after given blocks; got {name}. Leave out taps."
            )
        widths, strides = [_width(self.backbone.bn1)], [self.backbone.conv_stem.stride[0]]
        for block in self._blocks():
            widths.append(_width(block))
            strides.append(strides[-1] * block.conv_dw.stride[0])
        if not set(taps) <= set(range(len(widths))):
            raise RecipeError(f"expected taps from 0, the stem, to {len(widths) - 1}, {name}'s last block; got {tuple(taps)}.")
        self.taps = tuple(taps)
        self.channels = tuple(widths[tap] for tap in taps)
        self.strides = tuple(strides[tap] for tap in taps)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Compute feature maps ``(B, channels[k], H / strides[k], W / strides[k])`` of normalised images ``(B, 3, H, W)``."""
        x = self.backbone.bn1(self.backbone.conv_stem(image))
        maps = {0: x} if 0 in self.taps else {}
        for k, block in enumerate(self._blocks(), start=1):
            x = block(x)
            if k in self.taps:
                maps[k] = x
        return [maps[tap] for tap in self.taps]

    def _blocks(self) -> list[Any]:
        return list(chain.from_iterable(self.backbone.blocks))


def _width(block: nn.Module) -> int:
    """Return the output channels of a block: those of its last normalisation."""
    return [module.num_features for module in block.modules() if isinstance(module, nn.BatchNorm2d)][-1]
