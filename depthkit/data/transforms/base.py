"""What a transform is, and one after the other.

A transform is ``transform(sample, rng) -> Sample``; all chance comes from the generator it is given, so the same sample at
the same place of the same epoch is always changed in the same way.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np

from depthkit.errors import ShapeError
from depthkit.types import LabelKind, Sample


class Transform(ABC):
    """A change of one sample."""

    @abstractmethod
    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the changed sample; the given one is left as it is."""

    def label_kinds(self, kind: LabelKind) -> frozenset[LabelKind]:
        """Every kind that a label of this kind may become; itself, unless the transform changes labels."""
        return frozenset({kind})

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v}' for k, v in vars(self).items())})"


class Compose(Transform):
    """One transform after the other."""

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self.transforms = list(transforms)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the sample after all of them."""
        for transform in self.transforms:
            sample = checked(transform, transform(sample, rng))
        return sample

    def label_kinds(self, kind: LabelKind) -> frozenset[LabelKind]:
        """See ``Transform.label_kinds``."""
        kinds = frozenset({kind})
        for transform in self.transforms:
            kinds = frozenset(after for before in kinds for after in transform.label_kinds(before))
        return kinds


def in_turn(transform: Transform | None) -> Iterator[Transform]:
    """Yield what a transform does one after the other, where that is known."""
    if type(transform) is Compose:
        for part in transform.transforms:
            yield from in_turn(part)
    elif transform is not None:
        yield transform


def checked(transform: Transform, sample: Sample) -> Sample:
    """Return what a transform made, its images still in 8 bits.

    Raises:
        ShapeError: an image is not ``(H, W, 3)`` in uint8; a float image in [0, 1] would become black.
    """
    for name, image in (("image", sample.image), *sample.frames.items()):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ShapeError(
                f"expected uint8 (H, W, 3) from {type(transform).__name__} for '{name}' of sample {sample.key}; "
                f"got {image.dtype} {image.shape}. Return images in 0 to 255; the batch brings them to [0, 1]."
            )
    return sample
