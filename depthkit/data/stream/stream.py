"""The stream: one worker's batches, read as the plan says; broken samples are replaced or left out."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import Any

from depthkit.data.stream.buffers import shared_buffers
from depthkit.data.stream.collate import Pixels, collate, padding
from depthkit.data.stream.plan import AUGMENTATION, Plan, generator
from depthkit.data.stream.shuffle import shuffled
from depthkit.data.transforms.base import Transform, checked
from depthkit.errors import DepthKitError, ShapeError, ShardError
from depthkit.shards import decode_sample
from depthkit.shards.codec import VIEW
from depthkit.shards.reading import Raw, read_shard
from depthkit.types import Batch, Sample, Views

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
    """

    name: str
    urls: tuple[str, ...]
    counts: tuple[int, ...]
    transform: Transform | None = None
    digest: str = ""
    size: tuple[int, int] | None = None
    views: Views = Views.SINGLE

    def wants(self, member: str) -> bool:
        """Whether a member belongs to the image itself or to a view that is read."""
        view = member.rpartition(".")[0]
        return view in self.views.frames or not VIEW.fullmatch(view)


@dataclass(frozen=True)
class Stream:
    """What one rank reads; it travels to the worker processes, whatever way they are started.

    Attributes:
        datasets: the sources in the order of ``Batch.dataset``.
        plan: who reads what.
        rank: captured in the main process: a spawned worker cannot know it.
        replace: whether a broken sample's place is taken by another (training) or left empty (evaluation).
    """

    datasets: tuple[Dataset, ...]
    plan: Plan
    rank: int = 0
    replace: bool = True

    @property
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
            "batch size, mixing or epoch size": plan.digest,
        }

    def buffers(self) -> tuple[Pixels, ...]:
        """Memory for the batches of one worker that are under way, shared with it; none if their size is not fixed."""
        kinds = {(dataset.size, dataset.views) for dataset in self.datasets}
        size, views = kinds.pop() if len(kinds) == 1 else (None, Views.SINGLE)
        return () if size is None else shared_buffers(self.plan.largest(self.rank), *size, len(views.frames))

    def batches(self, epoch: int, worker: int, first: int, buffers: Sequence[Pixels] = ()) -> Iterator[Batch]:
        """Batches of the steps of ``worker`` from step ``first`` on, written to ``buffers`` in turn."""
        plan, broken = self.plan, list[str]()
        supplies = [
            self._samples(d, epoch, worker, plan.consumed(d, self.rank, worker, first), broken)
            for d in range(len(self.datasets))
        ]
        last: Sample | None = None
        for buffer, step in zip(
            cycle(buffers or [None]), range(first + (worker - first) % plan.workers, plan.steps, plan.workers), strict=False
        ):
            taken = [(s, d) for d, supply in enumerate(supplies) for s in islice(supply, plan.composition[step, self.rank, d])]
            rows = [(sample, d) for sample, d in taken if sample is not None]
            if rows:
                last, real = rows[-1][0], [True] * len(rows)
            else:  # every rank makes the same number of steps, so this one's is filled
                last = last or self._any_sample(epoch, worker)
                rows, real = [(padding(last), 0)], [False]
            yield collate([s for s, _ in rows], [d for _, d in rows], real=real, broken=broken, buffer=buffer)
            broken.clear()

    def _samples(self, d: int, epoch: int, worker: int, skip: int, broken: list[str]) -> Iterator[Sample | None]:
        """Transformed samples of one dataset for one worker, after the first ``skip``; None for a broken one not replaced."""
        start, stop = self.plan.range(epoch, d, self.rank, worker)
        windows = list(self.plan.windows(d, start, stop))

        def read(place: int) -> Iterator[Raw]:
            return self._raw(d, place, stop if place < stop else place + TRIES)

        for place, candidates in shuffled(windows, skip, read):
            yield self._ready(d, place, self._decoded(d, candidates, broken))

    def _raw(self, d: int, start: int, stop: int) -> Iterator[Raw]:
        dataset = self.datasets[d]
        for shard, first, last in self.plan.spans(d, start, stop):
            yield from read_shard(dataset.urls[shard], first, last, total=dataset.counts[shard], wanted=dataset.wants)

    def _decoded(self, d: int, candidates: Iterator[Raw], broken: list[str]) -> Sample | None:
        """The first candidate that can be decoded, or None where broken samples are not replaced."""
        for raw in islice(candidates, TRIES if self.replace else 1):
            try:
                if raw.problem:
                    raise ShardError(f"{raw.shard}, sample '{raw.key}': {raw.problem}")
                sample = decode_sample(raw.key, raw.members, where=raw.shard)
                if missing := [name for name in self.datasets[d].views.frames if name not in sample.frames]:
                    raise ShardError(
                        f"{raw.shard}, sample '{raw.key}': expected views {', '.join(self.datasets[d].views.frames)}; "
                        f"{', '.join(missing)} is missing. Write the sample with its views."
                    )
                return sample
            except DepthKitError as error:
                broken.append(str(error))
        if not self.replace:
            return None
        raise ShardError(f"{TRIES} samples in a row of dataset '{self.datasets[d].name}' are broken. The last: {broken[-1]}")

    def _ready(self, d: int, position: int, sample: Sample | None) -> Sample | None:
        dataset = self.datasets[d]
        if sample is None:
            return None
        if dataset.transform is not None:
            sample = checked(dataset.transform, dataset.transform(sample, generator(AUGMENTATION, self.plan.seed, d, position)))
        if dataset.size is not None and sample.size != dataset.size:
            raise ShapeError(
                f"expected samples of {dataset.size} (height, width) from the transform of '{dataset.name}'; got {sample.size} "
                f"({sample.key}). Set data.size, or the source's own size, to what the transform makes."
            )
        return sample

    def _any_sample(self, epoch: int, worker: int) -> Sample:
        start, _ = self.plan.range(epoch, 0, self.rank, worker)
        sample = self._ready(0, start, replace(self, replace=True)._decoded(0, self._raw(0, start, start + TRIES), []))
        assert sample is not None  # or _decoded has raised
        return sample
