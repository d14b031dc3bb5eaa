"""A split on its way: a manifest, shards that are whole or absent, a record of each, and the index put together from them.

Any number of processes may write one split, each other shards: parts of a job, ranks, or one run after another. A shard gets
its name when it is complete and on the disk, then its record, and then the index is put together from all records that are
there: whoever writes the last one completes the split.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

from depthkit.errors import ShardError
from depthkit.shards.files import AGAIN, PARTIAL, alone, replace_text, writing
from depthkit.shards.index import INDEX, SPLIT, ShardIndex, ShardInfo, SplitInfo, shared_views
from depthkit.shards.label import range_of
from depthkit.shards.manifest import agree, manifest_file, plain
from depthkit.types import LabelKind, Views

RECORDS = "records"


class Reject(NamedTuple):
    """A sample that was left out: its key, or whatever name is known of it, and why."""

    name: str
    reason: str


class Encoded(NamedTuple):
    """A sample as members, with what the index wants to know about it; ``values`` as ``count_values`` gives them."""

    key: str
    kind: LabelKind
    views: Views
    intrinsics: bool
    members: dict[str, bytes]
    values: Mapping[int, int]


@dataclass(frozen=True)
class Record:
    """What is known of a finished shard.

    Attributes:
        stored: its tars, and what their samples have in common; None if all items were left out.
        left_out: which items were, and why.
        items: digest of the names of all its items, in order.
    """

    stored: SplitInfo | None
    left_out: tuple[Reject, ...]
    items: str


def digest_of(names: Iterable[str]) -> str:
    """Identify some names and their order."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{name}\n".encode())
    return digest.hexdigest()[:16]


def shard_name(split: str, number: int) -> str:
    """Name a shard.

    >>> shard_name("train", 3)
    'train-000003.tar'
    """
    return f"{split}-{number:06d}.tar"


