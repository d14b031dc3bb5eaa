"""The folder of labels: a manifest, shards that are whole or absent, and a record of each that a restart relies on."""

import json
import os
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from depthkit.errors import ShardError
from depthkit.inference.labelling.pool import Piece, Pool, PoolImage
from depthkit.inference.labelling.reading import Broken
from depthkit.shards.files import PartialTar, alone, replace_text, writing
from depthkit.shards.images import encode_pixels
from depthkit.shards.index import INDEX, ShardIndex, ShardInfo, SplitInfo
from depthkit.shards.label import DepthFormat, encode_label
from depthkit.shards.manifest import MANIFEST, agree, plain
from depthkit.types import LabelKind

RECORDS = "records"
_NAMED = 1000  # broken images named in the manifest; the records name all


class Labelled(NamedTuple):
    """What a folder of labels holds: shards finished of all shards, images labelled, and images left out."""

    finished: int
    pieces: int
    labelled: int
    broken: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether every shard is there."""
        return self.finished == self.pieces


class LabelFolder:
    """Where the labels of a pool go: shards as any others, with ``manifest.json`` beside their index.

    Every process that labels opens the folder; each writes other shards. A shard gets its name when it is complete and on
    the disk, then its record in ``records/``; a restart labels those without a record.

    Args:
        root: folder; created if need be.
        pool: what is labelled.
        kind: what the labels are.
        facts: how they are made (teacher, its weights, sizes); a folder made otherwise is refused.
        depth_format: how depth is stored. A disparity in [0, 1] is stored linearly, in steps of 1 / 65533.

    Raises:
        ShardError: the folder holds something else, or labels made otherwise or of another pool, or the disk refuses.
    """

    def __init__(
        self,
        root: str | Path,
        pool: Pool,
        kind: LabelKind,
        facts: Mapping[str, Any],
        *,
        depth_format: DepthFormat | str = DepthFormat.PNG_LOG16,
    ) -> None:
        self.root, self.pool, self.kind = Path(root), pool, kind
        self.depth_format = DepthFormat(depth_format)
        about = {"dataset": pool.name, "split": pool.split, "images": pool.count, "digest": pool.digest}
        label = {"ambiguity": str(kind.ambiguity), "representation": str(kind.representation)}
        self.manifest = {**plain(facts), "label": label | {"format": str(self.depth_format)}, "pool": about}
        with writing(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            with alone(self.root / ".manifest.lock"):
                self._enter()

    def _enter(self) -> None:
        file = self.root / MANIFEST
        if not file.exists():
            if strays := sorted(found.name for found in self.root.iterdir() if not found.name.startswith(".")):
                raise ShardError(
                    f"expected an empty folder, or one of labels to go on with, at {self.root}; it holds {strays[0]} and no "
                    f"{MANIFEST}. Choose another folder."
                )
            (self.root / RECORDS).mkdir()
        agree(file, self.manifest, ignore=("counts",))

    def remaining(self, pieces: tuple[Piece, ...]) -> list[Piece]:
        """Those that are not finished."""
        done = {name.removesuffix(".json") for name in os.listdir(self.root / RECORDS) if name.endswith(".json")}
        return [piece for piece in pieces if piece.shard not in done]

    def encode(self, image: PoolImage, label: np.ndarray, valid: np.ndarray, sky: np.ndarray | None) -> dict[str, bytes]:
        """The members of one labelled sample; its image's are those of the pool, byte for byte.

        Raises:
            LabelError: the label has no valid pixel or no possible values.
        """
        name, content, depth = encode_label(label, valid, self.kind, self.depth_format)
        members = {**image.members, name: content}
        if sky is not None and sky.any() and "infinity" not in depth:
            members["sky.png"] = encode_pixels(sky.astype(np.uint8) * 255, ".png")
        kind = {"ambiguity": str(self.kind.ambiguity), "representation": str(self.kind.representation)}
        members["meta.json"] = json.dumps({**image.facts, **kind, "depth": depth}, allow_nan=False, sort_keys=True).encode()
        return members

    def record(self, piece: Piece) -> dict[str, Any] | None:
        """What is known of a finished shard: samples, bytes, sha256 and the broken images; None if it is not finished.

        Raises:
            ShardError: the record does not read.
        """
        file = self.root / RECORDS / f"{piece.shard}.json"
        try:
            return dict(json.loads(file.read_bytes()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise ShardError(
                f"expected {file} to record a shard; it does not read ({error}). Remove it and run again."
            ) from error

    def assemble(self) -> Labelled:
        """Write the index of what is finished, and once all is, the counts into the manifest.

        Raises:
            ShardError: nothing could be labelled, or the disk refuses.
        """
        with writing(self.root), alone(self.root / ".index.lock"):
            records = {piece.shard: self.record(piece) for piece in self.pool.pieces}
            finished = {name: record for name, record in records.items() if record is not None}
            shards = tuple(
                ShardInfo(name, record["samples"], record["bytes"], record["sha256"])
                for name, record in finished.items()
                if record["samples"]
            )
            broken = tuple(f"{name}, {key}: {why}" for name, record in finished.items() for key, why in record["broken"])
            state = Labelled(len(finished), len(records), sum(shard.samples for shard in shards), broken)
            complete = state.complete and bool(shards)
            info = SplitInfo(self.kind, self.pool.views, self.pool.intrinsics, complete, shards)
            index = ShardIndex(str(self.root), self.pool.name, self.pool.licence, {self.pool.split: info})
            replace_text(self.root / INDEX, index.to_json())
            if state.complete:
                counts = {"labelled": state.labelled, "broken": len(broken), "broken_images": broken[:_NAMED]}
                replace_text(self.root / MANIFEST, json.dumps({**self.manifest, "counts": counts}, indent=1) + "\n")
        if complete or not state.complete:
            return state
        reasons = Counter(line.partition(": ")[2] for line in broken)
        raise ShardError(f"expected images to label in the pool; all {len(broken)} are broken: {next(iter(reasons), '')}")


class LabelledShard:
    """One shard of labels on its way: samples may come in any order and lie in the tar in that of the pool.

    Args:
        folder: where it goes.
        piece: what it holds.

    Raises:
        ShardError: another process is writing it, or the disk refuses.
    """

    def __init__(self, folder: LabelFolder, piece: Piece) -> None:
        self.folder, self.piece = folder, piece
        self._ready: dict[int, tuple[str, dict[str, bytes]] | Broken] = {}
        self._next, self._broken, self._held = 0, list[Broken](), ExitStack()
        self._tar: PartialTar | None = None
        busy = f"another process is labelling {piece.shard} of {folder.root}. Wait for it, or give each job its own part."
        with writing(folder.root):
            self._held.enter_context(alone(folder.root / f".{piece.shard}.lock", busy))

    def add(self, position: int, key: str, members: dict[str, bytes]) -> None:
        """A labelled sample."""
        self._ready[position] = key, members
        self._drain()

    def leave_out(self, broken: Broken) -> None:
        """An image that cannot be labelled."""
        self._ready[broken.position] = broken
        self._drain()

    def _drain(self) -> None:
        while self._next in self._ready:
            item = self._ready.pop(self._next)
            self._next += 1
            if isinstance(item, Broken):
                self._broken.append(item)
                continue
            with writing(self.folder.root):
                if self._tar is None:
                    self._tar = PartialTar(self.folder.root / self.piece.shard)
                self._tar.add(*item)

    def finish(self) -> None:
        """Give the shard its name, and leave its record.

        Raises:
            ShardError: images are missing, or the disk refuses.
        """
        if self._next != self.piece.images:
            raise ShardError(
                f"expected {self.piece.images} images in {self.piece.source or self.piece.shard}; got {self._next}. "
                "The pool changed while it was read: run again."
            )
        record: dict[str, Any] = {"samples": 0, "bytes": 0, "sha256": ""}
        with self._held, writing(self.folder.root):
            if self._tar:
                digest = self._tar.finish()
                record = {"samples": self._tar.samples, "bytes": self._tar.bytes, "sha256": digest}
            record["broken"] = [(broken.key, broken.reason) for broken in self._broken]
            replace_text(self.folder.root / RECORDS / f"{self.piece.shard}.json", json.dumps(record) + "\n")

    def discard(self) -> None:
        """Leave nothing of an unfinished shard."""
        with self._held, suppress(OSError):
            if self._tar:
                self._tar.discard()
