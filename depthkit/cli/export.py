"""``depthkit export``: the content of a checkpoint for use without depthkit."""

from pathlib import Path

from rich.console import Console

from depthkit.errors import RecipeError
from depthkit.inference import export_program, read_checkpoint
from depthkit.models import DepthNet, export_encoder


def export(checkpoint: Path, out: Path, *, size: tuple[int, int] | None = None, allow: list[str] | None = None) -> None:
    """Write a checkpoint's network as a program that needs no depthkit, or its encoder as a file in timm's names.

    Args:
        checkpoint: written by `depthkit fit`.
        out: the .pt2 file (for torch) or the .onnx file (for ONNX Runtime and TensorRT) with the network and its
            normalisation for images of one size; or the .safetensors file with the encoder alone, which timm reads by
            pretrained_cfg_overlay and a recipe as `pretrained`.
        size: height and width [px] of a program's images; default the size of the training images.
        allow: beginnings of further Python names that may be imported to build the checkpoint's network.

    Raises:
        DepthKitError: the checkpoint cannot be read, its encoder is not of timm, or the file cannot be written.
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
