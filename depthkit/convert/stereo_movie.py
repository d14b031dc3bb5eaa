"""A stereo film: a frame of each second, or some of each shot, labelled with the disparity that optical flow finds in a pair.

What films give is disparity up to scale and shift; see ``stereo_labels``. The film is one file whose frames hold both eyes'
pictures, side by side or one above the other, in any codec that FFmpeg reads. (A 3D Blu-ray stores the second eye as what
differs from the first, MVC, which FFmpeg does not read: convert it first.)
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from depthkit.checks import check_choice
from depthkit.convert.records.chain import Chain, chained, films_in
from depthkit.convert.records.dataset import Dataset
from depthkit.convert.records.optical_flow import Raft
from depthkit.convert.records.record import Records, key_of, part
from depthkit.convert.records.shots import frames_of_shots, scene_scores
from depthkit.convert.records.shots import shots as divided
from depthkit.convert.records.sky import Sky
from depthkit.convert.records.stereo_labels import KIND, Flow, Rules, StereoLabels, preset, stereo_frame
from depthkit.convert.records.stereo_layout import Arrangement, Eyes, Layout, arrange
from depthkit.convert.video import Video
from depthkit.errors import DepthKitError, RecipeError
from depthkit.shards import Reject
from depthkit.types import Views

_LOOKED_AT = 16  # frames from which layout and bars are known
_REACH = 30  # samples around the wished begin of the held-out end among which a cut is sought


def stereo_movie(
    root: str | Path,
    split: str | None = None,
    *,
    holdout: float = 0.0,
    layout: Layout | str = Layout.AUTO,
    eyes: Eyes | str = Eyes.LEFT_RIGHT,
    squeezed: bool | None = None,
    shots: bool = False,
    rate: float = 1.0,
    trim: float = 0.1,
    height: int | None = None,
    rules: Rules | str = "gp2",
    flow: Flow | None = None,
    weights: str | Path | None = None,
    sky: Sky | None = None,
    views: Views | str = Views.SINGLE,
) -> Records | Chain:
    """Read a stereo film, or a folder of films as one dataset of many sources.

    Indexing computes the label, and raises ``LabelError`` for a frame that is not good enough.

    Args:
        root: the film's file, or a folder of films.
        split: None for all frames, ``train`` or ``test`` for those before or in the held-out end of each film.
        holdout: fraction of the frames, at the end, that are for testing. The end begins at a cut: the greatest change of
            colours within 30 samples of where it should.
        layout: where both eyes' pictures lie in a frame; auto finds out.
        eyes: whose picture comes first. With the wrong one near and far are turned around.
        squeezed: whether each has half of its width or height; by default judged by its aspect.
        shots: sample shots, as Ranftl et al. do: the first second of each, and every fourth one after it.
        rate: samples per second, of the whole film or of those seconds (4 in that paper).
        trim: share of the film to leave out at its begin, and at its end: titles and credits.
        height: reduce the pictures to this height before flow is computed [px].
        rules: gp2 or midas: which pairs are good enough; in Python also ``Rules``.
        flow: optical flow from picture to picture; RAFT by default.
        weights: file of RAFT's weights, as torchvision publishes them.
        sky: where the sky is, if it is to have the least disparity.
        views: single, or stereo to store the right picture, too.

    Raises:
        DepthKitError: there is no such film, it has two different pictures in its frames, or it is too short.
        CheckpointError: there are no weights for the flow.
        RecipeError: an option is out of its range.
    """
    root, how = Path(root), preset(rules)
    if not (rate > 0 and 0 <= trim < 0.5) or (height is not None and height < 8):
        raise RecipeError(f"expected rate above 0, trim from 0 to below 0.5 and height from 8; got {rate}, {trim}, {height}.")
    raft = Raft(Path(weights) if weights else None)
    layout, eyes = check_choice("layout", layout, Layout), check_choice("eyes", eyes, Eyes)

    def read(file: Path) -> Records:
        video, positions = _sampled_film(file, rate, trim, shots=shots)
        some = _readable(video, positions[:: -(-len(positions) // _LOOKED_AT)])
        if not some:
            raise DepthKitError(f"{file}: expected frames that decode; all of those looked at are damaged. Get the film again.")
        cut = arrange(some, str(file), layout=layout, eyes=eyes, squeezed=squeezed, height=height)
        here = part(len(positions), split, holdout)
        if split is not None and holdout:
            begin = cut_near(video, positions, len(positions) - round(len(positions) * holdout))
            here = slice(0, begin) if split == "train" else slice(begin, None)
        named = [(key_of(file.stem, f"{position:06d}"), f"{file.name}#{position}") for position in positions[here]]
        found = tuple(stereo_frame(key, name, views) for key, name in named)
        lost = (Reject(key_of(file.stem, "end"), f"the film ends {video.missing} frames early"),) if video.missing else ()
        labels = StereoLabels(Film(video, cut).pair, flow or raft.ready(), how, sky)
        return Records(file.parent, found, KIND, lost, reader=labels, picture=labels.picture)

    return chained(root, films_in(root), read, KIND) if root.is_dir() else read(root)


def _sampled_film(file: Path, rate: float, trim: float, *, shots: bool) -> tuple[Video, list[int]]:
    """Open a film and choose the positions of its samples."""
    video = Video(file)
    positions = _of_shots(video, rate, trim) if shots else sampled(video.times, rate=rate, trim=trim)
    if len(positions) < 2:
        seconds = video.times[-1] - video.times[0]
        raise DepthKitError(
            f"{file}: expected a film with at least 2 samples; got {seconds:.1f} s, which at {rate:g} per second and without "
            f"{trim:.0%} at both ends has {len(positions)}. Raise --rate, lower --trim, or leave the film out."
        )
    return video, positions


def _of_shots(video: Video, rate: float, trim: float) -> list[int]:
    """Choose frames of the shots between the begin and the end that are left out."""
    span = video.times[-1] - video.times[0]
    low, high = (bisect_left(video.times, video.times[0] + share * span - 1e-6) for share in (trim, 1 - trim))
    here = range(low, max(high, low + 1))
    times = [video.times[n] for n in here]
    found = divided(times, scene_scores(_one_by_one(video, here)))
    return [here[n] for n in frames_of_shots(times, found, rate=rate)]


def _one_by_one(video: Video, positions: Sequence[int]) -> Iterator[np.ndarray | None]:
    """Yield pictures, None for a damaged one."""
    for position in positions:
        try:
            yield video[position]
        except DepthKitError:
            yield None


def sampled(times: Sequence[float], *, rate: float, trim: float) -> list[int]:
    """Choose the frames shown at, or first after, regular times.

    Args:
        times: when each frame is shown [s], ascending.
        rate: samples per second.
        trim: share of the time to leave out at the begin and at the end.

    Example:
        >>> sampled([n / 4 for n in range(41)], rate=1, trim=0.1)
        [4, 8, 12, 16, 20, 24, 28, 32, 36]
    """
    span = times[-1] - times[0]
    first, last = times[0] + trim * span, times[-1] - trim * span
    wanted = first + np.arange(int((last - first) * rate + 1e-6) + 1) / rate
    return sorted({at for time in wanted if (at := bisect_left(times, time - 1e-6)) < len(times)})


def cut_near(video: Sequence[np.ndarray], positions: Sequence[int], wanted: int) -> int:
    """Find the sample that begins another scene: the greatest change of colours near the wanted one.

    Samples before and behind a place within a scene would show the same.

    Args:
        video: pictures by position.
        positions: of the samples.
        wanted: index of a sample; of equal changes the nearest to it is taken.
    """
    reach = max(min(_REACH, len(positions) // 10), 1)
    near = range(max(wanted - reach, 1), min(wanted + reach + 1, len(positions)))
    colours = {n: _colours(video, positions[n]) for n in range(near.start - 1, near.stop)} if near else {}

    def change(n: int) -> float:
        before, behind = colours[n - 1], colours[n]
        return 0.0 if before is None or behind is None else round(float(np.abs(behind - before).sum()), 2)

    return max(near, key=lambda n: (change(n), -abs(n - wanted)), default=wanted)


def _colours(video: Sequence[np.ndarray], position: int) -> np.ndarray | None:
    """Return the shares of 512 colours, which motion changes little; None if the picture is damaged."""
    try:
        small = cv2.resize(video[position], (64, 48), interpolation=cv2.INTER_AREA)
    except DepthKitError:
        return None
    codes = (small // 32).astype(np.intp) @ np.array([64, 8, 1])
    return np.bincount(codes.ravel(), minlength=512) / codes.size


def _readable(video: Sequence[np.ndarray], positions: Sequence[int]) -> list[np.ndarray]:
    found = []
    for position in positions:
        try:
            found.append(video[position])
        except DepthKitError:  # told when the sample is made
            continue
    return found


@dataclass(frozen=True)
class Film:
    """The pairs of a film by name: ``FILE#POSITION``.

    Attributes:
        video: what they are read from.
        cut: how.
    """

    video: Video
    cut: Arrangement

    def pair(self, root: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the left and right picture, uint8 RGB ``(H, W, 3)``."""
        return self.cut(self.video[int(name.rpartition("#")[2])])


DATASETS = (
    Dataset(
        name="stereo_movie",
        read=stereo_movie,
        layout="a video file with both eyes' pictures side by side or one above the other in every frame; or a folder of them",
        kind=KIND,
        unit="disparity [px] of the left picture by optical flow, of unknown scale and offset",
        invalid="where flow there and back disagree, and black bars",
        sky="the least disparity of its picture, if a segmentation model is given",
        camera="unknown",
        source="Ranftl et al. 2022 (rules midas; 75,074 + 3,058 + 788 frames of 23 films), Romanov et al. 2020 (rules gp2; "
        "473,042 frames), whose films are for sale and not published",
        licence="that of the film",
        total=78_920,
        splits="the end of each film is held out, from a cut on",
        test="tests/convert/test_stereo_movie.py",
    ),
)
