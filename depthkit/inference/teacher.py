"""Teachers: networks that label images, ours or of ``transformers``, with the facts of their labels."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from depthkit.errors import LabelError
from depthkit.models import flip_averaged, from_pretrained
from depthkit.models.weights.transformers_hub import Output
from depthkit.resize import (
    InputResize,
    OutputResize,
    canonical_focal_of,
    input_rule_of,
    multiple_of,
    output_rule_of,
    resize_space_of,
)
from depthkit.types import LabelKind


@dataclass(frozen=True)
class Teacher:
    """A network with the kind of its predictions and the size of its input.

    Attributes:
        name: file or id that it was loaded from.
        model: called on RGB in [0, 1], ``(B, 3, h, w)``; returns ``(B, 1, h', w')``.
        kind: of its predictions.
        resize: rule for the size at which it sees an image.
    """

    name: str
    model: nn.Module
    kind: LabelKind
    resize: InputResize

    @property
    def multiple(self) -> int:
        """Number [px] that must divide both sides of its input."""
        return multiple_of(self.model)

    @property
    def output(self) -> str:
        """Rule by which its maps are resized to their images, in words."""
        rule = output_rule_of(self.model)
        return str(replace(rule, space=rule.space or resize_space_of(self.model) or self.kind.representation))

    def facts(self) -> dict[str, Any]:
        """Return facts for a manifest: name, SHA-256 of the weights, input and output."""
        return {
            "name": self.name,
            "weights_sha256": weights_sha256(self.model),
            "input": f"{self.resize} (the network's own: {self.multiple})",
            "ambiguity": str(self.kind.ambiguity),
            "representation": str(self.kind.representation),
        }


def load_teacher(
    source: str | Path,
    *,
    output: Output | str | None = None,
    input_rule: Callable[[InputResize], InputResize] = lambda own: own,
    output_rule: Callable[[OutputResize], OutputResize] = lambda own: own,
    allow: Sequence[str] = (),
) -> Teacher:
    """Load the teacher that a MODEL names, see ``depthkit.models.from_pretrained``.

    Args:
        source: which.
        output: what it returns, disparity or depth; needed for models of ``transformers`` that do not say it themselves, and
            compared with what others say.
        input_rule: what to make of its own rule.
        output_rule: what to make of its own rule.
        allow: beginnings of further names that may be imported to build a checkpoint's network.

    Raises:
        CheckpointError: there is no such teacher, or it cannot be loaded.
        LabelError: ``output`` is missing or contradicts the teacher.
    """
    network: Any = flip_averaged(from_pretrained(source, output=output, allow=allow))
    if canonical_focal_of(network) is not None:
        raise LabelError(
            f"expected a teacher whose labels need no camera; {source} predicts for a canonical one of "
            f"{network.canonical_focal:g} px. Write its predictions with `depthkit predict --intrinsics`, or take another."
        )
    network.output_rule = output_rule(output_rule_of(network))
    name = Path(source).name if Path(source).is_file() else str(source)
    return Teacher(name, network, LabelKind(network.ambiguity, network.representation), input_rule(input_rule_of(network)))


def weights_sha256(model: nn.Module) -> str:
    """Compute the SHA-256 of names, types, shapes and values of a network's weights and buffers, whatever file held them.

    Example:
        >>> weights_sha256(nn.Conv2d(1, 1, 1)) == weights_sha256(nn.Conv2d(1, 1, 1))
        False
    """
    digest = hashlib.sha256()
    for name, x in sorted(model.state_dict().items()):
        digest.update(f"{name} {x.dtype} {tuple(x.shape)}\n".encode())
        digest.update(x.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
