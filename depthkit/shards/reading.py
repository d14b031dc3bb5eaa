"""Raw samples out of shards: bytes by member name, nothing decoded."""

import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from tarfile import BLOCKSIZE
from typing import IO, Literal, NamedTuple

from depthkit.errors import ShardError
from depthkit.shards.files import open_url

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


class _Entry(NamedTuple):
    """One file of a tar: its name, its size, and how to read it, which must be done before the next is asked for."""

    name: str
    size: int
    read: Callable[[], bytes]


def read_shard(
    url: str,
    first: int,
    stop: int,
    *,
    total: int,
    wanted: Callable[[str], bool] = lambda member: True,
    opened: Callable[[str], IO[bytes]] = open_url,
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
        opened: opens the address.

    Raises:
        ShardError: the shard is missing, is no tar, or holds other than ``total`` samples.
    """
    from webdataset.tariterators import base_plus_ext  # brings torch

    number, current, problem = -1, "", None
    members: dict[str, bytes] = {}
    try:
        with closing(opened(url)) as stream:
            for entry in _entries(stream):
                key, name = base_plus_ext(entry.name)
                if key is None:
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
                if entry.size > MEMBER_LIMIT:
                    problem = f"{name} has {entry.size} bytes, more than the {MEMBER_LIMIT} that are read"
                    continue
                members[name] = entry.read()
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


def _entries(stream: IO[bytes]) -> Iterator[_Entry]:
    """Yield the regular files of a tar.

    Plain headers, such as ``ShardWriter`` writes, cost a tenth of what tarfile takes for them. From the first other one on
    tarfile reads the rest: long names, links, an end without a mark, damage.
    """
    if not getattr(stream, "seekable", bool)():
        yield from _entries_of_any(stream, "r|")
        return
    position, header = 0, stream.read(BLOCKSIZE)
    while header != bytes(BLOCKSIZE):
        if not _is_plain(header):
            stream.seek(max(position - 1, 0))
            if position and not stream.read(1):
                raise tarfile.ReadError("unexpected end of data")
            yield from _entries_of_any(stream, "r:")
            return
        name, size = header[:100].partition(b"\0")[0].decode("utf-8", "surrogateescape"), _number(header[124:136])
        yield _Entry(name, size, partial(_whole, stream, size))
        position += BLOCKSIZE * (1 - -size // BLOCKSIZE)
        stream.seek(position)
        header = stream.read(BLOCKSIZE)


def _number(field: bytes) -> int:
    return int(field.rstrip(b"\0 "), 8)


def _is_plain(header: bytes) -> bool:
    """Tell whether this is the header of a regular file with all that is to be known about it."""
    if len(header) < BLOCKSIZE or header[156:157] != b"0" or header[345] or not header[0]:
        return False
    try:
        return _number(header[124:136]) >= 0 and _number(header[148:156]) == sum(header) - sum(header[148:156]) + 8 * 0x20
    except ValueError:
        return False


def _whole(stream: IO[bytes], size: int) -> bytes:
    content = stream.read(size)
    if len(content) < size:
        raise tarfile.ReadError("unexpected end of data")
    return content


def _entries_of_any(stream: IO[bytes], mode: Literal["r|", "r:"]) -> Iterator[_Entry]:
    with tarfile.open(fileobj=stream, mode=mode) as tar:
        for member in tar:
            tar.members = []  # type: ignore[attr-defined]  # tarfile would remember every header it has seen
            if member.isreg():
                content = tar.extractfile(member)
                assert content is not None  # a regular file has one
                yield _Entry(member.name, member.size, content.read)


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
