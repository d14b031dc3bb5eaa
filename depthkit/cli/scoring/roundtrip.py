"""``depthkit roundtrip``: what the VAE of a latent diffusion model makes of true depth."""

from typing import Any

from rich.console import Console

from depthkit.cli.scoring.evaluate import evaluation_samples
from depthkit.errors import CheckpointError
from depthkit.evaluation import vae_roundtrip
from depthkit.models import LatentDiffusionDepth, from_pretrained


def roundtrip(model: str, shards: list[str], *, split: str = "test", num_workers: int = 0, device: str = "cpu") -> None:
    """Encode and decode the true depth of shards with a model's VAE: the error that its diffusion cannot go below.

    Args:
        model: a latent diffusion model: a checkpoint, a folder of diffusers, or a name such as marigold_v1_1.
        shards: folders or URLs of shards, each scored by itself.
        split: of the shards.
        num_workers: processes that read and decode.
        device: where the VAE runs, such as `cuda`.
    """
    network: Any = from_pretrained(model)
    if not isinstance(network, LatentDiffusionDepth):
        raise CheckpointError(f"expected a latent diffusion model as {model}; got a {type(network).__name__}, without a VAE.")
    console = Console(soft_wrap=True, highlight=False)
    for root in shards:
        found = vae_roundtrip(network.to(device), evaluation_samples(root, split, num_workers=num_workers))
        counted = f"{found.images} scored, {found.left_out} left out"
        console.print(f"{root} ({split}), {network.codec}: {counted}\n{found.table()}\n", markup=False)
