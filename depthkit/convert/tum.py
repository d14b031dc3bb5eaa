"""A TUM-style RGB-D sequence (Sturm et al. 2012): ``rgb.txt``, ``depth.txt`` and ``groundtruth.txt`` with time stamps.

Images, depth maps and poses were taken at times of their own; those nearest to each other belong together.
"""

import re
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from depthkit.checks import check_choice
from depthkit.convert.records.dataset import Dataset
from depthkit.convert.records.neighbours import Spacing, Target, timeline, with_neighbours
from depthkit.convert.records.record import Record, Records, camera_matrix, check_folder, key_of, part
from depthkit.errors import DepthKitError, GeometryError, LabelError
from depthkit.shards import Reject
from depthkit.shards.label import DepthFormat
from depthkit.types import Ambiguity, LabelKind, Representation, Views

DEPTH_SCALE = 1 / 5000
"""Metres per integer of a depth PNG."""
FREIBURG = {
    1: (517.3, 516.5, 318.6, 255.3),
    2: (520.9, 521.0, 325.1, 249.7),
    3: (535.4, 539.2, 320.1, 247.6),
}
"""fx, fy, cx, cy [px] of the colour cameras, as published with the sequences."""


def tum(
    root: str | Path,
    split: str | None = None,
    *,
    holdout: float = 0.0,
    intrinsics: tuple[float, float, float, float] | None = None,
    depth_scale: float = DEPTH_SCALE,
    tolerance: float = 0.02,
    views: Views | str = Views.SINGLE,
    spacing: int = 1,
    max_spacing: int | None = None,
    min_motion: float = 0.0,
    first: int = 0,
    stop: int | None = None,
) -> Records:
    """Read a sequence, one sample for each image that has a depth map of its time.

    Args:
        root: folder with rgb.txt and depth.txt, and groundtruth.txt if poses are known.
        split: None for all frames, ``train`` or ``test`` for those before or in the held-out end of the sequence.
        holdout: fraction of the frames, at the end, that are for testing.
        intrinsics: fx, fy, cx, cy [px]. Default: the published ones of freiburg1, 2 or 3 in the folder's name.
        depth_scale: metres per integer of a depth PNG.
        tolerance: largest difference of time [s] between an image and what belongs to it.
        views: single, or video to add the frames before and after.
        spacing: how many frames away these neighbours are, by their times.
        max_spacing: where less than min_motion moves, try neighbours up to this many frames away.
        min_motion: leave out images whose neighbours move less, as mean optical flow [px at width 416].
        first: position of the first frame to use.
        stop: position after the last.

    Raises:
        DepthKitError: a list is missing or garbled, or nothing fits together.
        GeometryError: no intrinsics are given and the name tells none.
    """
    root, views = Path(root), check_choice("views", views, Views)
    gaps = Spacing.of(views, spacing, max_spacing, min_motion)
    check_folder(root, "rgb.txt and depth.txt")
    if views not in (Views.SINGLE, Views.VIDEO):
        raise LabelError(f"expected views single or video; got {views}. A TUM-style sequence has no second camera.")
    images, depths = _entries(root / "rgb.txt", 1), _entries(root / "depth.txt", 1)
    camera = _camera(root, intrinsics)
    pairs = associate([time for time, _ in images], [time for time, _ in depths], tolerance)
    if not pairs:
        raise LabelError(f"expected depth maps within {tolerance} s of the images of {root}; got none. Raise tolerance.")
    poses = _poses(root / "groundtruth.txt", [time for time, _ in images], tolerance)
    depth_of = dict(pairs)
    found = [
        Record(
            key=key_of(root.resolve().name, Path(words[0]).stem),
            image=words[0],
            label=depths[depth_of[i]][1][0] if i in depth_of else None,
            scale=depth_scale,
            intrinsics=camera,
            world_from_camera=pose,
        )
        for i, ((_, words), pose) in enumerate(zip(images, poses, strict=True))
    ]
    rejects = [Reject(frame.key, f"there is no depth map within {tolerance:g} s") for frame in found if not frame.label]
    paired = [i for i, _ in pairs][first:stop]
    here = paired[part(len(paired), split, holdout)]
    chosen = tuple(found[i] for i in here)
    if here and gaps:
        times = timeline([f"{time:.9f}" for time, _ in images])
        clip = {times[i]: found[i] for i in range(here[0], here[-1] + 1)}
        chosen, alone = with_neighbours([Target(found[i], clip, times[i]) for i in here], gaps, Records(root, ()).image)
        rejects += alone
    return Records(root, chosen, LabelKind(Ambiguity.METRIC, Representation.DEPTH), tuple(rejects))


