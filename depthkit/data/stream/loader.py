"""The stream: reads what the plan says, survives broken samples, and resumes at the next unseen batch."""

import hashlib
import json
import math
import warnings
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, cycle, islice
from typing import Any, NamedTuple

import cv2
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from depthkit.data.stream.collate import Maps, collate, finished, padding
from depthkit.data.stream.plan import AUGMENTATION, Plan, generator
from depthkit.data.transforms import Transform
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


PREFETCH = 2
"""Batches that each worker is asked for ahead of time."""


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
            "batch size, mixing or epoch size": hashlib.sha256(plan.composition.tobytes()).hexdigest()[:16],
        }

    def rooms(self) -> tuple[Maps, ...]:
        """Memory for the batches that one worker has under way, to be shared with it; none if their size is not fixed.

        Two batches wait to be collected or are being made (``DataLoader`` asks each worker for two ahead), a third is
        being copied. Memory that is used again costs nothing; fresh shared memory costs a page fault per 4 kB, at both ends.
        """
        kinds = {(dataset.size, dataset.views) for dataset in self.datasets}
        size, views = kinds.pop() if len(kinds) == 1 else (None, Views.SINGLE)
        if size is None:
            return ()
        rows, count = int(self.plan.composition[:, self.rank].sum(-1).max()), len(views.frames)
        return tuple(Maps(*(part.share_memory_() for part in Maps.blank(rows, *size, count))) for _ in range(PREFETCH + 1))

    def batches(self, epoch: int, worker: int, first: int, rooms: Sequence[Maps] = ()) -> Iterator[Batch]:
        """Batches of the steps of ``worker`` from step ``first`` on, written to ``rooms`` in turn."""
        plan, broken = self.plan, list[str]()
        supplies = [
            self._samples(d, epoch, worker, plan.consumed(d, self.rank, worker, first), broken)
            for d in range(len(self.datasets))
        ]
        last: Sample | None = None
        for room, step in zip(
            cycle(rooms or [None]), range(first + (worker - first) % plan.workers, plan.steps, plan.workers), strict=False
        ):
            taken = [(s, d) for d, supply in enumerate(supplies) for s in islice(supply, plan.composition[step, self.rank, d])]
            rows = [(sample, d) for sample, d in taken if sample is not None]
            if rows:
                last, real = rows[-1][0], [True] * len(rows)
            else:  # every rank makes the same number of steps, so this one's is filled
                last = last or self._any_sample(epoch, worker)
                rows, real = [(padding(last), 0)], [False]
            yield collate([s for s, _ in rows], [d for _, d in rows], real=real, broken=broken, room=room)
            broken.clear()

    def _samples(self, d: int, epoch: int, worker: int, skip: int, broken: list[str]) -> Iterator[Sample | None]:
        """Transformed samples of one dataset for one worker, after the first ``skip``; None for a broken one not replaced."""
        start, stop = self.plan.range(epoch, d, self.rank, worker)
        windows = list(self.plan.windows(d, start, stop))
        while windows and skip >= len(windows[0][1]):
            skip -= len(windows.pop(0)[1])
        supply = self._raw(d, windows[0][0], stop) if windows else iter(())
        ahead = deque[Raw]()
        for first, order in windows:
            ahead.extend(islice(supply, max(len(order) - len(ahead), 0)))
            window = {place: ahead.popleft() for place in range(len(order))}
            for place in order[:skip]:
                del window[place]
            for at in range(skip, len(order)):
                others = (window[place] for place in order[at:])
                beyond = self._raw(d, first + len(order), first + len(order) + TRIES)
                sample = self._ready(d, first + at, self._decoded(d, chain(others, beyond), broken))
                # One sample of the next window for each one done: no pause between windows, and memory that is used again.
                del window[order[at]]
                ahead.extend(islice(supply, 1))
                yield sample
            skip = 0

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
            sample = dataset.transform(sample, generator(AUGMENTATION, self.plan.seed, d, position))
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


class _Sent(NamedTuple):
    """A batch on its way to the main process, without its maps if they lie in a room of its process."""

    batch: Batch
    process: int = 0
    room: int | None = None


class _Steps(IterableDataset):
    """What a worker process runs: the steps of an epoch that are its own."""

    def __init__(self, stream: Stream, epoch: int, first: int, rooms: Sequence[Sequence[Maps]]) -> None:
        self.stream, self.epoch, self.first, self.rooms = stream, epoch, first, rooms

    def __iter__(self) -> Iterator[_Sent | DepthKitError]:
        info = get_worker_info()
        if info is not None:
            cv2.setNumThreads(0)  # the processes are the parallelism
        process = info.id if info else 0
        rooms = self.rooms[process] if self.rooms else ()
        # The first batch wanted comes from the first process, whichever worker of the plan it plays.
        worker = (process + self.first) % self.stream.plan.workers
        nothing = Maps.blank(0, 0, 0)._asdict()
        try:
            for number, batch in enumerate(self.stream.batches(self.epoch, worker, self.first, rooms)):
                yield _Sent(replace(batch, **nothing), process, number % len(rooms)) if rooms else _Sent(batch)
        except DepthKitError as error:  # an error raised here would reach the user wrapped in a traceback's text
            yield error


