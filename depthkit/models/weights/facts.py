"""Facts of the networks in a checkpoint, as plain values: the one place that writes and reads them."""

from collections.abc import Mapping, MutableMapping
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Any

from torch import nn

from depthkit import __version__
from depthkit.errors import CheckpointError, LabelError
from depthkit.models.weights.files import plain_network, read_file
from depthkit.resize import InputResize, OutputResize, canonical_focal_of
from depthkit.types import AMBIGUITIES, Ambiguity

_KEY = "depthkit"
NETWORKS = ("model", "pose_net")
"""Attributes of a training module that may hold a network, and the keys of their facts."""
WHAT = "a checkpoint of `depthkit fit`"
_RESIZES = {"input_rule": InputResize, "output_rule": OutputResize}
RULES = (*_RESIZES, "canonical_focal", "flip")
"""Names of what ``rules_of`` returns."""


def write_facts(
    checkpoint: MutableMapping[str, Any],
    model: nn.Module,
    ambiguity: Ambiguity | str | None = None,
    size: tuple[int, int] | None = None,
    pose_net: nn.Module | None = None,
) -> None:
    """Write into a checkpoint how its networks were built, what the depth network predicts, and by which rules.

    Args:
        checkpoint: content of the file, extended in place.
        model: the depth network.
        ambiguity: what its predictions leave undetermined; default ``model.ambiguity``.
        size: (height, width) [px] of the images it was trained on; default ``model.trained_size``, if it has one.
        pose_net: the pose network that was trained with it.

    Raises:
        LabelError: there is no such ambiguity, or none is known.
    """
    model = plain_network(model)
    ambiguity = getattr(model, "ambiguity", None) if ambiguity is None else ambiguity
    if ambiguity not in AMBIGUITIES:
        raise LabelError(f"expected an ambiguity among {', '.join(AMBIGUITIES)}; got {ambiguity!r}. Pass ambiguity=.")
    checkpoint[_KEY] = {
        "version": __version__,
        "model": getattr(model, "config", None),
        "representation": str(model.representation),
        "ambiguity": str(Ambiguity(ambiguity)),
        "size": list(size or getattr(model, "trained_size", None) or ()),
        **rules_of(model),
    }
    if pose_net is not None:
        checkpoint[_KEY]["pose_net"] = getattr(plain_network(pose_net), "config", None)


def rules_of(model: Any) -> dict[str, Any]:
    """Return by which rules a network's numbers become the map of a photo, as plain values: those that it states itself.

    They are those of ``RULES``.
    """
    found: dict[str, Any] = {}
    for name in _RESIZES:
        if (rule := getattr(model, name, None)) is not None:
            found[name] = {field: str(x) if isinstance(x, StrEnum) else x for field, x in asdict(rule).items()}
    if (focal := canonical_focal_of(model)) is not None:
        found["canonical_focal"] = float(focal)
    if getattr(model, "flip", False):
        found["flip"] = True
    return found


def give_rules(model: Any, facts: Mapping[str, Any]) -> None:
    """Give a network the rules among ``facts``, as ``rules_of`` returns them."""
    for name, kind in _RESIZES.items():
        if facts.get(name):
            setattr(model, name, kind(**{field: tuple(x) if isinstance(x, list) else x for field, x in facts[name].items()}))
    if facts.get("canonical_focal"):
        model.canonical_focal = float(facts["canonical_focal"])
    if facts.get("flip"):
        model.flip = True


def facts_in(checkpoint: Any) -> dict[str, Any]:
    """Return the facts of the networks in a checkpoint's content; empty if there are none."""
    facts = checkpoint.get(_KEY) if isinstance(checkpoint, Mapping) else None
    return dict(facts) if isinstance(facts, Mapping) else {}


def read_run(path: str | Path) -> dict[str, Any]:
    """Return the content of a run's checkpoint, with or without facts; nothing in it is executed.

    Raises:
        CheckpointError: the file does not exist, cannot be read, or is not a checkpoint of a run.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"expected {WHAT} at {path}; there is no such file.")
    content = read_file(path, WHAT, mmap=True)
    if not isinstance(content, Mapping) or not isinstance(content.get("state_dict"), Mapping):
        raise CheckpointError(f"expected {WHAT} at {path}; it holds no state_dict. Give the .ckpt file that a run wrote.")
    if "hyper_parameters" in content and not facts_in(content):
        raise CheckpointError(
            f"expected {WHAT} at {path}; it is of another program, whose hyper_parameters are not this recipe's. "
            "Read published weights by depthkit.models.load_published and write them by save_network."
        )
    return dict(content)


def read_facts(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the facts of the networks in a checkpoint, and its weights.

    Raises:
        CheckpointError: as of ``read_run``, or the checkpoint does not say how its network was built.
    """
    content = read_run(path)
    facts = facts_in(content)
    if not facts.get("model"):
        raise CheckpointError(
            f"expected {WHAT} that says how its network was built; {path} does not. "
            "Build the network yourself, load its weights (depthkit.models.load_published reads published ones), and pass it "
            "to DepthPredictor(model, ambiguity=...)."
        )
    return facts, dict(content["state_dict"])