def associate(a: Sequence[float], b: Sequence[float], tolerance: float) -> list[tuple[int, int]]:
    """Match two ascending lists of times, each position at most once, closest pairs first.

    >>> associate([0.0, 1.0, 2.0], [0.99, 1.001, 5.0], tolerance=0.02)
    [(1, 1)]
    """
    near = []
    for i, time in enumerate(a):
        j = bisect_left(b, time - tolerance)
        while j < len(b) and b[j] <= time + tolerance:
            near.append((abs(b[j] - time), i, j))
            j += 1
    matched: dict[int, int] = {}
    taken: set[int] = set()
    for _, i, j in sorted(near):
        if i not in matched and j not in taken:
            matched[i] = j
            taken.add(j)
    return sorted(matched.items())


def _entries(file: Path, words: int) -> list[tuple[float, list[str]]]:
    """Read time [s] and the other words of each line, ascending; lines with # are remarks."""
    try:
        lines = [line.split() for line in file.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
        entries = sorted((float(line[0]), line[1:]) for line in lines)
    except OSError as error:
        raise DepthKitError(
            f"expected file {file}; {error.strerror}. Give the folder of a TUM-style sequence, with rgb.txt and depth.txt."
        ) from error
    except ValueError as error:
        raise DepthKitError(f"expected lines of a time stamp and {words} words in {file}; got {error}. Correct it.") from error
    if any(len(rest) < words for _, rest in entries) or not entries:
        raise DepthKitError(f"expected lines of a time stamp and {words} words in {file}; a line has fewer, or there is none.")
    return entries


def _camera(root: Path, intrinsics: tuple[float, float, float, float] | None) -> np.ndarray:
    match = re.search(r"freiburg(\d)", root.resolve().name)
    numbers = intrinsics or (FREIBURG.get(int(match[1])) if match else None)
    if numbers is None:
        raise GeometryError(
            f"expected intrinsics, or a folder named after freiburg1, 2 or 3; got {root}. "
            "Give intrinsics=(fx, fy, cx, cy) in pixels."
        )
    return camera_matrix(numbers, "intrinsics")


def _poses(file: Path, times: Sequence[float], tolerance: float) -> list[np.ndarray | None]:
    """Return the ``world_from_camera`` nearest to each time, None where none is near enough."""
    if not file.exists():
        return [None] * len(times)
    entries = _entries(file, 7)
    try:
        rows = np.array([[float(word) for word in rest[:7]] for _, rest in entries])
    except ValueError as error:
        raise GeometryError(f"expected 'time tx ty tz qx qy qz qw' in {file}; got {error}. Correct it.") from error
    stamps = np.array([time for time, _ in entries])
    nearest = np.abs(stamps[None] - np.array(times)[:, None]).argmin(1) if len(times) else []
    return [pose_of(rows[j]) if abs(stamps[j] - time) <= tolerance else None for time, j in zip(times, nearest, strict=True)]


def pose_of(row: np.ndarray) -> np.ndarray:
    """Return the matrix ``(4, 4)`` of a translation and a quaternion, ``tx ty tz qx qy qz qw``.

    Raises:
        GeometryError: the quaternion has no length.
    """
    with np.errstate(over="ignore"):
        length = float(np.linalg.norm(row[3:]))
    if not 0 < length < np.inf or not np.isfinite(row).all():
        raise GeometryError(f"expected tx ty tz qx qy qz qw of a pose; got {row.tolist()}. Correct them.")
    x, y, z, w = row[3:] / length
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    pose = np.eye(4)
    pose[:3, :3] += 2 * (w * cross + cross @ cross)
    pose[:3, 3] = row[:3]
    return pose


DATASETS = (
    Dataset(
        name="tum",
        read=tum,
        layout="rgb.txt, depth.txt and groundtruth.txt with time stamps",
        kind=LabelKind(Ambiguity.METRIC, Representation.DEPTH),
        unit="depth in 1/5000 m",
        invalid="0 and 65535",
        sky="indoors",
        camera="the published colour cameras of freiburg1, 2, 3; pixel centres at integers",
        source="Sturm et al. 2012",
        licence="CC BY 4.0",
        splits="the end of the sequence is held out",
        test="tests/convert/test_tum.py",
        depth_format=DepthFormat.PNG_LINEAR16,
    ),
)
