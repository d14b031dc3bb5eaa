"""Names of weights in GP2's released checkpoints, and our names (Romanov et al. 2020; encoders of three packages)."""

import re
from collections.abc import Mapping

from torch import Tensor

from depthkit.models.weights.backbone import timm_names
from depthkit.models.weights.convert_dpt import Rules, renamed

_ENCODER = "branches.0."
# The decoder holds the encoder a second time. Classifier layers are never run.
_UNREAD = r"branches\.1\.backbone\.|branches\.0\.(_conv_head|_bn1|_fc|model\.conv_head|model\.bn2|model\.classifier)\."
_DECODER: Rules = (
    (r"branches\.1\.adapters\.(\d)\.0\.", r"decoder.narrow.\1."),
    (r"branches\.1\.up_branch\.(\d)\.0\.adapt\.", r"decoder.pool.\1.enter."),
    *((rf"branches\.1\.up_branch\.(\d)\.0\.{k + 1}_outvar_dimred\.", rf"decoder.pool.\1.links.{k}.") for k in range(4)),
    (r"branches\.1\.final_decoder\.0\.", "head.output."),
)
# torchvision's MobileNetV2, cut before each stride: (layer, first of its blocks, how many, timm's stage)
_MOBILENET_STAGES = ((2, 0, 2, 1), (3, 0, 3, 2), (4, 0, 4, 3), (4, 4, 3, 4), (5, 0, 3, 5), (5, 3, 1, 6))
_BLOCK = {"0.0": "conv_pw", "0.1": "bn1", "1.0": "conv_dw", "1.1": "bn2", "2": "conv_pwl", "3": "bn3"}
_FIRST_BLOCK = {"0.0": "conv_dw", "0.1": "bn1", "1": "conv_pw", "2": "bn2"}
_ENCODERS: Rules = (
    (r"layers\.1\.0\.0\.", "conv_stem."),
    (r"layers\.1\.0\.1\.", "bn1."),
    *((rf"layers\.1\.1\.conv\.{re.escape(old)}\.", f"blocks.0.0.{new}.") for old, new in _FIRST_BLOCK.items()),
    *(
        (rf"layers\.{layer}\.{first + i}\.conv\.{re.escape(old)}\.", f"blocks.{stage}.{i}.{new}.")
        for layer, first, count, stage in _MOBILENET_STAGES
        for i in range(count)
        for old, new in _BLOCK.items()
    ),
    (r"model\.", ""),  # EfficientNet-Lite0 of geffnet, in timm's names
)


def from_gp2(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename weights of GP2's eight networks, on MobileNetV2, EfficientNet-Lite0 and EfficientNet-B0 to B5."""
    read = {key: x for key, x in state.items() if not re.match(_UNREAD, key)}
    encoder = {key.removeprefix(_ENCODER): x for key, x in read.items() if key.startswith(_ENCODER)}
    encoder = renamed(timm_names(encoder, _blocks_of(encoder)), _ENCODERS)
    rest = {key: x for key, x in read.items() if not key.startswith(_ENCODER)}
    return renamed(rest, _DECODER) | {f"encoder.backbone.{key}": x for key, x in encoder.items()}


def _blocks_of(encoder: Mapping[str, Tensor]) -> list[str]:
    """List timm's names of the blocks that ``efficientnet_pytorch`` numbers: a stage ends where the channels change."""
    names, stage, place, width = [], -1, 0, None
    for number in sorted({int(match[1]) for match in map(re.compile(r"_blocks\.(\d+)\.").match, encoder) if match}):
        projection = encoder.get(f"_blocks.{number}._project_conv.weight")
        if projection is not None and len(projection) != width:
            stage, place, width = stage + 1, 0, len(projection)
        names.append(f"blocks.{stage}.{place}.")
        place += 1
    return names
