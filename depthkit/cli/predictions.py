"""What ``depthkit predict`` leaves behind: one file per image, and on request a picture and a point cloud of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch.distributed as dist
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from depthkit.errors import LabelError, ShapeError
from depthkit.geometry import intrinsics_from_field_of_view
from depthkit.inference import Prediction
from depthkit.inference.outputs import COLOUR, OutputNames
from depthkit.paradigms import DepthModule
from depthkit.types import Ambiguity, Batch

_SHOWN = 5  # broken images named


class PredictionWriter(BasePredictionWriter):
    """Write each predicted map under the name of its image, as it comes.

    Args:
        out: folder to write to, in which names are those of ``OutputNames``.
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
        self._names: OutputNames | None = None

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse point clouds of predictions that have none before the first is computed.

        Raises:
            LabelError: the model predicts up to scale and shift.
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
        """Write one batch; an image that could not be read is remembered."""
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
        """Gather the images of all ranks that could not be read."""
        if dist.is_available() and dist.is_initialized():
            parts: list[list[str]] = [[] for _ in range(dist.get_world_size())]
            dist.all_gather_object(parts, self.broken)
            self.broken = [reason for part in parts for reason in part]

    def check(self) -> None:
        """Check that every image has a prediction, once the others have theirs.

        Raises:
            ShapeError: some have none; names them.
        """
        if self.broken:
            total, named = len(cast(OutputNames, self._names).files), "\n".join(self.broken[:_SHOWN])
            more = f"\nand {len(self.broken) - _SHOWN} more" if len(self.broken) > _SHOWN else ""
            raise ShapeError(f"{len(self.broken)} of {total} images have no prediction; the others are written.\n{named}{more}")
