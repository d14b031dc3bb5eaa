"""Export of networks as programs that run without depthkit."""

import json
from importlib.util import find_spec
from pathlib import Path

import torch

from depthkit import __version__
from depthkit.errors import PredictionError, RecipeError
from depthkit.models import DepthNet
from depthkit.types import Ambiguity

_NEEDED = ("onnx", "onnxscript", "onnxruntime")


def export_program(model: DepthNet, path: str | Path, *, size: tuple[int, int], ambiguity: Ambiguity) -> Path:
    """Write a network as a program of one image size, run it, and compare it with the network.

    The input ``image`` is float32 RGB in [0, 1], ``(1, 3, H, W)``: normalisation is part of the program. The output ``map`` is
    ``(1, 1, H, W)``. Its representation is stored with it as ``depthkit.json`` (pt2) or in the model's metadata (onnx).

    Args:
        model: on the CPU.
        path: ``.pt2`` for torch, also from C++ (``torch.export.load``), or ``.onnx`` for ONNX Runtime and TensorRT; the latter
            needs the extra ``depthkit[onnx]``.
        size: (height, width) of the images [px].
        ambiguity: what the predictions leave undetermined.

    Raises:
        RecipeError: another suffix, or the packages are missing.
        ShapeError: a size that the network cannot take; the message names the next legal size.
        PredictionError: the program predicts another map than the network.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in (".pt2", ".onnx"):
        raise RecipeError(f"expected a path that ends in .pt2 or .onnx; got {path.name}. Choose one of them.")
    if kind == ".onnx" and (missing := [name for name in _NEEDED if find_spec(name) is None]):
        raise RecipeError(
            f"expected the packages that write and check .onnx; {', '.join(missing)} missing. "
            "Install them: pip install 'depthkit[onnx]'."
        )
    model = model.eval()
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    model.check(image)
    facts = {"representation": str(model.representation), "ambiguity": str(ambiguity), "depthkit": __version__}
    path.parent.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        expected = model(image)
        program = torch.export.export(model, (image,))
        if kind == ".pt2":
            torch.export.save(program, path, extra_files={"depthkit.json": json.dumps(facts)})
            found = torch.export.load(path).module()(image)
        else:
            found = _write_onnx(program, path, image, facts)
    difference = float((found - expected).abs().max() / expected.abs().max())
    if not difference < 1e-3:
        raise PredictionError(
            f"expected {path} to predict as the network does; it differs by {difference:.2g} of the largest value. "
            "Use the other format."
        )
    return path


def _write_onnx(program: torch.export.ExportedProgram, path: Path, image: torch.Tensor, facts: dict[str, str]) -> torch.Tensor:
    import onnxruntime

    written = torch.onnx.export(program, input_names=["image"], output_names=["map"], dynamo=True, verbose=False)
    assert written is not None  # as no file was given
    written.model.metadata_props.update(facts)
    size = sum(weight.numel() * weight.element_size() for weight in program.state_dict.values())
    written.save(path, external_data=size > 2**31 - 2**24)  # a file of protobuf holds 2 GiB
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.as_tensor(session.run(["map"], {"image": image.numpy()})[0])
