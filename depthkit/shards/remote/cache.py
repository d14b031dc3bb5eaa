"""Copies of remote shards on a disk of the machine: made once for all its processes, bounded, and whole or not there."""

import fcntl
import hashlib
import os
import tempfile
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from depthkit.errors import RecipeError, ShardError
from depthkit.shards.files import PARTIAL, alone, writing
from depthkit.shards.index import ShardInfo
from depthkit.shards.remote.fetch import PIECE, fetch, open_remote

AHEAD = 3
"""Pieces of a shard downloaded at the same time, so that a slow one does not delay the others."""


@dataclass(frozen=True)
class ShardCache:
    """Where copies of remote shards lie.

    Shards are named by their content, so equal ones of several trainings and addresses have one copy. What is being read is
    never removed; where that fills the cache, further shards are read from the server, without a copy.

    Attributes:
        folder: on a disk of the machine itself; None for ``depthkit-shards-USER`` in the folder for temporary files.
        gigabytes: of 10^9 bytes, at most; what was not read for longest goes first.
    """

    folder: str | None = None
    gigabytes: float = 50.0

    def __post_init__(self) -> None:
        if not self.gigabytes > 0:
            raise RecipeError(f"expected data.cache.gigabytes above 0; got {self.gigabytes}.")

    @property
    def place(self) -> Path:
        """The folder."""
        return Path(self.folder or Path(tempfile.gettempdir()) / f"depthkit-shards-{os.getuid()}")

    def open(self, url: str, shard: ShardInfo) -> IO[bytes]:
        """Open a shard's copy, which is made if there is none; until it is closed, no process removes it.

        Raises:
            FileNotFoundError: the server has no such file.
            ShardError: the server stays away, or what it sends is not the shard of the index.
        """
        path = self.place / f"{shard.sha256}.tar"
        while True:
            with suppress(FileNotFoundError):
                file = path.open("rb")
                fcntl.flock(file, fcntl.LOCK_SH)
                with suppress(FileNotFoundError):  # removed before the lock was there
                    if os.path.samestat(os.stat(path), os.fstat(file.fileno())):
                        os.utime(path)
                        return file
                file.close()
            if not self.fetch(url, shard):
                return open_remote(url, size=shard.bytes)

    def prefetch(self, url: str, shard: ShardInfo) -> None:
        """Begin to make a shard's copy, and do not wait; who opens it finds out what went wrong."""
        if not (self.place / f"{shard.sha256}.tar").exists():
            threading.Thread(target=self._quietly, args=(url, shard), daemon=True).start()

    def _quietly(self, url: str, shard: ShardInfo) -> None:
        with suppress(Exception):
            self.fetch(url, shard)

    def fetch(self, url: str, shard: ShardInfo) -> bool:
        """Make a shard's copy unless there is one; return False if there is no room for it."""
        with writing(self.place):
            self.place.mkdir(parents=True, exist_ok=True)
        final = self.place / f"{shard.sha256}.tar"
        with alone(self.place / f"{shard.sha256}.lock"):  # others of this machine wait for this one download
            if final.exists():
                return True
            partial = self.place / f"{shard.sha256}.{shard.bytes}{PARTIAL}"
            if not self._room(partial, shard.bytes):
                return False
            for _ in range(2):
                digest = self._download(url, partial, shard.bytes)
                if digest == shard.sha256:
                    os.replace(partial, final)
                    return True
                os.truncate(partial, 0)
            partial.unlink()
        raise ShardError(
            f"expected {url.partition('?')[0]} to have the SHA-256 that the index says; got {digest} twice. Copy the shard and "
            "its index to the server again."
        )

    def _download(self, url: str, partial: Path, size: int) -> str:
        """Complete a file; return its SHA-256."""
        with partial.open("r+b") as file, ThreadPoolExecutor(AHEAD) as pool:
            digest = hashlib.file_digest(file, "sha256")  # of what a download that was cut short has left
            asked, ahead, room = deque[Future[bytes]](), file.tell(), 1
            while file.tell() < size:
                while len(asked) < room and ahead < size:
                    asked.append(pool.submit(fetch, url, ahead, min(ahead + PIECE, size)))
                    ahead += PIECE
                content, room = asked.popleft().result(), AHEAD  # a server without ranges has sent all by now
                with writing(self.place):
                    file.write(content)
                digest.update(content)
            return digest.hexdigest()

    def _room(self, partial: Path, size: int) -> bool:
        """Reserve room for a file by its name, and remove others for it; return False if too much is in use."""
        with alone(self.place / "room.lock"):
            limit = self.gigabytes * 1e9 - size
            copies = {file: file.stat() for file in self.place.glob("*.tar")}
            others = {file: int(file.name.split(".")[1]) for file in self.place.glob(f"*{PARTIAL}") if file != partial}
            used = sum(stat.st_size for stat in copies.values()) + sum(others.values())
            for file in sorted(copies, key=lambda file: copies[file].st_mtime_ns):
                if used <= limit:
                    break
                used -= copies[file].st_size if _unread_removed(file) else 0
            for file, reserved in others.items():  # of downloads that were cut short
                if used <= limit:
                    break
                used -= reserved if _unfinished_removed(file) else 0
            if used <= limit:
                partial.touch()
            return used <= limit


def _unread_removed(copy: Path) -> bool:
    with copy.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # somebody reads it
            return False
        copy.unlink(missing_ok=True)
        return True


def _unfinished_removed(partial: Path) -> bool:
    try:
        with alone(partial.with_name(f"{partial.name.split('.')[0]}.lock"), busy="it is on its way"):
            partial.unlink(missing_ok=True)
            return True
    except ShardError:
        return False
