"""What ``depthkit predict`` leaves behind: one file per image, and on request a picture and a point cloud of it."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from depthkit.errors import LabelError
from depthkit.geometry import intrinsics_from_field_of_view
from depthkit.inference import Prediction
from depthkit.paradigms import DepthModule
from depthkit.types import Ambiguity, Batch

_SHOWN = 5  # broken images named


class PredictionWriter(BasePredictionWriter):
    """Writes each predicted map under the name of its image, as it comes.

    Args:
        out: folder to write to; folders among the sources are kept.
        suffix: ``.png`` (16 bits, the encoding in the file) or ``.npy`` (float32), see ``Prediction.save``.
        colour: also write ``<name>.colour.png``.
        point_cloud: also write the coloured points, see ``Prediction.save_point_cloud``.
        field_of_view: of the images from left to right [degrees], for the points of images whose intrinsics are not known.
    """

    def __init__(
        self,
        out: Path = Path("predictions"),
        suffix: Literal[".png", ".npy"] = ".png",
        colour: bool = True,
        point_cloud: Literal[".ply", ".glb"] | None = None,
        field_of_view: float = 60.0,
    ) -> None:
        super().__init__("batch")
        self.out, self.suffix, self.colour = out, suffix, colour
        self.point_cloud, self.field_of_view = point_cloud, field_of_view
        self.broken: list[str] = []

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse point clouds of predictions that have none before the first is computed.

        Raises:
            LabelError: the model predicts up to scale and shift.
        """
        if self.point_cloud and cast(DepthModule, pl_module).ambiguity == Ambiguity.SHIFT_SCALE:
            raise LabelError(
                "expected a model that predicts depth, or depth up to scale, for --predictions.point_cloud; this one predicts "
                "disparity up to scale and shift, and the shift is not known. Leave out the point clouds, or train with "
                "GeometryPreservingModule."
            )

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write one batch; an image that could not be read is remembered."""
        self.broken += cast(Batch, batch).broken
        module, root = cast(DepthModule, pl_module), cast(Any, trainer.predict_dataloaders).dataset.root
        cameras = batch.intrinsics.cpu().numpy()
        for key, depth_map, image, camera, real in zip(batch.keys, prediction, batch.image, cameras, batch.real, strict=True):
            if not real:
                continue
            picture = (image.permute(1, 2, 0) * 255).round().byte().cpu().numpy()
            values = depth_map[0].float().cpu().numpy().astype(np.float32)
            found = Prediction(values, module.model.representation, module.ambiguity, picture, name=key)
            file = self.out / Path(key).resolve().relative_to(root)
            found.save(file.with_name(file.name + self.suffix))
            if self.colour:
                found.save_colour(file.with_name(file.name + ".colour.png"))
            if self.point_cloud:
                known = np.isfinite(camera).all()
                camera = camera if known else intrinsics_from_field_of_view(values.shape, self.field_of_view)
                found.save_point_cloud(file.with_name(file.name + self.point_cloud), camera)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Name the images that could not be read."""
        if self.broken:
            named = " ".join(self.broken[:_SHOWN])
            warnings.warn(f"{len(self.broken)} images have no prediction: {named}", stacklevel=2)
