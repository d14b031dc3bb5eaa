"""Networks in checkpoints: write them, and rebuild them without their paradigm and without running code from the file."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from depthkit.checks import first_line, garbled
from depthkit.errors import CheckpointError
from depthkit.models.build import build, is_architecture
from depthkit.models.diffusion.build import latent_diffusion
from depthkit.models.net import DepthNet
from depthkit.models.weights.facts import NETWORKS, give_rules, read_facts, write_facts
from depthkit.models.weights.files import check_fit, plain_network, plain_state
from depthkit.types import Ambiguity
from depthkit.writing import replacing

# Entries that Lightning needs in a file to validate or predict with.
_TRAINER = {"pytorch-lightning_version": "2.6.4", "epoch": 0, "global_step": 0, "callbacks": {}}


class Checkpoint(NamedTuple):
    """The content of a checkpoint for a predictor.

    Attributes:
        model: the network with its trained weights, on the CPU, in evaluation mode.
        ambiguity: what its predictions leave undetermined.
        size: (height, width) [px] of the images it was trained on, if recorded.
    """

    model: nn.Module
    ambiguity: Ambiguity
    size: tuple[int, int] | None


def read_checkpoint(path: str | Path, *, allow: Sequence[str] = ()) -> Checkpoint:
    """Rebuild the network that a checkpoint of ``depthkit fit`` or a file of ``save_network`` holds.

    Args:
        path: the ``.ckpt`` file, read as plain tensors and values, so that nothing in it is executed; or a folder of diffusers
            with a latent diffusion model, see ``latent_diffusion``.
        allow: beginnings of names that may be imported to build a network from outside of ``depthkit.models``, such as
            ``"mypackage."``: the module of a function under ``architecture``, or the class in the network's attribute
            ``config``, ``{"class_path": ..., "init_args": {...}}``.

    Raises:
        CheckpointError: the file does not exist, is not a checkpoint of depthkit, its network must not or cannot be built, or
            the weights do not fit the network.
    """
    path = Path(path)
    if path.is_dir():
        network = latent_diffusion(pretrained=path)
        return Checkpoint(network.eval(), network.ambiguity, None)
    facts, state = read_facts(path)
    with _read(path):
        size = tuple(facts.get("size") or ())
        known_size = (int(size[0]), int(size[1])) if len(size) == 2 else None
        model = _part("model", facts, state, tuple(allow), path)
        give_rules(model, facts)
        return Checkpoint(model, Ambiguity(facts["ambiguity"]), known_size)


def read_pose_net(path: str | Path, *, allow: Sequence[str] = ()) -> nn.Module:
    """Rebuild the pose network that was trained with the depth network of a checkpoint; on the CPU, in evaluation mode.

    Args:
        path: the ``.ckpt`` file, see ``read_checkpoint``.
        allow: see ``read_checkpoint``.

    Raises:
        CheckpointError: as of ``read_checkpoint``, or the file has no pose network.
    """
    path = Path(path)
    facts, state = read_facts(path)
    if not facts.get("pose_net"):
        raise CheckpointError(
            f"expected a checkpoint with a pose network; {path} has none that says how it was built. "
            "Train SelfSupervisedVideoModule on video with a pose_net of depthkit.models."
        )
    with _read(path):
        return _part("pose_net", facts, state, tuple(allow), path)


def save_network(
    model: nn.Module,
    path: str | Path,
    *,
    ambiguity: Ambiguity | str | None = None,
    size: tuple[int, int] | None = None,
) -> None:
    """Write a network as a checkpoint that every command reads, ``predict`` and ``validate`` too.

    Its own ``input_rule``, ``output_rule``, ``canonical_focal`` and ``flip`` are stored with it, where it has them.

    Args:
        model: a ``DepthNet`` built by one of ``depthkit.models``' functions, also under ``torch.compile`` or ``DataParallel``.
        path: the ``.ckpt`` file.
        ambiguity: what its predictions leave undetermined: shift_scale for relative networks, metric for depth in metres;
            default what the network states.
        size: (height, width) [px] of the images it was trained on; default what the network states, else 384x384.

    Raises:
        CheckpointError: the network was put together from parts, or the folder does not exist.
        LabelError: there is no such ambiguity, or none is known.
        PredictionError: the disk refuses it; what was there before is whole.
    """
    model = plain_network(model)
    if not isinstance(model, DepthNet) or model.config is None:
        raise CheckpointError(
            "expected a network that knows how it was built; got one put together from parts. Build it by a function of "
            "depthkit.models, or by one of your own under depthkit.models.architecture."
        )
    if not Path(path).parent.is_dir():
        raise CheckpointError(f"expected {path} to be in a folder that exists. Make it first.")
    state = plain_state(model.state_dict())
    content: dict[str, Any] = {**_TRAINER, "state_dict": {f"model.{key}": x for key, x in state.items()}}
    write_facts(content, model, ambiguity, size)
    stream = BytesIO()  # on a full disk torch's own writer aborts the process
    torch.save(content, stream)
    with replacing(Path(path)) as part:
        part.write_bytes(stream.getbuffer())


def fresh_networks(path: str | Path) -> dict[str, nn.Module]:
    """Build the networks that a checkpoint describes, by attribute of the training module, with random weights.

    Raises:
        CheckpointError: as of ``read_facts``, or a network cannot be built.
    """
    facts, _ = read_facts(path)
    with _read(path):
        networks: dict[str, Any] = {name: build(facts[name]) for name in NETWORKS if facts.get(name)}
        give_rules(networks["model"], facts)
        return networks


def _read(path: str | Path) -> AbstractContextManager[None]:
    return garbled(f"the facts of a network in {path}", CheckpointError, "Get the file again.")


def _part(name: str, facts: Mapping[str, Any], state: Mapping[str, Any], allow: tuple[str, ...], path: Path) -> nn.Module:
    """Rebuild the network that was the attribute ``name`` of the trained module, with its weights."""
    network, prefix = _rebuild(facts[name], allow, path), f"{name}."
    weights = plain_state({key.removeprefix(prefix): x for key, x in state.items() if key.startswith(prefix)})
    check_fit(weights, network.state_dict(), f"the network that {path} describes", "Take the file that was written with them.")
    network.load_state_dict(weights)
    return network.eval()


def _rebuild(config: Mapping[str, Any], allow: tuple[str, ...], path: Path) -> nn.Module:
    """Build the network of a ``config``, or the user's own from ``{"class_path": ..., "init_args": {...}}``."""
    if "class_path" not in config:
        for name, module in _own_architectures(config):
            if not is_architecture(name, module):
                _import(module, f"{module}.{name}", allow, path)
        network: nn.Module = build(config)  # the checkpoint's weights replace its own
        return network
    name = str(config["class_path"])
    module, _, attribute = name.rpartition(".")
    try:
        model = getattr(_import(module, name, allow, path), attribute)(**(config.get("init_args") or {}))
    except (AttributeError, TypeError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"expected to build the network {name} of {path}; got: {first_line(error)}.") from error
    if not isinstance(model, nn.Module):
        raise CheckpointError(f"expected {name} to build a network; it built a {type(model).__name__}.")
    return model


def _own_architectures(config: Any) -> Iterator[tuple[str, str]]:
    """List the architectures outside depthkit in a config and in its arguments: name and module."""
    if isinstance(config, Mapping):
        if "module" in config and "architecture" in config:
            yield str(config["architecture"]), str(config["module"])
        for value in config.values():
            yield from _own_architectures(value)


def _import(module: str, name: str, allow: tuple[str, ...], path: Path) -> Any:
    """Import the module that a checkpoint names, if the caller trusts it."""
    if not name.startswith(allow):
        raise CheckpointError(
            f"the checkpoint asks to import {name}, which is not part of depthkit.models. "
            f"If you trust it, pass allow=[{module + '.'!r}], or --allow '[{module}.]'."
        )
    try:
        return import_module(module)
    except (ImportError, ValueError) as error:
        raise CheckpointError(f"expected to build the network {name} of {path}; got: {first_line(error)}.") from error
