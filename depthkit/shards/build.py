"""Many samples into shards: in several processes, with a progress bar, and with a list of what could not be stored."""

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Set, Sized
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from depthkit.errors import DepthKitError, LabelError, ShardError
from depthkit.shards.files import check_room, writing
from depthkit.shards.index import ShardInfo
from depthkit.shards.workers import stops_at_sigterm, worker_pool
from depthkit.shards.writer import Encoded, Encoder, ShardWriter
from depthkit.types import Sample

_JUDGED_BY = 16  # samples after which it is known about how large the others will be
_AHEAD = 4  # samples per worker that may wait for their turn


class Reject(NamedTuple):
    """A sample that was left out: its key, or its position if that is all that is known of it, and why."""

    name: str
    reason: str


class NothingStored(ShardError):
    """No sample could be stored; ``rejects`` says why."""

    def __init__(self, message: str, rejects: tuple[Reject, ...]) -> None:
        super().__init__(message)
        self.rejects = rejects


class Unsuitable(LabelError):
    """A sample is whole but not good enough by its dataset's rules.

    That may be dear to find out (optical flow of a film), so a resumed run does not look at it again.
    """


@dataclass(frozen=True)
class WriteReport:
    """What ``write_shards`` did.

    Attributes:
        samples: how many were stored now.
        skipped: how many were there already (``resume``).
        rejects: those left out.
        shards: all shards of the split.
    """

    samples: int
    skipped: int
    rejects: tuple[Reject, ...]
    shards: tuple[ShardInfo, ...]


def write_shards(
    samples: Sequence[Sample] | Iterable[Sample],
    root: str | Path,
    *,
    split: str,
    dataset: str,
    workers: int = 0,
    progress: bool = False,
    **options: Any,
) -> WriteReport:
    """Write all samples to one split, in their order, and say which ones were left out.

    A sample is left out if it contradicts itself, if its key or its kind of label does not fit the split, or, where
    ``samples`` are made on demand by ``samples[i]``, if making it raises a ``DepthKitError``.

    Args:
        samples: anything to iterate over. If it has a length and can be indexed but is no list, such as a converter's or a
            renderer's, each sample is made only when it is needed, and in the worker processes if there are any. If it has
            a method ``key(position)`` too, those that are there already are not made again, nor those found ``Unsuitable``
            before the run was cut short. ``rejects`` that it has,
            images it has left out by itself, come first in the report. If its ``unaltered`` is True, images are taken to be
            what the files named in ``Sample.source`` decode to.
        root: folder.
        split: name, such as train or test.
        dataset: name.
        workers: processes that make and encode samples; 0 for none but this one. The bytes do not depend on it. They are
            started afresh, so a script that asks for them needs its ``if __name__ == "__main__"``.
        progress: whether to show a progress bar.
        **options: of ``ShardWriter``; ``manifest`` names what shapes the samples, and a run with another is refused.

    Raises:
        ShardError: no sample could be stored, what a resumed split holds is not of these samples, the disk will not have
            room for all, judging by the first, or refuses; finished shards stay and ``resume=True`` continues.
    """
    stored, skipped, size, rejects = 0, 0, 0, list(getattr(samples, "rejects", ()))
    count = len(samples) if isinstance(samples, Sized) else None
    with stops_at_sigterm(), ShardWriter(root, split=split, dataset=dataset, **options) as writer, _bar(progress) as bar:
        task = bar.add_task(f"{dataset} {split}", total=count)
        present = frozenset(writer.keys)
        check_source(samples, present, f"split '{split}' of {root}")
        unsuitable = _Unsuitable(writer.root / f".{split}.unsuitable", resume=options.get("resume", False))
        for name, made in _encoded(samples, writer.encode, workers, present | unsuitable.known.keys()):
            bar.advance(task)
            if isinstance(made, DepthKitError):
                rejects.append(Reject(name, str(made)))
                if isinstance(made, Unsuitable):
                    unsuitable.add(rejects[-1])
            elif made is None and name in unsuitable.known:
                rejects.append(Reject(name, unsuitable.known[name]))
            elif made is None or made.key in present:
                skipped += 1
            else:
                try:
                    writer.check(made)
                except DepthKitError as error:
                    rejects.append(Reject(made.key, str(error)))
                else:
                    writer.add(made)
                    stored += 1
                    size += sum(map(len, made.members.values()))
                    if stored == _JUDGED_BY and count is not None:
                        check_room(writer.root, size / stored * (count - stored - skipped))
        unsuitable.forget()
        if not (stored or skipped):
            first = f"; the first, {rejects[0].name}: {rejects[0].reason}" if rejects else ""
            message = f"expected samples for split '{split}' of {root}; got none, {len(rejects)} were left out{first}"
            raise NothingStored(message, tuple(rejects))
    return WriteReport(stored, skipped, tuple(rejects), writer.shards)