def _as_it_is(batch: Any) -> Any:
    return batch


class Loader:
    """Batches of one rank, epoch after epoch, with a true length and a position that can be saved and restored.

    Each iteration is one epoch; the next begins the next epoch, also when the last was broken off. After
    ``load_state_dict`` the first iteration goes on with the next unseen batch.

    Attributes:
        stream: what is read.
        epoch: the epoch under way, from 0.
        batch: position in it of the next batch.
        broken: what could not be read so far, one sentence per sample.

    Args:
        stream: what is read; its plan must be made for ``max(num_workers, 1)`` workers.
        num_workers: worker processes; 0 reads in this one.
        multiprocessing_context: how they are started, ``fork``, ``spawn`` or ``forkserver``; None for Python's default.
        pin_memory: whether batches lie in page-locked memory.
        max_broken_fraction: share of the samples read so far, an epoch of this rank at least and each counted once, that may
            be broken before the run stops; rounded up to whole samples. So any number of ranks bears as much.
        same_every_epoch: read the first epoch's samples in every epoch, to overfit on a few batches.
    """

    def __init__(
        self,
        stream: Stream,
        *,
        num_workers: int = 0,
        multiprocessing_context: str | None = None,
        pin_memory: bool = False,
        max_broken_fraction: float = 0.01,
        same_every_epoch: bool = False,
    ) -> None:
        self.stream, self.num_workers, self.pin_memory = stream, num_workers, pin_memory
        self.multiprocessing_context = multiprocessing_context if num_workers else None
        self.epoch = self.batch = 0
        self.broken: list[str] = []
        self._max_broken_fraction, self._epochs = max_broken_fraction, 0
        self._same_every_epoch, self._restored = same_every_epoch, False

    def __len__(self) -> int:
        return self.stream.plan.steps

    def __iter__(self) -> Iterator[Batch]:
        if self.batch >= len(self) or (self.batch and not self._restored):
            self.set_epoch(self.epoch + 1)
        self._restored = False
        self._epochs += 1
        rooms = [self.stream.rooms() for _ in range(self.num_workers)]
        batches = DataLoader(
            _Steps(self.stream, 0 if self._same_every_epoch else self.epoch, self.batch, rooms),
            batch_size=None,
            collate_fn=_as_it_is,
            num_workers=self.num_workers,
            multiprocessing_context=self.multiprocessing_context,
            prefetch_factor=PREFETCH if self.num_workers else None,
            pin_memory=self.pin_memory,
            generator=torch.Generator(),  # or the loader would draw from the training's random numbers
        )
        for sent in batches:
            if isinstance(sent, DepthKitError):
                raise sent
            batch, process, room = sent
            self._report(batch.broken)
            self.batch += 1
            maps = None if room is None else rooms[process][room].rows(len(batch.keys))
            yield finished(batch, maps, pin_memory=self.pin_memory)

    def _report(self, sentences: Sequence[str]) -> None:
        for sentence in sentences:
            if sentence not in self.broken:
                self.broken.append(sentence)
                warnings.warn(f"skipped a broken sample: {sentence}", stacklevel=2)
        read = self._read()
        allowed = math.ceil(self._max_broken_fraction * read)
        if sentences and len(self.broken) > allowed:
            raise ShardError(
                f"{len(self.broken)} of {read} samples ({len(self.broken) / read:.1%}) are broken, more than "
                f"max_broken_fraction allows ({allowed}). The last: {self.broken[-1]} Repair the shards or raise the fraction."
            )

    def _read(self) -> int:
        """Different samples that this rank reads up to the end of the epoch under way, at most."""
        plan, epochs = self.stream.plan, 1 if self._same_every_epoch else self._epochs
        demand = plan.composition[:, self.stream.rank].sum(0).tolist()
        return sum(min(epochs * wanted, sum(counts)) for wanted, counts in zip(demand, plan.counts, strict=True))

    batch_sampler = None  # the trainer asks for it wherever it finds a sampler

    @property
    def sampler(self) -> "Loader":
        """Itself: the trainer announces an epoch through ``loader.sampler.set_epoch``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Begin the given epoch with the next iteration, unless it is the one under way."""
        if epoch != self.epoch:
            self.epoch, self.batch, self._restored = epoch, 0, False

    def state_dict(self) -> dict[str, Any]:
        """Where the next unseen batch is, and what that position depends on."""
        finished = self.batch >= len(self)
        return {
            "epoch": self.epoch + finished,
            "batch": 0 if finished else self.batch,
            "fingerprint": self.stream.fingerprint,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state`` was taken.

        Raises:
            DepthKitError: mid-epoch, and the position means something else here. Between epochs any state fits.
        """
        saved, here = state["fingerprint"], self.stream.fingerprint
        changed = [f"{name} (was {saved.get(name)}, is {value})" for name, value in here.items() if saved.get(name) != value]
        if state["batch"] and changed:
            raise DepthKitError(
                f"cannot resume at batch {state['batch']} of epoch {state['epoch']}: {', '.join(changed)} changed, so the "
                "batches left are others. Resume with the settings of the checkpoint, or start a new run from its weights."
            )
        self.epoch, self.batch, self._restored = int(state["epoch"]), int(state["batch"]), True
