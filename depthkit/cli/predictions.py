"""Files of ``depthkit predict``: one map per image, and optionally a picture and a point cloud."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch.distributed as dist
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from depthkit.checks import check_choice
from depthkit.errors import LabelError, ShapeError
from depthkit.geometry import intrinsics_from_field_of_view
from depthkit.inference import Prediction
from depthkit.inference.clouds import CloudFormat
from depthkit.inference.outputs import COLOUR, OutputNames
from depthkit.inference.prediction import MapFormat
from depthkit.paradigms import DepthModule
from depthkit.types import Ambiguity, Batch

_SHOWN = 5  # broken images named


class PredictionWriter(BasePredictionWriter):
    """Write each predicted map under the name of its image as soon as it is predicted.

    Args:
        out: folder to write to, with the names of ``OutputNames``.
        suffix: ``.png`` (16 bits, the encoding in the file) or ``.npy`` (float32), see ``Prediction.save``.
        colour: also write ``<name>.colour.png``.
        point_cloud: also write the coloured points, see ``Prediction.save_point_cloud``.
        field_of_view: of the images from left to right [degrees], for the points of images whose intrinsics are not known.
    """

    def __init__(
        self,
        out: Path = Path("predictions"),
        suffix: MapFormat | str = MapFormat.PNG,
        colour: bool = True,
        point_cloud: CloudFormat | str | None = None,
        field_of_view: float = 60.0,
    ) -> None:
        super().__init__("batch")
        self.out, self.suffix, self.colour = out, check_choice("suffix", suffix, MapFormat), colour
        self.point_cloud = None if point_cloud is None else check_choice("point_cloud", point_cloud, CloudFormat)
        self.field_of_view = field_of_view
        self.broken: list[str] = []
        self._names: OutputNames | None = None

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check, before the first prediction, that point clouds are possible and that names do not collide.

        Raises:
            LabelError: point clouds are wanted, and the model predicts up to scale and shift.
            RecipeError: a result would overwrite an image or another result.
        """
        sources = cast(Any, trainer.predict_dataloaders).dataset.sources
        endings = (self.suffix, *((COLOUR,) if self.colour else ()), *((self.point_cloud,) if self.point_cloud else ()))
        self._names = OutputNames(sources, self.out, endings)
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
        """Write one batch; collect the images that could not be read."""
        self.broken += cast(Batch, batch).broken
        module, names = cast(DepthModule, pl_module), cast(OutputNames, self._names)
        cameras = batch.intrinsics.cpu().numpy()
        for key, depth_map, image, camera, real in zip(batch.keys, prediction, batch.image, cameras, batch.real, strict=True):
            if not real:
                continue
            picture = (image.permute(1, 2, 0) * 255).round().byte().cpu().numpy()
            values = depth_map[0].float().cpu().numpy().astype(np.float32)
            found = Prediction(values, module.model.representation, module.ambiguity, picture, name=key)
            found.save(names(key, self.suffix))
            if self.colour:
                found.save_colour(names(key, COLOUR))
            if self.point_cloud:
                known = np.isfinite(camera).all()
                camera = camera if known else intrinsics_from_field_of_view(values.shape, self.field_of_view)
                found.save_point_cloud(names(key, self.point_cloud), camera)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Collect the unreadable images of all ranks."""
        if dist.is_available() and dist.is_initialized():
            parts: list[list[str]] = [[] for _ in range(dist.get_world_size())]
            dist.all_gather_object(parts, self.broken)
            self.broken = [reason for part in parts for reason in part]

    def check(self) -> None:
        """Check that every image has a prediction.

        Raises:
            ShapeError: images have none; the message names them.
        """
        if self.broken:
            total, named = len(cast(OutputNames, self._names).files), "\n".join(self.broken[:_SHOWN])
            more = f"\nand {len(self.broken) - _SHOWN} more" if len(self.broken) > _SHOWN else ""
            raise ShapeError(f"{len(self.broken)} of {total} images have no prediction; the others are written.\n{named}{more}")
