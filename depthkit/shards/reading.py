"""Raw samples out of shards: bytes by member name, nothing decoded."""

import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from depthkit.errors import ShardError
from depthkit.shards.files import is_remote, open_url

MEMBER_LIMIT = 256 * 2**20
"""Bytes above which a member is not read: no image or label of ours is that large, a hostile or garbled header may be."""


class Raw(NamedTuple):
    """One sample as it lies in its shard.

    Attributes:
        key: its name.
        members: bytes by member name (``image.jpg``).
        shard: where it lies, for messages.
        problem: why it must not be decoded, if so.
    """

    key: str
    members: dict[str, bytes]
    shard: str
    problem: str | None = None


def read_shard(
    url: str, first: int, stop: int, *, total: int, wanted: Callable[[str], bool] = lambda member: True
) -> Iterator[Raw]:
    """Yield samples ``first`` to ``stop`` (exclusive) of a shard, in order.

    What comes before ``first``, and members that are not wanted, are passed over by their headers: in a local file that
    costs a seek each.

    Args:
        url: a local path, or anything that webdataset opens.
        first: position of the first sample to return.
        stop: position after the last.
        total: samples in the shard, as its index says.
        wanted: which members to read.

    Raises:
        ShardError: the shard is missing, is no tar, or holds other than ``total`` samples.
    """
    from webdataset.tariterators import base_plus_ext  # brings torch

    number, current, problem = -1, "", None
    members: dict[str, bytes] = {}
    try:
        with closing(open_url(url)) as stream, tarfile.open(fileobj=stream, mode="r|" if is_remote(url) else "r:") as tar:
            for member in tar:
                key, name = base_plus_ext(member.name)
                tar.members = []  # type: ignore[attr-defined]  # tarfile would remember every header it has seen
                if key is None or not member.isreg():
                    continue
                if key != current:
                    if number + 1 == total:  # said before the last sample is handed out: nobody may ask for another
                        raise _other_count(url, total, f"more, beginning with {key}")
                    if number >= first:
                        yield Raw(current, members, url, problem)
                    number, current, members, problem = number + 1, key, {}, None
                    if number == stop:
                        return
                if number < first or not wanted(name):
                    continue
                if member.size > MEMBER_LIMIT:
                    problem = f"{name} has {member.size} bytes, more than the {MEMBER_LIMIT} that are read"
                    continue
                content = tar.extractfile(member)
                assert content is not None  # a regular file has one
                members[name] = content.read()
    except FileNotFoundError as error:
        raise ShardError(
            f"expected shard {url}, which the index lists; it is missing. Restore it or write the index again."
        ) from error
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ShardError(
            f"expected {url} to be a whole tar; after {max(number, 0)} samples it is not ({error}). "
            "Run `depthkit shards verify`."
        ) from error
    if number >= first:
        yield Raw(current, members, url, problem)
    if number + 1 < stop:
        raise _other_count(url, total, str(number + 1))


def _other_count(url: str, total: int, got: str) -> ShardError:
    return ShardError(f"expected {total} samples in {url}, as the index says; got {got}. Run `depthkit shards verify`.")


def read_named(root: Path, name: str) -> bytes:
    """Read a file by its name, or a member of a tar named ``TAR#FIRST+BYTES/MEMBER``, which is found without a search.

    Args:
        root: to which the name is relative.
        name: of the file or the member.

    Raises:
        OSError: it does not read.
    """
    archive, mark, member = name.partition("#")
    if not mark or (root / name).is_file():
        return (root / name).read_bytes()
    first, _, size = member.partition("/")[0].partition("+")
    with (root / archive).open("rb") as file:
        file.seek(int(first))
        return file.read(int(size))
