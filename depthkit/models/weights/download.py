"""Downloads of single files, with a checksum and a progress bar; a failed download leaves no file."""

import hashlib
import os
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import urlopen

import torch
from tqdm.auto import tqdm

from depthkit.checks import first_line
from depthkit.errors import CheckpointError
from depthkit.writing import unfinished

_CHUNK = 1 << 20
_TIMEOUT = 30  # s without an answer


def offline() -> bool:
    """Tell whether ``HF_HUB_OFFLINE``, which the hub's own client obeys, forbids downloads."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def fetch(url: str, checksum: str = "", cache_dir: str | Path | None = None) -> Path:
    """Return the file at an address, downloaded if it is not in the cache.

    Args:
        url: address of the file.
        checksum: ``md5:...`` or ``sha256:...``, whole or its first digits. Without it, the checksum of the first download is
            recorded beside the file and checked afterwards.
        cache_dir: folder; default that of ``torch.hub``, where other programs look for the same files.

    Raises:
        CheckpointError: the file cannot be downloaded, is incomplete, or has another checksum.
    """
    folder = Path(cache_dir) if cache_dir else Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / unquote(Path(urlsplit(url).path).name)
    note = path.with_name(f"{path.name}.sha256")
    known = checksum or (f"sha256:{note.read_text().strip()}" if note.is_file() else "")
    if not path.is_file():
        if offline():
            raise CheckpointError(f"expected {path}, as HF_HUB_OFFLINE is set; it is not there. Put the file of {url} there.")
        _download(url, path, known)
    elif known and not _matches(path, known):
        raise CheckpointError(f"expected {known} of {path}; it is another file, or damaged. Remove it to fetch it again.")
    if not checksum and not note.is_file():
        with suppress(OSError), unfinished(note) as part:  # a cache of others, or a full one, serves all the same
            part.write_text(_digest(path, "sha256") + "\n")
            part.replace(note)
    return path


def _download(url: str, path: Path, checksum: str) -> None:
    try:
        with unfinished(path) as part:  # others may fetch the same file
            with urlopen(url, timeout=_TIMEOUT) as answer, part.open("wb") as file:
                length = int(answer.headers.get("Content-Length") or 0)
                with tqdm(total=length or None, unit="B", unit_scale=True, desc=path.name) as bar:
                    while chunk := answer.read(_CHUNK):
                        file.write(chunk)
                        bar.update(len(chunk))
            if length and part.stat().st_size != length:
                raise OSError(f"{part.stat().st_size} of {length} bytes came")
            if checksum and not _matches(part, checksum):
                raise OSError(f"its checksum is not {checksum}")
            part.replace(path)
    except (OSError, ValueError, HTTPException) as error:  # urllib's errors are OSErrors; a full disk is one, too
        raise CheckpointError(
            f"expected to download {url}; got: {first_line(error)}. Try again, or put the file at {path}."
        ) from error


def _matches(path: Path, checksum: str) -> bool:
    kind, _, digits = checksum.partition(":")
    return _digest(path, kind).startswith(digits)


def _digest(path: Path, kind: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()
