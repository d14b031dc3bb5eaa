"""``depthkit export``: what a checkpoint holds for those who have no depthkit."""

from pathlib import Path

from rich.console import Console

from depthkit.errors import RecipeError
from depthkit.inference import export_program, read_checkpoint
from depthkit.models import DepthNet, export_encoder


def export(checkpoint: Path, out: Path, *, size: tuple[int, int] | None = None, allow: list[str] | None = None) -> None:
    """Write a checkpoint's network as a program that needs no depthkit, or its encoder as a file in timm's names.

    Args:
        checkpoint: written by `depthkit fit`.
        out: the .pt2 file (for torch) or the .onnx file (for ONNX Runtime and TensorRT): the network, its normalisation
            included, for images of one size; or the .safetensors file: the encoder alone, which timm reads by
            pretrained_cfg_overlay, a recipe as `pretrained`.
        size: of a program's images, height and width [px]; that of the training images by default.
        allow: beginnings of further Python names that may be imported to build the checkpoint's network.

    Raises:
        DepthKitError: the checkpoint does not read, its encoder is none of timm's, or the file cannot be.
    """
    model, ambiguity, trained_at = read_checkpoint(checkpoint, allow=allow or ())
    if not isinstance(model, DepthNet):
        raise RecipeError(f"expected a checkpoint of a network with an encoder; {checkpoint} holds a {type(model).__name__}.")
    if out.suffix in (".pt2", ".onnx"):
        size = size or trained_at
        if size is None:
            raise RecipeError(f"{checkpoint} does not say how large its training images were. Give --size '[height, width]'.")
        export_program(model, out, size=size, ambiguity=ambiguity)
    else:
        export_encoder(model, out)
    Console(soft_wrap=True, highlight=False).print(f"wrote {out}", markup=False)
