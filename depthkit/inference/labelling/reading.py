"""Pieces of a pool as batches of images of one network size, ready for a teacher."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from depthkit.errors import DepthKitError, ShardError
from depthkit.images import image_size
from depthkit.inference.labelling.pool import Piece, Pool, PoolImage
from depthkit.resize import InputResize
from depthkit.shards.images import decode_image


class Entry(NamedTuple):
    """An image of a batch: its position in the piece, its stored part, its own (height, width) [px], and at the network."""

    position: int
    image: PoolImage
    size: tuple[int, int]
    shown: tuple[int, int]


class Broken(NamedTuple):
    """An image that cannot be labelled: its position in the piece, name, and reason."""

    position: int
    key: str
    reason: str


@dataclass(frozen=True)
class LabelBatch:
    """Images of one piece at one network size.

    Attributes:
        piece: the piece; None with ``error``.
        images: float32 RGB in [0, 1], ``(B, 3, h, w)``; B may be 0.
        entries: one per image.
        broken: unreadable images of the piece since the last batch.
        last: whether this is the last batch of the piece.
        error: error that stops the run.
    """

    piece: Piece | None
    images: Tensor
    entries: tuple[Entry, ...] = ()
    broken: tuple[Broken, ...] = ()
    last: bool = False
    error: DepthKitError | None = None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """Move the images to another device, as Lightning asks."""
        ahead = non_blocking or (str(device).startswith("cuda") and self.images.is_pinned())
        return replace(self, images=self.images.to(device, non_blocking=ahead))

    def pin_memory(self) -> Self:
        """Copy the batch to page-locked memory."""
        return replace(self, images=self.images.pin_memory())


_NONE = torch.empty(0, 3, 0, 0)


class _Read(NamedTuple):
    """An image as it is stored, before it is decoded: its position in the piece."""

    position: int
    image: PoolImage


class _Waiting:
    """Images that wait, undecoded, for others of their network size, so that batches depend on the piece alone."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.by_size: dict[tuple[int, int], list[_Read]] = {}

    def add(self, read: _Read, size: tuple[int, int]) -> list[_Read]:
        """Add an image that the network sees at a size; return the batch that is full, or an empty one."""
        group = self.by_size.setdefault(size, [])
        group.append(read)
        return self.by_size.pop(size) if len(group) == self.batch_size else []

    def rest(self) -> list[list[_Read]]:
        """Return the batches that are not full."""
        return list(self.by_size.values())


class PoolReader(IterableDataset):
    """Batches of pieces of a pool, piece after piece, so that one shard is under way at a time.

    Images wait as the bytes of their files for others of their network size, as long as their piece lasts: memory holds one
    piece's files and the few batches that are decoded ahead.

    Args:
        pool: pool of the pieces.
        pieces: pieces to read.
        resize: rule for the network's size of an image.
        multiple: number [px] that must divide each side.
        batch_size: greatest number of images per batch.
        threads: threads that decode and resize the images of a batch.
    """

    def __init__(
        self, pool: Pool, pieces: Sequence[Piece], *, resize: InputResize, multiple: int, batch_size: int, threads: int = 1
    ) -> None:
        self.pool, self.pieces = replace(pool, pieces=()), tuple(pieces)
        self.resize, self.multiple, self.batch_size, self.threads = resize, multiple, batch_size, threads

    def __iter__(self) -> Iterator[LabelBatch]:
        if get_worker_info() is not None:
            cv2.setNumThreads(0)  # the threads here are the parallelism
        try:
            with ThreadPoolExecutor(self.threads) as threads:
                for piece in self.pieces:
                    yield from self._batches(piece, threads)
        except DepthKitError as error:  # an error raised here would reach the user wrapped in a traceback's text
            yield LabelBatch(None, _NONE, error=error)

    def _batches(self, piece: Piece, threads: ThreadPoolExecutor) -> Iterator[LabelBatch]:
        waiting, broken = _Waiting(self.batch_size), list[Broken]()

        def batches(group: list[_Read]) -> Iterator[LabelBatch]:
            by_size: dict[tuple[int, int], list[tuple[Entry, Tensor]]] = {}  # one, unless headers are wrong
            for found in threads.map(lambda read: self._decoded(read, piece), group):
                if isinstance(found, Broken):
                    broken.append(found)
                else:
                    by_size.setdefault(found[0].shown, []).append(found)
            for same in by_size.values():
                left_out = tuple(broken)
                broken.clear()
                yield LabelBatch(piece, torch.cat([image for _, image in same]), tuple(entry for entry, _ in same), left_out)

        for position, (key, found) in enumerate(self.pool.read(piece)):
            try:
                if isinstance(found, DepthKitError):
                    raise found
                data, what = self._file(found, piece)
                size = image_size(data, what=what, error=ShardError)
            except DepthKitError as error:
                broken.append(Broken(position, key, str(error)))
                continue
            yield from batches(waiting.add(_Read(position, found), self.resize.size(*size, self.multiple)))
        for group in waiting.rest():
            yield from batches(group)
        yield LabelBatch(piece, _NONE, (), tuple(broken), last=True)

    def _file(self, found: PoolImage, piece: Piece) -> tuple[bytes, str]:
        name = next(name for name in found.members if name.startswith("image."))
        return found.members[name], f"{piece.source or self.pool.root}, {found.key}: {name}"

    def _decoded(self, read: _Read, piece: Piece) -> tuple[Entry, Tensor] | Broken:
        try:
            return self._ready(read.position, read.image, piece)
        except DepthKitError as error:
            return Broken(read.position, read.image.key, str(error))

    def _ready(self, position: int, found: PoolImage, piece: Piece) -> tuple[Entry, Tensor]:
        data, what = self._file(found, piece)
        pixels = decode_image(data, what)
        image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
        size = pixels.shape[0], pixels.shape[1]
        return Entry(position, found, size, self.resize.size(*size, self.multiple)), self.resize(image, self.multiple)


def pool_loader(reader: PoolReader, *, num_workers: int = 0, pin_memory: bool = False) -> DataLoader:
    """Build the loader of the batches, which a process with ``num_workers`` threads prepares ahead; 0: this process."""
    reader.threads = max(num_workers, 1)
    ahead = 1 if num_workers and reader.pieces else 0
    return DataLoader(
        reader,
        batch_size=None,
        collate_fn=_as_it_is,
        num_workers=ahead,
        pin_memory=pin_memory,
        prefetch_factor=2 if ahead else None,
    )


def _as_it_is(batch: Any) -> Any:
    return batch
