"""Damaged files of every kind that depthkit reads: each is read, or refused in a sentence; nothing else, no code, no hang.

A whole file is damaged at random: bytes changed, cut, repeated, exchanged, or a value of its JSON replaced; then the reader of
its kind is called. It prints, for each kind, how many were read and refused, defects (any other exception, a warning of a
number, a program started, a case of more than ten seconds, a crash), the time of a case and the memory of the kind's process.

    python benchmarks/fuzz.py --cases 10000
"""

import argparse
import io
import mmap
import os
import pickle
import random
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from _command import parsed, temporary_folder
from _damage import Case
from _fuzz_data import (
    exr_cases,
    film_cases,
    folder_cases,
    image_cases,
    index_cases,
    prediction_cases,
    report_cases,
    resume_cases,
    shard_cases,
)
from _fuzz_networks import checkpoint_cases, hub_cases, program_cases, recipe_cases

from depthkit.errors import DepthKitError

LONGEST = 10  # seconds of a case
KINDS: dict[str, Callable[[Path], Case]] = {
    "shards": shard_cases,
    "npy shards": partial(shard_cases, depth_format="npy"),
    "index": index_cases,
    "resume": resume_cases,
    "images": image_cases,
    "folders": folder_cases,
    "exr": exr_cases,
    "films": film_cases,
    "predictions": prediction_cases,
    "reports": report_cases,
    "checkpoints": checkpoint_cases,
    "hubs": hub_cases,
    "programs": program_cases,
    "recipes": recipe_cases,
}


@dataclass
class Outcome:
    """What became of the cases of one kind.

    Attributes:
        read: how many were read all the same.
        refused: how many were refused in a sentence.
        defects: how each of the others ended, and how often.
        seconds: of each case.
    """

    read: int = 0
    refused: int = 0
    defects: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    @property
    def cases(self) -> int:
        """How many there were."""
        return self.read + self.refused + self.defects.total()

    def add(self, other: "Outcome") -> None:
        """Count others, too."""
        self.read, self.refused = self.read + other.read, self.refused + other.refused
        self.defects.update(other.defects)
        self.seconds += other.seconds


class _TooLongError(BaseException):
    """A case that does not end."""


_started: list[str] = []


def _watch(event: str, arguments: Any) -> None:
    if event in ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "os.fork", "socket.connect"):
        _started.append(event)


@contextmanager
def _limited() -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise _TooLongError

    kept = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LONGEST)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, kept)


def fuzz(kind: str, cases: Iterable[int], root: Path) -> Outcome:
    """Run cases by their seeds; say what became of them.

    Args:
        kind: of ``KINDS``.
        cases: seeds.
        root: a folder for the files.
    """
    case, outcome = KINDS[kind](root / kind), Outcome()
    sys.addaudithook(_watch)
    for seed in cases:
        _started.clear()
        began, errors = time.perf_counter(), io.StringIO()
        end = _end_of(case, random.Random(f"{kind} {seed}"), errors)
        outcome.seconds.append(time.perf_counter() - began)
        if _started:
            end = f"started {_started[0]}"
        if end in ("read", "refused"):
            setattr(outcome, end, getattr(outcome, end) + 1)
        else:
            outcome.defects[f"{kind} {seed}: {end}" if not outcome.defects[end] else end] += 1
    return outcome


def _end_of(case: Case, rng: random.Random, errors: io.StringIO) -> str:
    try:
        with warnings.catch_warnings(), redirect_stderr(errors), redirect_stdout(io.StringIO()), _limited():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", RuntimeWarning)  # numbers that overflow
            case(rng)
    except DepthKitError as error:
        return "refused" if "\n" not in str(error) else f"several lines: {error}"
    except SystemExit as error:
        told = errors.getvalue().strip().splitlines()
        return "read" if not error.code else "refused" if error.code == 2 and told else f"exit code {error.code}"
    except _TooLongError:
        return f"more than {LONGEST} s"
    except BaseException as error:
        places = [frame for frame in traceback.extract_tb(error.__traceback__) if "depthkit" in frame.filename]
        place = f"{Path(places[-1].filename).name}:{places[-1].lineno}" if places else ""
        return f"{type(error).__name__}: {str(error)[:90]} at {place}"
    return "read"


def isolated(kind: str, cases: range, root: Path, limit: float) -> tuple[Outcome, float]:
    """Run cases in processes of their own, the next from behind a case that one dies of; return also their memory [MiB].

    Args:
        kind: of ``KINDS``.
        cases: seeds.
        root: a folder for the files.
        limit: seconds after which no further case begins.
    """
    whole, memory, at, ends = Outcome(), 0.0, mmap.mmap(-1, 8), time.monotonic() + 4 * limit
    first, most = cases.start, cases.stop
    while first < most and time.monotonic() < ends:
        reads, writes = os.pipe()
        sys.stdout.flush()
        if not (child := os.fork()):
            found = fuzz(kind, _noted(range(first, most), at, limit), root / f"{first}")
            with os.fdopen(writes, "wb") as stream:
                pickle.dump(found, stream)
            os._exit(0)
        os.close(writes)
        with os.fdopen(reads, "rb") as stream:
            content = stream.read()
        _, status, usage = os.wait4(child, 0)
        memory, seed = max(memory, usage.ru_maxrss / 1024), int.from_bytes(at[:8], "big")
        if content:
            whole.add(pickle.loads(content))
            break
        whole.defects[f"{kind} {seed}: the process ends with {os.waitstatus_to_exitcode(status)}"] += 1
        first = seed + 1
    return whole, memory


def _noted(seeds: Iterable[int], at: mmap.mmap, limit: float) -> Iterator[int]:
    ends = time.monotonic() + limit  # from the first case on
    for seed in seeds:
        if time.monotonic() > ends:
            return
        at[:8] = seed.to_bytes(8, "big")
        yield seed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="seed of the first")
    parser.add_argument("--seconds", type=float, default=1e9, help="of a kind, at most")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    options = parsed(parser, cases=3)
    total = 0
    for name in options.kinds:
        cases = range(options.first, options.first + options.cases)
        outcome, memory = isolated(name, cases, temporary_folder(), options.seconds)
        times = sorted(outcome.seconds) or [0.0]
        print(
            f"{name:12} {outcome.cases:6} cases: {outcome.read} read, {outcome.refused} refused, "
            f"{outcome.defects.total()} defects; {1000 * times[len(times) // 2]:.1f} ms, at most {times[-1]:.2f} s; "
            f"{memory:.0f} MiB",
            flush=True,
        )
        for end, count in outcome.defects.most_common(20):
            print(f"    {count} x {end}", flush=True)
        total += outcome.defects.total()
    sys.exit(bool(total))
