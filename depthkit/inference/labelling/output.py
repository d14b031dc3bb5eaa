"""The folder of labels: shards as any others, one to one with the pieces of the pool."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from depthkit.errors import ShardError
from depthkit.inference.labelling.pool import Piece, Pool, PoolImage
from depthkit.shards.images import encode_pixels
from depthkit.shards.index import INDEX
from depthkit.shards.label import DepthFormat, count_values, encode_label
from depthkit.shards.manifest import manifest_file
from depthkit.shards.open_shard import OpenShard
from depthkit.shards.records import Encoded, SplitFolder
from depthkit.types import LabelKind


class LabelFolder(SplitFolder):
    """Where the labels of a pool go: a split whose shards are the pool's pieces.

    Every process that labels opens the folder; each writes other shards, and a restart those without a record.

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
        root, self.pool, self.kind, self.depth_format = Path(root), pool, kind, DepthFormat(depth_format)
        strays = sorted(found.name for found in root.iterdir() if not found.name.startswith(".")) if root.is_dir() else []
        if strays and not {INDEX, manifest_file(root, pool.split).name} & {*strays}:
            raise ShardError(
                f"expected an empty folder, or one of labels to go on with, at {root}; it holds {strays[0]} and no manifest. "
                "Choose another folder."
            )
        about = {"dataset": pool.name, "split": pool.split, "images": pool.count, "digest": pool.digest}
        label = {"ambiguity": str(kind.ambiguity), "representation": str(kind.representation)}
        manifest = {**facts, "label": label | {"format": str(self.depth_format)}, "pool": about}
        super().__init__(root, split=pool.split, dataset=pool.name, licence=pool.licence, manifest=manifest, resume=True)
        self.planned = [piece.shard for piece in pool.pieces]
        self.start()

    def remaining(self, pieces: Sequence[Piece]) -> list[Piece]:
        """List those that are not finished."""
        done = self.records
        return [piece for piece in pieces if piece.shard not in done]

    def begin(self, piece: Piece) -> OpenShard:
        """Begin the shard of a piece's labels."""
        return OpenShard(self, piece.shard, items=piece.images)

    def encode(self, image: PoolImage, label: np.ndarray, valid: np.ndarray, sky: np.ndarray | None) -> Encoded:
        """Encode one labelled sample; its image's are those of the pool, byte for byte.

        Raises:
            LabelError: the label has no valid pixel or no possible values.
        """
        name, content, depth = encode_label(label, valid, self.kind, self.depth_format)
        members = {**image.members, name: content}
        if sky is not None and sky.any() and "infinity" not in depth:
            members["sky.png"] = encode_pixels(sky.astype(np.uint8) * 255, ".png")
        kind = {"ambiguity": str(self.kind.ambiguity), "representation": str(self.kind.representation)}
        members["meta.json"] = json.dumps({**image.facts, **kind, "depth": depth}, allow_nan=False, sort_keys=True).encode()
        return Encoded(image.key, self.kind, self.pool.views, self.pool.intrinsics, members, count_values(label, valid))
