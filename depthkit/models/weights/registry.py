"""Networks by name: whatever a MODEL may be, read by one function."""

from pathlib import Path
from typing import cast

from depthkit.models.net import DepthNet
from depthkit.models.weights.checkpoint import read_checkpoint
from depthkit.models.weights.convert import load_published
from depthkit.models.weights.files import read_weights


def from_pretrained(model: str | Path) -> DepthNet:
    """Return the network of a checkpoint, in evaluation mode.

    In a recipe ``base: {class_path: depthkit.models.from_pretrained, init_args: {model: last.ckpt}}``.

    Args:
        model: a ``.ckpt`` of a run, a file of ``save_network``, or a folder of diffusers.

    Raises:
        CheckpointError: as of ``read_checkpoint``.
    """
    return cast(DepthNet, read_checkpoint(model).model)


def published(model: DepthNet, weights: str | Path, *, source: str) -> DepthNet:
    """Return a network with the weights in a published file, to build upon.

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
