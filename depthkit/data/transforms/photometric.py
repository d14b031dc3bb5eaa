"""Photometric transforms: colours change, no pixel moves."""

from collections.abc import Sequence

import numpy as np

from depthkit.data.transforms.base import Transform
from depthkit.errors import RecipeError
from depthkit.types import Sample


class Photometric(Transform):
    """Colour changes from albumentations; further views of a sample change in the same way.

    Args:
        transforms: albumentations transforms that move no pixel, applied in turn: ``ColorJitter``, ``RandomGamma``, ...
        p: probability that they are applied at all; each has its own as well.
    """

    def __init__(self, transforms: Sequence[object], *, p: float = 1.0) -> None:
        import albumentations

        for transform in transforms:
            if not isinstance(transform, albumentations.ImageOnlyTransform):
                raise RecipeError(
                    f"expected transforms that leave pixels where they are; got {type(transform).__name__}. "
                    "Labels and intrinsics would not follow it; use depthkit.data.transforms for geometry."
                )
        self._compose = albumentations.Compose(list(transforms), p=p)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the sample in other colours."""
        seed = int(rng.integers(2**31))  # albumentations' own seeding repeats itself in every worker and epoch

        def recolour(image: np.ndarray) -> np.ndarray:
            self._compose.set_random_seed(seed)
            return self._compose(image=image)["image"]

        return sample.replace(image=recolour(sample.image), frames={n: recolour(f) for n, f in sample.frames.items()})
