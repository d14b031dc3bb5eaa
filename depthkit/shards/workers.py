"""Worker processes that never outlive the process that started them."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from typing import Any


@contextmanager
def worker_pool(workers: int, setup: Callable[..., Any] | None = None, *arguments: Any) -> Iterator[ProcessPoolExecutor]:
    """Start worker processes afresh, and end them with the block or with this process, however it ends.

    Args:
        workers: their number.
        setup: called in each of them before its first job.
        *arguments: of ``setup``.
    """
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_begin, initargs=(setup, *arguments))
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _begin(setup: Callable[..., Any] | None, *arguments: Any) -> None:
    threading.Thread(target=_follow_parent, daemon=True).start()
    if setup is not None:
        setup(*arguments)


def _follow_parent() -> None:
    """End this process when its parent has ended; a worker waits for jobs on a pipe that it holds open itself."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _interrupt(number: int, _: object) -> None:
    raise KeyboardInterrupt(number)


@contextmanager
def stops_at_sigterm() -> Iterator[None]:
    """Treat SIGTERM inside the block as Ctrl-C, unless the program handles it by itself or this is not its main thread."""
    free = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if free:
        signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        if free:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
