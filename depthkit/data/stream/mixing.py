"""Mixing objects: which dataset each place of a batch is filled from.

A mixing answers one question, ``filled``: how many of the first n places of an epoch each dataset fills. What a batch holds is
the difference of two answers, so that nothing grows with the epoch. The answer involves no chance (the order of samples
within a dataset does): shares are spread as evenly as integers allow, so a batch, an epoch and a whole training each hold the
promised mixture, and the answer is the same on every rank.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from heapq import heapify, heapreplace
from itertools import pairwise

import numpy as np

from depthkit.errors import RecipeError


def apportion(places: int, weights: np.ndarray) -> np.ndarray:
    """Split the first ``places`` of an endless row of places among datasets so that every total stays close to its share.

    Webster's divisor method: dataset d wants its j-th place at time (j + 1/2) / weight; places are filled in order of time.

    Args:
        places: how many.
        weights: shares of the datasets, ``(L,)``, positive, in any unit.

    Returns:
        Places of each dataset, int64 ``(L,)``; their sum is ``places``.

    >>> [apportion(n, np.array([1.0, 3.0])).tolist() for n in (3, 4, 8)]
    [[1, 2], [1, 3], [2, 6]]
    """
    return np.array(_filled(places, _shares(tuple(weights.tolist()))))


def _filled(places: int, share: Sequence[float]) -> list[int]:
    # At this time at most ``places`` are filled, each share rounded; the rest, at most L + 2, follow one by one.
    sure = max(places - len(share) / 2 - 1, 0.0)
    counts = [int(sure * p + 0.5) for p in share]
    times = [((n + 0.5) / p, d) for d, (n, p) in enumerate(zip(counts, share, strict=True))]
    heapify(times)
    for _ in range(places - sum(counts)):
        d = times[0][1]
        counts[d] += 1
        heapreplace(times, ((counts[d] + 0.5) / share[d], d))
    return counts


@lru_cache(maxsize=256)
def _shares(weights: tuple[float, ...]) -> list[float]:
    array = np.array(weights)
    found: list[float] = (array / array.sum()).tolist()
    return found


def _checked(weights: Sequence[float], name: str) -> np.ndarray:
    array = np.asarray(weights, dtype=np.float64)
    if array.ndim != 1 or len(array) == 0 or not (np.isfinite(array) & (array > 0)).all():
        raise RecipeError(f"expected positive weights for {name}; got {weights}. Leave a source out instead of weighting it 0.")
    return array


def _one_per_dataset(weights: np.ndarray, datasets: int, name: str) -> None:
    if len(weights) != datasets:
        raise RecipeError(
            f"expected one weight of {name} per training source, {datasets}; got {len(weights)}. "
            "Give the weights in the order of data.sources."
        )


class Mixing(ABC):
    """What a mixing must answer.

    Attributes:
        whole_batches: whether a place is a whole batch, from one dataset and the same on all ranks, instead of a sample.
    """

    whole_batches: bool = False

    @abstractmethod
    def filled(self, places: int, samples: Sequence[int], labelled: Sequence[bool]) -> np.ndarray:
        """Return how many of the first ``places`` places are filled from each dataset.

        Args:
            places: how many; the answer for one more adds one to one dataset.
            samples: size of each dataset, in the order of the datamodule's sources, L of them.
            labelled: whether each dataset has labels.

        Returns:
            int64 ``(L,)``, with the sum ``places``.

        Raises:
            RecipeError: the mixing does not fit these datasets.
        """

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v}' for k, v in vars(self).items())})"


class EqualParts(Mixing):
    """As near as possible the same number from every dataset in each batch, whatever their sizes (MiDaS, section 5).

    The datasets fill places in turn.
    """

    def filled(self, places: int, samples: Sequence[int], labelled: Sequence[bool]) -> np.ndarray:
        """See ``Mixing.filled``."""
        datasets = len(samples)
        return places // datasets + (np.arange(datasets) < places % datasets)


class Proportional(Mixing):
    """Each dataset by its number of samples. With ``drop_last=False`` an epoch holds every sample exactly once."""

    def filled(self, places: int, samples: Sequence[int], labelled: Sequence[bool]) -> np.ndarray:
        """See ``Mixing.filled``."""
        return apportion(places, np.asarray(samples, dtype=np.float64))


class Weighted(Mixing):
    """Each dataset by a given weight.

    Args:
        weights: positive, in the order of the datamodule's sources; need not sum to 1.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        self.weights = [float(w) for w in _checked(weights, "Weighted")]

    def filled(self, places: int, samples: Sequence[int], labelled: Sequence[bool]) -> np.ndarray:
        """See ``Mixing.filled``."""
        weights = np.asarray(self.weights)
        _one_per_dataset(weights, len(samples), "Weighted")
        return apportion(places, weights)


