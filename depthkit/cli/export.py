"""``depthkit export``: a network for those who have no depthkit."""

from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from depthkit.cli.options import own_size
from depthkit.errors import RecipeError
from depthkit.inference import export_program
from depthkit.models import DepthNet, export_encoder, from_pretrained


def export(
    model: str,
    out: Path,
    *,
    size: tuple[int, int] | None = None,
    dynamic: bool = False,
    opset: int | None = None,
    precision: Literal["fp32", "fp16", "int8"] = "fp32",
    allow: list[str] | None = None,
) -> None:
    """Write a network as a program that needs no depthkit, or its encoder as a file in timm's names.

    Args:
        model: a checkpoint, a folder, or a name that `depthkit models` lists.
        out: the .pt2 file (for torch) or the .onnx file (for ONNX Runtime and TensorRT): the network, its normalisation
            included; or the .safetensors file: the encoder alone, which timm reads by
            pretrained_cfg_overlay, a recipe as `pretrained`.
        size: of a program's images, height and width [px]; by default that of the training images, or the one that a network
            was made for.
        dynamic: a program takes any number of images of any size that the network takes, instead of one image of one size.
        opset: version of ONNX's operators, such as 18.
        precision: of a program's weights: fp32, fp16 (half precision), or int8 (.onnx only); what it costs is printed.
        allow: beginnings of further Python names that may be imported to build a checkpoint's network.

    Raises:
        DepthKitError: there is no such network, its encoder is none of timm's, or the file cannot be.
    """
    network: Any = from_pretrained(model, allow=allow or ())
    ambiguity = network.ambiguity
    if not isinstance(network, DepthNet):
        raise RecipeError(f"expected a network with an encoder; {model} is a {type(network).__name__}.")
    if out.suffix.lower() in (".pt2", ".onnx"):
        size = size or own_size(network)
        if size is None:
            raise RecipeError(f"{model} does not say how large its training images were. Give --size HEIGHT WIDTH.")
        options: dict[str, Any] = {"dynamic": dynamic, "opset": opset, "precision": precision}
        written = export_program(network, out, size=size, ambiguity=ambiguity, **options)
        said = f"wrote {out}; its map of noise differs from the network's by {written.difference:.1e} of the largest value"
    elif out.suffix.lower() != ".safetensors":
        raise RecipeError(f"expected a path that ends in .pt2, .onnx or .safetensors; got {out.name}. Choose one of them.")
    elif dynamic or opset is not None or precision != "fp32":
        raise RecipeError(
            f"expected dynamic, opset and precision with a program, .pt2 or .onnx; got {out.name}. Leave them out."
        )
    else:
        export_encoder(network, out)
        said = f"wrote {out}"
    Console(soft_wrap=True, highlight=False).print(said, markup=False)
