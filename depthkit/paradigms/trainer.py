"""What the trainer offers and modules have to serve: searches, loaders of one's own, precisions that store weights."""

import warnings
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder
from lightning.pytorch.plugins import DoublePrecision, HalfPrecision, Precision
from torch import nn

from depthkit.data.stream.collate import as_batch
from depthkit.paradigms.terms.labels import check_label_kinds
from depthkit.types import AMBIGUITIES, REPRESENTATIONS, Batch, LabelKind

_MULTIPLYING = (
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
    nn.MultiheadAttention,
)  # fmt: skip
"""Layers whose weights autocast casts before each product: what they compute is the same if they are stored so."""


warnings.filterwarnings("ignore", message="You have overridden `on_before_batch_transfer` in `LightningModule`")


class ServesTheTrainer(LightningModule):
    """Take what a search for a learning rate finds, and what a loader without a datamodule yields."""

    accepts: Any
    dataset_names: tuple[str, ...]
    lr: float | None = None
    """Learning rate of all weights without one of their own (``encoder_lr``) instead of the optimizer's; a search sets it."""
    _built_with: Any = None

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Make a batch of the samples that a loader without a datamodule yields, and check what it holds.

        Raises:
            LabelError: a label is of a kind that the paradigm does not learn from.
        """
        if isinstance(batch, Batch) and hasattr(getattr(self.trainer, "datamodule", None), "label_kinds"):
            return batch
        batch = as_batch(batch)
        if self.trainer.training and isinstance(batch, Batch):
            codes = zip(*(batch.on_host(x).tolist() for x in (batch.ambiguity, batch.representation)), strict=True)
            held = {LabelKind(AMBIGUITIES[a], REPRESENTATIONS[r]) for a, r in codes}
            check_label_kinds({"data": held}, self.accepts, type(self).__name__)
        return batch

    @property
    def searched(self) -> tuple[float | None, int | None]:
        """What a search finds and the optimizer is built with: the rate; the batch size, by which a schedule counts steps."""
        return self.lr, getattr(getattr(self.trainer, "datamodule", None), "batch_size", None)

    def on_fit_start(self) -> None:
        """Build the optimizer again if a search has found another rate or batch size since it was built."""
        if self.searched != self._built_with:
            self.trainer.strategy.setup_optimizers(self.trainer)


class SearchedBefore(Callback):
    """Let a run that goes on have the rate and the batch size that it began with; a search would make it begin anew."""

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Store the batch size; the rate is with the optimizer."""
        checkpoint["batch_size"] = getattr(getattr(trainer, "datamodule", None), "batch_size", None)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Leave out the searches, unless it is one of them that puts back the weights that it began with."""
        searches = [found for found in trainer.callbacks if type(found) in (BatchSizeFinder, LearningRateFinder)]  # type: ignore[attr-defined]
        if not searches or trainer.train_dataloader is not None:
            return
        warnings.warn("this run goes on with the learning rate and the batch size of its checkpoint; no search.", stacklevel=2)
        trainer.callbacks = [found for found in trainer.callbacks if found not in searches]  # type: ignore[attr-defined]
        if any(isinstance(found, BatchSizeFinder) for found in searches) and "batch_size" in checkpoint:
            trainer.datamodule.batch_size = checkpoint["batch_size"]  # type: ignore[attr-defined]


class HalfWeights(Precision):
    """Store the trained weights of products in half precision, and run networks under autocast.

    Autocast is the one door at which inputs take the network's type. So a step computes what it does in the trainer's mixed
    precision: labels, losses, metrics, normalisations, tables and statistics stay in float32, as do parts outside autocast.
    Once the trainer ends, weights are float32 again, which changes no value.

    Args:
        precision: ``bf16-true`` or ``16-true``.
        device: type of the device.
    """

    def __init__(self, precision: Any, device: str) -> None:
        self.precision, self.device = precision, device
        self.dtype = torch.bfloat16 if precision == "bf16-true" else torch.float16
        self._stored: list[nn.Parameter] = []

    def convert_module(self, module: nn.Module) -> nn.Module:
        """Cast the weights, in place."""
        self._stored = list(_multiplying_weights(module))
        for weight in self._stored:
            weight.data = weight.data.to(self.dtype)
        return module

    def forward_context(self) -> AbstractContextManager[Any]:
        """Autocast."""
        return torch.autocast(self.device, self.dtype)

    def teardown(self) -> None:
        """Cast the weights back."""
        for weight in self._stored:
            weight.grad = None
            weight.data = weight.data.float()
        self._stored = []


class DoubleWeights(DoublePrecision):
    """Compute everything in float64, batches too; random numbers are those of float32."""

    @contextmanager
    def forward_context(self) -> Generator[None, None, None]:
        """Leave the type of new tensors as it is."""
        yield

    def convert_input(self, data: Any) -> Any:
        """Make the floating-point numbers of a batch, or of any collection, float64."""
        batch = as_batch(data)
        return batch.double() if isinstance(batch, Batch) else super().convert_input(data)


def store_weights(trainer: Trainer) -> None:
    """Put these precisions in place of Lightning's, which casts labels and statistics, too, and knows no ``Batch``."""
    strategy = trainer.strategy
    if type(strategy.precision_plugin) is HalfPrecision:
        strategy.precision_plugin = HalfWeights(strategy.precision_plugin.precision, strategy.root_device.type)
    elif type(strategy.precision_plugin) is DoublePrecision:
        strategy.precision_plugin = DoubleWeights()


def _multiplying_weights(module: nn.Module) -> Iterator[nn.Parameter]:
    if getattr(module, "outside_autocast", False):
        return
    if isinstance(module, _MULTIPLYING):
        yield from (weight for weight in module.parameters(recurse=False) if weight.requires_grad)
    for part in module.children():
        yield from _multiplying_weights(part)
