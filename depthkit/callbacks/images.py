"""Pictures of what the network sees, predicts and should predict, for whichever loggers take images."""

from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger

from depthkit.evaluation.render import batch_strip
from depthkit.types import Representation


class DepthImages(Callback):
    """Logs image | prediction | label of the first validation batch of every set as ``val/<set>/pictures``.

    TensorBoard and Weights & Biases loggers are served; others are left alone.

    Args:
        rows: images per picture.
    """

    def __init__(self, rows: int = 4) -> None:
        if rows < 1:
            raise ValueError(f"expected rows >= 1; got {rows}.")
        self.rows = rows

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw the first batch of each set on the first rank."""
        if batch_idx or outputs is None or not trainer.is_global_zero:
            return
        representation: Representation = pl_module.model.representation  # type: ignore[union-attr, assignment]
        picture = batch_strip(batch.rows(batch.real), outputs, representation, rows=self.rows)
        names = getattr(getattr(trainer, "datamodule", None), "val_names", None) or ("data",)
        self._log(trainer, f"val/{names[dataloader_idx]}/pictures", picture)

    def _log(self, trainer: Trainer, name: str, picture: np.ndarray) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image(name, picture, trainer.global_step, dataformats="HWC")
            elif isinstance(logger, WandbLogger):
                logger.log_image(name, [picture], step=trainer.global_step)
