"""Teachers: networks that label images, ours or of ``transformers``, with the facts of their labels."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from depthkit.errors import CheckpointError, LabelError
from depthkit.models import read_checkpoint
from depthkit.models.weights.transformers_hub import Output, TransformersDepth, load_depth
from depthkit.resize import InputResize, input_rule_of, multiple_of, output_rule_of, resize_space_of
from depthkit.types import Ambiguity, LabelKind, Representation

_PREFIX = "transformers:"


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
    side: int | None = None,
    allow: Sequence[str] = (),
) -> Teacher:
    """Load the teacher of a checkpoint, see ``read_checkpoint``, or of ``transformers:<folder or hub id>``.

    Args:
        source: checkpoint, folder of diffusers, or ``transformers:`` and a folder or hub id.
        output: disparity or depth; needed for models of ``transformers`` that do not state it; must agree with a checkpoint.
        side: side [px] of a square with as many pixels as its input; default the size of its training.
        allow: beginnings of further names that may be imported to build a checkpoint's network.

    Raises:
        CheckpointError: there is no such teacher, or it cannot be loaded.
        LabelError: ``output`` is missing or contradicts the teacher.
    """
    text = str(source)
    area = None if side is None else InputResize(side, "area", antialias=True)
    if text.startswith(_PREFIX):
        model = load_depth(text.removeprefix(_PREFIX), output=output)
        return Teacher(text, model, model.kind, area or _resize(model))
    if not (Path(text).is_file() or (Path(text) / "unet").is_dir()):
        raise CheckpointError(
            f"expected a teacher: a checkpoint of `depthkit fit`, a folder of diffusers, or {_PREFIX} before a folder or hub "
            f"id; there is no file {text}, nor {text}/unet. Check the path."
        )
    network, ambiguity, size = read_checkpoint(text, allow=allow)
    kind = LabelKind(Ambiguity(ambiguity), Representation(network.representation))  # type: ignore[arg-type]
    own = "depth" if kind.representation in (Representation.DEPTH, Representation.LOG_DEPTH) else "disparity"
    if output is not None and output != own:
        raise LabelError(f"expected --output {own}, as the checkpoint {text} predicts {kind}; got {output}. Leave it out.")
    return Teacher(Path(text).name, network, kind, area or input_rule_of(network, size))


def _resize(model: TransformersDepth) -> InputResize:
    """Build the resize rule of the model's processor."""
    multiple, (height, width) = model.size_multiple, model.size
    if not model.keep_aspect:
        return InputResize((height, width), "stretch", multiple=multiple)
    if height != width:  # the scale nearer to 1 of two different ones; by area it is the same up to rounding
        return InputResize((height * width) ** 0.5, "area", multiple=multiple)
    return InputResize(height, "minimal", multiple=multiple)


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
