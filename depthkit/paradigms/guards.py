"""What watches every training run: finite weights, expected predictions, unreadable samples, names of scores."""

from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from depthkit.devices import own_part, readable_at_once
from depthkit.errors import DepthKitError, RecipeError, TrainingError

_LOOK_EVERY = 50
"""Batches between two checks of the losses in a run without logging."""


class LateChecks:
    """Checks of values within a step: made at once on the CPU, and on a device when the trainer logs, so that no step waits."""

    _expected: tuple[Tensor, Callable[[], DepthKitError]] | None = None

    def expect(self, fine: Tensor, error: Callable[[], DepthKitError]) -> None:
        """Raise ``error()`` if ``fine``, bool ``()``, is False: now, or at the next ``raise_late``."""
        if not readable_at_once(fine):
            self._expected = (fine if self._expected is None else fine & self._expected[0], error)
        elif not fine:
            raise error()

    def raise_late(self) -> None:
        """Raise the error of a check since the last call that found something wrong."""
        (checked, self._expected) = (self._expected, None)
        if checked is not None and not checked[0]:
            raise checked[1]()


class FiniteWeights(Callback):
    """Stop a run whose loss and weights are no longer finite, and let no checkpoint hold such weights."""

    def __init__(self) -> None:
        self._finite: Tensor | bool = True  # whether all losses since the last check are

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Check the losses when the trainer logs, so that no other step waits for the device.

        Raises:
            TrainingError: the loss and the weights are not finite.
            DepthKitError: a step found something that it did not expect.
        """
        if isinstance(outputs, Mapping):
            self._finite = outputs["loss"].isfinite().all() & self._finite
        every = trainer.log_every_n_steps or _LOOK_EVERY  # type: ignore[attr-defined]
        if (trainer.fit_loop.total_batch_idx + 1) % every == 0:
            finite, self._finite = trainer.strategy.reduce_boolean_decision(bool(self._finite)), True
            if isinstance(pl_module, LateChecks):
                pl_module.raise_late()
            if not finite:
                self.check(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Check the weights before a checkpoint stores them.

        Raises:
            TrainingError: weights are not finite.
        """
        self.check(trainer, pl_module)

    @staticmethod
    def check(trainer: Trainer, pl_module: LightningModule) -> None:
        """Raise a ``TrainingError`` if a weight or a batch statistic is NaN or infinite, since none recovers."""
        state = chain(pl_module.named_parameters(), pl_module.named_buffers())
        broken = [name for name, values in state if not own_part(values).isfinite().all()]
        if broken:
            raise TrainingError(
                f"expected finite weights; after {trainer.global_step} steps {len(broken)} of them, {broken[0]} for one, are "
                "NaN or infinite, as was the loss. Go on from the last checkpoint, which is whole, with a lower learning "
                "rate, trainer.gradient_clip_val, or bf16-mixed for float16; trainer.detect_anomaly names the operation."
            )


class LossOnBar(Callback):
    """Show the loss beside the progress bar as often as the trainer logs: Lightning's own way waits for it at every step."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the bar show what this callback holds, too."""
        self.shown: dict[str, float] = {}
        bar: Any = trainer.progress_bar_callback
        if bar is not None:
            theirs = bar.get_metrics
            bar.get_metrics = lambda *args: {**theirs(*args), **self.shown}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Read the loss when the trainer logs."""
        every = trainer.log_every_n_steps or _LOOK_EVERY  # type: ignore[attr-defined]
        if trainer.progress_bar_callback is not None and (trainer.fit_loop.total_batch_idx + 1) % every == 0:
            self.shown["train/loss"] = float(outputs["loss"])


class KnownMonitors(Callback):
    """Refuse a checkpoint's or early stopping's monitor that validation does not log, before training and not hours later."""

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare the monitors with what the first validation has logged.

        Raises:
            RecipeError: one is not among it.
        """
        logged = [name for name in trainer.callback_metrics if name.startswith("val/")]
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            monitor = getattr(callback, "monitor", None) or ""
            if monitor.startswith("val/") and monitor not in logged:
                name = type(callback).__name__
                raise RecipeError(f"expected a monitor of {name} that validation logs: {', '.join(logged)}; got {monitor!r}.")


class BrokenSamples(Callback):
    """Log ``data/broken``, the number of unreadable samples of the epoch."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the broken samples of one batch."""
        broken = torch.full((), float(len(getattr(batch, "broken", ()))), device=pl_module.device)  # copied from nowhere
        pl_module.log("data/broken", broken, on_step=False, on_epoch=True, reduce_fx="sum", sync_dist=True, batch_size=1)
