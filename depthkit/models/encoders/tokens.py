"""Transformers of timm other than ``VisionTransformer`` as encoders: DINOv3 and EVA-02, whose positions are rotations."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from depthkit.errors import RecipeError
from depthkit.models.encoders.survey import survey
from depthkit.models.encoders.vit import Hooks, HookSet, choose_blocks
from depthkit.models.weights.backbone import load_backbone

_AFTER = ("fc_norm", "head", "attn_pool")
"""Parts of timm's transformers that no map depends on."""


class TokenEncoder(nn.Module):
    """A transformer of timm as an encoder with one map for each block in ``hooks``, all of one stride.

    As in ``ViTEncoder`` a block's tokens pass through the network's closing normalisation (of which EVA-02 has none before it
    pools), class and register tokens are dropped, and parameters that no map depends on are frozen. Transformers of one image
    size, such as BEiT, whose table of positions is made for it, are refused.

    Args:
        name: timm's name of the model, for example ``vit_small_patch16_dinov3.lvd1689m``.
        pretrained: see ``TimmEncoder``.
        hooks: see ``ViTEncoder``.
        options: further arguments of ``timm.create_model``.

    Attributes:
        channels, strides, mean, std, patch_size: as of ``TimmEncoder``.

    Raises:
        RecipeError: timm has no such model, its maps have several strides, it takes images of one size only, or has no such
            blocks.
        CheckpointError: the weights cannot be found or read, or do not fit.
    """

    backbone: Any

    def __init__(
        self,
        name: str,
        *,
        pretrained: bool | str | Path = True,
        hooks: Hooks = HookSet.V2,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        found = survey(name, options or {})
        if len(set(found.strides)) > 1:
            raise RecipeError(
                f"expected a transformer whose maps have one stride; those of {name} have {found.strides}. Use TimmEncoder."
            )
        self.hooks = choose_blocks(hooks, found.blocks, name)
        self.backbone = load_backbone(name, pretrained, features_only=False, **found.options)
        for unused in (*(getattr(self.backbone, part, None) for part in _AFTER), self.backbone.blocks[self.hooks[-1] + 1 :]):
            if unused is not None:
                unused.requires_grad_(False)
        self.patch_size: int = found.strides[0]
        self.channels: tuple[int, ...] = (self.backbone.num_features,) * len(self.hooks)
        self.strides: tuple[int, ...] = (self.patch_size,) * len(self.hooks)
        self.mean: tuple[float, ...] = tuple(self.backbone.pretrained_cfg["mean"])
        self.std: tuple[float, ...] = tuple(self.backbone.pretrained_cfg["std"])

    def forward(self, image: Tensor) -> list[Tensor]:
        """Compute the maps ``(B, channels[k], H / patch_size, W / patch_size)`` of a normalised image ``(B, 3, H, W)``."""
        maps: list[Tensor] = self.backbone.forward_intermediates(
            image, indices=list(self.hooks), norm=True, stop_early=True, intermediates_only=True
        )
        return maps
