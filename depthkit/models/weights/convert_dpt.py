"""Names of weights in published checkpoints of Depth Anything and ZoeDepth, and our names."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

Rules = tuple[tuple[str, str], ...]

# refinenet4, the coarsest fusion block, is our first
FUSION: Rules = (
    *((rf"scratch\.layer{k}_rn\.", f"decoder.lateral.{k - 1}.") for k in (1, 2, 3, 4)),
    *((rf"scratch\.refinenet{k}\.resConfUnit1\.", f"decoder.fusion.{4 - k}.skip_unit.") for k in (1, 2, 3, 4)),
    *((rf"scratch\.refinenet{k}\.resConfUnit2\.", f"decoder.fusion.{4 - k}.unit.") for k in (1, 2, 3, 4)),
    *((rf"scratch\.refinenet{k}\.out_conv\.", f"decoder.fusion.{4 - k}.out.") for k in (1, 2, 3, 4)),
)
_DEPTH_ANYTHING: Rules = (
    (r"pretrained\.", "encoder.backbone."),
    (r"depth_head\.projects\.(\d)\.", r"decoder.reassemble.\1.project."),
    (r"depth_head\.resize_layers\.(\d)\.", r"decoder.reassemble.\1.resize."),
    *((rf"depth_head\.{old}", new) for old, new in FUSION),
    (r"depth_head\.scratch\.output_conv1\.", "head.reduce."),
    (r"depth_head\.scratch\.output_conv2\.0\.", "head.refine."),
    (r"depth_head\.scratch\.output_conv2\.2\.", "head.output."),
)
_ZOEDEPTH: Rules = (
    (r"conv2\.", "head.bottleneck."),
    (r"seed_bin_regressor\._net\.", "head.seed."),
    (r"seed_projector\._net\.", "head.seed_embedding."),
    (r"projectors\.(\d)\._net\.", r"head.embedding.\1."),
    (r"attractors\.(\d)\._net\.", r"head.attractors.\1."),
    (r"conditional_log_binomial\.mlp\.", "head.distribution."),
)
_BLOCK = r"backbone\.encoder\.layer\.(\d+)\."
_TRANSFORMERS: Rules = (
    (r"backbone\.embeddings\.cls_token", "encoder.backbone.cls_token"),
    (r"backbone\.embeddings\.position_embeddings", "encoder.backbone.pos_embed"),
    (r"backbone\.embeddings\.patch_embeddings\.projection\.", "encoder.backbone.patch_embed.proj."),
    (r"backbone\.layernorm\.", "encoder.backbone.norm."),
    (_BLOCK + r"attention\.(o_proj|output\.dense)\.", r"encoder.backbone.blocks.\1.attn.proj."),
    (_BLOCK + r"attention\.qkv\.", r"encoder.backbone.blocks.\1.attn.qkv."),
    (_BLOCK + r"layer_scale([12])\.lambda1", r"encoder.backbone.blocks.\1.ls\2.gamma"),
    (_BLOCK + r"(norm[12]|mlp)\.", r"encoder.backbone.blocks.\1.\2."),
    (r"neck\.reassemble_stage\.layers\.(\d)\.projection\.", r"decoder.reassemble.\1.project."),
    (r"neck\.reassemble_stage\.layers\.(\d)\.resize\.", r"decoder.reassemble.\1.resize."),
    (r"neck\.convs\.", "decoder.lateral."),
    (r"neck\.fusion_stage\.layers\.(\d)\.projection\.", r"decoder.fusion.\1.out."),
    (r"neck\.fusion_stage\.layers\.(\d)\.residual_layer1\.convolution", r"decoder.fusion.\1.skip_unit.conv"),
    (r"neck\.fusion_stage\.layers\.(\d)\.residual_layer2\.convolution", r"decoder.fusion.\1.unit.conv"),
    (r"(?:relative_)?head\.conv1\.", "head.reduce."),
    (r"(?:relative_)?head\.conv2\.", "head.refine."),
    (r"(?:relative_)?head\.conv3\.", "head.output."),
)
_TRANSFORMERS_BINS: Rules = (
    *((rf"metric_head\.(seed_\w+|\w+\.\d)\.conv{k}\.", rf"\1._net.{2 * k - 2}.") for k in (1, 2)),
    (r"metric_head\.", ""),
)
_QUERY_KEY_VALUE = re.compile(r"(.*\.attention\.)(?:attention\.(query|key|value)|(q|k|v)_proj)\.(weight|bias)")


def renamed(state: Mapping[str, Tensor], rules: Rules) -> dict[str, Tensor]:
    """Replace the first matching prefix of each name; keep names without a rule, so that they are listed as unexpected."""

    def name(key: str) -> str:
        return next((re.sub(old, new, key, count=1) for old, new in rules if re.match(old, key)), key)

    return {name(key): x for key, x in state.items()}


def from_depth_anything(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename weights of Depth Anything v1 and v2, relative and metric, from their authors' names."""
    return renamed(_without(state, "pretrained.mask_token"), _DEPTH_ANYTHING)


def from_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename weights of ``DepthAnythingForDepthEstimation``, of this and earlier versions of transformers."""
    return renamed(_joined(_without(state, "backbone.embeddings.mask_token")), _TRANSFORMERS)


def from_zoedepth(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename weights of ZoeDepth on DINOv2: of Depth Anything's authors, or of ``ZoeDepthForDepthEstimation``."""
    if any(key.startswith("metric_head.") for key in state):
        bins = renamed({key: x for key, x in state.items() if key.startswith("metric_head.")}, _TRANSFORMERS_BINS)
        base = from_transformers({key: x for key, x in state.items() if not key.startswith("metric_head.")})
    else:
        prefix = "core.core."
        bins = {key: x for key, x in state.items() if not key.startswith(prefix)}
        base = from_depth_anything({key.removeprefix(prefix): x for key, x in state.items() if key.startswith(prefix)})
    constants = "conditional_log_binomial.log_binomial_transform."  # the classes' numbers
    return renamed(base, ((r"head\.", "head.relative."),)) | renamed(_without(bins, constants), _ZOEDEPTH)


def _without(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key: x for key, x in state.items() if not key.startswith(prefix)}


def _joined(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Join query, key and value of each block, in this order; keep incomplete ones, so that they are listed as unexpected."""
    found: dict[str, dict[str, str]] = {}
    for key in state:
        if match := _QUERY_KEY_VALUE.fullmatch(key):
            before, old, new, leaf = match.groups()
            found.setdefault(f"{before}qkv.{leaf}", {})[(old or new)[0]] = key
    whole = {name: [parts[part] for part in "qkv"] for name, parts in found.items() if len(parts) == 3}
    used = {key for keys in whole.values() for key in keys}
    rest = {key: x for key, x in state.items() if key not in used}
    return rest | {name: torch.cat([state[key] for key in keys]) for name, keys in whole.items()}
