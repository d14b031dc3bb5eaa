"""Programs of ``depthkit export`` as networks: run by torch or ONNX Runtime, called as all others are."""

import json
from collections.abc import Callable
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from depthkit.checks import first_line, garbled, optional_import
from depthkit.errors import CheckpointError, ShapeError
from depthkit.models.archive import dangers
from depthkit.models.weights.facts import RULES, give_rules
from depthkit.resize import InputRule, input_rule_of
from depthkit.types import Ambiguity, Representation

SUFFIXES = (".pt2", ".onnx")
_FACTS = "depthkit.json"


class ExportedNetwork(nn.Module):
    """A program in a file, on the CPU.

    Args:
        path: of the ``.pt2`` or ``.onnx`` file.

    Attributes:
        representation: what its numbers are.
        ambiguity: what they leave undetermined.
        input_rule: the network's; that of a program of one size stretches images to it.
        output_rule: the network's.
        flip: whether to average its map with that of the mirrored image, as of the network.
        size_multiple: sides of an image must be multiples of it [px].
        canonical_focal: the network's, see ``depthkit.resize.in_metres``.
        fixed_size: that size, (height, width) [px]; None for a program of any size.

    Raises:
        CheckpointError: it cannot be read, or was not written by ``depthkit export``.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        path = Path(path)
        with garbled(f"a program of `depthkit export` at {path}", CheckpointError, "Export it again."):
            facts, shape, self._run = (_read_pt2 if path.suffix.lower() == ".pt2" else _read_onnx)(path)
            self.representation = Representation(facts["representation"])
            self.ambiguity = Ambiguity(facts["ambiguity"])
            self.size_multiple = int(facts.get("multiple", 1))
            give_rules(self, {name: json.loads(facts[name]) for name in RULES if facts.get(name)})
            height, width = shape[-2:]
            self.fixed_size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
            if self.fixed_size is not None:
                stretched: dict[str, Any] = {"side": self.fixed_size, "rule": InputRule.STRETCH, "multiple": 1, "extend": False}
                self.input_rule = replace(input_rule_of(self), **stretched)
        self.name = path.name

    def forward(self, image: Tensor) -> Tensor:
        """Predict the map of RGB in [0, 1], ``(B, 3, H, W)``, image by image.

        Raises:
            ShapeError: an image of another size than the program's.
        """
        if self.fixed_size not in (None, tuple(image.shape[-2:])):
            raise ShapeError(
                f"expected images of {self.fixed_size[0]}x{self.fixed_size[1]}, "
                f"the size of the program {self.name}; got {image.shape[-2]}x{image.shape[-1]}. Export it for this size."
            )
        return torch.cat([self._run(row[None].cpu()) for row in image]).to(image.device)


Program = tuple[dict[str, Any], tuple[Any, ...], Callable[[Tensor], Tensor]]
"""What a file says, the shape of its input, and the program."""


def _read_pt2(path: Path) -> Program:
    said = {_FACTS: ""}
    for found in dangers(path):  # torch executes what it reads
        raise CheckpointError(
            f"expected a program of `depthkit export` at {path}; it holds {found}, which might run code. Export it again."
        )
    program = torch.export.load(path, extra_files=said)
    inputs = [node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs]
    unchecked = {"check_guards": False} if "check_guards" in signature(program.module).parameters else {}
    module: Any = program.module(**unchecked)  # guards are code in the file; sizes are checked here
    return json.loads(said[_FACTS] or "{}"), tuple(inputs[0].meta["val"].shape), lambda image: module(image)


def _read_onnx(path: Path) -> Program:
    runtime = optional_import("onnxruntime", "onnx")
    try:
        session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (given,), facts = session.get_inputs(), dict(session.get_modelmeta().custom_metadata_map)
    except Exception as error:  # ONNX Runtime has a class of errors for each kind of damage
        raise RuntimeError(first_line(error)) from error

    def run(image: Tensor) -> Tensor:
        return torch.as_tensor(session.run(None, {given.name: image.numpy()})[0])

    return facts, tuple(given.shape), run
