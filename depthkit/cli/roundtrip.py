"""``depthkit roundtrip``: the error of a latent diffusion model's VAE on true depth."""

from pathlib import Path

from rich.console import Console

from depthkit.cli.evaluate import evaluation_samples
from depthkit.errors import CheckpointError
from depthkit.evaluation import vae_roundtrip
from depthkit.inference import read_checkpoint
from depthkit.models import LatentDiffusionDepth


def roundtrip(checkpoint: Path, shards: list[str], *, split: str = "test", num_workers: int = 0, device: str = "cpu") -> None:
    """Encode and decode the true depth of shards with a model's VAE: a lower bound of its error.

    Args:
        checkpoint: of a latent diffusion model, written by `depthkit fit`, or a folder of diffusers.
        shards: folders or URLs of shards, each scored by itself.
        split: of the shards.
        num_workers: processes that read and decode.
        device: of the VAE, such as `cuda`.
    """
    model = read_checkpoint(checkpoint).model
    if not isinstance(model, LatentDiffusionDepth):
        raise CheckpointError(
            f"expected a latent diffusion model in {checkpoint}; got a {type(model).__name__}, without a VAE."
        )
    console = Console(soft_wrap=True, highlight=False)
    for root in shards:
        found = vae_roundtrip(model.to(device), evaluation_samples(root, split, num_workers=num_workers))
        counted = f"{found.images} scored, {found.left_out} left out"
        console.print(f"{root} ({split}), {model.codec}: {counted}\n{found.table()}\n", markup=False)