class LabelledUnlabelled(Mixing):
    """Labelled and unlabelled images in a fixed ratio in each batch (Depth Anything, section 4: 1 to 2).

    Within either group the datasets contribute by their sizes.

    Args:
        labelled: share of the sources whose labels leave something determined.
        unlabelled: share of the sources whose ambiguity is ``UNLABELLED``, and of the pseudo-labelled ones.
        pseudo_labelled: positions, from 0, of the sources whose labels are a teacher's.
    """

    def __init__(self, labelled: float = 1.0, unlabelled: float = 2.0, *, pseudo_labelled: Sequence[int] = ()) -> None:
        self.labelled, self.unlabelled = (float(w) for w in _checked((labelled, unlabelled), "LabelledUnlabelled"))
        self.pseudo_labelled = list(pseudo_labelled)

    def filled(self, places: int, samples: Sequence[int], labelled: Sequence[bool]) -> np.ndarray:
        """See ``Mixing.filled``."""
        groups = _two_groups(tuple(samples), tuple(labelled), tuple(self.pseudo_labelled))
        counts, both = [0] * len(samples), _filled(places, _shares((self.labelled, self.unlabelled)))
        for (members, share), part in zip(groups, both, strict=True):
            for d, count in zip(members, _filled(part, share), strict=True):
                counts[d] = count
        return np.array(counts)


@lru_cache(maxsize=64)
def _two_groups(
    samples: tuple[int, ...], labelled: tuple[bool, ...], pseudo_labelled: tuple[int, ...]
) -> list[tuple[list[int], list[float]]]:
    """Positions and shares of the labelled datasets, and of the others."""
    mask, sizes = np.array(labelled, dtype=bool), np.asarray(samples, dtype=np.float64)
    if any(not 0 <= position < len(mask) for position in pseudo_labelled):
        raise RecipeError(
            f"expected pseudo_labelled as positions of the {len(mask)} training sources, from 0; got {[*pseudo_labelled]}."
        )
    mask[[*pseudo_labelled]] = False
    if mask.all() or not mask.any():
        raise RecipeError(
            f"LabelledUnlabelled needs labelled and unlabelled sources; got {int(mask.sum())} labelled and "
            f"{int((~mask).sum())} unlabelled. Add a source of the missing group, name those that a teacher labelled as "
            "pseudo_labelled, or use another mixing."
        )
    return [(np.flatnonzero(part).tolist(), _shares(tuple(sizes[part].tolist()))) for part in (mask, ~mask)]


class OneDatasetPerBatch(Mixing):
    """Every batch from one dataset, the same on all ranks; the datasets take a worker's steps in turn, by weight (Marigold).

    Args:
        weights: positive, in the order of the datamodule's sources; None weights them by their sizes.
    """

    whole_batches = True

    def __init__(self, weights: Sequence[float] | None = None) -> None:
        self.weights = None if weights is None else [float(w) for w in _checked(weights, "OneDatasetPerBatch")]

    def filled(self, places: int, samples: Sequence[int], labelled: Sequence[bool]) -> np.ndarray:
        """See ``Mixing.filled``."""
        weights = np.asarray(samples if self.weights is None else self.weights, dtype=np.float64)
        _one_per_dataset(weights, len(samples), "OneDatasetPerBatch")
        return apportion(places, weights)


@dataclass(frozen=True)
class Mixture:
    """A mixing of given datasets, which checks what the mixing answers.

    Attributes:
        mixing: of the recipe.
        samples: size of each dataset.
        labelled: whether each dataset has labels.

    Raises:
        RecipeError: when made or asked: an answer is no array of L integers, at least 0, that sums to the places, or fewer
            places fill more of a dataset.
    """

    mixing: Mixing
    samples: tuple[int, ...]
    labelled: tuple[bool, ...]

    def __post_init__(self) -> None:
        for fewer, more in pairwise(sorted({*range(9), 64, sum(self.samples)})):
            self.between(fewer, more)

    @property
    def whole_batches(self) -> bool:
        """Whether a place is a whole batch."""
        return self.mixing.whole_batches

    @cached_property
    def _where(self) -> str:
        return f"expected {type(self.mixing).__name__}.filled to return {len(self.samples)} integers, one per dataset"

    def __call__(self, places: int) -> np.ndarray:
        """Return how many of the first ``places`` places are filled from each dataset, int64 ``(L,)``."""
        got = self.mixing.filled(places, self.samples, self.labelled)
        if not isinstance(got, np.ndarray) or got.dtype.kind not in "iu":
            raise RecipeError(f"{self._where}; got {getattr(got, 'dtype', type(got).__name__)}. Return an int64 array.")
        if got.shape != (len(self.samples),):
            raise RecipeError(f"{self._where}; got shape {got.shape}. Return one number per dataset.")
        filled = got.tolist()
        if min(filled) < 0:
            raise RecipeError(f"{self._where}, none below 0; got {min(filled)}. Return 0 where a dataset gives no sample.")
        if sum(filled) != places:
            raise RecipeError(f"{self._where} that sum to the places; got {sum(filled)} for {places}. Fill every place.")
        return got.astype(np.int64, copy=False)

    def between(self, first: int, stop: int) -> np.ndarray:
        """Return how many of the places ``first`` to ``stop`` (exclusive) are filled from each dataset."""
        return self._between(self(first), self(stop))

    def _between(self, fewer: np.ndarray, more: np.ndarray) -> np.ndarray:
        if (more < fewer).any():
            raise RecipeError(
                f"{self._where} that never fall as places grow; got {more.tolist()} for {more.sum()} places after "
                f"{fewer.tolist()} for {fewer.sum()}. Fill one more place without taking another back."
            )
        return more - fewer
