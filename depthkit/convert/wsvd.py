"""WSVD (Wang et al. 2019): stereo videos of the web, of which their authors publish the names.

Under the root lie the videos as they were fetched, ``ID.mp4`` (or webm, mkv), ``ID`` being the name in the published list, one
in each line. Labels are made as those of films, see ``stereo_movie``. The authors' clips are listed in pickles, which are not
read: frames are sampled from the whole video, and those that are not good enough are left out.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, overload

from depthkit.convert import stereo_movie
from depthkit.convert.records.dataset import Dataset
from depthkit.convert.records.files import names_in, read_bytes
from depthkit.convert.records.frames import Frames, check_folder, held_out, wrong_layout
from depthkit.convert.records.optical_flow import Raft
from depthkit.convert.records.stereo_labels import KIND, Flow, Rules
from depthkit.errors import CheckpointError, DepthKitError, RecipeError
from depthkit.shards import Reject
from depthkit.types import LabelKind, Sample

VIDEOS = (".mp4", ".webm", ".mkv", ".mov", ".avi")


def samples(root: str | Path, split: str, **options: Any) -> Iterator[Sample]:
    """The samples of a split one by one; arguments and errors are those of ``frames``.

    Raises:
        Unsuitable: on a frame that is not good enough.
    """
    return iter(frames(root, split, **options))


def frames(
    root: str | Path,
    split: str,
    *,
    split_file: str | Path | None = None,
    holdout: float = 0.05,
    layout: str = "auto",
    rate: float = 1.0,
    trim: float = 0.1,
    height: int | None = None,
    rules: Rules | str = "midas",
    flow: Flow | None = None,
    weights: str | Path | None = None,
) -> "Chain":
    """The frames of all videos of a split as a sequence, by video and time.

    A listed video that is not there, or is no stereo film, is among ``rejects``.

    Args:
        root: folder of the videos.
        split: ``train`` or ``val``.
        split_file: list of the videos' names; all that are there by default.
        holdout: share of the videos that are for validation; see ``held_out``.
        layout: see ``stereo_movie.frames``, as for the others.
        rate: likewise.
        trim: likewise.
        height: likewise.
        rules: likewise.
        flow: likewise.
        weights: likewise.

    Raises:
        DepthKitError: there are no videos, or PyAV is not installed.
        CheckpointError: there are no weights for the flow.
        RecipeError: an option is out of its range.
    """
    root = Path(root)
    check_folder(root, "WSVD's videos, such as ID.mp4,")
    files = {Path(name).stem: name for name in names_in(root) if name.lower().endswith(VIDEOS)}
    wanted = sorted(files) if split_file is None else read_bytes(Path(split_file)).decode("utf-8", "replace").split()
    if not files.keys() & set(wanted):
        raise wrong_layout(f"{wanted[0] if wanted else 'ID'}.mp4 and other videos", root)
    flow = flow or Raft(Path(weights) if weights else None).ready()
    how: dict[str, Any] = {"layout": layout, "rate": rate, "trim": trim, "height": height, "rules": rules, "flow": flow}
    films: list[Frames] = []
    rejects: list[Reject] = []
    for name in (name for name in wanted if held_out(name, holdout) == (split == "val")):
        if name not in files:
            rejects.append(Reject(name, "there is no video of this name"))
            continue
        try:
            films.append(stereo_movie.frames(root / files[name], **how))
        except (CheckpointError, RecipeError):
            raise
        except DepthKitError as error:
            rejects.append(Reject(name, str(error)))
    return Chain(tuple(films), (*rejects, *(reject for film in films for reject in film.rejects)))


@dataclass(frozen=True)
class Chain(Sequence[Sample]):
    """Sequences of samples one behind the other.

    Attributes:
        parts: the sequences.
        rejects: what is left out of any of them.
        kind: of every label.
    """

    parts: tuple[Frames, ...]
    rejects: tuple[Reject, ...] = ()
    kind: LabelKind = KIND

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(map(len, self.parts)))

    def __len__(self) -> int:
        return self._ends[-1] if self.parts else 0

    def key(self, position: int) -> str:
        """The key of a sample, without reading it."""
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


DATASETS = (
    Dataset(
        name="wsvd",
        frames=frames,
        layout="ID.mp4 and other stereo videos in one folder",
        kind=KIND,
        unit="disparity [px] of the left picture by optical flow, of unknown scale and offset",
        invalid="where flow there and back disagree, and black bars",
        sky="not marked",
        camera="unknown",
        source="Wang et al. 2019; 1.5M frames as counted by Ranftl et al. 2022",
        licence="that of each video",
        published={"train": None, "val": None},
        total=1_500_000,
        splits="the authors' lists of clips are pickles; by video, 5 % for validation",
        test="tests/convert/test_wsvd.py",
    ),
)
