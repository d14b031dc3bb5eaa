"""The network in a training checkpoint, rebuilt without the paradigm that trained it and without running code from the file."""

import inspect
import pickle
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from depthkit import models
from depthkit.errors import CheckpointError
from depthkit.models.weights import check_fit
from depthkit.types import Ambiguity

_PREFIX = "model."  # of the network's weights in a LightningModule's state
_HOME = "depthkit.models."


class Checkpoint(NamedTuple):
    """What a predictor needs of a checkpoint.

    Attributes:
        model: the network with its trained weights, on the CPU, in evaluation mode.
        ambiguity: what its predictions leave undetermined.
        size: (height, width) [px] of the images it was trained on, if recorded.
    """

    model: nn.Module
    ambiguity: Ambiguity
    size: tuple[int, int] | None


def read_checkpoint(path: str | Path, *, allow: Sequence[str] = ()) -> Checkpoint:
    """Rebuild the network that a checkpoint of ``depthkit fit`` holds.

    Args:
        path: the ``.ckpt`` file. It is read as plain tensors and values; nothing in it is executed.
        allow: beginnings of further names that may be imported to build the network, such as ``"mypackage.models."``; without
            them only the public names of ``depthkit.models`` are.

    Raises:
        CheckpointError: no such file, no checkpoint of depthkit, a network that may not be or cannot be built, or weights that
            do not fit it (all keys are listed).
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"expected a checkpoint at {path}; there is no such file.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"expected a checkpoint of `depthkit fit` at {path}; it cannot be read ({reason}).") from error
    facts = content.get("depthkit") if isinstance(content, Mapping) else None
    if not isinstance(facts, Mapping) or not facts.get("model") or "state_dict" not in content:
        raise CheckpointError(
            f"expected a checkpoint of `depthkit fit` that says how its network was built; {path} does not. "
            "Build the network yourself, load its weights (depthkit.models.load_published reads published ones), and pass it "
            "to DepthPredictor(model, ambiguity=...)."
        )
    model = build_model(facts["model"], allow=allow)
    weights = {k.removeprefix(_PREFIX): x for k, x in content["state_dict"].items() if k.startswith(_PREFIX)}
    check_fit(weights, model.state_dict(), f"the network that {path} describes")
    model.load_state_dict(weights)
    size = tuple(facts.get("size") or ())
    return Checkpoint(model.eval(), Ambiguity(facts["ambiguity"]), (int(size[0]), int(size[1])) if len(size) == 2 else None)


def build_model(config: Mapping[str, Any], *, allow: Sequence[str] = ()) -> nn.Module:
    """The network that ``{"class_path": ..., "init_args": {...}}`` describes, always with ``pretrained=False``.

    Args:
        config: plain values; an argument may itself be such a description.
        allow: as in ``read_checkpoint``.

    Raises:
        CheckpointError: a name that may not be imported or does not exist, or arguments it does not take.
    """
    model = _instantiate(config, tuple(allow))
    if not isinstance(model, nn.Module):
        raise CheckpointError(f"expected {config.get('class_path')} to build a network; it built a {type(model).__name__}.")
    return model


def _instantiate(config: Any, allow: tuple[str, ...]) -> Any:
    if isinstance(config, list | tuple):
        return [_instantiate(item, allow) for item in config]
    if not isinstance(config, Mapping) or "class_path" not in config:
        return config
    factory = _named(str(config["class_path"]), allow)
    arguments = {name: _instantiate(value, allow) for name, value in (config.get("init_args") or {}).items()}
    if "pretrained" in inspect.signature(factory).parameters:
        arguments["pretrained"] = False  # the checkpoint's weights replace them
    try:
        return factory(**arguments)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"expected to build {config['class_path']} with {', '.join(arguments) or 'no arguments'}; got: {error} "
            "Was the checkpoint written by another version?"
        ) from error


def _named(name: str, allow: tuple[str, ...]) -> Any:
    module, _, attribute = name.rpartition(".")
    public = f"{module}." == _HOME and attribute in models.__all__
    if not public and not name.startswith(allow):
        raise CheckpointError(
            f"the checkpoint asks to import {name}, which is no public name of depthkit.models. "
            f"If you trust it, pass allow=[{f'{module}.'!r}]."
        )
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise CheckpointError(
            f"the checkpoint's network {name} cannot be imported ({error}). Install what defines it."
        ) from error
