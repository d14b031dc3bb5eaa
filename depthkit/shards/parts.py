"""One split written by many jobs that know nothing of each other, such as a SLURM array; the last to finish joins the parts.

Each part is a folder of shards of its own under ``.parts/SPLIT``, so that it is written, killed and continued like any other.
When all are complete their shards are renamed into the folder, in the order of the samples, and the index is written.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any, Protocol, Self

from depthkit.errors import RecipeError, ShardError
from depthkit.shards.build import NothingStored, Reject, WriteReport, check_source, write_shards
from depthkit.shards.files import alone, replace_text, writing
from depthkit.shards.index import INDEX, ShardIndex, ShardInfo, SplitInfo, shared_views
from depthkit.shards.manifest import MANIFEST, agree, manifest_file
from depthkit.shards.writer import ShardWriter, publish, split_manifest, stored_keys
from depthkit.types import Sample


class OnDemand(Protocol):
    """Samples that are made when they are indexed."""

    def __len__(self) -> int: ...
    def __getitem__(self, position: int, /) -> Sample: ...


@dataclass(frozen=True)
class Part:
    """The ``number``-th of ``count`` parts, from 1."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """A part written k/n.

        Raises:
            RecipeError: it is none.

        >>> Part.parse("3/64")
        Part(number=3, count=64)
        """
        k, _, n = text.partition("/")
        if not (k.isdecimal() and n.isdecimal() and 1 <= int(k) <= int(n)):
            raise RecipeError(f"expected a part k/n with 1 <= k <= n, such as 3/64; got {text}. Correct --part.")
        return cls(int(k), int(n))

    def of(self, total: int) -> range:
        """Which of so many items belong to it: neighbours, since these are often read together.

        >>> [list(Part(k, 3).of(7)) for k in (1, 2, 3)]
        [[0, 1], [2, 3], [4, 5, 6]]
        """
        return range(total * (self.number - 1) // self.count, total * self.number // self.count)


def write_part(samples: OnDemand, root: str | Path, *, split: str, dataset: str, part: Part, **options: Any) -> WriteReport:
    """Write one part of a split. A part that was cut short is continued, and one that is complete left as it is.

    Args:
        samples: all samples of the split, made on demand; the same for every part.
        root: folder of the shards; every part's job must see the same one.
        split: name.
        dataset: name.
        part: which.
        **options: of ``write_shards``, without ``overwrite`` and ``resume``.

    Raises:
        ShardError: other parts, or a split that is there, are of other samples, options or number of parts.
        RecipeError: there are fewer samples than parts.
    """
    root, here = Path(root), part.of(len(samples))
    if not here:
        raise RecipeError(f"expected at most {len(samples)} parts, one per sample; got {part.count}. Use fewer parts.")
    folder = _folder(root, split, part.number)
    with writing(root):
        folder.mkdir(parents=True, exist_ok=True)
        with alone(folder.parent / ".plan.lock"):
            facts = _facts(dataset, options)
            joined = ShardIndex.load(root).splits.get(split) if (root / INDEX).exists() else None
            if joined:
                agree(manifest_file(root, split), facts)
                check_source(samples, stored_keys(root, joined), f"split '{split}' of {root}")
            else:
                agree(folder.parent / MANIFEST, {"parts": part.count, **_source(samples), **facts})
    if joined:
        with suppress(OSError):  # other jobs or splits are at work in them
            for empty in (folder, folder.parent, folder.parent.parent):
                empty.rmdir()
        return WriteReport(0, sum(shard.samples for shard in joined.shards), (), joined.shards)
    rejects = tuple(getattr(samples, "rejects", ())) if part.number == 1 else ()
    ended = _ended(folder, split)
    if ended is not None:
        return WriteReport(0, sum(shard.samples for shard in ended), rejects, ended)
    chosen = _Slice(samples, here, rejects)
    resume = (folder / INDEX).exists()
    try:
        return write_shards(chosen, folder, split=split, dataset=dataset, resume=resume, **options)
    except NothingStored as error:  # an index without the split says so to whoever joins the parts
        nothing = ShardIndex(str(folder), dataset, options.get("licence", ""))
        with writing(root):
            replace_text(folder / INDEX, nothing.to_json())
        return WriteReport(0, 0, error.rejects, ())


def join_parts(root: str | Path, *, split: str) -> tuple[int, int]:
    """How many parts of a split are complete, of how many; if all are, put them together. Joining may be cut short, too.

    Raises:
        ShardError: no part has a sample, or they have labels of different kinds, or a shard is missing.
    """
    root, folder = Path(root), _folder(Path(root), split, 1).parent
    with writing(root), alone(root / f".{split}.parts.lock"):
        try:
            plan = json.loads((folder / MANIFEST).read_bytes())
            count = int(plan["parts"])
        except FileNotFoundError:  # another job has joined them
            return 1, 1
        folders = [_folder(root, split, number) for number in range(1, count + 1)]
        complete = [_ended(part, split) is not None for part in folders]
        if all(complete):
            _join(root, split, folders)
            manifest = {name: fact for name, fact in plan.items() if name not in ("parts", "samples", "keys")}
            replace_text(manifest_file(root, split), json.dumps(manifest, indent=1) + "\n")
            shutil.rmtree(folder)
            if not any(folder.parent.iterdir()):
                folder.parent.rmdir()
        return sum(complete), count


def _join(root: Path, split: str, folders: Sequence[Path]) -> None:
    indices = [ShardIndex.load(folder) for folder in folders]
    infos = [(folder, index.splits[split]) for folder, index in zip(folders, indices, strict=True) if split in index.splits]
    if not infos:
        raise ShardError(f"expected samples for split '{split}' of {root}; no part has one. Check the source.")
    kinds = {info.kind for _, info in infos}
    if len(kinds) > 1:
        raise ShardError(
            f"expected labels of one kind in all parts of split '{split}' of {root}; got {', '.join(sorted(map(str, kinds)))}. "
            "Write them to several splits."
        )
    shards, views = list[ShardInfo](), infos[0][1].views
    for folder, info in infos:
        views = shared_views(views, info.views)
        for shard in info.shards:
            named = shard._replace(name=f"{split}-{len(shards):06d}.tar")
            _move(folder / shard.name, root / named.name, shard.bytes)
            shards.append(named)
    intrinsics = all(info.intrinsics for _, info in infos)
    joined = SplitInfo(infos[0][1].kind, views, intrinsics, complete=True, shards=tuple(shards))
    publish(root, indices[0].dataset, indices[0].licence, split, joined)


def _move(source: Path, target: Path, size: int) -> None:
    """Rename; one that an earlier attempt has renamed is there already."""
    if source.exists() and not target.exists():
        os.replace(source, target)
    elif source.exists() or not target.exists() or target.stat().st_size != size:
        raise ShardError(
            f"expected to rename {source} to {target}; {'the latter exists' if source.exists() else 'it is missing'}. "
            "Remove the shards and .parts of this split and write it again."
        )


def _folder(root: Path, split: str, number: int) -> Path:
    return root / ".parts" / split / f"{number:06d}"


def _ended(folder: Path, split: str) -> tuple[ShardInfo, ...] | None:
    """The shards of a part that is complete, none if all its samples were left out; None if it is not complete."""
    if not (folder / INDEX).exists():
        return None
    splits = ShardIndex.load(folder).splits
    if split not in splits:
        return ()
    return splits[split].shards if splits[split].complete else None


def _source(samples: OnDemand) -> dict[str, Any]:
    """Identify the samples: parts of others would lose one, or hold it twice."""
    key = getattr(samples, "key", str)
    digest = hashlib.sha256()
    for position in range(len(samples)):
        digest.update(f"{key(position)}\n".encode())
    return {"samples": len(samples), "keys": digest.hexdigest()}


def _facts(dataset: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Collect what all parts must have in common, defaults included."""
    known = signature(ShardWriter).parameters
    names = ("licence", "depth_format", "image_format", "samples_per_shard", "bytes_per_shard")
    return split_manifest(
        options.get("manifest") or {}, dataset=dataset, **{name: options.get(name, known[name].default) for name in names}
    )


@dataclass(frozen=True)
class _Slice(Sequence[Sample]):
    """Some of a sequence's samples."""

    samples: OnDemand
    here: range
    rejects: tuple[Reject, ...]

    def __len__(self) -> int:
        return len(self.here)

    def __getitem__(self, position: Any) -> Any:
        return self.samples[self.here[position]]

    @property
    def unaltered(self) -> bool:
        """See ``write_shards``."""
        return bool(getattr(self.samples, "unaltered", False))

    def key(self, position: int) -> str:
        """The key of a sample."""
        return str(getattr(self.samples, "key", str)(self.here[position]))
