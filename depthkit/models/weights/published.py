"""Published networks where a checkpoint of one's own training could stand: as a start, a teacher, or under a test."""

from pathlib import Path
from typing import Any

import torch

from depthkit import __version__
from depthkit.errors import CheckpointError, LabelError
from depthkit.models.net import DepthNet
from depthkit.models.weights.convert import load_published
from depthkit.models.weights.files import read_weights
from depthkit.types import AMBIGUITIES, Ambiguity


def published(model: DepthNet, weights: str | Path, *, source: str) -> DepthNet:
    """A network with the weights in a published file, to build upon.

    In a recipe ``base: {class_path: depthkit.models.published, init_args: {model: {class_path:
    depthkit.models.dpt_dinov2_large, init_args: {pretrained: false, hooks: v2}}, weights: depth_anything_v2_vitl.pth,
    source: depth_anything}}``.

    Args:
        model: the same architecture; its weights are replaced.
        weights: file, or ``package:NAME``; see ``read_weights``.
        source: who published it, see ``load_published``; but not "monodepth2", which comes in several files.

    Returns:
        ``model``.

    Raises:
        CheckpointError: the file does not read, or does not fit; see ``load_published``.
    """
    load_published(model, read_weights(weights), source=source)
    return model


def save_network(model: DepthNet, path: str | Path, *, ambiguity: Ambiguity | str, size: tuple[int, int] | None = None) -> None:
    """Write a network as a checkpoint that ``depthkit label``, ``evaluate``, ``predict`` and ``trained`` read.

    Args:
        model: built by one of ``depthkit.models``' functions.
        path: the ``.ckpt`` file.
        ambiguity: what its predictions leave undetermined: shift_scale of relative networks, metric of those in metres.
        size: (height, width) [px] of the images it was trained on; 384x384 is assumed without it.

    Raises:
        CheckpointError: the network was put together from parts, or there is no such folder.
        LabelError: there is no such ambiguity.
    """
    if ambiguity not in AMBIGUITIES:
        raise LabelError(f"expected an ambiguity among {', '.join(AMBIGUITIES)}; got {ambiguity!r}.")
    if model.config is None:
        raise CheckpointError(
            "expected a network that knows how it was built; got one put together from parts. Build it by a function of "
            "depthkit.models, or by one of your own under depthkit.models.architecture."
        )
    if not Path(path).parent.is_dir():
        raise CheckpointError(f"expected {path} to be in a folder that exists. Make it first.")
    facts = network_facts(model, ambiguity, size)
    torch.save({"state_dict": {f"model.{key}": x for key, x in model.state_dict().items()}, "depthkit": facts}, path)


def network_facts(model: DepthNet, ambiguity: Ambiguity | str, size: tuple[int, int] | None) -> dict[str, Any]:
    """What a checkpoint says of its network, as plain values: how it was built, what it predicts, at which size."""
    return {
        "version": __version__,
        "model": model.config,
        "representation": str(model.representation),
        "ambiguity": str(Ambiguity(ambiguity)),
        "size": list(size or ()),
    }
