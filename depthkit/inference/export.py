"""Export of networks as programs that run without depthkit."""

import copy
import json
from enum import StrEnum
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from depthkit import __version__
from depthkit.checks import check_choice, first_line
from depthkit.errors import PredictionError, RecipeError
from depthkit.models import DepthNet, LatentDiffusionDepth
from depthkit.models.weights.facts import rules_of
from depthkit.resize import input_rule_of
from depthkit.types import Ambiguity
from depthkit.writing import replacing

_NEEDED = ("onnx", "onnxscript", "onnxruntime")
_LARGEST = 2**31 - 2**24  # bytes in a file of protobuf, 2 GiB with its names
_MOST_SIDES = 4096  # sides of an image for a dynamic program, in multiples


class NumberFormat(StrEnum):
    """Numbers in which a program holds its weights."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


_TOLERANCE = {NumberFormat.FP32: 1e-3, NumberFormat.FP16: 5e-2, NumberFormat.INT8: torch.inf}
"""Greatest difference between program and network, as a fraction of the largest value."""


class Exported(NamedTuple):
    """A written program.

    Attributes:
        path: of the file.
        difference: greatest difference from the network's map of noise, as a fraction of its largest value.
    """

    path: Path
    difference: float


def export_program(
    model: DepthNet,
    path: str | Path,
    *,
    size: tuple[int, int],
    ambiguity: Ambiguity,
    dynamic: bool = False,
    opset: int | None = None,
    precision: NumberFormat | str = NumberFormat.FP32,
) -> Exported:
    """Write a network as a program, run it, and compare it with the network.

    Of a latent diffusion model the noise that it starts from, which is that of its seed, is part of the program.

    The input ``image`` is float32 RGB in [0, 1], ``(1, 3, H, W)``: normalisation is part of the program. The output ``map`` is
    ``(1, 1, H, W)``, float32. Its representation is stored with it as ``depthkit.json`` (pt2) or in the model's metadata
    (onnx).

    Args:
        model: on the CPU.
        path: ``.pt2`` for torch, also from C++ (``torch.export.load``), or ``.onnx`` for ONNX Runtime and TensorRT; the latter
            needs the extra ``depthkit[onnx]``.
        size: (height, width) of the images [px].
        ambiguity: what the predictions leave undetermined.
        dynamic: any number of images of any size that the network takes, instead of one of ``size``.
        opset: version of ONNX's operators; default that of torch's exporter.
        precision: ``fp32``; ``fp16``, weights and sums in half precision; or ``int8``, weights of 8 bits with activations
            quantised as they come, in ``.onnx`` only.

    Raises:
        RecipeError: another suffix or precision, an option that the format does not have, a network whose size is part of its
            program, or missing packages.
        ShapeError: a size that the network cannot take; the message names the next legal size.
        PredictionError: the program predicts another map than the network.
    """
    path, precision = Path(path), check_choice("precision", precision, NumberFormat)
    kind = path.suffix.lower()
    if kind not in (".pt2", ".onnx"):
        raise RecipeError(f"expected a path that ends in .pt2 or .onnx; got {path.name}. Choose one of them.")
    if kind == ".pt2" and (opset is not None or precision == NumberFormat.INT8):
        raise RecipeError(f"expected neither opset nor int8 for {path.name}; they are of .onnx. Leave them out.")
    if kind == ".onnx" and (missing := [name for name in _NEEDED if find_spec(name) is None]):
        raise RecipeError(
            f"expected the packages that write and check .onnx; {', '.join(missing)} missing. "
            "Install them: pip install 'depthkit[onnx]'."
        )
    if isinstance(model, LatentDiffusionDepth) and (dynamic or precision != NumberFormat.FP32):
        raise RecipeError(
            "expected one size and fp32 for a latent diffusion model, whose noise is part of the program and whose VAE may "
            f"overflow; got dynamic={dynamic}, precision={precision}. Leave them out."
        )
    model = model.eval()
    m = model.size_multiple
    images = [_noise(1, size)]
    if dynamic:
        images = [_noise(2, size), _noise(1, (size[0] + m, size[1] + 2 * m))]
    for image in images:
        model.check(image)
    rules = rules_of(model) | rules_of(SimpleNamespace(input_rule=input_rule_of(model)))
    facts = {
        "representation": str(model.representation), "ambiguity": str(ambiguity), "depthkit": __version__,
        "multiple": str(m), **{name: json.dumps(rule) for name, rule in rules.items()},
    }  # fmt: skip
    with torch.no_grad(), replacing(path, folder=True) as part:
        expected = [model(image) for image in images]
        program = _traced(model, images[0], m, dynamic=dynamic, half=precision == NumberFormat.FP16)
        if kind == ".pt2":
            stream = BytesIO()  # on a full disk torch's own writer aborts the process
            torch.export.save(program, stream, extra_files={"depthkit.json": json.dumps(facts)})
            part.write_bytes(stream.getbuffer())
            run: Any = torch.export.load(part).module()
        else:
            run = _write_onnx(program, part, facts, opset, eight_bits=precision == NumberFormat.INT8)
        found = [run(image) for image in images]
        pairs = zip(found, expected, strict=True)
        difference = max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
        if not difference < _TOLERANCE[precision]:
            raise PredictionError(
                f"expected {path} to predict as the network does; it differs by {difference:.2g} of the largest value. "
                "Use the other format, or fp32."
            )
    return Exported(path, difference)


class _Halved(nn.Module):
    """A network in half precision between numbers of single precision."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        """Predict, ``(B, 3, H, W) -> (B, 1, H, W)``."""
        return self.model(image.half()).float()


class _Started(nn.Module):
    """A latent diffusion model with the latents that it starts from: who draws them, is not part of a program."""

    start: Tensor

    def __init__(self, model: LatentDiffusionDepth, start: Tensor) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("start", start)

    def forward(self, image: Tensor) -> Tensor:
        """Predict, ``(1, 3, H, W) -> (1, 1, H, W)``."""
        return self.model.with_uncertainty(image, start=self.start)[0]


def _noise(count: int, size: tuple[int, int]) -> Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(0))


def _traced(model: DepthNet, image: Tensor, multiple: int, *, dynamic: bool, half: bool) -> torch.export.ExportedProgram:
    """Trace a network on an image.

    Raises:
        RecipeError: sizes are part of its program, and they shall not be.
    """
    shapes = None
    if dynamic:
        sides = [multiple * torch.export.Dim(name, min=2, max=_MOST_SIDES) for name in ("rows", "columns")]
        shapes = ({0: torch.export.Dim("batch", min=1, max=1024), 2: sides[0], 3: sides[1]},)
    traced: nn.Module = _Halved(copy.deepcopy(model).half()).eval() if half else model
    if isinstance(model, LatentDiffusionDepth):
        traced = _Started(model, model.start(image.shape[-2], image.shape[-1])).eval()
    try:
        return torch.export.export(traced, (image,), dynamic_shapes=shapes)
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        if not dynamic:
            raise
        raise RecipeError(
            f"expected a network that takes images of any size to export it so; in this one their size is part of the program "
            f"({first_line(error)}). Leave out dynamic."
        ) from error


def _write_onnx(
    program: torch.export.ExportedProgram, path: Path, facts: dict[str, str], opset: int | None, *, eight_bits: bool
) -> Any:
    """Write an ``.onnx`` file, and return what runs it.

    Raises:
        RecipeError: there is no such opset, or the program cannot be written in it.
    """
    import onnxruntime

    try:
        written = torch.onnx.export(
            program, input_names=["image"], output_names=["map"], dynamo=True, verbose=False, opset_version=opset
        )
    except Exception as error:  # the exporter has many classes of errors of its own
        raise RecipeError(
            f"expected a network that .onnx can hold; got: {first_line(error)}. Use .pt2, or another opset."
        ) from error
    assert written is not None  # as no file was given
    found = {entry.domain: entry.version for entry in written.model_proto.opset_import}.get("")
    if opset not in (None, found):
        raise RecipeError(f"expected a program in opset {opset}; torch writes it in {found}. Leave out opset.")
    written.model.metadata_props.update(facts)
    size = sum(weight.numel() * weight.element_size() for weight in program.state_dict.values())
    written.save(path, external_data=size > _LARGEST)
    if eight_bits:
        _quantise(path)

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda image: torch.as_tensor(session.run(["map"], {"image": image.numpy()})[0])


def _quantise(path: Path) -> None:
    """Replace an ``.onnx`` file by one with weights of 8 bits; what it says of itself stays."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    props = {x.key: x.value for x in onnx.load(path, load_external_data=False).metadata_props}
    quantize_dynamic(path, path, weight_type=QuantType.QUInt8)
    model = onnx.load(path)
    onnx.helper.set_model_props(model, props)
    onnx.save(model, path)
