"""Backbones from weight files: of timm, of ``efficientnet_pytorch``, or of a whole Depth Anything."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import adapt_input_conv
from torch import Tensor, nn

from depthkit.checks import first_line
from depthkit.errors import CheckpointError, RecipeError
from depthkit.models.weights.files import PACKAGE, check_fit, read_weights

_DEPTH_ANYTHING = "pretrained.cls_token"  # ends the name of a weight of its encoder


def load_backbone(name: str, pretrained: bool | str | Path, *, features_only: bool = True, **options: Any) -> nn.Module:
    """Build a timm backbone with its weights.

    Args:
        name: timm's name of the model, with or without a tag of its weights.
        pretrained: True downloads timm's weights; False draws random ones; otherwise a file, or ``package:NAME``, with weights
            of the whole classifier in timm's names or in those of ``efficientnet_pytorch``, or of the feature extractor itself;
            or a file of Depth Anything, for its encoder.
            The weights of the classification layer are not used, all others must fit; a first convolution on RGB fits any
            ``in_chans``.
        features_only: build timm's feature extractor; False builds the whole network without its classification layer.
        options: further arguments of ``timm.create_model``.

    Raises:
        RecipeError: timm knows no such model.
        CheckpointError: the weights cannot be found or read, or do not fit.
    """
    check_name(name)
    kind = {"features_only": True} if features_only else {"num_classes": 0}
    if pretrained is True:
        try:
            return timm.create_model(name, pretrained=True, **kind, **options)
        except Exception as error:  # timm lets through whatever hub, urllib, safetensors or torch raise
            raise CheckpointError(
                f"expected to download the weights of {name}; got: {type(error).__name__}: {first_line(error)}. "
                f"Pass pretrained=<file> with weights you have, pretrained={PACKAGE}NAME with those of an installed package, "
                "or pretrained=False."
            ) from error
    backbone: Any = timm.create_model(name, pretrained=False, **kind, **options)
    if pretrained is False:
        return backbone
    state = read_weights(pretrained)
    remedy = f"Set pretrained (in a recipe --model.model.pretrained) to weights of {name}, or to false."
    for first in [key for key in state if key.endswith(_DEPTH_ANYTHING)]:  # its own file, and those trained from it
        prefix = first.removesuffix("cls_token")
        state = {key.removeprefix(prefix): x for key, x in state.items() if key.startswith(prefix)}
    if state.keys() == backbone.state_dict().keys():
        check_fit(state, backbone.state_dict(), name, remedy)
        backbone.load_state_dict(state)
        return backbone
    out_indices = options.pop("out_indices", None)
    with torch.device("meta"):
        whole: Any = timm.create_model(name, **options)
    expected = whole.state_dict()
    state = timm_names(state, expected)
    first = f"{whole.pretrained_cfg.get('first_conv')}.weight"
    if first in state and options.get("in_chans", 3) != 3 == state[first].shape[1]:
        state[first] = adapt_input_conv(options["in_chans"], state[first])  # as timm does: repeat, and divide by how often
    classifier = whole.pretrained_cfg.get("classifier") or ()
    heads = tuple(f"{head}." for head in ((classifier,) if isinstance(classifier, str) else classifier))
    state = _without(state, (*heads, "mask_token"))  # DINOv2's files hold one, for training by masking alone
    check_fit(state, _without(expected, heads), name, remedy)
    wanted = backbone.state_dict().keys()
    if wanted <= state.keys():
        backbone.load_state_dict({key: state[key] for key in wanted})
        return backbone
    # some feature extractors of timm rename modules (features.conv0 to features_conv0) and only timm knows how
    options |= {"out_indices": out_indices, "pretrained": True, "pretrained_cfg_overlay": {"state_dict": state}}
    backbone = timm.create_model(name, **kind, **options)
    for module in backbone.modules():  # or every copy of the model would carry the weights twice
        for configuration in ("pretrained_cfg", "default_cfg"):
            getattr(module, configuration, {}).pop("state_dict", None)
    return backbone


_EFFICIENTNET = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_EXPANDED_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_se_reduce": "se.conv_reduce",
    "_se_expand": "se.conv_expand",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_PLAIN_BLOCK = _EXPANDED_BLOCK | {"_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def timm_names(state: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """Rename a state dict of ``efficientnet_pytorch`` (and of its Lite variants) to timm's names; return any other unchanged.

    Args:
        state: the weights. That package numbers the blocks of an EfficientNet consecutively, timm by stage and block.
        names: timm's names in the order of the network. A weight without a place there keeps its own name.
    """
    if "_conv_stem.weight" not in state:
        return dict(state)
    blocks = list(dict.fromkeys(match.group() for match in map(re.compile(r"blocks\.\d+\.\d+").match, names) if match))

    def renamed(key: str) -> str:
        match = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key)
        if match is None:
            module, _, leaf = key.rpartition(".")
            return f"{_EFFICIENTNET.get(module, module)}.{leaf}"
        number, module, leaf = match.groups()
        layout = _EXPANDED_BLOCK if f"_blocks.{number}._expand_conv.weight" in state else _PLAIN_BLOCK
        return f"{blocks[int(number)]}.{layout[module]}.{leaf}" if int(number) < len(blocks) and module in layout else key

    return {renamed(key): x for key, x in state.items()}


def _without(state: Mapping[str, Tensor], prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    return {key: x for key, x in state.items() if not key.startswith(prefixes)}


def check_name(name: str) -> None:
    """Check that ``name`` is a timm model.

    Raises:
        RecipeError: timm has no such model.
    """
    if not timm.is_model(name):
        raise RecipeError(f"expected the name of a timm model; got {name!r}. List names with timm.list_models('*resnet*').")
