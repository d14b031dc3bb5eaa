"""A ring of shared memory that a worker writes its batches to, and the main process copies them from.

Memory that is used again costs nothing; fresh shared memory costs a page fault per 4 kB, at both ends.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from depthkit.data.stream.collate import Pixels, copied, to_float
from depthkit.types import Batch

PREFETCH = 2
"""Batches that each worker is asked for ahead of time."""


class Sent(NamedTuple):
    """A batch on its way to the main process, without its pixels if they lie in a buffer of its worker process."""

    batch: Batch
    process: int = 0
    buffer: int | None = None


def shared_buffers(rows: int, height: int, width: int, views: int = 0) -> tuple[Pixels, ...]:
    """Return the ring of one worker: two batches wait or are being made, a third is being copied."""
    return tuple(
        Pixels(*(part.share_memory_() for part in Pixels.blank(rows, height, width, views))) for _ in range(PREFETCH + 1)
    )


def send(batches: Iterable[Batch], process: int, buffers: Sequence[Pixels]) -> Iterator[Sent]:
    """Yield batches that were written to ``buffers`` in turn without their pixels; as they are where there are no buffers."""
    nothing = Pixels.blank(0, 0, 0)._asdict()
    for number, batch in enumerate(batches):
        yield Sent(replace(batch, **nothing), process, number % len(buffers)) if buffers else Sent(batch)


def receive(sent: Sent, rings: Sequence[Sequence[Pixels]], *, pin_memory: bool = False, images_in_bytes: bool = False) -> Batch:
    """Return the batch with its pixels, copied so that their buffer may be written again.

    Args:
        sent: by a worker.
        rings: buffers of every worker.
        pin_memory: whether copies lie in page-locked memory.
        images_in_bytes: leave images in 8 bits, for ``to_float`` on another device, instead of making them float32.
    """
    pixels = None if sent.buffer is None else rings[sent.process][sent.buffer].rows(len(sent.batch.keys))
    if not images_in_bytes:
        return to_float(sent.batch, pixels, pin_memory=pin_memory)
    return sent.batch if pixels is None else copied(sent.batch, pixels, pin_memory=pin_memory)
