"""Several sequences of samples as one, such as the films of a folder."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import overload

from depthkit.convert.records.files import names_in
from depthkit.convert.records.record import Records, wrong_layout
from depthkit.errors import CheckpointError, DepthKitError, RecipeError
from depthkit.shards import Reject
from depthkit.types import LabelKind, Sample

FILMS = (".mp4", ".webm", ".mkv", ".mov", ".avi", ".m4v", ".mpg", ".ts")
"""Endings of video files, by which a folder of films is searched; a single file may have any."""


@dataclass(frozen=True)
class Chain(Sequence[Sample]):
    """Sequences of samples one behind the other.

    Attributes:
        root: folder of all of them.
        parts: the sequences.
        rejects: what is left out of any of them.
        kind: of every label.
    """

    root: Path
    parts: "tuple[Records | Chain, ...]"
    rejects: tuple[Reject, ...]
    kind: LabelKind

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(map(len, self.parts)))

    def __len__(self) -> int:
        return self._ends[-1] if self.parts else 0

    def key(self, position: int) -> str:
        """Return the key of a sample, without reading it."""
        part, at = self._place(position)
        return self.parts[part].key(at)

    @overload
    def __getitem__(self, position: int) -> Sample: ...
    @overload
    def __getitem__(self, position: slice) -> Sequence[Sample]: ...
    def __getitem__(self, position: int | slice) -> Sample | Sequence[Sample]:
        if isinstance(position, slice):
            return [self[at] for at in range(len(self))[position]]
        part, at = self._place(position)
        return self.parts[part][at]

    def _place(self, position: int) -> tuple[int, int]:
        position = range(len(self))[position]  # counts from the end if negative, raises beyond it
        part = bisect_right(self._ends, position)
        return part, position - (self._ends[part - 1] if part else 0)


def films_in(root: Path) -> list[str]:
    """Return the names of a folder's video files, sorted.

    Raises:
        DepthKitError: there are none.
    """
    names = [name for name in names_in(root) if name.lower().endswith(FILMS)]
    if not names:
        raise wrong_layout(f"films ({', '.join(FILMS)})", root)
    return names


def chained(root: Path, names: Iterable[str], read: Callable[[Path], Records | Chain], kind: LabelKind) -> Chain:
    """Read each file of a folder and put its samples one behind the other; a file that does not read becomes a reject.

    Raises:
        CheckpointError: there are no weights for what makes the labels.
        RecipeError: an option is out of its range.
    """
    parts: list[Records | Chain] = []
    rejects: list[Reject] = []
    for name in names:
        try:
            parts.append(read(root / name))
        except (CheckpointError, RecipeError):
            raise
        except DepthKitError as error:
            rejects.append(Reject(name, str(error)))
    return Chain(root, tuple(parts), (*rejects, *(reject for part in parts for reject in part.rejects)), kind)
