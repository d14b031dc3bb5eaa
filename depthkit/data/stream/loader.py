"""The loader that Lightning sees: a ``DataLoader`` with a true length and a position that can be saved and restored."""

import math
import signal
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from depthkit.checks import first_line
from depthkit.data.stream.buffers import PREFETCH, Sent, receive, send
from depthkit.data.stream.collate import Pixels
from depthkit.data.stream.stream import Stream
from depthkit.errors import DepthKitError, ShardError, TrainingError
from depthkit.types import Batch


class _Steps(IterableDataset):
    """What a worker process runs: the steps of an epoch that are its own."""

    def __init__(self, stream: Stream, epoch: int, first: int, workers: int, rings: Sequence[Sequence[Pixels]]) -> None:
        self.stream, self.epoch, self.first, self.workers, self.rings = stream, epoch, first, workers, rings

    def __iter__(self) -> Iterator[Sent | DepthKitError]:
        info = get_worker_info()
        if info is not None:
            cv2.setNumThreads(0)  # the processes are the parallelism
        process = info.id if info else 0
        buffers = self.rings[process] if self.rings else ()
        try:
            batches = self.stream.batches(self.epoch, self.first + process, self.workers, buffers)
            yield from send(batches, process, buffers)
        except DepthKitError as error:  # an error raised here would reach the user wrapped in a traceback's text
            yield error


def _as_it_is(batch: Any) -> Any:
    return batch


def _leave_signals(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal: the trainer ends its workers


@contextmanager
def _ctrl_c_held() -> Iterator[None]:
    """Hold Ctrl-C back until processes have started: they inherit this, so that none dies of it before it leaves signals."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Loader:
    """Batches of one rank, epoch after epoch, with a true length and a position that can be saved and restored.

    Each iteration is one epoch; the next begins the next epoch, also when the last was broken off. After
    ``load_state_dict`` the first iteration goes on with the next unseen batch, on any number of workers, and on any number of
    ranks if the batches of all ranks together are as large as before.

    Attributes:
        stream: what is read; up to the end of an epoch that others began, dealt as it was to them.
        epoch: the epoch under way, from 0.
        batch: position in it of the next batch.
        broken: what could not be read so far: a sentence per sample, in the order in which they were met.

    Args:
        stream: what is read; its plan should be dealt to ``max(num_workers, 1)`` workers.
        num_workers: worker processes; 0 reads in this one.
        multiprocessing_context: how they are started, ``fork``, ``spawn`` or ``forkserver``; None for Python's default.
        pin_memory: whether batches lie in page-locked memory.
        images_in_bytes: yield images in 8 bits, for ``to_float`` on another device: a quarter of the bytes to send.
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
        images_in_bytes: bool = False,
        max_broken_fraction: float = 0.01,
        same_every_epoch: bool = False,
    ) -> None:
        self.stream, self.num_workers, self.pin_memory = stream, num_workers, pin_memory
        self._own, self.images_in_bytes = stream, images_in_bytes
        self.multiprocessing_context = multiprocessing_context if num_workers else None
        self.epoch = self.batch = 0
        self.broken: dict[str, None] = {}
        self._max_broken_fraction, self._epochs, self._allowed = max_broken_fraction, 0, 0
        self._same_every_epoch, self._restored = same_every_epoch, False

    def __len__(self) -> int:
        return self.stream.plan.steps

    def __iter__(self) -> Iterator[Batch]:
        if self.batch >= len(self) or (self.batch and not self._restored):
            self.set_epoch(self.epoch + 1)
        self._restored = False
        self._epochs += 1
        self._allowed = math.ceil(self._max_broken_fraction * self.read())
        rings = [self.stream.buffers() for _ in range(self.num_workers)]
        batches = DataLoader(
            _Steps(self.stream, 0 if self._same_every_epoch else self.epoch, self.batch, max(self.num_workers, 1), rings),
            batch_size=None,
            collate_fn=_as_it_is,
            num_workers=self.num_workers,
            multiprocessing_context=self.multiprocessing_context,
            prefetch_factor=PREFETCH if self.num_workers else None,
            pin_memory=self.pin_memory,
            worker_init_fn=_leave_signals if self.num_workers else None,
            generator=torch.Generator(),  # or the loader would draw from the training's random numbers
        )
        try:
            with _ctrl_c_held():
                running = iter(batches)
            for sent in running:
                if isinstance(sent, DepthKitError):
                    raise sent
                self._report(sent.batch.broken)
                self.batch += 1
                yield receive(sent, rings, pin_memory=self.pin_memory, images_in_bytes=self.images_in_bytes)
        except (RuntimeError, ConnectionError, EOFError) as error:  # the last two from the memory that a dead worker shared
            if str(error).startswith("Caught") or (isinstance(error, RuntimeError) and "DataLoader worker" not in str(error)):
                raise
            raise TrainingError(
                f"expected {self.num_workers} workers that read; one ended: {first_line(error)} When memory is short, the "
                "system kills them: take fewer (data.num_workers) or smaller batches, and go on with --ckpt_path auto."
            ) from error

    def _report(self, sentences: Sequence[str]) -> None:
        for sentence in sentences:
            if sentence not in self.broken:
                self.broken[sentence] = None
                warnings.warn(f"skipped a broken sample: {sentence}", stacklevel=2)
        if sentences and len(self.broken) > self._allowed:
            read = self.read()
            raise ShardError(
                f"{len(self.broken)} of {read} samples ({len(self.broken) / read:.1%}) are broken, more than "
                f"max_broken_fraction allows ({self._allowed}). The last: {list(self.broken)[-1]} "
                "Repair the shards or raise the fraction."
            )

    def said(self) -> str:
        """Say how many samples were read, how many not, and why the first was not."""
        some = f": {next(iter(self.broken))}" if self.broken else "."
        return f"{self.read() - len(self.broken)} samples read, {len(self.broken)} broken and left out{some}"

    def read(self) -> int:
        """Return how many different samples this rank reads up to the end of the epoch under way, at most."""
        plan, rank, epochs = self._own.plan, self._own.rank, 1 if self._same_every_epoch else self._epochs
        demand = plan.lane(rank + 1, 0).start - plan.lane(rank, 0).start
        return sum(min(epochs * wanted, size) for wanted, size in zip(demand.tolist(), plan.sizes, strict=True))

    batch_sampler = None  # the trainer asks for it wherever it finds a sampler

    @property
    def sampler(self) -> "Loader":
        """Itself: the trainer announces an epoch through ``loader.sampler.set_epoch``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Begin the given epoch with the next iteration, unless it is the one under way."""
        if epoch != self.epoch:
            self.epoch, self.batch, self._restored, self.stream = epoch, 0, False, self._own

    def state_dict(self) -> dict[str, Any]:
        """Return where the next unseen batch is, and what that position depends on."""
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
        saved, here = state["fingerprint"], self._own.fingerprint
        changed = {name: f"{name} (was {saved.get(name)}, is {now})" for name, now in here.items() if saved.get(name) != now}
        if state["batch"] and changed.keys() - {"ranks", "workers"}:
            raise DepthKitError(
                f"cannot resume at batch {state['batch']} of epoch {state['epoch']}: {', '.join(changed.values())} changed, so "
                "the batches left are others. Resume with the settings of the checkpoint (on any number of workers, and "
                "of ranks if ranks x batch_size is as it was), or start a new run from its weights."
            )
        plan = self._own.plan.dealt(saved["ranks"], saved["workers"]) if state["batch"] else self._own.plan
        self.stream = replace(self._own, plan=plan)
        self.epoch, self.batch, self._restored = int(state["epoch"]), int(state["batch"]), True
