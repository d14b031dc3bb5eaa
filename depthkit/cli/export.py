"""``depthkit export``: the trained encoder of a checkpoint, for other tasks and libraries."""

from pathlib import Path

from rich.console import Console

from depthkit.errors import RecipeError
from depthkit.inference import read_checkpoint
from depthkit.models import DepthNet, export_encoder


def export(checkpoint: Path, out: Path, *, allow: list[str] | None = None) -> None:
    """Write the encoder that a checkpoint holds as a file in timm's names.

    Args:
        checkpoint: written by `depthkit fit`.
        out: the .safetensors file; timm reads it by pretrained_cfg_overlay, a recipe as `pretrained`.
        allow: beginnings of further Python names that may be imported to build the checkpoint's network.

    Raises:
        DepthKitError: the checkpoint does not read, its encoder is none of timm's, or the file cannot be.
    """
    model = read_checkpoint(checkpoint, allow=allow or ()).model
    if not isinstance(model, DepthNet):
        raise RecipeError(f"expected a checkpoint of a network with an encoder; {checkpoint} holds a {type(model).__name__}.")
    export_encoder(model, out)
    Console(soft_wrap=True, highlight=False).print(f"wrote {out}", markup=False)
