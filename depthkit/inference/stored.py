"""Maps that some other program predicted, scored as if a network had just returned them."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from depthkit.checks import first_line
from depthkit.errors import LabelError, PredictionError
from depthkit.evaluation import Crop
from depthkit.images import is_prediction, opened, plain_array
from depthkit.inference.outputs import COLOUR, CONFIDENCE
from depthkit.inference.prediction import Prediction, facts_beside, load_prediction
from depthkit.types import Ambiguity, Batch, Representation, Sample

_SUFFIXES = (".npy", ".png")


class StoredPredictions:
    """Predictions in a folder, ``KEY.npy`` or ``KEY.png`` for the sample of that key, as a callable for ``evaluate``.

    Files of ``depthkit predict`` and ``Prediction.save`` say themselves what they hold. Of others it is to be said; codes of
    their 16-bit PNG are divided by ``scale``. A map of the whole image is cut to what the protocol shows.

    Args:
        folder: of the files.
        representation: what the numbers are, where the files do not say.
        ambiguity: what they leave undetermined, where the files do not say.
        scale: codes of a PNG per unit, 256 in KITTI's benchmark and 1000 for millimetres.
        shown: of the protocol, see ``Protocol.shown``.

    Raises:
        PredictionError: there is no file, or one cannot be read.
        LabelError: it is not known what they hold.

    Example:
        ``evaluate(stored, stored.of(samples), protocol)``
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        representation: Representation | None = None,
        ambiguity: Ambiguity | None = None,
        scale: float | None = None,
        shown: Crop,
    ) -> None:
        self.folder, self.scale, self.shown = Path(folder), scale, shown
        first = next((file for file in sorted(self.folder.rglob("*")) if file.suffix in _SUFFIXES and _is_map(file)), None)
        if first is None:
            raise PredictionError(f"expected predictions, KEY.npy or KEY.png, in {folder}; there are none. Check the path.")
        if _says(first):
            said = load_prediction(first)
            representation, ambiguity = representation or said.representation, ambiguity or said.ambiguity
        if representation is None or ambiguity is None:
            raise LabelError(
                f"expected to be told what the maps in {folder} hold, as {first.name} does not say it. Give --representation "
                "depth or disparity (or a logarithm of one) and --ambiguity metric, scale or shift_scale."
            )
        self.representation, self.ambiguity = Representation(representation), Ambiguity(ambiguity)
        self._now: list[tuple[str, tuple[int, int]]] = []

    def of(self, samples: Iterable[Sample | Batch]) -> Iterable[Sample | Batch]:
        """Yield samples, remembering which is under way."""
        return _Watched(self, samples)

    def watch(self, item: Sample | Batch) -> None:
        """Note the sample, or batch, whose map is asked for next."""
        if isinstance(item, Batch):
            size = (item.image.shape[-2], item.image.shape[-1])
            self._now = [(key, size) for key, real in zip(item.keys, item.real.tolist(), strict=True) if real]
        else:
            self._now = [(item.key, item.size)]

    def __call__(self, image: Tensor) -> Tensor:
        """Return the maps ``(B, 1, h, w)`` of the samples under way; the image is not looked at."""
        return torch.stack([torch.from_numpy(self._map(key, size))[None] for key, size in self._now])

    def _map(self, key: str, size: tuple[int, int]) -> np.ndarray:
        files = [self.folder / f"{key}{suffix}" for suffix in _SUFFIXES]
        file = next((file for file in files if file.is_file()), None)
        if file is None:
            raise PredictionError(f"expected a prediction of {key!r} at {files[0]} or {files[1].name}; there is none.")
        found = self._values(file)
        if found.shape == size:  # predicted from the whole image
            top, bottom, left, right = self.shown.box(*size)
            found = found[top:bottom, left:right]
        return np.ascontiguousarray(found, np.float32)

    def _values(self, file: Path) -> np.ndarray:
        if _says(file):
            said: Prediction = load_prediction(file)
            if said.representation != self.representation:
                raise LabelError(
                    f"expected {self.representation} in {file}, as in the files before; it says {said.representation}."
                )
            return said.map
        try:
            if file.suffix == ".npy":
                values = plain_array(file.read_bytes())
            else:
                with opened(file, str(file), error=PredictionError) as picture:
                    values = np.asarray(picture)
        except PredictionError:
            raise
        except Exception as error:  # parsers of damaged heads have classes of their own
            raise PredictionError(
                f"expected a map at {file}; it cannot be read ({first_line(error)}). Write it again."
            ) from error
        values = values.squeeze()
        if values.ndim != 2:
            raise PredictionError(f"expected a map (H, W) in {file}; got one of shape {values.shape}.")
        if file.suffix == ".png":
            if self.scale is None:
                raise PredictionError(
                    f"expected to be told what a code of {file.name} is; it does not say it. Give --scale, such as 256 (KITTI)."
                )
            return values.astype(np.float64) / self.scale
        return values


class _Watched:
    """Samples that can be read as often as those they are of."""

    def __init__(self, stored: StoredPredictions, samples: Iterable[Sample | Batch]) -> None:
        self.stored, self.samples = stored, samples

    def __iter__(self) -> Iterator[Sample | Batch]:
        for item in self.samples:
            self.stored.watch(item)
            yield item

    def __len__(self) -> int:
        samples: Any = self.samples
        return len(samples)


def _says(file: Path) -> bool:
    """Whether a file says itself what it holds."""
    return facts_beside(file).is_file() if file.suffix == ".npy" else is_prediction(file)


def _is_map(file: Path) -> bool:
    picture = file.name.endswith(COLOUR) or Path(file.stem).suffix == CONFIDENCE
    return file.is_file() and not file.name.startswith(".") and not picture
