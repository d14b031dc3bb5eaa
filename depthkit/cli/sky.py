"""Sky detection for converters, which take a function because they must not import models."""

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch

from depthkit.models.weights.transformers_hub import load_sky
from depthkit.resize import InputResize, OutputResize


@dataclass
class SkyFinder:
    """A detector of sky by a segmentation model of ``transformers``; worker processes load their own copy.

    Attributes:
        name: folder or hub id.
    """

    name: str
    _model: Any = field(default=None, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return {"name": self.name, "_model": None}

    def ready(self) -> Self:
        """Load the model and return the detector.

        Raises:
            CheckpointError: see ``load_sky``.
        """
        self._model = self._model or load_sky(self.name).eval()
        return self

    @torch.inference_mode()
    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """Detect sky in uint8 RGB ``(H, W, 3)``: bool ``(H, W)``, True where sky is more likely than not."""
        model = self.ready()._model
        image = torch.from_numpy(picture).permute(2, 0, 1)[None] / 255
        seen = InputResize(model.size, "stretch", 1, "bilinear", antialias=True)(image)
        likely = OutputResize()(model(seen), (picture.shape[0], picture.shape[1]))
        return (likely[0, 0] > 0.5).numpy()
