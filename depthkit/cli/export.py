"""``depthkit export``: a network for those who have no depthkit."""

from pathlib import Path
from typing import Any

from rich.console import Console

from depthkit.cli.options import own_size
from depthkit.errors import RecipeError
from depthkit.inference import export_program
from depthkit.models import DepthNet, export_encoder, from_pretrained


def export(model: str, out: Path, *, size: tuple[int, int] | None = None, allow: list[str] | None = None) -> None:
    """Write a network as a program that needs no depthkit, or its encoder as a file in timm's names.

    Args:
        model: a checkpoint, a folder, or a name that `depthkit models` lists.
        out: the .pt2 file (for torch) or the .onnx file (for ONNX Runtime and TensorRT): the network, its normalisation
            included, for images of one size; or the .safetensors file: the encoder alone, which timm reads by
            pretrained_cfg_overlay, a recipe as `pretrained`.
        size: of a program's images, height and width [px]; by default that of the training images, or the one that a network
            was made for.
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
        export_program(network, out, size=size, ambiguity=ambiguity)
    else:
        export_encoder(network, out)
    Console(soft_wrap=True, highlight=False).print(f"wrote {out}", markup=False)
