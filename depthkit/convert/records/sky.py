"""Sky for datasets whose authors do not mark it: found by another network, and as far as can be."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

import numpy as np

from depthkit.types import Ambiguity, Representation, Sample

Sky = Callable[[np.ndarray], np.ndarray]
"""From a picture, uint8 RGB ``(H, W, 3)``, to where the sky is, bool ``(H, W)``."""


@dataclass(frozen=True)
class WithSky(Sequence[Sample]):
    """A converter's samples, their sky labelled too, as Depth Anything trains its teacher (section 3.1).

    Sky is where ``sky`` says so and there is no label: depth infinity, disparity 0, or, up to shift and scale, the least
    disparity of the image. It is valid. Images without any label stay so.

    Attributes:
        samples: the converter's.
        sky: as told above; it travels to worker processes.
    """

    samples: Sequence[Sample]
    sky: Sky

    def __getattr__(self, name: str) -> Any:
        if name in ("samples", "sky") or name.startswith("__"):  # of an object that is being unpickled
            raise AttributeError(name)
        return getattr(self.samples, name)

    def __len__(self) -> int:
        return len(self.samples)

    @overload
    def __getitem__(self, position: int) -> Sample: ...
    @overload
    def __getitem__(self, position: slice) -> "WithSky": ...
    def __getitem__(self, position: int | slice) -> "Sample | WithSky":
        if isinstance(position, slice):
            return replace(self, samples=self.samples[position])
        sample = self.samples[position]
        if sample.label is None or sample.valid is None or not sample.valid.any():
            return sample
        seen = self.sky(sample.image) & ~sample.valid
        if not seen.any():
            return sample
        if sample.representation == Representation.DEPTH:
            farthest = np.float32(np.inf)
        elif sample.ambiguity == Ambiguity.SHIFT_SCALE:
            farthest = sample.label[sample.valid].min()
        else:
            farthest = np.float32(0)
        marked = seen if sample.sky is None else sample.sky | seen
        return sample.replace(label=np.where(seen, farthest, sample.label), valid=sample.valid | seen, sky=marked)
