"""The network in a training checkpoint, rebuilt without the paradigm that trained it and without running code from the file."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import nn

from depthkit.errors import CheckpointError
from depthkit.models.build import build
from depthkit.models.diffusion.build import latent_diffusion
from depthkit.models.net import DepthNet
from depthkit.models.weights.files import check_fit
from depthkit.types import Ambiguity


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
        path: the ``.ckpt`` file. It is read as plain tensors and values; nothing in it is executed. Or a folder of diffusers
            with a latent diffusion model, see ``latent_diffusion``.
        allow: beginnings of names that may be imported to build a network which is not of ``depthkit.models``, such as
            ``"mypackage."``. Such a network says how in its attribute ``config``: ``{"class_path": ..., "init_args": {...}}``.

    Raises:
        CheckpointError: no such file, no checkpoint of depthkit, a network that may not be or cannot be built, or weights that
            do not fit it (all keys are listed).
    """
    path = Path(path)
    if path.is_dir():
        network = latent_diffusion(pretrained=path)
        return Checkpoint(network.eval(), network.ambiguity, None)
    facts, state = _read(path)
    size = tuple(facts.get("size") or ())
    known_size = (int(size[0]), int(size[1])) if len(size) == 2 else None
    return Checkpoint(_part("model", facts, state, tuple(allow), path), Ambiguity(facts["ambiguity"]), known_size)


def read_pose_net(path: str | Path, *, allow: Sequence[str] = ()) -> nn.Module:
    """Rebuild the pose network that was trained with the depth network of a checkpoint; on the CPU, in evaluation mode.

    Args:
        path: the ``.ckpt`` file, see ``read_checkpoint``.
        allow: likewise.

    Raises:
        CheckpointError: as of ``read_checkpoint``, or there is no pose network in it.
    """
    path = Path(path)
    facts, state = _read(path)
    if not facts.get("pose_net"):
        raise CheckpointError(
            f"expected a checkpoint with a pose network; {path} has none that says how it was built. "
            "Train SelfSupervisedVideoModule on video with a pose_net of depthkit.models."
        )
    return _part("pose_net", facts, state, tuple(allow), path)


def _read(path: Path) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """What a checkpoint says of its networks, and its weights."""
    if not path.is_file():
        raise CheckpointError(f"expected a checkpoint at {path}; there is no such file.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file that is none makes the unpickler fail in whatever way its bytes happen to
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"expected a checkpoint of `depthkit fit` at {path}; it cannot be read ({reason}).") from error
    facts = content.get("depthkit") if isinstance(content, Mapping) else None
    if not isinstance(facts, Mapping) or not facts.get("model") or "state_dict" not in content:
        raise CheckpointError(
            f"expected a checkpoint of `depthkit fit` that says how its network was built; {path} does not. "
            "Build the network yourself, load its weights (depthkit.models.load_published reads published ones), and pass it "
            "to DepthPredictor(model, ambiguity=...)."
        )
    return facts, content["state_dict"]


def _part(name: str, facts: Mapping[str, Any], state: Mapping[str, Any], allow: tuple[str, ...], path: Path) -> nn.Module:
    """The network that is the attribute of this name of the module that was trained, with its weights."""
    network, prefix = _rebuild(facts[name], allow, path), f"{name}."
    weights = {key.removeprefix(prefix): x for key, x in state.items() if key.startswith(prefix)}
    check_fit(weights, network.state_dict(), f"the network that {path} describes")
    network.load_state_dict(weights)
    return network.eval()


def _rebuild(config: Mapping[str, Any], allow: tuple[str, ...], path: Path) -> nn.Module:
    """The network of a ``config``, or one of the user's own from ``{"class_path": ..., "init_args": {...}}``."""
    if "class_path" not in config:
        network: nn.Module = build(config)  # the checkpoint's weights replace its own
        return network
    name = str(config["class_path"])
    if not name.startswith(allow):
        raise CheckpointError(
            f"the checkpoint asks to import {name}, which is not part of depthkit.models. "
            f"If you trust it, pass allow=[{name.rpartition('.')[0] + '.'!r}], or --allow '[{name.rpartition('.')[0]}.]'."
        )
    module, _, attribute = name.rpartition(".")
    try:
        model = getattr(import_module(module), attribute)(**(config.get("init_args") or {}))
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise CheckpointError(f"expected to build the network {name} of {path}; got: {error}") from error
    if not isinstance(model, nn.Module):
        raise CheckpointError(f"expected {name} to build a network; it built a {type(model).__name__}.")
    return model


def trained(path: str | Path) -> DepthNet:
    """The network of a checkpoint, to build upon: in a recipe ``base: {class_path: depthkit.models.trained, ...}``.

    Args:
        path: the ``.ckpt`` file; errors as of ``read_checkpoint``.
    """
    return cast(DepthNet, read_checkpoint(path).model)
