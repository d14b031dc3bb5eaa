"""Who reads which sample when: pure arithmetic on counts, so that every rank and every resumed run agrees without talking.

Dataset d is an endless sequence S_d: pass after pass over its shards, each pass in an order of its own drawn from
(seed, d, pass). An epoch demands ``D_d`` samples of it (the sum of the mixing's composition) and reads
``S_d[base : base + D_d]``, dealt in contiguous ranges to (rank, worker) pairs. Step s of a rank is made by its worker
``s % workers``, the order in which a ``DataLoader`` collects from its workers, so each worker's range and its place in
that range at any step follow from the composition alone.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from depthkit.errors import ShardError

SHARD_ORDER, WINDOW_ORDER, AUGMENTATION = range(3)
"""What random numbers are for; the first word of every seed, so that no two uses share a stream."""


def generator(purpose: int, *words: int) -> np.random.Generator:
    """Random numbers that depend on what they are for and where they are used, not on who asks when."""
    return np.random.default_rng((purpose, *words))


def training_rows(
    samples: int, *, world: int, batch_size: int, drop_last: bool, accumulate: int = 1, epoch_size: int | None = None
) -> np.ndarray:
    """Batch sizes of an epoch by step and rank, int64 ``(steps, world)``; every rank has the same number of steps.

    With ``drop_last`` all batches are full and the steps are a multiple of ``accumulate``. Without, what remains is not
    left to one small last batch: all batches are as equal as integers allow and none is larger than ``batch_size``.

    Args:
        samples: samples of all datasets together.
        world: number of ranks.
        batch_size: samples per batch and rank.
        drop_last: whether a tail smaller than a batch on every rank is left out.
        accumulate: batches per optimizer step.
        epoch_size: samples per epoch, if not ``samples``.

    Raises:
        ShardError: the epoch is too small for one batch.

    >>> training_rows(10, world=1, batch_size=4, drop_last=False).tolist()
    [[4], [3], [3]]
    """
    total, together = epoch_size or samples, world * batch_size
    if drop_last:
        steps = total // together // accumulate * accumulate
        if steps == 0:
            raise ShardError(
                f"expected at least {together * accumulate} samples per epoch for {world} rank(s) x batch_size {batch_size} x "
                f"accumulation {accumulate}; got {total}. Lower batch_size, add data, set epoch_size or drop_last=False."
            )
        return np.full((steps, world), batch_size, dtype=np.int64)
    if total < world:
        raise ShardError(f"expected at least one sample per rank, {world}; got {total}. Use fewer ranks or more data.")
    steps = -(-total // together)
    cells = steps * world
    return (total // cells + (np.arange(cells) < total % cells)).reshape(steps, world).astype(np.int64)


def evaluation_rows(samples: int, *, world: int, batch_size: int) -> np.ndarray:
    """Batch sizes by step and rank, int64 ``(steps, world)``: each sample once, ranks as even as possible.

    A rank that runs out before another has steps of 0 samples, which the loader fills with rows that are not real.

    >>> evaluation_rows(5, world=2, batch_size=2).tolist()
    [[2, 2], [1, 0]]
    """
    share = np.array([samples * (rank + 1) // world - samples * rank // world for rank in range(world)])
    share = np.sort(share)[::-1]
    steps = -(-int(share.max(initial=0)) // batch_size)
    return np.clip(share[None] - np.arange(steps)[:, None] * batch_size, 0, batch_size)


class Span(NamedTuple):
    """Consecutive samples ``first`` to ``stop`` (exclusive) of one shard."""

    shard: int
    first: int
    stop: int


@dataclass(frozen=True)
class Plan:
    """The reading of one training or evaluation, epoch after epoch.

    Attributes:
        composition: samples by step, rank and dataset, ``(steps, world, L)`` integers, in the narrowest type.
        counts: samples in each shard of each dataset.
        workers: worker processes per rank, at least 1.
        seed: of every order.
        shuffle: whether shards and samples are permuted.
        continuing: an epoch begins where the last one ended (``epoch_size`` was given), instead of with a new pass.
        window: how many consecutive samples are permuted together.
    """

    composition: np.ndarray
    counts: tuple[tuple[int, ...], ...]
    workers: int = 1
    seed: int = 0
    shuffle: bool = True
    continuing: bool = False
    window: int = 256

    @property
    def steps(self) -> int:
        """Batches per epoch on every rank."""
        return len(self.composition)

    @property
    def world(self) -> int:
        """Number of ranks."""
        return self.composition.shape[1]

    def __post_init__(self) -> None:
        kind = np.min_scalar_type(int(self.composition.max(initial=0)))
        object.__setattr__(self, "composition", self.composition.astype(kind, copy=False))

    @cached_property
    def demand(self) -> np.ndarray:
        """Samples in an epoch by rank, worker and dataset, int64 ``(world, workers, L)``; summed once."""
        return np.stack([self.composition[w :: self.workers].sum(0, dtype=np.int64) for w in range(self.workers)], 1)

    @cached_property
    def digest(self) -> str:
        """Tells one composition from another."""
        return hashlib.sha256(np.ascontiguousarray(self.composition).tobytes()).hexdigest()[:16]

    def largest(self, rank: int) -> int:
        """Return the rows of a rank's largest batch."""
        return int(self.composition[:, rank].sum(-1, dtype=np.int64).max(initial=0))

    def range(self, epoch: int, dataset: int, rank: int, worker: int) -> tuple[int, int]:
        """First and last (exclusive) position in S_d that a worker reads in an epoch."""
        demand = self.demand[:, :, dataset]
        before = int(demand.reshape(-1)[: rank * self.workers + worker].sum())
        total, size = int(demand.sum()), sum(self.counts[dataset])
        base = epoch * (total if self.continuing else -(-total // size) * size)
        return base + before, base + before + int(demand[rank, worker])

    def consumed(self, dataset: int, rank: int, worker: int, steps: int) -> int:
        """Samples that a worker has handed out once the rank has made ``steps`` batches of the epoch."""
        return int(self.composition[worker : steps : self.workers, rank, dataset].sum(dtype=np.int64))

    def spans(self, dataset: int, start: int, stop: int) -> Iterator[Span]:
        """Where the samples ``S_d[start:stop]`` lie."""
        counts = np.asarray(self.counts[dataset])
        while start < stop:
            number, within = divmod(start, int(counts.sum()))
            order = np.arange(len(counts))
            if self.shuffle:
                order = generator(SHARD_ORDER, self.seed, dataset, number).permutation(len(counts))
            ends = np.cumsum(counts[order])
            at = int(np.searchsorted(ends, within, side="right"))
            first = within - int(ends[at] - counts[order[at]])
            taken = min(stop - start, int(counts[order[at]]) - first)
            yield Span(int(order[at]), first, first + taken)
            start += taken

    def windows(self, dataset: int, start: int, stop: int) -> Iterator[tuple[int, np.ndarray]]:
        """Consecutive windows of ``start`` to ``stop``: the first position, and the order of its samples.

        Windows of a range differ by at most one sample, so that the last one mixes as well as the others.
        """
        number = -(-(stop - start) // self.window)
        edges = [start + (stop - start) * i // max(number, 1) for i in range(number + 1)]
        for first, last in pairwise(edges):
            order = np.arange(last - first)
            yield first, generator(WINDOW_ORDER, self.seed, dataset, first).permutation(order) if self.shuffle else order


def check_shards(names: Sequence[str], counts: Sequence[Sequence[int]], *, world: int, workers: int) -> None:
    """Every worker of every rank can read a shard of its own.

    Raises:
        ShardError: a dataset has fewer shards than ranks x workers, or none.
    """
    for name, shards in zip(names, counts, strict=True):
        if sum(shards) == 0:
            raise ShardError(f"expected samples in dataset '{name}'; its index lists none. Write the split or drop the source.")
        if len(shards) < world * workers:
            raise ShardError(
                f"expected at least {world * workers} shards in dataset '{name}' for {world} rank(s) x {workers} worker(s); "
                f"got {len(shards)}. Lower data.num_workers, or write the dataset again with fewer samples per shard."
            )