class _Unsuitable:
    """What was found ``Unsuitable`` so far, in a file with a line for each, for the run that may have to continue."""

    def __init__(self, file: Path, *, resume: bool) -> None:
        self.file, self.known = file, dict[str, str]()
        if resume and file.exists():
            for line in file.read_text().splitlines():
                with suppress(ValueError):  # the last line of a killed run
                    name, reason = json.loads(line)
                    self.known[name] = reason
        self.forget()
        for reject in self.known.items():
            self.add(Reject(*reject))

    def add(self, reject: Reject) -> None:
        with writing(self.file.parent), self.file.open("a") as stream:
            stream.write(json.dumps(reject) + "\n")

    def forget(self) -> None:
        self.file.unlink(missing_ok=True)


def check_source(samples: object, present: Set[str], where: str) -> None:
    """Check that the samples already stored come from this source, if it tells its keys without making its samples.

    Raises:
        ShardError: a stored sample is from another source, or from another split of this one.
    """
    key = getattr(samples, "key", None)
    if not present or key is None or not isinstance(samples, Sized):
        return
    if strays := sorted(present - {key(position) for position in range(len(samples))}):
        raise ShardError(
            f"expected {where} to hold samples of this source; it has '{strays[0]}', which is not, and {len(strays) - 1} more. "
            "Repeat the command that it was begun with, overwrite it, or choose another folder."
        )


def _bar(visible: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, disable=not visible)


Made = tuple[str, Encoded | DepthKitError | None]


def _encoded(samples: Sequence[Sample] | Iterable[Sample], encode: Encoder, workers: int, present: Set[str]) -> Iterator[Made]:
    """Name, and members or what is wrong, of every sample in order; None if it is known to be there already."""
    on_demand = hasattr(samples, "__getitem__") and hasattr(samples, "__len__") and not isinstance(samples, list | tuple)
    jobs: Iterable[Any] = range(len(samples)) if on_demand else samples  # type: ignore[arg-type]
    key = getattr(samples, "key", None) if on_demand and present else None
    if key is not None:
        there = [position for position in range(len(samples)) if key(position) in present]  # type: ignore[arg-type]
        yield from ((key(position), None) for position in there)
        jobs = sorted({*jobs} - {*there})
    make = _Make(samples if on_demand else None, encode)  # type: ignore[arg-type]
    if not workers:
        yield from map(make, jobs)
        return
    waiting: deque[Future[Made]] = deque()
    with worker_pool(workers, _install, make) as pool:
        for job in jobs:
            waiting.append(pool.submit(_call, job))
            if len(waiting) >= _AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@dataclass(frozen=True)
class _Make:
    """From a sample, or its position in ``samples``, to its members."""

    samples: Sequence[Sample] | None
    encode: Encoder

    def __call__(self, job: Any) -> Made:
        key = getattr(self.samples, "key", "position {}".format)
        name = job.key if self.samples is None else key(job)
        try:
            sample = job if self.samples is None else self.samples[job]
            name = sample.key
            return name, self.encode(sample, unaltered=getattr(self.samples, "unaltered", False))
        except DepthKitError as error:
            return name, error


_make: Callable[[Any], Made]


def _install(make: _Make) -> None:
    """In a new worker process: keep what every job needs."""
    global _make
    _make = make


def _call(job: Any) -> Made:
    return _make(job)
