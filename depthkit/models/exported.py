"""Programs of ``depthkit export`` as networks: run by torch or ONNX Runtime, called as all others are."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from torch import Tensor, nn

from depthkit.checks import first_line, optional_import
from depthkit.errors import CheckpointError, ShapeError
from depthkit.resize import InputResize, InputRule, OutputResize
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
        input_rule: stretches an image to the program's size, if it takes one size only; else the network's.
        output_rule: the network's.
        size_multiple: sides of an image must be multiples of it [px].
        fixed_size: that size, (height, width) [px]; None for a program of any size.

    Raises:
        CheckpointError: it cannot be read, or was not written by ``depthkit export``.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        path = Path(path)
        try:
            facts, shape, self._run = (_read_pt2 if path.suffix.lower() == ".pt2" else _read_onnx)(path)
            self.representation = Representation(facts["representation"])
            self.ambiguity = Ambiguity(facts["ambiguity"])
            self.size_multiple = int(facts.get("multiple", 1))
            rules = {name: json.loads(facts[name]) for name in ("input_rule", "output_rule") if facts.get(name)}
        except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(
                f"expected a program of `depthkit export` at {path}; it cannot be read ({first_line(error)}). Export it again."
            ) from error
        self.name = path.name
        height, width = shape[-2:]
        self.fixed_size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
        if "output_rule" in rules:
            self.output_rule = OutputResize(**rules["output_rule"])
        if self.fixed_size is not None:
            self.input_rule = InputResize(self.fixed_size, InputRule.STRETCH, multiple=1, antialias=True)
        elif "input_rule" in rules:
            side = rules["input_rule"].pop("side")
            self.input_rule = InputResize(tuple(side) if isinstance(side, list) else side, **rules["input_rule"])

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
    if not is_zipfile(path):  # torch would print a traceback
        raise OSError("it is no archive of torch, or its end is missing")
    program = torch.export.load(path, extra_files=said)
    inputs = [node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs]
    module = program.module()
    return json.loads(said[_FACTS] or "{}"), tuple(inputs[0].meta["val"].shape), lambda image: module(image)


def _read_onnx(path: Path) -> Program:
    runtime = optional_import("onnxruntime", "onnx")
    try:
        session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has a class of errors for each kind of damage
        raise OSError(first_line(error)) from error
    (given,), facts = session.get_inputs(), dict(session.get_modelmeta().custom_metadata_map)

    def run(image: Tensor) -> Tensor:
        return torch.as_tensor(session.run(None, {given.name: image.numpy()})[0])

    return facts, tuple(given.shape), run
