"""Sky in single pictures, for converters: they are given a function, for data does not know of models."""

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch

from depthkit.models.weights.transformers_hub import load_sky
from depthkit.resize import InputResize, OutputResize


@dataclass
class SkyFinder:
    """Where a segmentation model of ``transformers`` sees sky; it travels to worker processes, which load it afresh.

    Attributes:
        name: folder or hub id.
    """

    name: str
    _model: Any = field(default=None, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return {"name": self.name, "_model": None}

    def ready(self) -> Self:
        """The same, its model loaded.

        Raises:
            CheckpointError: see ``load_sky``.
        """
        self._model = self._model or load_sky(self.name).eval()
        return self

    @torch.inference_mode()
    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """Bool ``(H, W)``: more likely sky than not, of uint8 RGB ``(H, W, 3)``."""
        model = self.ready()._model
        image = torch.from_numpy(picture).permute(2, 0, 1)[None] / 255
        seen = InputResize(model.size, "stretch", 1, "bilinear", antialias=True)(image)
        likely = OutputResize()(model(seen), (picture.shape[0], picture.shape[1]))
        return (likely[0, 0] > 0.5).numpy()
