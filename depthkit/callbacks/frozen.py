"""Parts of a network that training leaves as they are."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from depthkit.errors import RecipeError


class Frozen(Callback):
    """Leave parts of a network as they are, and the statistics of its batch normalisation, which a few images would spoil.

    Args:
        encoder: whether its weights and statistics stay.
        batch_norm: whether the statistics of all parts stay; what scales and shifts after them is learnt all the same.
    """

    def __init__(self, *, encoder: bool = False, batch_norm: bool = True) -> None:
        self.encoder, self.batch_norm = encoder, batch_norm

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Freeze the encoder before the optimizer is made.

        Raises:
            RecipeError: the network has no encoder.
        """
        network: Any = pl_module.model
        if self.encoder:
            if not hasattr(network, "encoder"):
                raise RecipeError(f"expected a network with an encoder to freeze; got a {type(network).__name__}.")
            network.encoder.requires_grad_(False)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Put into evaluation mode what stays; the trainer may have set others."""
        network: Any = pl_module.model
        if self.encoder:
            network.encoder.eval()
        if self.batch_norm:
            for module in network.modules():
                if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm):
                    module.eval()
