"""Batch sizes by step and rank, as arithmetic: no table, so that an epoch may be of any length."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from depthkit.errors import ShardError


class Fall(NamedTuple):
    """Batch sizes of one rank: ``many`` rows in each step before ``turn``, ``some`` in that one, ``few`` in those after."""

    turn: int
    many: int
    some: int
    few: int

    def at(self, step: int) -> int:
        """Return the rows of a step."""
        return self.many if step < self.turn else self.some if step == self.turn else self.few

    def total(self, first: int, stride: int, steps: int, counted: Callable[[int], Any] = int) -> Any:
        """Sum the rows of ``steps`` steps from ``first`` on, ``stride`` apart.

        Args:
            first: the first step.
            stride: distance of a step from the one before.
            steps: how many.
            counted: number of those that count among the first n of these steps, a number or an array; all n by default.
        """
        high = min(steps, max(0, -(-(self.turn - first) // stride)))
        middle = high + (high < steps and first + high * stride == self.turn)
        whole, before, after = counted(steps), counted(high), counted(middle)
        return self.few * (whole - after) + self.many * before + self.some * (after - before)


@dataclass(frozen=True)
class Rows:
    """Batch sizes of all ranks; every rank has the same number of steps.

    Attributes:
        steps: batches per rank.
        world: number of ranks.
        larger: how many ranks, the first ones, have batches as ``first`` says; the others have them as ``other`` says.
        first: batch sizes of the first ranks.
        other: batch sizes of the others.
    """

    steps: int
    world: int
    larger: int
    first: Fall
    other: Fall

    @classmethod
    def even(cls, total: int, *, steps: int, world: int) -> "Rows":
        """Return batches as equal as integers allow, the larger ones first."""
        size, more = divmod(total, steps * world)
        turn, larger = divmod(more, world)
        first, other = (Fall(t, size + 1, size, size) for t in (turn + 1, turn))
        return cls(steps, world, larger, first, other)

    def of(self, rank: int) -> Fall:
        """Return the batch sizes of a rank."""
        return self.first if rank < self.larger else self.other

    def before(self, rank: int, of_rank: Callable[[Fall], Any]) -> Any:
        """Sum ``of_rank`` over the ranks before ``rank``."""
        larger = min(rank, self.larger)
        return larger * of_rank(self.first) + (rank - larger) * of_rank(self.other)

    def step(self, step: int) -> int:
        """Return the rows of a step over all ranks."""
        return int(self.before(self.world, lambda fall: fall.at(step)))

    @property
    def total(self) -> int:
        """Rows of the epoch over all ranks."""
        return int(self.before(self.world, lambda fall: fall.total(0, 1, self.steps)))


def training_rows(
    samples: int, *, world: int, batch_size: int, drop_last: bool, accumulate: int = 1, epoch_size: int | None = None
) -> Rows:
    """Return the batch sizes of a training epoch.

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

    >>> rows = training_rows(10, world=1, batch_size=4, drop_last=False)
    >>> [rows.of(0).at(step) for step in range(rows.steps)]
    [4, 3, 3]
    """
    total, together = epoch_size or samples, world * batch_size
    if drop_last:
        steps = total // together // accumulate * accumulate
        if steps == 0:
            raise ShardError(
                f"expected at least {together * accumulate} samples per epoch for {world} rank(s) x batch_size {batch_size} x "
                f"accumulation {accumulate}; got {total}. Lower batch_size, add data, set epoch_size or drop_last=False."
            )
        return Rows.even(steps * together, steps=steps, world=world)
    if total < world:
        raise ShardError(f"expected at least one sample per rank, {world}; got {total}. Use fewer ranks or more data.")
    return Rows.even(total, steps=-(-total // together), world=world)


def evaluation_rows(samples: int, *, world: int, batch_size: int) -> Rows:
    """Return the batch sizes of an evaluation: each sample once, ranks as even as possible.

    A rank that runs out before another has steps of 0 samples, which the loader fills with rows that are not real.

    >>> rows = evaluation_rows(5, world=2, batch_size=2)
    >>> [[rows.of(rank).at(step) for rank in range(2)] for step in range(rows.steps)]
    [[2, 2], [1, 0]]
    """
    share, larger = divmod(samples, world)
    first, other = (Fall(size // batch_size, batch_size, size % batch_size, 0) for size in (share + 1, share))
    return Rows(-(-(share + (larger > 0)) // batch_size), world, larger, first, other)
