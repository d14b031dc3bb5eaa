"""Checks that shards are what their index says, and that every sample in them reads."""

import hashlib
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from rich.progress import track

from depthkit.errors import DepthKitError, ShardError
from depthkit.shards.codec import decode_sample
from depthkit.shards.files import AGAIN, PARTIAL, open_url
from depthkit.shards.index import SHARD, ShardIndex, ShardInfo, SplitInfo, shared_views, views_in
from depthkit.shards.reading import Raw, read_shard
from depthkit.shards.workers import worker_pool

_CHUNK = 2**20


class Problem(NamedTuple):
    """What is wrong where: shard or file name, key of the sample ('' if it is the whole file), and a sentence."""

    shard: str
    key: str
    what: str


@dataclass(frozen=True)
class VerifyReport:
    """What ``verify`` found.

    Attributes:
        root: folder or URL.
        shards: how many were looked at.
        samples: how many were counted.
        problems: everything that is wrong; empty if the shards can be trusted.
    """

    root: str
    shards: int
    samples: int
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def check(self) -> None:
        """Raise if anything is wrong.

        Raises:
            ShardError: naming the first problem and the number of the others.
        """
        if self.problems:
            shard, key, what = self.problems[0]
            more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
            raise ShardError(f"{self.root}: {shard}{f', sample {key}' if key else ''}: {what}{more}")


def verify(root: str | Path, *, decode: bool = True, workers: int = 0, progress: bool = False) -> VerifyReport:
    """Compare shards with their index: presence, size, hash, sample counts, keys, kinds, and files that do not belong.

    Args:
        root: folder or URL of an index.
        decode: whether every sample is decoded as well, which finds what was wrong before it was written.
        workers: processes that share the shards; 0 for none but this one.
        progress: whether to show a progress bar.

    Returns:
        Every problem found; none is raised.

    Raises:
        ShardError: there is no index to compare with.
    """
    index = ShardIndex.load(root)
    jobs = [(name, split, shard) for name, split in sorted(index.splits.items()) for shard in split.shards]
    problems = [
        Problem(f"split {name}", "", "it was cut short. Repeat the command, in Python with resume=True.")
        for name, split in sorted(index.splits.items())
        if not split.complete
    ]
    check = partial(_check_shard, index=index, decode=decode)
    found: Iterable[tuple[list[Problem], list[str]]]
    if workers:
        with worker_pool(workers) as pool:
            found = list(track(pool.map(check, jobs), "verify", len(jobs), disable=not progress))
    else:
        found = list(track(map(check, jobs), "verify", len(jobs), disable=not progress))
    first: dict[str, str] = {}
    for (_, _, shard), (wrong, keys) in zip(jobs, found, strict=True):
        problems += wrong
        for key in keys:
            place = first.setdefault(key, shard.name)
            if place != shard.name:
                problems.append(Problem(shard.name, key, f"its key is also in {place}. Name the samples apart, or keep one."))
    return VerifyReport(index.root, len(jobs), sum(len(keys) for _, keys in found), (*problems, *_strays(index)))


def _check_shard(job: tuple[str, SplitInfo, ShardInfo], *, index: ShardIndex, decode: bool) -> tuple[list[Problem], list[str]]:
    """Problems of one shard, and the keys it holds."""
    (_, split, shard), problems, keys = job, [], []
    url = index.url(shard)
    try:
        size, digest = _hash(url)
    except (OSError, ValueError, ImportError) as error:
        return [Problem(shard.name, "", f"it cannot be read ({error}). Restore it or write the split again.")], []
    if (size, digest) != (shard.bytes, shard.sha256):
        differs = f"{size} bytes for {shard.bytes}" if size != shard.bytes else "as many bytes but other ones"
        problems.append(Problem(shard.name, "", f"it is not the file of the index: {differs}. Restore it."))
    try:
        for raw in read_shard(url, 0, shard.samples, total=shard.samples, wanted=_all if decode else _none):
            if raw.key in keys:
                problems.append(Problem(shard.name, raw.key, "its key comes twice in this shard. Write the split again."))
            keys.append(raw.key)
            if decode:
                problems += _check_sample(raw, shard, split)
    except DepthKitError as error:
        problems.append(Problem(shard.name, "", str(error)))
    return problems, keys


def _check_sample(raw: Raw, shard: ShardInfo, split: SplitInfo) -> list[Problem]:
    if raw.problem:
        return [Problem(shard.name, raw.key, raw.problem)]
    try:
        sample = decode_sample(raw.key, raw.members, where=shard.name)
    except DepthKitError as error:
        return [Problem(shard.name, raw.key, str(error))]
    facts = {
        "labels": (str(sample.kind), str(split.kind)),
        "views": (str(shared_views(views_in(sample.frames), split.views)), str(split.views)),
        "intrinsics": (str(sample.intrinsics is not None or not split.intrinsics), "True"),
    }
    return [
        Problem(shard.name, raw.key, f"its {name} are {got}, the index says {said}. Write the split again.")
        for name, (got, said) in facts.items()
        if got != said
    ]


def _hash(url: str) -> tuple[int, str]:
    """Size [bytes] and SHA-256 of a file or URL."""
    size, digest = 0, hashlib.sha256()
    with closing(open_url(url)) as stream:
        while chunk := stream.read(_CHUNK):
            size += len(chunk)
            digest.update(chunk)
    return size, digest.hexdigest()


def _strays(index: ShardIndex) -> list[Problem]:
    """Tars in the index's folder that it does not list, and remains of writing."""
    if "://" in index.root:
        return []
    known = {shard.name for split in index.splits.values() for shard in split.shards}
    names = sorted(file.name for file in Path(index.root).iterdir() if file.name not in known)
    return [
        Problem(name, "", "it is what an interrupted writer left. Remove it, or " + AGAIN + ".")
        if name.endswith(PARTIAL)
        else Problem(name, "", "the index does not list it. Remove it, or write the split again.")
        for name in names
        if name.endswith(PARTIAL) or SHARD.fullmatch(name)
    ]


def _all(member: str) -> bool:
    return True


def _none(member: str) -> bool:
    return False
