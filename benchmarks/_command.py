"""What the benchmarks' command lines share: ``--smallest``, optional packages, a folder that goes, runs in turn."""

import argparse
import atexit
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any


def parsed(parser: argparse.ArgumentParser, **smallest: Any) -> argparse.Namespace:
    """Parse the command line, which may ask for a run of seconds on a CPU that downloads nothing.

    Args:
        parser: the benchmark's options.
        smallest: their defaults in that run; what the command line gives is kept.
    """
    parser.add_argument("--smallest", action="store_true", help="run in seconds, to see that it runs: the figures mean nothing")
    if "--smallest" in sys.argv[1:]:
        parser.set_defaults(**smallest)
    return parser.parse_args()


def installed(package: str, without: str) -> bool:
    """Return whether an optional package is there; print what is missing ``without`` it if not."""
    if find_spec(package):
        return True
    print(f"{package} is not installed: {without}")
    return False


def temporary_folder() -> Path:
    """Make a folder that is removed when the program ends."""
    folder = Path(tempfile.mkdtemp(prefix="depthkit-benchmark-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def each(function: Callable[..., Any], calls: Iterable[tuple[Any, ...]], jobs: int) -> Iterator[tuple[Any, ...]]:
    """Call ``function`` with every tuple, in fresh processes or, with 0 ``jobs``, in this one; yield each tuple when done."""
    if not jobs:
        for call in calls:
            function(*call)
            yield call
        return
    with ProcessPoolExecutor(jobs, get_context("spawn"), max_tasks_per_child=1) as pool:
        waiting = [(call, pool.submit(function, *call)) for call in calls]
        for call, done in waiting:
            done.result()
            yield call
