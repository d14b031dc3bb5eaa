"""Pictures of inputs, predictions and labels, for loggers that take images."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger

from depthkit.callbacks.report import RunReport
from depthkit.errors import RecipeError
from depthkit.evaluation.render import batch_strip, colourise, picture_strip
from depthkit.types import Representation
from depthkit.writing import png_bytes, replacing


class DepthImages(Callback):
    """Log image | prediction | label of the first validation batch of every set as ``val/<set>/pictures``.

    Loggers of TensorBoard, Weights & Biases and MLflow get them; beside the table of a ``CSVLogger`` they are PNG files in
    the folder ``pictures``, and the page of ``RunReport`` shows the last of each. Other loggers get none.

    Args:
        rows: images per picture.

    Raises:
        RecipeError: ``rows`` is below 1.
    """

    def __init__(self, rows: int = 4) -> None:
        if rows < 1:
            raise RecipeError(f"expected rows of at least 1; got {rows}.")
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
        log_picture(trainer, f"val/{names[dataloader_idx]}/pictures", picture, "image | prediction | label")


class ReprojectionImages(Callback):
    """Log the reprojections of self-supervised training as ``train/reprojection``, a row per image of a batch.

    Target | disparity | each source warped to the target by predicted depth and motion | automask, black where no pixel
    learns. Loggers as for ``DepthImages``.

    Args:
        rows: images per picture.
        every_n_steps: optimizer steps between two pictures.

    Raises:
        RecipeError: ``rows`` or ``every_n_steps`` is below 1; or, when training starts, the module does not learn from video.
    """

    def __init__(self, rows: int = 4, every_n_steps: int = 1000) -> None:
        if min(rows, every_n_steps) < 1:
            raise RecipeError(f"expected rows and every_n_steps of at least 1; got {rows} and {every_n_steps}.")
        self.rows, self.every_n_steps = rows, every_n_steps
        self._step = 0  # of the last picture; several batches may share a step

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse modules without reprojection."""
        if not hasattr(pl_module, "reconstruct"):
            raise RecipeError(
                f"expected a module that reprojects views, such as SelfSupervisedVideoModule; got {type(pl_module).__name__}. "
                "Use DepthImages."
            )

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Draw a batch on the first rank, in evaluation mode, so that the picture does not change training."""
        step = trainer.global_step
        if step == self._step or (step - 1) % self.every_n_steps or not trainer.is_global_zero:
            return
        self._step = step
        modes = [(part, part.training) for part in pl_module.modules()]
        pl_module.eval()
        with torch.no_grad():
            found = pl_module.reconstruct(batch.rows(torch.arange(len(batch)) < self.rows))
        for part, training in modes:
            part.training = training
        views = torch.cat([batch.image[: self.rows, None], found.warped], 1).clamp(0, 1).mul(255).round().byte()
        lines: list[list[np.ndarray]] = []
        for target, *warped in views.permute(0, 1, 3, 4, 2).cpu().numpy():
            index = len(lines)
            disparity = colourise(found.sigmoids[0][index], representation=Representation.DISPARITY)
            learns = np.where(found.selected[index, 0, :, :, None].cpu().numpy() >= 0, np.uint8(255), np.uint8(0))
            lines.append([target, disparity, *warped, learns.repeat(3, -1)])
        log_picture(trainer, "train/reprojection", picture_strip(lines), "target | disparity | sources warped | automask")


def log_picture(trainer: Trainer, name: str, picture: np.ndarray, caption: str = "") -> None:
    """Send a picture, uint8 ``(H, W, 3)``, to every logger that takes images, and to the report of the run."""
    step = trainer.global_step
    file = f"pictures/{name.replace('/', '.')}.{step:08d}.png"
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(name, picture, step, dataformats="HWC")
        elif isinstance(logger, WandbLogger):
            logger.log_image(name, [picture], step=step)
        elif isinstance(logger, MLFlowLogger):
            logger.experiment.log_image(logger.run_id, picture, artifact_file=file)
        elif isinstance(logger, CSVLogger):
            with replacing(Path(logger.log_dir) / file) as part:
                part.write_bytes(png_bytes(picture))
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, RunReport):
            callback.pictures[name] = (step, picture, caption)
