"""Processes of a run, and whether what it wrote is whole: for ``kills.py``."""

import json
import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch


def has_ended(child: int) -> bool:
    """Tell whether a child process has ended, waited for or not."""
    with suppress(OSError):
        return Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def members(session: int, *, leader: bool = False) -> Iterator[tuple[int, float]]:
    """Yield the living processes of a session and their processor times [s]."""
    for place in Path("/proc").iterdir():
        with suppress(OSError, ValueError, IndexError):
            fields = (place / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z" and (leader or int(place.name) != session):
                yield int(place.name), (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def busy_for(session: int) -> float:
    """Return the processor time [s] of the living processes of a session."""
    return sum(spent for _, spent in members(session, leader=True))


def sums(file: Path) -> dict[str, float]:
    """Return the step of a checkpoint, and the sum of each of its weights."""
    content = torch.load(file, weights_only=True)
    weights = {name: value.double().sum().item() for name, value in content["state_dict"].items()}
    return {"step": content["global_step"], **weights}


def unreadable(file: Path) -> str | None:
    """Return why a file that has its final name is not whole; None if it is, or is of no kind that is known."""
    if not file.is_file() or any(part.startswith(".") for part in file.parts) or file.name.endswith(".partial"):
        return None
    readers: dict[str, Callable[[], Any]] = {
        ".json": lambda: json.loads(file.read_text()),
        ".ckpt": lambda: torch.load(file, weights_only=True),
        ".pt2": lambda: zipfile.ZipFile(file).testzip(),
        ".npy": lambda: np.load(file),
        ".png": lambda: cv2.imread(str(file), cv2.IMREAD_UNCHANGED).shape,
        ".html": lambda: file.read_text().rindex("</html>"),
        ".mp4": lambda: _frames(file),
    }
    try:
        readers.get(file.suffix, lambda: None)()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def _frames(file: Path) -> None:
    import av

    with av.open(str(file)) as film:
        assert list(film.decode(video=0)), "no frames"
