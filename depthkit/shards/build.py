"""Many samples into shards: in several processes, on several machines, and with a list of what could not be stored."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from depthkit.errors import DepthKitError, RecipeError, ShardError
from depthkit.shards.files import AGAIN, check_room
from depthkit.shards.index import ShardInfo
from depthkit.shards.open_shard import OpenShard
from depthkit.shards.records import Encoded, Record, Reject, SplitFolder, digest_of, shard_name
from depthkit.shards.workers import stops_at_sigterm, worker_pool
from depthkit.shards.writer import Encoder, ShardWriter, check_kind, key_taken
from depthkit.types import LabelKind, Sample

_JUDGED_BY = 16  # samples after which it is known about how large the others will be
_AHEAD = 4  # samples per worker that may wait for their turn


@dataclass(frozen=True)
class Part:
    """The ``number``-th of ``count`` parts, from 1: every ``count``-th shard."""

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a part written k/n.

        Raises:
            RecipeError: it is none.

        >>> Part.parse("3/64")
        Part(number=3, count=64)
        """
        k, _, n = text.partition("/")
        if not (k.isdecimal() and n.isdecimal() and 1 <= int(k) <= int(n)):
            raise RecipeError(f"expected a part k/n with 1 <= k <= n, such as 3/64; got {text}. Correct --part.")
        return cls(int(k), int(n))

    def has(self, shard: int) -> bool:
        """Whether it includes the shard of this number, from 0.

        >>> [[n for n in range(7) if Part(k, 3).has(n)] for k in (1, 2, 3)]
        [[0, 3, 6], [1, 4], [2, 5]]
        """
        return shard % self.count == self.number - 1


@dataclass(frozen=True)
class WriteReport:
    """What ``write_shards`` did.

    Attributes:
        samples: how many were stored now.
        skipped: how many were there already, of those that this call was to store.
        rejects: those left out, now or before.
        shards: all shards of the split so far.
        finished: shards that are finished.
        planned: shards that there will be, those included whose samples are all left out.
    """

    samples: int
    skipped: int
    rejects: tuple[Reject, ...]
    shards: tuple[ShardInfo, ...]
    finished: int
    planned: int

    @property
    def complete(self) -> bool:
        """Whether the split is."""
        return self.finished == self.planned


