"""Who reads which sample when: pure arithmetic on counts, so that every rank and every resumed run agrees without talking.

An epoch is one row of places. It is dealt in contiguous sections to lanes, one for each rank and worker, and a lane's batches
are contiguous pieces of its section: worker w of a rank makes the steps ``w, w + workers, ...``, the order in which a
``DataLoader`` collects from its workers. The mixing says how many of the first n places each dataset fills.

Dataset d is an endless sequence S_d: pass after pass over its shards, each pass in an order of its own drawn from
(seed, d, pass). An epoch reads ``S_d[base : base + D_d]``, where ``D_d`` is what its places take of d; the position of any
batch in S_d follows from the place at which it begins. So neither memory nor time grows with the epoch, samples are addressed
by position and not by shard, and any number of shards serves any number of ranks and workers.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from depthkit.data.stream.mixing import Mixture
from depthkit.data.stream.rows import Fall, Rows
from depthkit.errors import ShardError

SHARD_ORDER, WINDOW_ORDER, AUGMENTATION = range(3)
"""What random numbers are for; the first word of every seed, so that no two uses share a stream."""


def generator(purpose: int, *words: int) -> np.random.Generator:
    """Return random numbers that depend on what they are for and where they are used, not on who asks when."""
    return np.random.default_rng((purpose, *words))


class Span(NamedTuple):
    """Consecutive samples ``first`` to ``stop`` (exclusive) of one shard."""

    shard: int
    first: int
    stop: int


@dataclass(frozen=True)
class Plan:
    """The reading of one training or evaluation, epoch after epoch.

    Attributes:
        rows: batch sizes by step and rank.
        mixture: how places are filled from the datasets.
        counts: samples in each shard of each dataset.
        workers: lanes per rank, at least 1: worker processes, at the beginning of the epoch.
        seed: of every order.
        shuffle: whether shards and samples are permuted.
        continuing: an epoch begins where the last one ended (``epoch_size`` was given), instead of with a new pass.
        window: how many consecutive samples are permuted together.
    """

    rows: Rows
    mixture: Mixture
    counts: tuple[tuple[int, ...], ...]
    workers: int = 1
    seed: int = 0
    shuffle: bool = True
    continuing: bool = False
    window: int = 256

    @property
    def steps(self) -> int:
        """Batches per epoch on every rank."""
        return self.rows.steps

    @property
    def world(self) -> int:
        """Number of ranks whose lanes the epoch is dealt to."""
        return self.rows.world

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Samples of each dataset."""
        return tuple(map(sum, self.counts))

    @cached_property
    def demand(self) -> np.ndarray:
        """Samples of each dataset in an epoch, int64 ``(L,)``."""
        return self.lane(self.world, 0).start

    @cached_property
    def digest(self) -> str:
        """Tells what is read in an epoch, whoever reads it."""
        places = self.steps if self.mixture.whole_batches else self.rows.total
        probes = {*range(min(places, 32)), *(places * i // 32 for i in range(33))}
        facts = (self.steps, self.rows.total, [self.mixture(n).tolist() for n in sorted(probes)])
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]

    def dealt(self, world: int, workers: int) -> "Plan":
        """Return the same epoch dealt to the lanes of another number of ranks and workers."""
        if (world, workers) == (self.world, self.workers):
            return self
        return replace(self, rows=Rows.even(self.rows.total, steps=self.steps, world=world), workers=workers)

    def lane(self, rank: int, worker: int) -> "Lane":
        """Return the part of an epoch that one worker of one rank reads."""
        return Lane(self, rank, worker)

    def base(self, epoch: int, dataset: int) -> int:
        """Return the position in S_d at which an epoch begins."""
        total, size = int(self.demand[dataset]), self.sizes[dataset]
        return epoch * (total if self.continuing else -(-total // size) * size)

    def spans(self, dataset: int, start: int, stop: int) -> Iterator[Span]:
        """Yield where the samples ``S_d[start:stop]`` lie."""
        counts = np.asarray(self.counts[dataset])
        while start < stop:
            number, within = divmod(start, self.sizes[dataset])
            order = np.arange(len(counts))
            if self.shuffle:
                order = generator(SHARD_ORDER, self.seed, dataset, number).permutation(len(counts))
            ends = np.cumsum(counts[order])
            for at in range(int(np.searchsorted(ends, within, side="right")), len(order)):
                shard, count = int(order[at]), int(counts[order[at]])
                first = within - int(ends[at]) + count
                taken = min(stop - start, count - first)
                if taken > 0:
                    yield Span(shard, first, first + taken)
                start, within = start + taken, within + taken
                if start >= stop:
                    return

    def windows(self, dataset: int, start: int, stop: int, begin: int) -> Iterator[tuple[int, list[int]]]:
        """Yield windows of ``start`` to ``stop`` from the one that holds ``begin``: first position, order of its samples.

        Windows of a range differ by at most one sample, so that the last one mixes as well as the others.
        """
        size = stop - start
        number = -(-size // self.window)
        window = (begin - start) * number // size if begin < stop else number
        while window < number:
            first, last = (start + size * i // number for i in (window, window + 1))
            window += 1
            if last > begin:
                random = generator(WINDOW_ORDER, self.seed, dataset, first) if self.shuffle else None
                yield first, random.permutation(last - first).tolist() if random else list(range(last - first))


@dataclass(frozen=True)
class Lane:
    """The part of every epoch that one worker of one rank reads.

    Attributes:
        plan: of all lanes.
        rank: whose worker it is.
        worker: which one.
    """

    plan: Plan
    rank: int
    worker: int

    @cached_property
    def steps(self) -> int:
        """Batches of the lane in an epoch."""
        return _steps(self.plan, self.worker)

    @cached_property
    def start(self) -> np.ndarray:
        """Position in the epoch's part of every S_d at which the lane begins, int64 ``(L,)``."""
        return self.plan.mixture(self._first) if not self.plan.mixture.whole_batches else np.asarray(self._first)

    @property
    def stop(self) -> np.ndarray:
        """Position in the epoch's part of every S_d at which the lane ends, int64 ``(L,)``."""
        return self.position(self.steps)

    def range(self, epoch: int, dataset: int) -> tuple[int, int]:
        """Return the first and the last (exclusive) position in S_d that the lane reads in an epoch."""
        base = self.plan.base(epoch, dataset)
        return base + int(self.start[dataset]), base + int(self.stop[dataset])

    def position(self, done: int) -> np.ndarray:
        """Return the position in the epoch's part of every S_d after ``done`` batches of the lane, int64 ``(L,)``."""
        fall = self.plan.rows.of(self.rank)
        if not self.plan.mixture.whole_batches:
            return self.plan.mixture(self._first + self._taken(fall, self.worker, done))
        return self.start + self._taken(fall, self.worker, done)

    @cached_property
    def _first(self) -> Any:
        """Places, or samples of each dataset if places are whole batches, that the lanes before this one take."""
        plan = self.plan

        def of_rank(fall: Fall) -> int | np.ndarray:
            return sum(self._taken(fall, w, _steps(plan, w)) for w in range(plan.workers))

        own = sum(self._taken(plan.rows.of(self.rank), w, _steps(plan, w)) for w in range(self.worker))
        return plan.rows.before(self.rank, of_rank) + own

    def _taken(self, fall: Fall, worker: int, done: int) -> Any:
        """Return the same of the first ``done`` batches of one lane."""
        plan = self.plan
        if not plan.mixture.whole_batches:
            return fall.total(worker, plan.workers, done)
        first = sum(_steps(plan, w) for w in range(worker))
        return fall.total(worker, plan.workers, done, lambda steps: plan.mixture.between(first, first + steps))


def _steps(plan: Plan, worker: int) -> int:
    return max(0, -(-(plan.steps - worker) // plan.workers))


def check_samples(names: Sequence[str], counts: Sequence[Sequence[int]]) -> None:
    """Check that every dataset has samples.

    Raises:
        ShardError: one has none.
    """
    for name, shards in zip(names, counts, strict=True):
        if sum(shards) == 0:
            raise ShardError(f"expected samples in dataset '{name}'; its index lists none. Write the split or drop the source.")
