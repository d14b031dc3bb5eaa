"""Pieces of a pool as batches of images of one network size, ready for a teacher."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Self

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from depthkit.errors import DepthKitError, ShardError
from depthkit.images import read_image
from depthkit.inference.labelling.pool import Piece, Pool, PoolImage
from depthkit.resize import InputResize
from depthkit.shards.images import decode_image

_WAITING = 8  # batches' worth of images that may wait for others of their size


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
        return replace(self, images=self.images.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """Copy the batch to page-locked memory."""
        return replace(self, images=self.images.pin_memory())


_NONE = torch.empty(0, 3, 0, 0)


@dataclass
class _Waiting:
    """Images that wait for others of their network size, so that batches depend on the piece alone."""

    batch_size: int
    by_size: dict[tuple[int, int], list[tuple[Entry, Tensor]]] = field(default_factory=dict)
    count: int = 0

    def add(self, entry: Entry, image: Tensor) -> list[tuple[Entry, Tensor]]:
        """Add an image; return the batch that is full, or the oldest if too many images wait, or an empty one."""
        size = entry.shown
        group = self.by_size.setdefault(size, [])
        group.append((entry, image))
        self.count += 1
        if len(group) == self.batch_size:
            return self._take(size)
        return self.oldest() if self.count >= _WAITING * self.batch_size else []

    def oldest(self) -> list[tuple[Entry, Tensor]]:
        return self._take(next(iter(self.by_size))) if self.by_size else []

    def _take(self, size: tuple[int, int]) -> list[tuple[Entry, Tensor]]:
        group = self.by_size.pop(size)
        self.count -= len(group)
        return group


class PoolReader(IterableDataset):
    """Batches of pieces of a pool, piece after piece; worker processes share the pieces.

    Args:
        pool: pool of the pieces.
        pieces: pieces to read.
        resize: rule for the network's size of an image.
        multiple: number [px] that must divide each side.
        batch_size: greatest number of images per batch.
    """

    def __init__(self, pool: Pool, pieces: Sequence[Piece], *, resize: InputResize, multiple: int, batch_size: int) -> None:
        self.pool, self.pieces = replace(pool, pieces=()), tuple(pieces)
        self.resize, self.multiple, self.batch_size = resize, multiple, batch_size

    def __iter__(self) -> Iterator[LabelBatch]:
        info = get_worker_info()
        if info is not None:
            cv2.setNumThreads(0)  # the processes are the parallelism
        first, step = (info.id, info.num_workers) if info else (0, 1)
        try:
            for piece in self.pieces[first::step]:
                yield from self._batches(piece)
        except DepthKitError as error:  # an error raised here would reach the user wrapped in a traceback's text
            yield LabelBatch(None, _NONE, error=error)

    def _batches(self, piece: Piece) -> Iterator[LabelBatch]:
        waiting, broken = _Waiting(self.batch_size), list[Broken]()

        def batch(group: list[tuple[Entry, Tensor]]) -> LabelBatch:
            found = tuple(broken)
            broken.clear()
            return LabelBatch(piece, torch.cat([image for _, image in group]), tuple(entry for entry, _ in group), found)

        for position, (key, found) in enumerate(self.pool.read(piece)):
            try:
                if isinstance(found, DepthKitError):
                    raise found
                entry, image = self._ready(position, found, piece)
            except DepthKitError as error:
                broken.append(Broken(position, key, str(error)))
                continue
            if group := waiting.add(entry, image):
                yield batch(group)
        while group := waiting.oldest():
            yield batch(group)
        yield LabelBatch(piece, _NONE, (), tuple(broken), last=True)

    def _ready(self, position: int, found: PoolImage, piece: Piece) -> tuple[Entry, Tensor]:
        name = next(name for name in found.members if name.startswith("image."))
        data, what = found.members[name], f"{piece.source or self.pool.root}, {found.key}: {name}"
        pixels = decode_image(data, what) if piece.source else read_image(data, what=what, error=ShardError)
        image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
        size = pixels.shape[0], pixels.shape[1]
        return Entry(position, found, size, self.resize.size(*size, self.multiple)), self.resize(image, self.multiple)


def pool_loader(reader: PoolReader, *, num_workers: int = 0, pin_memory: bool = False) -> DataLoader:
    """Build the loader of the reader's batches, which worker processes prepare ahead."""
    workers = min(num_workers, len(reader.pieces))
    return DataLoader(
        reader,
        batch_size=None,
        collate_fn=_as_it_is,
        num_workers=workers,
        pin_memory=pin_memory,
        prefetch_factor=2 if workers else None,
    )


def _as_it_is(batch: Any) -> Any:
    return batch
