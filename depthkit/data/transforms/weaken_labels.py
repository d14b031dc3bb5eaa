"""Weaken labels for ablations: experiments that train on less than a dataset's labels say."""

import hashlib

import numpy as np

from depthkit.data.transforms.base import Transform
from depthkit.errors import LabelError, RecipeError
from depthkit.types import Ambiguity, LabelKind, Representation, Sample

_WHOLE = LabelKind(Ambiguity.METRIC, Representation.DEPTH)


class WeakenLabel(Transform):
    """A metric label without its scale, or without scale and shift (Romanov et al. 2020, section 5, proof of concept).

    Which of the two a sample becomes, and its factor and offset, are drawn from ``seed`` and the sample's key alone: the same
    in every epoch, as if the dataset had been made so. The paper does not state its distributions.

    Args:
        scale_only: share of the samples that keep their geometry: depth times a factor (UTS). All others become disparity times
            a factor plus an offset (UTSS), in which sky stays valid.
        factor: range of the factor, log-uniform.
        offset: the offset of a disparity is uniform between plus and minus this, in standard deviations of its valid values.
        seed: another seed, other draws.

    Raises:
        RecipeError: an argument is out of its range.
    """

    def __init__(
        self, scale_only: float, *, factor: tuple[float, float] = (0.1, 10.0), offset: float = 0.5, seed: int = 0
    ) -> None:
        if not 0 <= scale_only <= 1:
            raise RecipeError(f"expected scale_only between 0 and 1; got {scale_only}.")
        if not 0 < factor[0] <= factor[1] or offset < 0:
            raise RecipeError(f"expected 0 < low <= high for factor and offset >= 0; got {tuple(factor)} and {offset}.")
        self.scale_only, self.factor, self.offset, self.seed = scale_only, (factor[0], factor[1]), offset, seed

    def label_kinds(self, kind: LabelKind) -> frozenset[LabelKind]:
        """See ``Transform.label_kinds``.

        Raises:
            LabelError: the label is not metric depth.
        """
        if kind != _WHOLE:
            raise LabelError(f"expected {_WHOLE} labels to weaken; got {kind}. Leave WeakenLabel out for this source.")
        kept, lost = LabelKind(Ambiguity.SCALE, kind.representation), LabelKind(Ambiguity.SHIFT_SCALE, Representation.DISPARITY)
        return frozenset({kept} if self.scale_only == 1 else {lost} if self.scale_only == 0 else {kept, lost})

    def ambiguity(self, key: str) -> Ambiguity:
        """Return what the label of the sample with this key becomes."""
        return Ambiguity.SCALE if self._draws(key).random() < self.scale_only else Ambiguity.SHIFT_SCALE

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the sample with its weaker label.

        Raises:
            LabelError: the label is not metric depth.
        """
        if sample.label is None or sample.valid is None or sample.kind != _WHOLE:
            raise LabelError(f"sample {sample.key}: expected a metric depth label to weaken; got {sample.kind}.")
        draws = self._draws(sample.key)
        keeps_geometry = draws.random() < self.scale_only
        factor = np.exp(draws.uniform(*np.log(self.factor)))
        valid = sample.valid & (sample.label > 0)
        if keeps_geometry:
            return sample.replace(
                label=np.where(valid, sample.label, 0).astype(np.float32) * np.float32(factor),
                valid=valid,
                ambiguity=Ambiguity.SCALE,
            )
        disparity = 1 / np.where(valid, sample.label, 1).astype(np.float64)
        spread = disparity[valid].std() if valid.any() else 0.0
        shifted = factor * (disparity + draws.uniform(-self.offset, self.offset) * spread)
        return sample.replace(
            label=np.where(valid, shifted, 0).astype(np.float32),
            valid=valid,
            ambiguity=Ambiguity.SHIFT_SCALE,
            representation=Representation.DISPARITY,
        )

    def _draws(self, key: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, *hashlib.sha256(key.encode()).digest()])


class WithoutLabel(Transform):
    """An image alone: what a labelled dataset is to a teacher's student."""

    def label_kinds(self, kind: LabelKind) -> frozenset[LabelKind]:
        """See ``Transform.label_kinds``."""
        return frozenset({LabelKind(Ambiguity.UNLABELLED, kind.representation)})

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the sample without label, mask, sky and pairs."""
        return sample.replace(label=None, valid=None, sky=None, edges=None, pairs=None, ambiguity=Ambiguity.UNLABELLED)
