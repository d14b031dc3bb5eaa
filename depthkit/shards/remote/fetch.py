"""Bytes of remote files, by range: asked for again where a server drops, stalls or refuses for a while.

fsspec speaks to them all: http(s), s3, gs, az and hf; what stands for credentials is found where each looks for it.
"""

import asyncio
import io
import random
import time
from typing import IO, Any

from depthkit.checks import first_line, optional_import
from depthkit.errors import DepthKitError, ShardError

PACKAGES = {
    "http": "aiohttp",
    "https": "aiohttp",
    "s3": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "hf": "huggingface_hub",
}
"""What speaks to which kind of address."""
PIECE = 8 * 2**20
"""Bytes that are asked for at a time."""
TIMEOUT = 60.0
"""Seconds that an answer may take."""
QUIET = 5.0
"""Seconds without a byte after which an answer is asked for again; twice as many at every further try."""
WAITS = (0.5, 1, 2, 4, 8, 16, 30, 60)
"""Seconds between tries, the last try after the last: two minutes in which a server may be away."""
_BUSY = (408, 425, 429)
"""Answers of the 400s that mean "later" and not "no"."""
_chance = random.Random()  # its own, not the training's


def fetch(url: str, first: int = 0, stop: int | None = None, *, exact: bool = True) -> bytes:
    """Return the bytes of a remote file from ``first`` to ``stop`` (exclusive).

    A server that knows no ranges answers with the whole file: then all that follows is returned, too.

    Args:
        url: address, of one of the kinds in ``PACKAGES``; what follows ``?`` is sent as it is.
        first: position of the first byte.
        stop: position after the last; None for the whole file.
        exact: whether fewer bytes are no answer; if not, they are the end of the file.

    Raises:
        FileNotFoundError: there is no such file.
        PermissionError: it may not be read.
        ShardError: the server stays away.
        MissingPackageError: what speaks to such a server is not installed.
    """
    for number, wait in enumerate((*WAITS, None)):
        try:
            content = _once(url, first, stop, min(QUIET * 2**number, TIMEOUT))
            if exact and stop is not None and len(content) < stop - first:
                raise ConnectionError(f"{len(content)} bytes came instead of {stop - first}")
            return content
        except (FileNotFoundError, PermissionError, DepthKitError):
            raise
        except Exception as error:  # every package has its own
            status = getattr(error, "status", None) or 0
            if status == 416 and not exact:
                return b""
            refused = 400 <= status < 500 and status not in _BUSY
            if status in (401, 403):
                raise PermissionError(f"the server answers {status} to {_shown(url)}") from error
            if wait is None or refused:
                tries = "its server refuses" if refused else f"{len(WAITS) + 1} tries in {sum(WAITS):.0f} s or more failed"
                told = (first_line(error) or type(error).__name__).replace(url, _shown(url))
                raise ShardError(
                    f"expected to read {_shown(url)}; {tries}, the last with '{told}'. "
                    "Check the address and the server; a training goes on with --ckpt_path auto."
                ) from error
            time.sleep(wait * _chance.uniform(0.5, 1.0))  # not all ranks at the same moment
    raise AssertionError("the last try returns or raises")


def _shown(url: str) -> str:
    return url.partition("?")[0]  # what follows may be a key


def _once(url: str, first: int, stop: int | None, quiet: float) -> bytes:
    from fsspec.asyn import AsyncFileSystem, sync
    from fsspec.core import url_to_fs

    scheme = url.partition("://")[0]
    optional_import(PACKAGES[scheme], "remote")
    files, path = url_to_fs(url, **({"encoded": True} if scheme in ("http", "https") else {}))
    part: dict[str, Any] = {} if stop is None else {"start": first, "end": stop}
    if scheme not in ("http", "https"):
        return bytes(files.cat_file(path, **part, **({"timeout": TIMEOUT} if isinstance(files, AsyncFileSystem) else {})))

    async def in_time() -> bytes:
        try:
            return await asyncio.wait_for(_by_http(files, path, first, stop, quiet), TIMEOUT)
        except TimeoutError as error:
            waited = TIMEOUT if type(error) is TimeoutError else quiet  # aiohttp has a class of its own
            raise ConnectionError(f"no answer in {waited:g} s") from error

    content: bytes = sync(files.loop, in_time)
    return content


async def _by_http(files: Any, url: str, first: int, stop: int | None, quiet: float) -> bytes:
    from aiohttp import ClientTimeout

    session = await files.set_session()
    headers = {} if stop is None else {"Range": f"bytes={first}-{stop - 1}"}
    patience = ClientTimeout(total=None, sock_connect=quiet, sock_read=quiet)
    async with session.get(files.encode_url(url), headers=headers, timeout=patience) as answer:
        if answer.status == 404:
            raise FileNotFoundError(_shown(url))
        answer.raise_for_status()
        content: bytes = await answer.read()
        return content if answer.status == 206 else content[first:]  # 200: the server knows no ranges


class RemoteFile(io.RawIOBase):
    """A remote file that reads like one on a disk, in pieces.

    Args:
        url: its address.
        size: of it [bytes]; None if not known, then fewer bytes than asked for are its end.
    """

    def __init__(self, url: str, size: int | None = None) -> None:
        self.url, self.size, self._at, self._ahead = url, size, 0, b""

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Return the position of the next byte."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position, from the beginning or from here."""
        if whence == io.SEEK_END:
            raise io.UnsupportedOperation("the end of a remote file is not known")
        at = offset + (self._at if whence == io.SEEK_CUR else 0)
        self._ahead = self._ahead[at - self._at :] if at >= self._at else b""
        self._at = at
        return at

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer as far as the file goes."""
        wanted = len(buffer) if self.size is None else max(0, min(len(buffer), self.size - self._at))
        if len(self._ahead) < wanted:
            self._ahead = fetch(self.url, self._at, self._at + wanted, exact=self.size is not None)
        found = min(wanted, len(self._ahead))
        buffer[:found], self._ahead = self._ahead[:found], self._ahead[found:]
        self._at += found
        return found


def open_remote(url: str, mode: str = "rb", bufsize: int = PIECE, *, size: int | None = None, **_: Any) -> IO[bytes]:
    """Open a remote file for reading; this is what webdataset's table of openers holds for ``PACKAGES``.

    Args:
        url: its address.
        mode: ``rb``.
        bufsize: bytes that are asked for at a time, at least 8 MiB.
        size: of the file [bytes], if it is known.
    """
    if mode not in ("r", "rb"):
        raise ValueError(f"expected to read {_shown(url)}; got mode '{mode}'. Write to a folder and copy it to the server.")
    return io.BufferedReader(RemoteFile(url, size), max(bufsize, PIECE))