def write_shards(
    samples: Sequence[Sample] | Iterable[Sample],
    root: str | Path,
    *,
    split: str,
    dataset: str,
    part: Part | None = None,
    workers: int = 0,
    progress: bool = False,
    resume: bool = False,
    **options: Any,
) -> WriteReport:
    """Write all samples to one split, in their order, and say which ones were left out.

    Each shard holds the samples of ``samples_per_shard`` neighbouring positions, without those that are left out: whoever
    writes it, after whatever interruption, its bytes are the same. A sample is left out if it contradicts itself, if its key
    comes twice, if its label is of another kind than the first, or, where samples are made on demand, if making it raises a
    ``DepthKitError``.

    Args:
        samples: anything to iterate over. If it has a length, a method ``key(position)`` and can be indexed, as a converter's
            or a renderer's can, each sample is made only when it is needed, in the worker processes if there are any, and not
            at all if its shard is finished. ``rejects`` that it has, images it has left out by itself, come first in the
            report. If its ``unaltered`` is True, images are taken to be what the files named in ``Sample.source`` decode to.
        root: folder.
        split: name, such as train or test.
        dataset: name.
        part: which shards to write, the others being written by other processes; implies ``resume``. The last one to finish
            completes the split.
        workers: processes that make and encode samples; 0 for none but this one. They are started afresh, so a script that asks
            for them needs its ``if __name__ == "__main__"``.
        progress: whether to show a progress bar.
        resume: whether to continue a split that is there; if it is complete, nothing is done.
        **options: of ``ShardWriter``; ``manifest`` names what shapes the samples, and a run with another is refused.

    Raises:
        ShardError: no sample could be stored, what is there is not of these samples or was made otherwise, the disk will not
            have room for all, judging by the first, or refuses; finished shards stay and ``resume=True`` continues.
        RecipeError: there are fewer shards than parts.
    """
    source = _Source(samples)
    manifest = {**(options.pop("manifest", None) or {}), **source.facts}
    here = part or Part()
    writer = ShardWriter(root, split=split, dataset=dataset, manifest=manifest, resume=resume or part is not None, **options)
    folder, per = writer.folder, writer.samples_per_shard
    names = None if source.count is None else [shard_name(split, n) for n in range(-(-source.count // per))]
    if names is not None and here.count > max(1, len(names)):
        raise RecipeError(
            f"expected at most {len(names)} parts, one per shard; got {here.count}. Use fewer parts or fewer samples per shard."
        )
    folder.planned = names
    before = dict(folder.records)
    skipped = sum(record.stored.samples for name, record in before.items() if record.stored and here.has(_number(name)))
    todo = [n for n, name in enumerate(names or ()) if here.has(n) and name not in before]
    left = None if source.count is None else sum(min(per, source.count - n * per) for n in todo)
    jobs = _Jobs(source, folder, per, here, before)
    with stops_at_sigterm(), _bar(progress) as bar:
        task = bar.add_task(f"{dataset} {split}", total=left)
        stored = _store(jobs, writer, workers, left, lambda: bar.advance(task))
    folder.planned = [shard_name(split, n) for n in range(-(-jobs.count // per))]
    own = getattr(samples, "rejects", ()) if here.number == 1 else ()
    info = folder.complete(own)
    records = [(n, folder.records.get(name)) for n, name in enumerate(folder.planned)]
    rejects = (*own, *(reject for n, record in records if record and here.has(n) for reject in record.left_out))
    finished = sum(record is not None for _, record in records)
    return WriteReport(stored, skipped, rejects, info.shards if info else (), finished, len(records))


def _number(shard: str) -> int:
    return int(shard[-10:-4])


def _bar(visible: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, disable=not visible)


def _store(jobs: "_Jobs", writer: ShardWriter, workers: int, left: int | None, advance: Callable[[], None]) -> int:
    """Store what the jobs make, shard after shard; return how many samples were stored."""
    stored, size, per, folder = 0, 0, writer.samples_per_shard, writer.folder
    shard: OpenShard | None = None
    kind: LabelKind | None = None
    try:
        for job, (position, name, made) in enumerate(_made(jobs, _Make(jobs.source.made, writer.encode), workers), start=1):
            advance()
            if shard is None:
                shard = OpenShard(folder, shard_name(folder.split, position // per), limit=writer.bytes_per_shard)
                kind = next((r.stored.kind for n, r in sorted(folder.records.items()) if r.stored and n < shard.name), None)
            try:
                if isinstance(made, DepthKitError):
                    raise made
                check_kind(made, shard.kind or kind, folder.split)
            except DepthKitError as error:
                shard.put(position % per, Reject(name, str(error)))
            else:
                shard.put(position % per, made)
                stored, size = stored + 1, size + sum(map(len, made.members.values()))
                if stored == _JUDGED_BY and left is not None:
                    check_room(folder.root, size / stored * (left - job))
            if position % per == per - 1 or position + 1 == jobs.source.count:
                shard.finish()
                shard = None
        if shard:
            shard.finish()
            shard = None
    finally:
        if shard:
            shard.discard()
    return stored


class _Source:
    """What samples come from: made on demand where it can be indexed and tells its keys, else one after the other."""

    def __init__(self, samples: Sequence[Sample] | Iterable[Sample]) -> None:
        made: Any = samples
        on_demand = all(hasattr(made, name) for name in ("__getitem__", "__len__", "key"))
        self.made = made if on_demand else None
        self.items: Iterable[tuple[str, Any]]
        self.count = len(samples) if isinstance(samples, Sized) else None
        self.facts: dict[str, Any] = {}
        if on_demand:
            self.items = [(made.key(n), n) for n in range(len(made))]
        elif isinstance(samples, list | tuple):
            self.items = [(sample.key, sample) for sample in samples]
        else:
            self.items = ((sample.key, sample) for sample in samples)
        if isinstance(self.items, list):
            self.facts = {"samples": len(self.items), "keys": digest_of(name for name, _ in self.items)}


Job = tuple[int, str, Any]
Made = tuple[int, str, Encoded | DepthKitError]


class _Jobs:
    """The samples that are to be made now, with their positions and names; ``count`` is the number of all when it has ended."""

    def __init__(self, source: _Source, folder: SplitFolder, per: int, part: Part, finished: dict[str, Record]) -> None:
        self.source, self.count = source, 0
        self._folder, self._per, self._part, self._finished = folder, per, part, finished

    def __iter__(self) -> Iterator[Job]:
        seen, split, of_shard = set[str](), self._folder.split, list[str]()
        for position, (name, item) in enumerate(self.source.items):
            shard = position // self._per
            if position % self._per == 0:
                self._check(shard - 1, of_shard)
                of_shard.clear()
            of_shard.append(name)
            self.count, twice = position + 1, name in seen
            seen.add(name)
            if self._part.has(shard) and shard_name(split, shard) not in self._finished:
                yield position, name, key_taken(name, split) if twice else item
        self._check((self.count - 1) // self._per, of_shard)

    def _check(self, shard: int, names: list[str]) -> None:
        """Check that a shard, if it is finished, holds the samples of these names."""
        file = shard_name(self._folder.split, shard)
        if file in self._finished and digest_of(names) != self._finished[file].items:
            raise ShardError(
                f"expected {file} of {self._folder.root} to hold samples of this source; it does not. "
                "Repeat the command that it was begun with, overwrite it, or choose another folder."
            )


def _made(jobs: Iterable[Job], make: "_Make", workers: int) -> Iterator[Made]:
    """Position, name, and members or what is wrong, of every sample in order."""
    if not workers:
        yield from map(make, jobs)
        return
    waiting: deque[Future[Made]] = deque()
    with worker_pool(workers, _install, make) as pool:
        try:
            for job in jobs:
                waiting.append(pool.submit(_call, job))
                if len(waiting) >= _AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise ShardError(
                "expected worker processes to last; one was killed, perhaps for want of memory. "
                f"Finished shards are kept: {AGAIN}, with fewer workers."
            ) from error


@dataclass(frozen=True)
class _Make:
    """From a sample, or its position in ``samples``, to its members."""

    samples: Sequence[Sample] | None
    encode: Encoder

    def __call__(self, job: Job) -> Made:
        position, name, item = job
        try:
            if isinstance(item, DepthKitError):
                raise item
            sample = item if self.samples is None else self.samples[item]
            return position, name, self.encode(sample, unaltered=getattr(self.samples, "unaltered", False))
        except DepthKitError as error:
            return position, name, error


_make: Callable[[Job], Made]


def _install(make: _Make) -> None:
    """In a new worker process: keep what every job needs."""
    global _make
    _make = make


def _call(job: Job) -> Made:
    return _make(job)
