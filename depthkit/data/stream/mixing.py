"""Mixing objects: which dataset each place of a batch is filled from.

A mixing answers one question, ``composition``: how many samples of each dataset every batch of an epoch holds. The answer
involves no chance (the order of samples within a dataset does): shares are spread as evenly as integers allow, so a
batch, an epoch and a whole training each hold the promised mixture, and the answer is the same on every rank.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from depthkit.errors import RecipeError


def apportion(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Split consecutive cells among datasets so that every running total stays close to its share.

    Webster's divisor method: dataset d wants its j-th place at time (j + 1/2) / weight; places are filled in order of time.

    Args:
        rows: places in each cell, ``(cells,)``.
        weights: shares of the datasets, ``(L,)``, positive, in any unit.

    Returns:
        Places by cell and dataset, ``(cells, L)``; rows sum to ``rows``.

    >>> apportion(np.array([4, 4]), np.array([1.0, 3.0])).tolist()
    [[1, 3], [1, 3]]
    """
    total, share = int(rows.sum()), weights / weights.sum()
    wanted = np.ceil(total * share).astype(np.int64) + 1
    times = np.concatenate([(np.arange(n) + 0.5) / p for n, p in zip(wanted, share, strict=True)])
    dataset = np.repeat(np.arange(len(share)), wanted)[np.argsort(times, kind="stable")[:total]]
    cell = np.repeat(np.arange(len(rows)), rows)
    return np.bincount(cell * len(share) + dataset, minlength=len(rows) * len(share)).reshape(len(rows), len(share))


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
    """What a mixing must answer."""

    @abstractmethod
    def composition(self, rows: np.ndarray, samples: Sequence[int], labelled: Sequence[bool]) -> np.ndarray:
        """Samples of each dataset in each batch.

        Args:
            rows: batch size at each step on each rank, int64 ``(steps, world)``.
            samples: size of each dataset, in the order of the datamodule's sources, L of them.
            labelled: whether each dataset has labels.

        Returns:
            int64 ``(steps, world, L)``; sums to ``rows`` over the last axis.

        Raises:
            RecipeError: the mixing does not fit these datasets.
        """

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v}' for k, v in vars(self).items())})"


class EqualParts(Mixing):
    """As near as possible the same number from every dataset in each batch, whatever their sizes (MiDaS, section 5).

    What does not divide evenly goes to the datasets in turn, over steps and ranks.
    """

    def composition(self, rows: np.ndarray, samples: Sequence[int], labelled: Sequence[bool]) -> np.ndarray:
        """See ``Mixing.composition``."""
        datasets, flat = len(samples), rows.reshape(-1)
        extra = flat % datasets
        first = np.cumsum(extra) - extra
        turn = (np.arange(datasets) - first[:, None]) % datasets < extra[:, None]
        return (flat[:, None] // datasets + turn).reshape(*rows.shape, datasets)


class Proportional(Mixing):
    """Each dataset by its number of samples. With ``drop_last=False`` an epoch holds every sample exactly once."""

    def composition(self, rows: np.ndarray, samples: Sequence[int], labelled: Sequence[bool]) -> np.ndarray:
        """See ``Mixing.composition``."""
        return apportion(rows.reshape(-1), np.asarray(samples, dtype=np.float64)).reshape(*rows.shape, len(samples))


class Weighted(Mixing):
    """Each dataset by a given weight.

    Args:
        weights: positive, in the order of the datamodule's sources; need not sum to 1.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        self.weights = [float(w) for w in _checked(weights, "Weighted")]

    def composition(self, rows: np.ndarray, samples: Sequence[int], labelled: Sequence[bool]) -> np.ndarray:
        """See ``Mixing.composition``."""
        weights = np.asarray(self.weights)
        _one_per_dataset(weights, len(samples), "Weighted")
        return apportion(rows.reshape(-1), weights).reshape(*rows.shape, len(samples))


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

    def composition(self, rows: np.ndarray, samples: Sequence[int], labelled: Sequence[bool]) -> np.ndarray:
        """See ``Mixing.composition``."""
        mask, sizes = np.array(labelled, dtype=bool), np.asarray(samples, dtype=np.float64)
        if any(not 0 <= position < len(mask) for position in self.pseudo_labelled):
            raise RecipeError(
                f"expected pseudo_labelled as positions of the {len(mask)} training sources, from 0; "
                f"got {self.pseudo_labelled}."
            )
        mask[self.pseudo_labelled] = False
        if mask.all() or not mask.any():
            raise RecipeError(
                f"LabelledUnlabelled needs labelled and unlabelled sources; got {int(mask.sum())} labelled and "
                f"{int((~mask).sum())} unlabelled. Add a source of the missing group, name those that a teacher labelled as "
                "pseudo_labelled, or use another mixing."
            )
        flat = rows.reshape(-1)
        groups = apportion(flat, np.array([self.labelled, self.unlabelled]))
        out = np.zeros((len(flat), len(sizes)), dtype=np.int64)
        out[:, mask] = apportion(groups[:, 0], sizes[mask])
        out[:, ~mask] = apportion(groups[:, 1], sizes[~mask])
        return out.reshape(*rows.shape, len(sizes))


class OneDatasetPerBatch(Mixing):
    """Every batch from one dataset, the same on all ranks; the datasets take steps in turn, by weight (Marigold).

    Args:
        weights: positive, in the order of the datamodule's sources; None weights them by their sizes.
    """

    def __init__(self, weights: Sequence[float] | None = None) -> None:
        self.weights = None if weights is None else [float(w) for w in _checked(weights, "OneDatasetPerBatch")]

    def composition(self, rows: np.ndarray, samples: Sequence[int], labelled: Sequence[bool]) -> np.ndarray:
        """See ``Mixing.composition``."""
        weights = np.asarray(samples if self.weights is None else self.weights, dtype=np.float64)
        _one_per_dataset(weights, len(samples), "OneDatasetPerBatch")
        return rows[:, :, None] * apportion(np.ones(len(rows), dtype=np.int64), weights)[:, None]


def checked_composition(mixing: Mixing, rows: np.ndarray, samples: Sequence[int], labelled: Sequence[bool]) -> np.ndarray:
    """Return what a mixing answers, if it is what ``Mixing.composition`` promises.

    Raises:
        RecipeError: it is no array of integers ``(steps, world, L)``, at least 0, that sums to ``rows``.
    """
    name, shape = type(mixing).__name__, (*rows.shape, len(samples))
    got = mixing.composition(rows, samples, labelled)
    where = f"expected {name}.composition to return integers of shape {shape} (steps, ranks, datasets)"
    if not isinstance(got, np.ndarray) or not np.issubdtype(got.dtype, np.integer):
        raise RecipeError(f"{where}; got {getattr(got, 'dtype', type(got).__name__)}. Return an int64 array.")
    if got.shape != shape:
        raise RecipeError(f"{where}; got shape {got.shape}. Return one number per step, rank and dataset.")
    if (got < 0).any():
        raise RecipeError(f"{where}, none below 0; got {int(got.min())}. Return 0 where a dataset gives no sample.")
    if (wrong := np.argwhere(got.sum(-1) != rows)).size:
        step, rank = wrong[0].tolist()
        raise RecipeError(
            f"{where} that sum to the batch size; got {int(got[step, rank].sum())} instead of {int(rows[step, rank])} at step "
            f"{step} on rank {rank}. Fill every place of a batch from one dataset."
        )
    return got
