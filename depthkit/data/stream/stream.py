"""The stream: one worker's batches, read as the plan says; broken samples are replaced or left out."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import cycle, dropwhile, islice, takewhile
from typing import IO, Any, NamedTuple

import numpy as np

from depthkit.data.stream.buffers import shared_buffers
from depthkit.data.stream.collate import Pixels, collate, padding
from depthkit.data.stream.plan import AUGMENTATION, Lane, Plan, generator
from depthkit.data.stream.shuffle import shuffled
from depthkit.data.transforms.base import Transform, checked, in_turn
from depthkit.data.transforms.geometric import MOVES
from depthkit.errors import DepthKitError, ShapeError, ShardError
from depthkit.shards.codec import VIEW, Stored, decode_stored
from depthkit.shards.files import open_url
from depthkit.shards.index import ShardInfo
from depthkit.shards.reading import Raw, read_shard
from depthkit.shards.remote.cache import ShardCache
from depthkit.types import Batch, Views

TRIES = 100
"""Samples in a row that may be broken before a dataset is given up."""


@dataclass(frozen=True)
class Dataset:
    """One dataset as the stream reads it.

    Attributes:
        name: for messages.
        urls: its shards.
        counts: samples in each.
        transform: what happens to each sample after decoding; None for nothing.
        digest: changes when the shards do.
        size: (height, width) that every sample must have then; None if any will do.
        views: which further views are read; every sample must hold them.
        cache: keeps copies of remote shards; None if they are local.
        shards: what the index says of remote ones.
    """

    name: str
    urls: tuple[str, ...]
    counts: tuple[int, ...]
    transform: Transform | None = None
    digest: str = ""
    size: tuple[int, int] | None = None
    views: Views = Views.SINGLE
    cache: ShardCache | None = None
    shards: tuple[ShardInfo, ...] = ()

    def opened(self, shard: int) -> Callable[[str], IO[bytes]]:
        """Return what opens a shard by its address."""
        return partial(self.cache.open, shard=self.shards[shard]) if self.cache else open_url

    def prefetch(self, shard: int) -> None:
        """Begin to bring a shard that is read later."""
        if self.cache:
            self.cache.prefetch(self.urls[shard], self.shards[shard])

    @cached_property
    def stages(self) -> tuple[tuple[Transform, ...], tuple[Transform, ...]]:
        """The transforms that come first and move pixels only, and the others: between them labels get their values."""

        def moves(transform: Transform) -> bool:
            return type(transform) in MOVES  # a class made of these may do more

        parts = list(in_turn(self.transform))
        return tuple(takewhile(moves, parts)), tuple(dropwhile(moves, parts))

    def wants(self, member: str) -> bool:
        """Whether a member belongs to the image itself or to a view that is read."""
        view = member.rpartition(".")[0]
        return view in self.views.frames or not VIEW.fullmatch(view)


class Piece(NamedTuple):
    """Rows ``first`` to ``stop`` (exclusive) of the batch that the plan gives to one of its ranks at a step."""

    rank: int
    first: int
    stop: int


@dataclass(frozen=True)
class Stream:
    """What one rank reads; it travels to the worker processes, whatever way they are started.

    The plan may be dealt to another number of ranks and workers than read it now: the rest of an epoch that others began.
    Then every rank makes its share of each step's samples, and passes over what it finds on the way that is not its own.

    Attributes:
        datasets: the sources in the order of ``Batch.dataset``.
        plan: who reads what.
        rank: captured in the main process: a spawned worker cannot know it.
        world: number of ranks that read.
        replace: whether a broken sample's place is taken by another (training) or left empty (evaluation).
    """

    datasets: tuple[Dataset, ...]
    plan: Plan
    rank: int = 0
    world: int = 1
    replace: bool = True

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """What a position in the stream depends on."""
        plan = self.plan
        contents = json.dumps([[d.name, d.digest, d.counts] for d in self.datasets]).encode()
        return {
            "ranks": plan.world,
            "workers": plan.workers,
            "seed": plan.seed,
            "shuffle window": plan.window,
            "shards": hashlib.sha256(contents).hexdigest()[:16],
            "batch size over all ranks, mixing or epoch size": plan.digest,
        }

    def buffers(self) -> tuple[Pixels, ...]:
        """Allocate shared memory for a worker's batches under way; return none if their size is not fixed."""
        kinds = {(dataset.size, dataset.views) for dataset in self.datasets}
        size, views = kinds.pop() if len(kinds) == 1 else (None, Views.SINGLE)
        largest = -(-self.plan.rows.step(0) // self.world)
        return () if size is None else shared_buffers(largest, *size, len(views.frames))

    def batches(self, epoch: int, first: int, stride: int, buffers: Sequence[Pixels] = ()) -> Iterator[Batch]:
        """Yield the batches of the steps ``first``, ``first + stride``, ..., written to ``buffers`` in turn."""
        supplies = Supplies(self, epoch)
        last: Stored | None = None
        for buffer, step in zip(cycle(buffers or [None]), range(first, self.plan.steps, stride), strict=False):
            taken = [row for piece in self.pieces(step) for row in supplies.take(step, piece)]
            rows = [(stored, d) for stored, d in taken if stored is not None]
            if rows:
                last, real = rows[-1][0], [True] * len(rows)
            else:  # every rank makes the same number of steps, so this one's is filled
                last = last or self._any_sample(epoch)
                rows, real = [(Stored(padding(last.sample), None), 0)], [False]
            broken = supplies.broken
            (samples, coded), datasets = zip(*(stored for stored, _ in rows), strict=True), [d for _, d in rows]
            yield collate(samples, datasets, coded=coded, real=real, broken=broken, buffer=buffer)
            broken.clear()

    def pieces(self, step: int) -> Iterator[Piece]:
        """Yield what this rank makes of a step, in the order of the plan's ranks."""
        rows = self.plan.rows
        if self.world == rows.world:
            yield Piece(self.rank, 0, rows.of(self.rank).at(step))
            return
        first, stop = (rows.step(step) * rank // self.world for rank in (self.rank, self.rank + 1))
        before = 0
        for rank in range(rows.world):
            size = rows.of(rank).at(step)
            if max(first, before) < min(stop, before + size):
                yield Piece(rank, max(first - before, 0), min(stop - before, size))
            before += size

    def samples(self, d: int, epoch: int, lane: Lane, begin: int, broken: list[str]) -> Iterator[Callable[[], Stored | None]]:
        """Yield how to make each sample of one dataset in a lane from position ``begin`` of the epoch on, transformed.

        What is not called is not decoded. A call returns None for a broken sample that is not replaced. A label that no
        transform looks at is left in codes.
        """
        start, stop = lane.range(epoch, d)
        begin += self.plan.base(epoch, d)

        def read(place: int) -> Iterator[Raw]:
            return self._raw(d, place, stop if place < stop else place + TRIES)

        for place, candidates in shuffled(self.plan.windows(d, start, stop, begin), begin, read):
            yield partial(self._made, d, place, candidates, broken)

    def _made(self, d: int, place: int, candidates: Iterator[Raw], broken: list[str]) -> Stored | None:
        return self._ready(d, place, self._decoded(d, candidates, broken))

    def _raw(self, d: int, start: int, stop: int) -> Iterator[Raw]:
        dataset, spans = self.datasets[d], self.plan.spans(d, start, stop)
        span = next(spans, None)
        while span:
            shard, first, last = span
            if (span := next(spans, None)) is not None:
                dataset.prefetch(span.shard)
            total, opened = dataset.counts[shard], dataset.opened(shard)
            yield from read_shard(dataset.urls[shard], first, last, total=total, wanted=dataset.wants, opened=opened)

    def _decoded(self, d: int, candidates: Iterator[Raw], broken: list[str]) -> Stored | None:
        """Return the first candidate that can be decoded, or None where broken samples are not replaced."""
        for raw in islice(candidates, TRIES if self.replace else 1):
            try:
                if raw.problem:
                    raise ShardError(f"{raw.shard}, sample '{raw.key}': {raw.problem}")
                stored = decode_stored(raw.key, raw.members, where=raw.shard)
                if missing := [name for name in self.datasets[d].views.frames if name not in stored.sample.frames]:
                    raise ShardError(
                        f"{raw.shard}, sample '{raw.key}': expected views {', '.join(self.datasets[d].views.frames)}; "
                        f"{', '.join(missing)} is missing. Write the sample with its views."
                    )
                return stored
            except DepthKitError as error:
                broken.append(str(error))
        if not self.replace:
            return None
        raise ShardError(f"{TRIES} samples in a row of dataset '{self.datasets[d].name}' are broken. The last: {broken[-1]}")

    def _ready(self, d: int, position: int, stored: Stored | None) -> Stored | None:
        if stored is None:
            return None
        dataset, sample, random = self.datasets[d], stored.sample, generator(AUGMENTATION, self.plan.seed, d, position)
        first, others = dataset.stages
        for transform in first:
            sample = transform(sample, random)
        coded = stored.coded
        if others:
            sample, coded = stored.read(sample), None
        for transform in others:
            sample = checked(transform, transform(sample, random))
        if dataset.size is not None and sample.size != dataset.size:
            raise ShapeError(
                f"expected samples of {dataset.size} (height, width) from the transform of '{dataset.name}'; got {sample.size} "
                f"({sample.key}). Set data.size, or the source's own size, to what the transform makes."
            )
        return Stored(sample, coded)

    def _any_sample(self, epoch: int) -> Stored:
        start = self.plan.base(epoch, 0)
        sample = self._ready(0, start, replace(self, replace=True)._decoded(0, self._raw(0, start, start + TRIES), []))
        assert sample is not None  # or _decoded has raised
        return sample


class Supplies:
    """Samples of the lanes that one process reads, each read on from where its last batch ended."""

    def __init__(self, stream: Stream, epoch: int) -> None:
        self.stream, self.epoch, self.broken = stream, epoch, list[str]()
        self._ends: dict[tuple[int, int], tuple[Lane, int, np.ndarray]] = {}
        self._under_way: dict[tuple[int, int, int], tuple[int, Iterator[Callable[[], Stored | None]]]] = {}

    def take(self, step: int, piece: Piece) -> Iterator[tuple[Stored | None, int]]:
        """Yield the samples of some rows of a batch, each with its dataset."""
        number, worker = divmod(step, self.stream.plan.workers)
        key = piece.rank, worker
        lane, done, begin = self._ends.get(key) or (self.stream.plan.lane(*key), -1, np.empty(0))
        if done != number:
            begin = lane.position(number)
        end = lane.position(number + 1)
        self._ends[key] = lane, number + 1, end
        row = 0
        for d, count in enumerate((end - begin).tolist()):
            first, stop = max(piece.first - row, 0), min(piece.stop - row, count)
            row += count
            if first < stop:
                yield from ((make(), d) for make in self._from(key, lane, d, int(begin[d]) + first, stop - first))

    def _from(self, key: tuple[int, int], lane: Lane, d: int, begin: int, count: int) -> Iterator[Callable[[], Stored | None]]:
        at, supply = self._under_way.get((*key, d), (begin, None))
        supply = supply or self.stream.samples(d, self.epoch, lane, begin, self.broken)
        self._under_way[*key, d] = begin + count, supply
        return islice(supply, begin - at, begin - at + count)
