"""One shard on its way: a tar under a temporary name until all its items are there."""

from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import replace

from depthkit.errors import ShardError
from depthkit.shards.files import AGAIN, PartialTar, alone, writing
from depthkit.shards.index import ShardInfo, SplitInfo, shared_views
from depthkit.shards.records import RECORDS, Encoded, Record, Reject, SplitFolder, digest_of, shard_name
from depthkit.types import LabelKind

_STRIDE = 100_000  # from the number of a tar to that of the next with samples of the same shard
_TARS = 10  # per shard: beyond, the last one takes all


class OpenShard:
    """A shard on its way. Its items may come in any order and lie in the tar in that of their positions.

    Args:
        folder: what it belongs to.
        name: of its tar.
        items: how many it must have; None if not known.
        limit: bytes above which the rest goes to another tar, whose number is higher by 100000.

    Raises:
        ShardError: another process writes it or has finished it, or the disk refuses.
    """

    def __init__(self, folder: SplitFolder, name: str, *, items: int | None = None, limit: float = float("inf")) -> None:
        self.folder, self.name, self._items, self._limit = folder, name, items, limit
        self._ready: dict[int, Encoded | Reject] = {}
        self._names, self._left_out, self._values = list[str](), list[Reject](), Counter[int]()
        self._tar: PartialTar | None = None
        self._stored: SplitInfo | None = None
        self._begun, self._held = False, ExitStack()
        with self._held, writing(folder.root), folder.alone():
            self._held.enter_context(alone(folder.root / f".{name}.lock", folder.busy(name)))
            if name in folder.records:
                raise ShardError(f"another process has finished {name} of {folder.root} meanwhile. To write the rest, {AGAIN}.")
            self._held = self._held.pop_all()

    @property
    def samples(self) -> int:
        """How many are stored."""
        return (self._stored.samples if self._stored else 0) + (self._tar.samples if self._tar else 0)

    @property
    def kind(self) -> LabelKind | None:
        """What its labels are; None before the first sample."""
        return self._stored.kind if self._stored else None

    def size_with(self, sample: Encoded) -> int:
        """Compute the bytes of the tar if it ended with this sample."""
        return self._tar.size_with(sample.members) if self._tar else 0

    def put(self, position: int, item: Encoded | Reject) -> None:
        """Take the item at a position: store a sample, or note why one was left out.

        Raises:
            ShardError: the disk refuses.
        """
        self._ready[position] = item
        while (at := len(self._names)) in self._ready:
            item = self._ready.pop(at)
            self._names.append(item[0])
            if isinstance(item, Reject):
                self._left_out.append(item)
            else:
                self._store(item)

    def _store(self, sample: Encoded) -> None:
        with writing(self.folder.root):
            number = len(self._stored.shards) if self._stored else 0
            if self.size_with(sample) > self._limit and number + 1 < _TARS:
                self._end_tar()
                number += 1
            if self._tar is None:
                self._begin()
                first = int(self.name[-10:-4])
                self._tar = PartialTar(self.folder.root / shard_name(self.folder.split, first + number * _STRIDE))
            self._tar.add(sample.key, sample.members)
        info = self._stored or SplitInfo(sample.kind, sample.views, sample.intrinsics, complete=True)
        views = shared_views(info.views, sample.views)
        self._stored = replace(info, views=views, intrinsics=info.intrinsics and sample.intrinsics)
        self._values.update(sample.values)

    def _begin(self) -> None:
        if not self._begun:
            self.folder.start(self.name)
            self._begun = True

    def _end_tar(self) -> None:
        if self._tar and self._stored:
            digest = self._tar.finish()
            shard = ShardInfo(self._tar.path.name, self._tar.samples, self._tar.bytes, digest)
            self._tar, self._stored = None, replace(self._stored, shards=(*self._stored.shards, shard))

    def finish(self) -> None:
        """Give the tar its name, leave its record, and bring the index up to date.

        Raises:
            ShardError: items are missing, or the disk refuses.
        """
        if self._ready or (self._items is not None and len(self._names) != self._items):
            raise ShardError(
                f"expected {self._items} samples for {self.name} of {self.folder.root}; got {len(self._names)}. "
                "The source changed while it was read: run again."
            )
        try:
            with writing(self.folder.root):
                self._begin()
                self._end_tar()
                record = Record(self._stored, tuple(self._left_out), digest_of(self._names))
                self.folder.keep(self.name, record, self._values)
        except BaseException:
            if self._begun:
                with suppress(OSError):  # it may have got its name before the disk refused
                    (self.folder.root / RECORDS / f"{self.name}.json").unlink()
            self.discard()
            raise
        self._stored = None
        with self._held:
            self.folder.publish()

    def discard(self) -> None:
        """Leave nothing of an unfinished shard."""
        with self._held:
            files = [self.folder.root / shard.name for shard in (self._stored.shards if self._stored else ())]
            if self._tar:
                self._tar.discard()
                files.append(self._tar.path)
            self._tar, self._stored = None, None
            for file in files:
                with suppress(OSError):
                    file.unlink()
