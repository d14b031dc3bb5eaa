"""A network that labels images: ours or one of ``transformers``, with what its labels' readers must know of it."""

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
    """A network with what its predictions are and how it wants its images.

    Attributes:
        name: file or id it was loaded from.
        model: called on RGB in [0, 1], ``(B, 3, h, w)``; returns ``(B, 1, h', w')``.
        kind: what its numbers are.
        resize: size at which it sees an image.
    """

    name: str
    model: nn.Module
    kind: LabelKind
    resize: InputResize

    @property
    def multiple(self) -> int:
        """What both sides of its input must be a multiple of [px]."""
        return multiple_of(self.model)

    @property
    def output(self) -> str:
        """How its maps are brought to the size of their images, in words."""
        rule = output_rule_of(self.model)
        return str(replace(rule, space=rule.space or resize_space_of(self.model) or self.kind.representation))

    def facts(self) -> dict[str, Any]:
        """For a manifest: name, SHA-256 of the weights, input and output."""
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
    output: Output | None = None,
    side: int | None = None,
    allow: Sequence[str] = (),
) -> Teacher:
    """The teacher in a checkpoint, see ``read_checkpoint``, or in ``transformers:<folder or hub id>``.

    Args:
        source: which.
        output: what it returns, disparity or depth; needed for ``transformers``, where both bear the same name, and
            compared with what a checkpoint says.
        side: [px] of the square whose area its input has; by default what it was trained with.
        allow: beginnings of further names that may be imported to build a checkpoint's network.

    Raises:
        CheckpointError: there is no such teacher, or it does not load.
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
    """What the model's processor does to an image."""
    multiple, (height, width) = model.size_multiple, model.size
    if not model.keep_aspect:
        return InputResize((height, width), "stretch", multiple=multiple)
    if height != width:  # the scale nearer to 1 of two different ones; by area it is the same up to rounding
        return InputResize((height * width) ** 0.5, "area", multiple=multiple)
    return InputResize(height, "minimal", multiple=multiple)


def weights_sha256(model: nn.Module) -> str:
    """SHA-256 over names, types, shapes and values of a network's parameters and buffers, in whatever file they came.

    Example:
        >>> weights_sha256(nn.Conv2d(1, 1, 1)) == weights_sha256(nn.Conv2d(1, 1, 1))
        False
    """
    digest = hashlib.sha256()
    for name, x in sorted(model.state_dict().items()):
        digest.update(f"{name} {x.dtype} {tuple(x.shape)}\n".encode())
        digest.update(x.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
