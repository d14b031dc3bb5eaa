"""Files that are either whole or not there, and what to do when a disk refuses."""

import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tarfile import BLOCKSIZE, RECORDSIZE
from typing import IO

from depthkit.errors import ShardError

PARTIAL = ".partial"
"""Ends the name of a file that is being written."""
AGAIN = "repeat the command, in Python with resume=True"
"""How to go on after an interruption."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


def is_remote(url: str) -> bool:
    """Return whether webdataset opens this address, and not the file system."""
    return "://" in url or url.startswith("pipe:")


def open_url(url: str) -> IO[bytes]:
    """Open a local path, or anything that webdataset opens, for reading.

    Raises:
        OSError: it does not open.
    """
    if not is_remote(url):
        return Path(url).open("rb")
    from webdataset.gopen import gopen, gopen_schemes  # brings torch

    from depthkit.shards.remote.fetch import PACKAGES, open_remote

    gopen_schemes.update(dict.fromkeys(PACKAGES, open_remote))  # instead of programs that it would start
    stream: IO[bytes] = gopen(url)
    return stream


def joined(root: str, name: str) -> str:
    """Return where a file of a folder lies; what follows ``?`` in a URL, such as a signature, stays at its end.

    >>> joined("shards/", "index.json"), joined("https://host/shards?key=a/b", "index.json")
    ('shards/index.json', 'https://host/shards/index.json?key=a/b')
    """
    folder, mark, rest = root.partition("?") if is_remote(root) else (root, "", "")
    return f"{folder.rstrip('/')}/{name}{mark}{rest}"


@contextmanager
def writing(root: Path) -> Iterator[None]:
    """Turn an OSError inside the block into a ShardError that says what to do."""
    try:
        yield
    except OSError as error:
        place = error.filename or root
        if error.errno in _FULL:
            remedy = f"the disk of {root} is full. Finished shards are kept: free space and {AGAIN}."
        elif error.errno in _FORBIDDEN:
            remedy = f"{place} may not be written. Choose a folder of your own, or have its permissions changed."
        elif error.errno in (errno.EEXIST, errno.ENOTDIR):
            remedy = f"{place} is a file or lies in one. Choose another folder."
        else:
            remedy = f"{place} failed. Finished shards are kept: {AGAIN}."
        raise ShardError(f"expected to write shards to folder {root}; got '{error.strerror or error}': {remedy}") from error


def check_room(root: Path, size: float) -> None:
    """Check that the disk of ``root`` has room for ``size`` bytes.

    Raises:
        ShardError: it has not.
    """
    free = shutil.disk_usage(root).free
    if size > free:
        raise ShardError(
            f"expected about {size_text(size)} of free space for {root}, judging by the first samples; "
            f"the disk has {size_text(free)}. Free space, or choose a folder on another disk."
        )


def size_text(size: float) -> str:
    """Write a number of bytes in the largest unit of which there is at least one.

    >>> size_text(300), size_text(5 * 2**20), size_text(1.5 * 2**40)
    ('300 bytes', '5.0 MiB', '1536.0 GiB')
    """
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size:.0f} bytes"


def sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write a file such that a reader sees the old content or the new, never a part, and it lasts through a power cut."""
    partial = path.with_name(path.name + PARTIAL)
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise
    sync_folder(path.parent)


def replace_text(path: Path, text: str) -> None:
    """Write a text as ``replace_bytes`` does."""
    replace_bytes(path, text.encode())


@contextmanager
def alone(path: Path, busy: str | None = None) -> Iterator[None]:
    """Hold the lock named ``path`` inside the block; the system frees it when the process ends, however it ends.

    The file is removed afterwards, so whoever waited may hold a file that has lost its name: the lock counts only if the
    path still leads to the locked file.

    Args:
        path: the lock file.
        busy: if given, raise ShardError with this sentence rather than wait for another holder.
    """
    mode = fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0)
    while True:
        file = path.open("a")
        try:
            fcntl.flock(file, mode)
            if _leads_to(path, file.fileno()):
                break
        except BlockingIOError as error:
            file.close()
            raise ShardError(f"{busy}") from error
        except BaseException:
            file.close()
            raise
        file.close()
    with file:
        try:
            yield
        finally:
            with suppress(OSError):
                path.unlink()


def _leads_to(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


class PartialTar:
    """A tar under a temporary name that takes its own name only when it is complete and on the disk.

    Equal members give equal bytes: times, owners and order are fixed.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.samples, self.bytes, self._content = path, 0, 0, 0
        self._partial = path.with_name(path.name + PARTIAL)
        self._hash, self._discarding = hashlib.sha256(), False
        self._file = self._partial.open("wb")
        from webdataset import TarWriter  # brings torch, for which readers of an index need not wait

        self._tar = TarWriter(self, user="", group="", mode=0o644, encoder=False, mtime=0, compress=False)

    def write(self, data: bytes) -> int:
        """Take bytes of the tar; TarWriter calls this."""
        if not self._discarding:
            self._file.write(data)
            self._hash.update(data)
            self.bytes += len(data)
        return len(data)

    def size_with(self, members: dict[str, bytes]) -> int:
        """Compute the bytes of the file if it were finished after these members: whole blocks, an end, whole records."""
        content = self._content + sum(BLOCKSIZE + -(-len(data) // BLOCKSIZE) * BLOCKSIZE for data in members.values())
        return -(-(content + 2 * BLOCKSIZE) // RECORDSIZE) * RECORDSIZE

    def add(self, key: str, members: dict[str, bytes]) -> None:
        """Add a sample."""
        self._tar.write({"__key__": key, **members})
        self._content = self._tar.tarstream.offset
        self.samples += 1

    def finish(self) -> str:
        """Give the file its name; return its SHA-256."""
        self._tar.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._partial, self.path)
        sync_folder(self.path.parent)
        return self._hash.hexdigest()

    def discard(self) -> None:
        """Remove the unfinished file."""
        self._discarding = True
        self._tar.close()
        with suppress(OSError):  # a full disk refuses the last buffer once more
            self._file.close()
        with suppress(OSError):
            self._partial.unlink()
