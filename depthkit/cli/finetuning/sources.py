"""What a DATA may be, as one sequence of samples: a folder, a folder of such folders, or shards."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from depthkit.convert.folder import folder
from depthkit.convert.records.chain import Chain
from depthkit.convert.records.record import Records
from depthkit.errors import LabelError
from depthkit.shards import Reject, ShardIndex, decode_sample
from depthkit.shards.reading import read_shard
from depthkit.types import LabelKind, Sample


class StoredSamples(Sequence[Sample]):
    """The samples of splits of shards, one behind the other; fast where they are read in order.

    Args:
        index: of the shards.
        splits: to read.
    """

    rejects: tuple[Reject, ...] = ()

    def __init__(self, index: ShardIndex, splits: Sequence[str]) -> None:
        kinds = {index.kind(split) for split in splits}
        if len(kinds) != 1:
            raise LabelError(
                f"expected splits of {index.root} with labels of one kind; got {', '.join(sorted(map(str, kinds)))}. "
                "Write those to fine-tune on to a folder of their own."
            )
        self.kind: LabelKind = kinds.pop()
        self.root = index.root
        self._shards = [(index.url(shard), shard.samples) for split in splits for shard in index.shards(split)]
        self.split_of = [split for split in splits for _ in range(index.samples(split))]
        self._at, self._reader = -1, cast(Iterator[Any], iter(()))
        self._keys = [
            f"{raw.key}" for url, total in self._shards for raw in read_shard(url, 0, total, total=total, wanted=_nothing)
        ]

    def __len__(self) -> int:
        return len(self._keys)

    def key(self, position: int) -> str:
        """Return the key of a sample, without decoding it."""
        return self._keys[position]

    def __getitem__(self, position: Any) -> Any:
        if position != self._at:
            self._reader, self._at = self._from(position), position
        raw = next(self._reader)
        self._at += 1
        return decode_sample(raw.key, raw.members, where=raw.shard)

    def _from(self, position: int) -> Iterator[Any]:
        for url, total in self._shards:
            if position < total:
                yield from read_shard(url, max(position, 0), total, total=total)
            position -= total


class Chosen(Sequence[Sample]):
    """Some samples of a sequence, by their positions, as the writer of shards reads them."""

    def __init__(self, samples: Any, positions: Sequence[int]) -> None:
        self.samples, self.positions = samples, positions
        self.unaltered = getattr(samples, "unaltered", False)

    def __len__(self) -> int:
        return len(self.positions)

    def key(self, position: int) -> str:
        """Return the key of a sample, without reading it."""
        return str(self.samples.key(self.positions[position]))

    def __getitem__(self, position: Any) -> Any:
        return self.samples[self.positions[position]]


Source = Records | Chain | StoredSamples


def opened(data: str) -> Source:
    """Open what DATA names.

    Args:
        data: folder with ``rgb/`` and ``depth/``, or ``disparity/``; a folder of such folders, each of them a scene; or a
            folder or URL of shards.

    Raises:
        DepthKitError: it is none of these, or its labels are of several kinds.
    """
    root = Path(data)
    if not root.is_dir() or (root / "index.json").is_file():
        if root.is_file() or not (root.exists() or "://" in data):
            raise LabelError(f"expected a folder of rgb/ and depth/, or of shards, at {data}; there is none. Check the path.")
        index = ShardIndex.load(data)
        return StoredSamples(index, [name for name, split in index.splits.items() if split.complete])
    if (root / "rgb").is_dir():
        return folder(root)
    scenes = [folder(place) for place in sorted(root.iterdir()) if (place / "rgb").is_dir()]
    if not scenes:
        return folder(root)  # images alone, or nothing that can be read
    kinds = {scene.kind for scene in scenes}
    if len(kinds) > 1:
        raise LabelError(
            f"expected scenes of {data} with labels of one kind; got {', '.join(sorted(map(str, kinds)))}. Fine-tune on each "
            "kind by itself."
        )
    return Chain(root, tuple(scenes), tuple(reject for scene in scenes for reject in scene.rejects), kinds.pop())


def _nothing(_: str) -> bool:
    return False
