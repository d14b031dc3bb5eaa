"""Vision transformers as encoders: the tokens of several blocks as maps of one stride."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from depthkit.checks import check_choice
from depthkit.errors import RecipeError
from depthkit.models.weights.backbone import check_name, load_backbone
from depthkit.precision import at_least_float32


class PositionInterpolation(StrEnum):
    """Rules by which position embeddings are resized; see ``resample_positions``."""

    TRANSFORMERS = "transformers"
    TIMM = "timm"
    DINOV2 = "dinov2"


class HookSet(StrEnum):
    """Blocks that the two versions of Depth Anything take."""

    V1 = "v1"
    V2 = "v2"


Hooks = HookSet | Sequence[int] | str


class ViTEncoder(nn.Module):
    """A vision transformer of timm as an encoder with one map for each block in ``hooks``, all of one stride.

    A block's tokens pass through the network's closing normalisation; class and register tokens are dropped. Parameters that
    no map depends on (blocks after the last hook) are frozen. ``encoder.backbone.set_grad_checkpointing()`` saves memory in
    training and takes a third more time.

    Args:
        name: timm's name of a ``VisionTransformer``, for example ``vit_small_patch14_dinov2.lvd142m``.
        pretrained: see ``TimmEncoder``; also a file of DINOv2's authors, or a file of Depth Anything, for its encoder.
        hooks: blocks to take, from 0: "v1" the last four, as in Depth Anything v1; "v2" four spread over the depth, as in v2.
            Weights fit either choice, but published ones predict well only with their own.
        position_interpolation: how position embeddings are resized to an image's grid; see ``resample_positions``.
        options: further arguments of ``timm.create_model``, for example ``{"drop_path_rate": 0.1}``.

    Attributes:
        channels, strides, mean, std, patch_size: as of ``TimmEncoder``.

    Raises:
        RecipeError: timm has no such model, it is not a ``VisionTransformer``, has no such blocks, or an unknown interpolation.
        CheckpointError: the weights cannot be found or read, or do not fit.
    """

    backbone: Any

    def __init__(
        self,
        name: str,
        *,
        pretrained: bool | str | Path = True,
        hooks: Hooks = HookSet.V1,
        position_interpolation: PositionInterpolation | str = PositionInterpolation.TRANSFORMERS,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not is_vit(name):
            raise RecipeError(f"expected a VisionTransformer of timm; got {name}. Use TimmEncoder for other backbones.")
        self.position_interpolation = check_choice("position_interpolation", position_interpolation, PositionInterpolation)
        self.backbone = load_backbone(name, pretrained, features_only=False, **{"dynamic_img_size": True, **(options or {})})
        self.hooks = choose_blocks(hooks, len(self.backbone.blocks), name)
        for unused in (self.backbone.fc_norm, self.backbone.head, self.backbone.attn_pool, self._blocks_after()):
            if unused is not None:
                unused.requires_grad_(False)
        self.patch_size: int = self.backbone.patch_embed.patch_size[0]
        self.channels: tuple[int, ...] = (self.backbone.embed_dim,) * len(self.hooks)
        self.strides: tuple[int, ...] = (self.patch_size,) * len(self.hooks)
        self.mean: tuple[float, ...] = tuple(self.backbone.pretrained_cfg["mean"])
        self.std: tuple[float, ...] = tuple(self.backbone.pretrained_cfg["std"])

    def _blocks_after(self) -> Any:
        return self.backbone.blocks[max(self.hooks) + 1 :]

    def forward(self, image: Tensor) -> list[Tensor]:
        """Compute the maps ``(B, channels[k], H / patch_size, W / patch_size)`` of a normalised image ``(B, 3, H, W)``."""
        x = self.backbone.patch_embed(image)
        height, width = x.shape[1:3]
        x = self._with_positions(x.flatten(1, 2), (height, width))
        maps = []
        keep_less = self.backbone.grad_checkpointing and torch.is_grad_enabled()
        for index, block in enumerate(self.backbone.blocks[: max(self.hooks) + 1]):
            x = checkpoint(block, x, use_reentrant=False) if keep_less else block(x)
            if index in self.hooks:
                patches = self.backbone.norm(x)[:, self.backbone.num_prefix_tokens :]
                maps.append(patches.transpose(1, 2).unflatten(2, (height, width)))
        return maps

    def _with_positions(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """Add positions to patch tokens ``(B, h w, C)``, and class and register tokens before them."""
        vit = self.backbone
        prefix = [token.expand(x.shape[0], -1, -1) for token in (vit.cls_token, vit.reg_token) if token is not None]
        alone = 0 if vit.no_embed_class else vit.num_prefix_tokens
        positions = resample_positions(vit.pos_embed, grid, vit.patch_embed.grid_size, alone, self.position_interpolation)
        x = torch.cat([*prefix, x + positions], 1) if vit.no_embed_class else torch.cat([*prefix, x], 1) + positions
        return vit.norm_pre(vit.patch_drop(vit.pos_drop(x)))


def resample_positions(
    positions: Tensor, grid: tuple[int, int], trained: tuple[int, int], prefix: int, rule: PositionInterpolation
) -> Tensor:
    """Resize position embeddings to another grid of patches, bicubic.

    Args:
        positions: ``(1, prefix + h w, C)``, of the grid they were trained on.
        grid: patches along height and width of the image.
        trained: patches along height and width (h, w) of the embeddings.
        prefix: number of leading embeddings that belong to no patch.
        rule: "transformers" samples at the new size; "timm" also smooths before it shrinks; "dinov2" (its authors, and
            Depth Anything's) scales by (size + 0.1) / trained size, which shifts the samples a little.

    Returns:
        ``(1, prefix + grid[0] grid[1], C)``; ``positions`` itself if the grids are equal, whatever the rule.
    """
    if tuple(grid) == tuple(trained):
        return positions
    image = at_least_float32(positions[:, prefix:]).transpose(1, 2).unflatten(2, trained)
    if rule == PositionInterpolation.DINOV2:
        scale = [(new + 0.1) / old for new, old in zip(grid, trained, strict=True)]
        image = F.interpolate(image, scale_factor=scale, mode="bicubic")
    else:
        image = F.interpolate(image, size=grid, mode="bicubic", antialias=rule == PositionInterpolation.TIMM)
    return torch.cat([positions[:, :prefix], image.flatten(2).transpose(1, 2).to(positions.dtype)], 1)


def is_vit(name: str) -> bool:
    """Tell whether timm builds a ``VisionTransformer`` under this name.

    Raises:
        RecipeError: timm knows no such model.
    """
    check_name(name)
    with torch.device("meta"):
        model: Any = timm.create_model(name)
    return type(model) is VisionTransformer and model.pos_embed is not None


def choose_blocks(hooks: Hooks, depth: int, name: str) -> tuple[int, ...]:
    """List the blocks that ``hooks`` names in a transformer of ``depth`` blocks.

    Raises:
        RecipeError: there are no such blocks.
    """
    if isinstance(hooks, str):
        # Depth Anything v2 takes every quarter's last block, but for 24 blocks what DINOv2's authors chose
        v2 = (4, 11, 17, 23) if depth == 24 else tuple(depth * k // 4 - 1 for k in (1, 2, 3, 4))
        known = {HookSet.V1: tuple(range(depth - 4, depth)), HookSet.V2: v2}
        if hooks not in known:
            raise RecipeError(f"expected hooks v1, v2 or numbers of blocks; got {hooks!r}.")
        hooks = known[HookSet(hooks)]
    chosen = tuple(hooks)
    if not chosen or sorted(set(chosen)) != list(chosen) or chosen[0] < 0 or chosen[-1] >= depth:
        raise RecipeError(f"expected hooks as rising numbers of the {depth} blocks of {name}, from 0; got {chosen}.")
    return chosen
