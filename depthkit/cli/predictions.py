"""What ``depthkit predict`` leaves behind: one file per image, and a picture of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor

from depthkit.inference import Prediction
from depthkit.paradigms import DepthModule
from depthkit.types import Batch


class PredictionWriter(BasePredictionWriter):
    """Writes each predicted map under the name of its image, as it comes.

    Args:
        out: folder to write to; folders among the sources are kept.
        suffix: ``.png`` (16 bits, the encoding in the file) or ``.npy`` (float32), see ``Prediction.save``.
        colour: also write ``<name>.colour.png``.
    """

    def __init__(self, out: Path = Path("predictions"), suffix: Literal[".png", ".npy"] = ".png", colour: bool = True) -> None:
        super().__init__("batch")
        self.out, self.suffix, self.colour = out, suffix, colour

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
        """Write one batch."""
        module, root = cast(DepthModule, pl_module), cast(Any, trainer.predict_dataloaders).dataset.root
        for key, depth_map, image in zip(cast(Batch, batch).keys, cast(Tensor, prediction), batch.image, strict=True):
            picture = (image.permute(1, 2, 0) * 255).round().byte().cpu().numpy()
            values = depth_map[0].float().cpu().numpy().astype(np.float32)
            found = Prediction(values, module.model.representation, module.ambiguity, picture, name=key)
            file = self.out / Path(key).resolve().relative_to(root)
            found.save(file.with_name(file.name + self.suffix))
            if self.colour:
                found.save_colour(file.with_name(file.name + ".colour.png"))
