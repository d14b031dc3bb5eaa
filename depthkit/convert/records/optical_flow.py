"""Optical flow by RAFT (Teed and Deng 2020) as torchvision has it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from torch.nn.functional import pad

from depthkit.errors import CheckpointError

_LEAST = 128  # px: four halvings of an eighth of it must leave something to correlate


@dataclass
class Raft:
    """Flow between two pictures; a ``stereo_labels.Flow``. Weights are loaded when they are needed, once in every process.

    Attributes:
        weights: file of them, as torchvision saves them; None for those of torchvision (trained on FlyingChairs,
            FlyingThings3D, Sintel, KITTI and HD1K), from torch's folder of downloads or the net.
        size: ``large`` (5.3 M parameters) or ``small`` (1.0 M).
        device: of torch; None for a GPU if there is one.

    Raises:
        CheckpointError: from ``ready`` and calls: the weights cannot be had, or are of another network.
    """

    weights: Path | None = None
    size: Literal["large", "small"] = "large"
    device: str | None = None
    _model: Any = field(default=None, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_model": None}

    def ready(self) -> Self:
        """Load the weights."""
        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._model = self._model or self._load().eval().to(device)
        return self

    @torch.inference_mode()
    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return where each pixel of the first picture, uint8 RGB ``(H, W, 3)``, goes in the second, ``(H, W, 2)`` [px]."""
        model = self.ready()._model
        device = next(model.parameters()).device
        pair = torch.from_numpy(np.stack([first, second])).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
        height, width = pair.shape[-2:]
        missing = [max(_LEAST, -(-side // 8) * 8) - side for side in (width, height)]
        pair = pad(pair, (0, missing[0], 0, missing[1]), mode="replicate")
        flow = model(pair[:1], pair[1:])[-1][0, :, :height, :width]
        return flow.permute(1, 2, 0).float().cpu().numpy()

    def _load(self) -> torch.nn.Module:
        from torchvision.models import optical_flow as models

        large = self.size == "large"
        choice = models.Raft_Large_Weights.C_T_SKHT_V2 if large else models.Raft_Small_Weights.C_T_V2
        model = (models.raft_large if large else models.raft_small)()
        try:
            if self.weights is None:
                state = choice.get_state_dict(progress=False, check_hash=True)
            else:
                state = torch.load(self.weights, map_location="cpu", weights_only=True)
            model.load_state_dict(state)
        except Exception as error:  # the net, the disk, unpickling and loading fail in many ways; all mean no weights
            name = choice.url.rpartition("/")[2]
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise CheckpointError(
                f"expected weights of RAFT, {self.size}, {'in ' + str(self.weights) if self.weights else 'from torchvision'}; "
                f"they cannot be had ({lines[0]}). Download {choice.url} where there is a connection and give "
                f"--weights {name}."
            ) from error
        return model