class SplitFolder:
    """A split that one or several processes write.

    Args:
        root: folder; created if need be. It may hold other splits of the same dataset.
        split: name, such as train or test.
        dataset: name.
        licence: of the data, free text.
        manifest: everything that shapes the samples.
        overwrite: replace what the split holds, as soon as there is something to replace it with.
        resume: continue what the split holds.

    Attributes:
        planned: names of all shards, in order; None as long as they are not known. The split is complete when all are finished.

    Raises:
        ShardError: the split exists and neither ``overwrite`` nor ``resume`` is given, it was made otherwise, the folder holds
            another dataset, or the disk refuses.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        split: str,
        dataset: str,
        licence: str,
        manifest: Mapping[str, Any],
        overwrite: bool = False,
        resume: bool = False,
    ) -> None:
        self.root, self.split, self.dataset, self.licence = Path(root), split, dataset, licence
        self.manifest = plain(manifest)
        self.planned: Sequence[str] | None = None
        self._identity = digest_of([json.dumps(self.manifest, sort_keys=True)])
        self._replacing, self._records, self._values = overwrite, dict[str, Record](), Counter[int]()
        if not SPLIT.fullmatch(split):
            raise ShardError(
                f"expected a split name of letters, digits, '_' and '-'; got '{split}'. Name it train, val or test."
            )
        with writing(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            with self.alone():
                present = self._index().splits.get(split)
                if overwrite or not (present or self._files()):
                    return
                if not resume:
                    go_on = "" if present and present.complete else "resume=True to continue it, "
                    raise ShardError(
                        f"expected no split '{split}' in {root}; it has {present.samples if present else 'some'} samples. "
                        f"Give {go_on}overwrite=True to replace it, or choose another split or folder."
                    )
                agree(manifest_file(self.root, split), self.manifest)
                known = {shard.name for record in self.records.values() for shard in _tars(record)}
                listed = [shard.name for shard in present.shards if shard.name not in known] if present else []
                if lost := [name for name in listed if (self.root / name).exists()]:
                    raise ShardError(
                        f"expected a record in {self.root / RECORDS} of every shard that {INDEX} lists; {lost[0]} has none. "
                        "Restore it, overwrite the split, or choose another folder."
                    )

    def alone(self) -> AbstractContextManager[None]:
        """Be the only process that changes or reads what all writers share."""
        return alone(self.root / ".index.lock")

    @property
    def records(self) -> Mapping[str, Record]:
        """What is finished, by the name of the shard; what was removed since is not.

        Raises:
            ShardError: a record does not read, is of another run, or its shard has another size.
        """
        if self._replacing:
            return {}
        files = {file.name.removesuffix(".json"): file for file in self._files(r"\.tar\.json")}
        if self._records.keys() - files.keys():  # another process has begun anew
            self._records, self._values = {}, Counter()
        for name in files.keys() - self._records.keys():
            if record := self._read(files[name]):
                self._records[name] = record
        return self._records

    def _read(self, file: Path) -> Record | None:
        try:
            content = json.loads(file.read_bytes())
            stored = None if content["stored"] is None else SplitInfo.parse(self.split, content["stored"])
            record = Record(stored, tuple(Reject(str(a), str(b)) for a, b in content["left_out"]), str(content["items"]))
            values = {int(code): int(count) for code, count in content["values"].items()}
            if not all(0 <= code < 2**32 and 0 < count < 2**32 for code, count in values.items()):
                raise ValueError("counts of values are none")
            manifest = content["manifest"]
        except (ArithmeticError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ShardError(
                f"expected {file} to record a finished shard; it does not read ({error!r}). Remove it and {AGAIN}."
            ) from error
        if manifest != self._identity:
            raise ShardError(f"expected {file} to record a shard of this run; it is of another one. Remove it and {AGAIN}.")
        for shard in _tars(record):
            if not (self.root / shard.name).exists():
                return None
            if (size := (self.root / shard.name).stat().st_size) != shard.bytes:
                raise ShardError(
                    f"expected {self.root / shard.name} to have {shard.bytes} bytes, as {file.name} says; it has {size}. "
                    f"Restore it, or remove both and {AGAIN}."
                )
        self._values.update(values)
        return record

    def start(self, name: str = "") -> None:
        """Write the manifest, or check it once more; before that, remove what is to be replaced.

        Args:
            name: of the shard that this process has begun.

        Raises:
            ShardError: the manifest says something else, or what is to be replaced is being written.
        """
        with self.alone():
            self._start(name)

    def _start(self, name: str) -> None:
        if self._replacing:
            self._check_idle(but=name)
            self.clear()
        if self._files() or manifest_file(self.root, self.split).exists():
            agree(manifest_file(self.root, self.split), self.manifest)
        else:
            replace_text(manifest_file(self.root, self.split), json.dumps(self.manifest, indent=1) + "\n")
            (self.root / RECORDS).mkdir(exist_ok=True)

    def _check_idle(self, but: str = "") -> None:
        """Check that no other process is writing, and remove the locks of those that were killed."""
        for lock in self.root.glob(f".{self.split}-*.tar.lock"):
            if lock.name != f".{but}.lock":
                with alone(lock, self.busy(lock.name[1:-5])):
                    pass

    def busy(self, name: str) -> str:
        """Say that another process writes a shard."""
        return (
            f"another process is writing split '{self.split}' of {self.root} ({name}). "
            "Wait for it, give each process a part of its own, or write to another folder."
        )

    def keep(self, name: str, record: Record, values: Mapping[int, int]) -> None:
        """Record a finished shard, and put the index together from all that are."""
        content = {
            "manifest": self._identity,
            "items": record.items,
            "stored": record.stored and record.stored.entry(),
            "left_out": record.left_out,
            "values": {str(code): values[code] for code in sorted(values)},
        }
        (self.root / RECORDS).mkdir(exist_ok=True)
        replace_text(self.root / RECORDS / f"{name}.json", json.dumps(content) + "\n")

    def publish(self) -> SplitInfo | None:
        """Write the index of what is finished, and return its entry; None if nothing is stored.

        Raises:
            ShardError: the shards have labels of several kinds, or the disk refuses.
        """
        with writing(self.root), self.alone():
            records = self.records
            names = sorted(records) if self.planned is None else [name for name in self.planned if name in records]
            stored = [info for name in names if (info := records[name].stored)]
            if len(kinds := {str(info.kind) for info in stored}) > 1:
                raise ShardError(
                    f"expected labels of one kind in split '{self.split}' of {self.root}; got {', '.join(sorted(kinds))}. "
                    "Write them to several splits."
                )
            if not stored:
                return None
            info = SplitInfo(
                stored[0].kind,
                reduce(shared_views, (info.views for info in stored)),
                all(info.intrinsics for info in stored),
                self.planned is not None and len(names) == len(self.planned),
                tuple(shard for info in stored for shard in info.shards),
                range_of(self._values),
                sum(len(records[name].left_out) for name in names),
            )
            self._write_index(info)
        return info

    def complete(self, left_out: Sequence[Reject] = ()) -> SplitInfo | None:
        """Write the index; return its entry, or None if shards are missing and nothing is stored so far.

        Args:
            left_out: what the source has left out by itself.

        Raises:
            ShardError: all shards are finished and nothing could be stored.
        """
        info = self.publish()
        if info and info.complete:
            with suppress(ShardError):
                self._check_idle()
        if info is None and self.planned is not None and self.records.keys() >= set(self.planned):
            rejects = [*left_out, *(reject for name in self.planned for reject in self.records[name].left_out)]
            with writing(self.root), self.alone():
                self.clear()
            first = f"; the first, {rejects[0].name}: {rejects[0].reason}" if rejects else ""
            raise ShardError(
                f"expected samples for split '{self.split}' of {self.root}; got none, {len(rejects)} were left out{first}"
            )
        return info

    def clear(self) -> None:
        """Remove whatever the split holds, from the index first. The caller holds the lock."""
        self._replacing, self._records, self._values = False, {}, Counter()
        if (self.root / INDEX).exists():
            self._write_index(None)
        for file in [*reversed(self._files()), manifest_file(self.root, self.split)]:  # records before shards
            file.unlink(missing_ok=True)
        with suppress(OSError):  # another split has records there
            (self.root / RECORDS).rmdir()

    def _write_index(self, info: SplitInfo | None) -> None:
        index = self._index()
        splits = {name: other for name, other in index.splits.items() if name != self.split}
        if info:
            splits[self.split] = info
        changed = replace(index, splits=splits, licence=self.licence or index.licence)
        if not splits:
            (self.root / INDEX).unlink(missing_ok=True)
        elif changed != index:
            replace_text(self.root / INDEX, changed.to_json())

    def _index(self) -> ShardIndex:
        """Read the index of the folder, or make an empty one."""
        if not (self.root / INDEX).exists():
            return ShardIndex(str(self.root), self.dataset, self.licence)
        index = ShardIndex.load(self.root)
        if index.dataset != self.dataset:
            raise ShardError(
                f"expected dataset '{self.dataset}' in {self.root}; it holds '{index.dataset}'. Choose another folder."
            )
        return index

    def _files(self, ending: str = rf"\.tar({re.escape(PARTIAL)}|\.json)?") -> list[Path]:
        """Shards of this split, finished or not, and records."""
        pattern = re.compile(rf"{re.escape(self.split)}-\d{{6}}{ending}")
        places = [place for place in (self.root, self.root / RECORDS) if place.is_dir()]
        return [file for place in places for file in sorted(place.iterdir()) if pattern.fullmatch(file.name)]


def _tars(record: Record) -> tuple[ShardInfo, ...]:
    return record.stored.shards if record.stored else ()
