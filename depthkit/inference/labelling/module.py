"""Pseudo-labels by Lightning's predict loop: on every device, each writing shards of its own."""

import math
import signal
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor, nn

from depthkit.errors import DepthKitError, ShardError
from depthkit.inference.labelling import (
    Broken,
    LabelBatch,
    LabelFolder,
    Piece,
    PoolReader,
    pool_loader,
    stored_label,
)
from depthkit.resize import OutputResize, network_map, resized_map, shown_part
from depthkit.shards.open_shard import OpenShard
from depthkit.shards.records import Encoded, Reject
from depthkit.types import LabelKind

_AHEAD = 8  # labels per thread that may wait to be encoded


class PseudoLabelModule(LightningModule):
    """Labelling of a pool of images by a teacher; run it with ``Trainer.predict(module, return_predictions=False)``.

    The ranks share the missing shards. While a device computes, threads encode its earlier maps. Maps are resized to their
    images as in ``depthkit.resize.native_map``.

    Args:
        teacher: called on RGB in [0, 1], ``(B, 3, h, w)``; returns ``(B, 1, h', w')``.
        kind: label kind of the teacher's predictions.
        folder: folder of the labels.
        reader: the pool at the teacher's size; its ``pieces`` are labelled.
        sky: optional; called like the teacher, it returns the probability of sky, ``(B, 1, h', w')``; above 1/2 is sky.
        num_workers: threads of one process that read, decode and resize; 0: the module's own process.
        threads: threads that encode.
        max_broken_fraction: share of the pieces' images, rounded up to whole images, that may be unreadable before the run
            stops.

    Raises:
        ShardError: while running: too many broken images, a pool that differs from its index, or a disk error. Finished shards
            stay.
    """

    def __init__(
        self,
        teacher: nn.Module,
        kind: LabelKind,
        folder: LabelFolder,
        reader: PoolReader,
        *,
        sky: nn.Module | None = None,
        num_workers: int = 0,
        threads: int = 2,
        max_broken_fraction: float = 0.01,
    ) -> None:
        super().__init__()
        self.teacher, self.kind, self.folder, self.reader, self.sky = teacher.eval(), kind, folder, reader, sky
        self.num_workers, self.threads = num_workers, threads
        total = sum(piece.images for piece in reader.pieces)
        self._allowed, self._total, self._broken = math.ceil(max_broken_fraction * total), total, 0
        self.labelled = 0
        self._encoders = ThreadPoolExecutor(threads)
        self._open: dict[str, OpenShard] = {}
        self._pending: deque[tuple[Piece, int, str, Future[Encoded]]] = deque()

    def predict_dataloader(self) -> Any:
        """Build the loader of this rank's share of the missing pieces."""
        strategy = self.trainer.strategy
        left: list[Piece] = strategy.broadcast(self.folder.remaining(self.reader.pieces))
        missing = {piece.shard for piece in left}
        finished = (self.folder.records[piece.shard] for piece in self.reader.pieces if piece.shard not in missing)
        self._broken = sum(len(record.left_out) for record in finished)
        mine = share(left, self.trainer.world_size)[self.trainer.global_rank]
        reader = PoolReader(
            self.reader.pool,
            mine,
            resize=self.reader.resize,
            multiple=self.reader.multiple,
            batch_size=self.reader.batch_size,
        )
        return pool_loader(reader, num_workers=self.num_workers, pin_memory=self.device.type == "cuda")

    def predict_step(self, batch: LabelBatch) -> None:
        """Label the images of one batch, and pass them to the encoding threads."""
        if batch.error is not None:
            raise batch.error
        self._stop_if_told()
        assert batch.piece is not None
        if batch.piece.shard not in self._open:
            self._open[batch.piece.shard] = self.folder.begin(batch.piece)
        for broken in batch.broken:
            self._leave_out(batch.piece, broken)
        if batch.entries:
            seen, shown = (batch.images.shape[-2], batch.images.shape[-1]), batch.entries[0].shown
            maps = network_map(self.teacher, batch.images, shown).map
            skies = shown_part(self.sky(batch.images).float(), seen, shown) if self.sky is not None else None
            self._hand_over(batch, maps.cpu(), None if skies is None else skies.cpu())
        self._collect(_AHEAD * self.threads if not batch.last else 0)
        if batch.last:
            self._open.pop(batch.piece.shard).finish()

    def _stop_if_told(self) -> None:
        if self.trainer.received_sigterm:  # the trainer heeds it while it trains only
            raise SIGTERMException(128 + signal.SIGTERM)

    def _hand_over(self, batch: LabelBatch, maps: Tensor, skies: Tensor | None) -> None:
        assert batch.piece is not None
        for row, entry in enumerate(batch.entries):
            sky = None if skies is None else skies[row : row + 1]
            job = self._encoders.submit(self._members, entry, maps[row : row + 1], sky)
            self._pending.append((batch.piece, entry.position, entry.image.key, job))

    def _members(self, entry: Any, values: Tensor, sky: Tensor | None) -> Encoded:
        with torch.inference_mode():  # a thread does not inherit it
            own, rule = self.kind.representation, self.reader.resize
            full = resized_map(values, entry.size, self.teacher, input_rule=rule, representation=own)
            above: np.ndarray | None = None
            if sky is not None:
                above = OutputResize()(sky, entry.size, margins=rule.margins(*entry.size))[0, 0].numpy() > 0.5
            label, valid, mask = stored_label(full[0, 0].numpy(), self.kind, above)
        return self.folder.encode(entry.image, label, valid, mask)

    def _collect(self, waiting: int) -> None:
        """Store encoded labels until at most ``waiting`` of them wait."""
        while len(self._pending) > waiting or (self._pending and self._pending[0][3].done()):
            piece, position, key, job = self._pending.popleft()
            try:
                sample = job.result()
            except DepthKitError as error:
                self._leave_out(piece, Broken(position, key, str(error)))
            else:
                self._open[piece.shard].put(position, sample)
                self.labelled += 1

    def _leave_out(self, piece: Piece, broken: Broken) -> None:
        self._open[piece.shard].put(broken.position, Reject(broken.key, broken.reason))
        self._broken += 1
        if self._broken > self._allowed:
            raise ShardError(
                f"{self._broken} of {self._total} images ({self._broken / self._total:.1%}) cannot be labelled, more than "
                f"max_broken_fraction allows ({self._allowed}). The last, {broken.key}: {broken.reason} "
                "Repair the pool or raise the fraction; finished shards are kept."
            )

    def on_predict_end(self) -> None:
        """Let the first rank wait until all shards are there: ranks may end hours apart, after which a barrier gives up."""
        self._encoders.shutdown()
        pause = 0.1
        while self.trainer.is_global_zero and self.folder.remaining(self.reader.pieces):
            self._stop_if_told()
            time.sleep(pause)
            pause = min(2 * pause, 5.0)

    def discard(self) -> None:
        """Delete shards that are not finished."""
        self._encoders.shutdown(wait=False, cancel_futures=True)
        for shard in self._open.values():
            shard.discard()
        self._open.clear()


def share(pieces: Sequence[Piece], world: int) -> list[list[Piece]]:
    """Distribute pieces over ranks, each to the rank with the fewest images so far.

    Example:
        >>> [[p.images for p in part] for part in share([Piece(str(n), n, None) for n in (5, 1, 1, 3)], 2)]
        [[5], [1, 1, 3]]
    """
    parts: list[list[Piece]] = [[] for _ in range(world)]
    sizes = [0] * world
    for piece in pieces:
        least = sizes.index(min(sizes))
        parts[least].append(piece)
        sizes[least] += piece.images
    return parts
