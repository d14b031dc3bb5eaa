"""What makes a step faster, or smaller in memory, and changes nothing that it computes."""

from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from depthkit.errors import RecipeError
from depthkit.models import LatentDiffusionDepth, ViTEncoder


class Compiled(Callback):
    """Compile networks and losses for training, each as one graph; names of weights in checkpoints stay as they are.

    Validation, whose images have many sizes, is not compiled. The first step takes minutes.

    Args:
        backend: of ``torch.compile``.
        dynamic: whether one graph serves images of several sizes, see ``torch.compile``.
    """

    def __init__(self, *, backend: str = "inductor", dynamic: bool | None = None) -> None:
        self.backend, self.dynamic = backend, dynamic

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compile in place, so that no part gets another name."""
        for part in compiled_parts(pl_module):
            part.compile(fullgraph=True, backend=self.backend, dynamic=self.dynamic)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate without compilation."""
        torch.compiler.set_stance("force_eager")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on with it."""
        torch.compiler.set_stance("default")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave nothing set."""
        torch.compiler.set_stance("default")


def compiled_parts(module: Any) -> Iterator[nn.Module]:
    """List what a step of a paradigm calls: parts of its networks, teachers too, and its losses."""
    losses = (part for name, part in module.named_children() if name.endswith("loss"))
    networks = (module.model, *(part for part in getattr(module, "outside", ()) if part is not None))
    for network in networks:
        if isinstance(network, LatentDiffusionDepth):
            yield from (network.unet, network.vae.encoder, network.vae.decoder)
        elif hasattr(network, "decoder"):
            yield from (network.encoder, network.decoder, network.head)
        else:
            yield network
    yield from losses
    yield from (part for name in ("pose_net", "mask_decoder") if (part := getattr(module, name, None)) is not None)


class RecomputedActivations(Callback):
    """Compute the activations of a vision transformer's blocks again in the backward pass, instead of keeping them.

    A ViT-L fits in a fraction of the memory, and a step takes a third longer.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Ask the encoder for it.

        Raises:
            RecipeError: the encoder is no vision transformer.
        """
        encoder = getattr(pl_module.model, "encoder", None)
        if not isinstance(encoder, ViTEncoder):
            raise RecipeError(
                f"expected a network on a ViTEncoder for RecomputedActivations; got a {type(encoder).__name__}. Leave it out; "
                "diffusion models have model.checkpointing."
            )
        encoder.backbone.set_grad_checkpointing(True)
