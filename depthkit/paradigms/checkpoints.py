"""Checkpoints of every paradigm: what they hold, how training starts from one, and how it continues from one."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor

from depthkit.checks import first_line
from depthkit.errors import CheckpointError
from depthkit.models.weights.checkpoint import fresh_networks
from depthkit.models.weights.facts import write_facts
from depthkit.models.weights.files import misfit, named_as
from depthkit.models.weights.registry import run_of
from depthkit.shards.files import replace_bytes, size_text


class StartsFromCheckpoints(LightningModule):
    """Start training from the weights of an earlier run, and write checkpoints that say how to rebuild their networks.

    The module has ``model``, ``ambiguity``, ``input_size``, ``weights`` (None, or the MODEL that training starts from) and
    perhaps ``pose_net``.
    """

    model: Any
    ambiguity: Any
    input_size: tuple[int, int] | None
    weights: str | Path | None
    resumed: bool = False
    """Whether a checkpoint has been loaded, so that ``weights`` must not be."""

    def start_from_weights(self) -> None:
        """Load ``weights``, unless a checkpoint has been loaded.

        Raises:
            CheckpointError: ``weights`` cannot be had or read, or is of other networks.
        """
        if self.weights is not None and not self.resumed:
            earlier = run_of(self.weights)
            self.check_run(earlier)
            state = self.state_of(earlier)
            if not Path(self.weights).is_file():  # a network alone: what is trained beside it starts as it is
                parts = {name.partition(".")[0] for name in state}
                state = {name: x for name, x in self.state_dict().items() if name.partition(".")[0] not in parts} | state
            self.load_state_dict(state)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check the run that the checkpoint comes from, and keep its weights instead of ``weights``."""
        self.check_run(checkpoint)
        self.resumed = True

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store, as plain values, what a predictor needs to rebuild the network."""
        write_facts(checkpoint, self.model, self.ambiguity, self.input_size, getattr(self, "pose_net", None))

    def state_of(self, checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the weights that training starts from: by default all weights of the earlier run."""
        return dict(checkpoint["state_dict"])

    def check_run(self, checkpoint: Mapping[str, Any]) -> None:
        """Raise a ``CheckpointError`` if this module cannot continue from an earlier run although the weights fit."""

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load weights as torch does, and list every key that does not fit.

        Raises:
            CheckpointError: keys are missing, unexpected or of another shape.
        """
        ours = self.state_dict()
        state_dict = named_as(state_dict, ours)
        try:
            return super().load_state_dict(state_dict, strict=strict, assign=assign)
        except RuntimeError as error:
            found = misfit(state_dict, ours, f"this {type(self).__name__}", "Use the recipe it was trained with.")
            raise found or CheckpointError(first_line(error)) from error

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load a module as Lightning does, and rebuild a network of ``depthkit.models`` unless ``model`` is given."""
        if "model" not in kwargs and isinstance(checkpoint_path, str | Path):
            kwargs = fresh_networks(checkpoint_path) | kwargs
        return super().load_from_checkpoint(checkpoint_path, *args, **kwargs)


class WholeCheckpoints(Callback):
    """Write each checkpoint beside its place and then rename it, so that a kill or a full disk leaves the one before.

    Lightning writes to the system's folder for temporary files; from there to another file system is a copy, which can break.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Replace the trainer's way of writing, unless it has one of its own."""
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = _WholeFiles()


class _WholeFiles(TorchCheckpointIO):
    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a file on a disk whole or not at all, and one elsewhere as Lightning does.

        Raises:
            CheckpointError: the disk refuses it.
        """
        if "://" in str(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        content = BytesIO()
        torch.save(checkpoint, content)
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            replace_bytes(Path(path), content.getbuffer())
        except OSError as error:
            raise CheckpointError(
                f"expected to write a checkpoint of {size_text(content.tell())} to {path}; got '{error.strerror or error}'. "
                "What was there before is whole: make room, and go on with --ckpt_path auto."
            ) from error


class ResumePosition(Callback):
    """Continue a resumed run with the next unseen batch of the checkpoint's epoch.

    A schedule asks for the number of steps before the trainer restores its loops, and so makes the trainer build its loader
    early and forget the position. This callback restores it before the first batch is read.

    A checkpoint written at the end of an epoch, or of its last batch, is counted by the trainer as one within the epoch: a run
    of ``max_steps`` that goes on from it would end the epoch again, skip one of data and number its steps from one more. Its
    counts are made those of a finished epoch. If the steps ended within an epoch, they are made those of a finished batch;
    so for a checkpoint written when the run was over, which counts an epoch under way as finished.
    """

    def __init__(self) -> None:
        self._positions: list[Any] = []
        self._epoch_ended = False

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Remember the position of each loader that has one, and count the epoch or batch that had ended as such."""
        loop = checkpoint.get("loops", {}).get("fit_loop", {})
        self._positions = loop.get("state_dict", {}).get("combined_loader", [])
        epochs, batches = loop.get("epoch_progress"), loop.get("epoch_loop.batch_progress")
        if not epochs:
            return
        at_epoch_end = epochs["total"]["processed"] != epochs["total"]["completed"]
        at_batch_end = batches["total"]["processed"] != batches["total"]["completed"]
        run_over = epochs["total"]["ready"] == epochs["total"]["completed"] > 0
        self._epoch_ended = batches["is_last_batch"] and (at_epoch_end or at_batch_end or run_over)
        for count in (epochs["total"], epochs["current"]):
            if self._epoch_ended:
                count.update(dict.fromkeys(count, count["ready"]))
            elif at_epoch_end or run_over:
                count["processed"] = count["completed"] = count["ready"] - 1
        if at_batch_end and self._epoch_ended:
            _move(loop, 1)
        elif at_epoch_end and not self._epoch_ended:
            _move(loop, -1)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Move the loaders to their positions."""
        if self._epoch_ended:
            trainer.fit_loop.epoch_loop.restarting = self._epoch_ended = False
        positions, self._positions = self._positions, []
        if positions:
            loaders = [x for x in CombinedLoader(trainer.train_dataloader).flattened if hasattr(x, "load_state_dict")]
            for loader, position in zip(loaders, positions, strict=True):
                loader.load_state_dict(position)


def _move(loop: dict[str, Any], by: int) -> None:
    """Count so many batches more as completed."""
    batches = loop["epoch_loop.batch_progress"]
    for count in (batches["total"], batches["current"]):
        count["completed"] += by
    loop["epoch_loop.state_dict"]["_batches_that_stepped"] += by
