"""Callbacks for runs on a cluster: a checkpoint on SIGTERM and Ctrl-C, and the share of time spent waiting for data."""

import signal
from pathlib import Path
from threading import current_thread, main_thread
from time import perf_counter
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException


class SaveOnTermination(Callback):
    """Write ``last.ckpt`` beside the run's other checkpoints when SIGTERM or Ctrl-C ends training.

    ``depthkit fit`` always has it. The current batch is finished first, so that a resumed run continues with the next; several
    ranks stop after the same batch, whichever of them receives the signal, and when. A second Ctrl-C stops at once. During
    validation the checkpoint before it stays the last one. A trainer without a ``ModelCheckpoint`` has no folder to write to.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Replace Lightning's handlers: they would stop in the midst of a step, or one rank before another."""
        self.received = None
        if current_thread() is main_thread():
            signal.signal(signal.SIGINT, self._note)  # the trainer puts back what was before it, also after an error
            if trainer.world_size > 1:
                signal.signal(signal.SIGTERM, self._note)

    def _note(self, number: int, _: object) -> None:
        if self.received == number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop all ranks after this batch if one of them has received a signal."""
        told = self.received is not None
        if trainer.strategy.reduce_boolean_decision(told, all=False) if trainer.world_size > 1 else told:
            trainer._signal_connector.received_sigterm = True

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Stop a validation; with several ranks the next training batch stops all of them."""
        if self.received is not None and trainer.world_size == 1:
            trainer._signal_connector.received_sigterm = True

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save on all ranks if a signal has stopped the trainer at the end of a batch."""
        if isinstance(exception, KeyboardInterrupt):
            self.received = signal.SIGINT
        folder = getattr(trainer.checkpoint_callback, "dirpath", None)
        if isinstance(exception, SIGTERMException) and trainer.training and folder:
            trainer.save_checkpoint(Path(folder) / "last.ckpt", weights_only=False)


class Throughput(Callback):
    """Log ``speed/images_per_second`` over all ranks and ``speed/waiting``, the share of time spent waiting for batches.

    Near 0 the network is the bottleneck; near 1 reading and decoding are: raise ``data.num_workers``, or write smaller images.
    Both are averages between two logged steps on the first rank, without validation and checkpoints. On a GPU the share is an
    upper bound, since the device may still be busy with the step before.
    """

    def __init__(self) -> None:
        self._images, self._busy, self._waited = 0, 0.0, 0.0
        self._start = 0.0  # of the batch
        self._end: float | None = None  # of the batch before; None after what is no training

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Stop the clock of waiting."""
        self._start = perf_counter()
        self._waited += 0.0 if self._end is None else self._start - self._end

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch; log and reset when the trainer logs."""
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        logs = bool(every) and (trainer.fit_loop.total_batch_idx + 1) % every == 0
        if logs and pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
        self._end = perf_counter()
        self._images, self._busy = self._images + len(batch), self._busy + self._end - self._start
        if logs:
            seconds = self._busy + self._waited
            pl_module.log("speed/images_per_second", self._images * trainer.world_size / seconds, batch_size=1)
            pl_module.log("speed/waiting", self._waited / seconds, batch_size=1)
            self._images, self._busy, self._waited = 0, 0.0, 0.0

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave out the time until the next batch, which is not waiting for data."""
        self._end = None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Leave out the time until the next batch, which is not waiting for data."""
        self._end = None
