"""Which frames of a video stand beside an image in a sample: how far from it, and only where the picture moves.

Learning from video needs motion. Records that hardly differ teach nothing and frames that differ too much cannot be matched,
so neighbours are a number of frames away, and samples that move too little are left out. Zhou et al. (2017, section 4) leave
out what has a mean optical flow of less than 1 pixel in pictures 416 wide; ``min_motion=1`` is that rule, and
``max_spacing`` looks for neighbours further away before it gives a sample up.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np
from rich.console import Console
from rich.progress import track

from depthkit.convert.records.record import Record
from depthkit.errors import DepthKitError, RecipeError
from depthkit.shards.records import Reject
from depthkit.types import Views

MOTION_WIDTH = 416
"""Pixels of the longer side of the pictures in which motion is measured."""
_GAP = 10**9  # frames between clips: further than any spacing


@dataclass(frozen=True)
class Spacing:
    """How far neighbours are from their image.

    Attributes:
        frames: how many frames before and behind the image.
        largest: how far away neighbours are sought where the picture moves too little; None for ``frames``.
        min_motion: least ``motion`` [px] from each neighbour to the image; 0 for any.

    Raises:
        RecipeError: a number is out of its range.
    """

    frames: int = 1
    largest: int | None = None
    min_motion: float = 0.0

    def __post_init__(self) -> None:
        largest = self.frames if self.largest is None else self.largest
        if not 1 <= self.frames <= largest or not 0 <= self.min_motion < np.inf:
            raise RecipeError(
                f"expected 1 <= spacing <= max_spacing and min_motion of 0 or more; got {self.frames}, {self.largest} and "
                f"{self.min_motion}. Neighbours are spacing frames away, or up to max_spacing where less than min_motion moves."
            )
        if largest > self.frames and not self.min_motion:
            raise RecipeError(
                f"expected min_motion above 0 with max_spacing {self.largest}, for neighbours are only sought further away "
                "where the picture moves less. Give --min_motion 1, or leave max_spacing out."
            )

    @classmethod
    def of(cls, views: Views, frames: int, largest: int | None, min_motion: float) -> "Spacing | None":
        """Return where to look for the neighbours of these views; None if they have none.

        Raises:
            RecipeError: a number is out of its range, or given for views that have no neighbours.
        """
        spacing = cls(frames, largest, min_motion)
        if views in (Views.VIDEO, Views.VIDEO_STEREO):
            return spacing
        if spacing != cls():
            raise RecipeError(
                f"expected views video or video_stereo with spacing, max_spacing or min_motion; got views {views}. "
                "Leave these out: they are about neighbours in time."
            )
        return None

    @property
    def steps(self) -> range:
        """Return the distances [frames] to try, nearest first."""
        return range(self.frames, (self.frames if self.largest is None else self.largest) + 1)


class Target(NamedTuple):
    """An image that is to get neighbours: its frame, and its place in the clip, which holds every frame by its time."""

    frame: Record
    clip: Mapping[int, Record]
    time: int


def with_neighbours(
    targets: Sequence[Target], spacing: Spacing, read: Callable[[str], np.ndarray]
) -> tuple[tuple[Record, ...], tuple[Reject, ...]]:
    """Add each record's neighbours as views ``prev`` and ``next``; leave out those that have none or do not move.

    Args:
        targets: what to find neighbours for.
        spacing: where to look.
        read: from a frame's file to its picture, RGB ``(H, W, 3)``; used only if motion is asked for. A file that does not
            read counts as moving, so that the sample tells of it when it is made.
    """
    kept, rejects = [], []
    between = _motion_between(read, 4 * (len(spacing.steps) + spacing.steps[-1]))
    visible = bool(spacing.min_motion) and Console().is_terminal
    for target in track(targets, "motion", disable=not visible):
        found = _beside(target, spacing, between)
        if isinstance(found, str):
            rejects.append(Reject(target.frame.key, found))
        else:
            kept.append(_with_views(target.frame, found))
    return tuple(kept), tuple(rejects)


def _beside(target: Target, spacing: Spacing, between: Callable[[str, str], float]) -> dict[str, Record] | str:
    """Return the neighbours of an image, or why it has none."""
    frame, clip, time = target
    reason = ""
    for step in spacing.steps:
        before, behind = clip.get(time - step), clip.get(time + step)
        if before is None or behind is None:
            return reason or f"there is no frame {step} {'before' if before is None else 'behind'} it"
        pairs = ((before.image, frame.image), (frame.image, behind.image))
        if not spacing.min_motion or all(between(*pair) >= spacing.min_motion for pair in pairs):
            return {"prev": before, "next": behind}
        reason = f"the picture moves less than {spacing.min_motion:g} px within {step} frame{'s' * (step > 1)}"
    return reason


def motion(a: np.ndarray, b: np.ndarray) -> float:
    """Return the mean length of the optical flow (Kroeger et al. 2016) from one picture to another of its size.

    Args:
        a: uint8 RGB, ``(H, W, 3)``.
        b: uint8 RGB of the same size.

    Returns:
        [px] of pictures scaled to ``MOTION_WIDTH``.
    """
    return _flow(_small(a), _small(b))


def _motion_between(read: Callable[[str], np.ndarray], memory: int) -> Callable[[str, str], float]:
    """Measure ``motion`` from file to file; each file is read once as long as clips are gone through in order."""
    small = lru_cache(memory)(lambda name: _small(read(name)))

    @lru_cache(memory)
    def between(a: str, b: str) -> float:
        try:
            return _flow(small(a), small(b))
        except DepthKitError:
            return np.inf

    return between


def _small(image: np.ndarray) -> np.ndarray:
    scale = MOTION_WIDTH / max(image.shape[:2])
    size = max(round(image.shape[1] * scale), 16), max(round(image.shape[0] * scale), 16)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def _flow(a: np.ndarray, b: np.ndarray) -> float:
    if a.shape != b.shape:
        return np.inf
    start = np.zeros((*a.shape, 2), np.float32)
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST).calc(a, b, start)
    return float(np.linalg.norm(flow, axis=-1).mean())


def _with_views(frame: Record, others: Mapping[str, Record]) -> Record:
    world, poses = frame.world_from_camera, dict(frame.views_from_camera)
    if world is not None:
        known = {name: other.world_from_camera for name, other in others.items()}
        poses |= {name: np.linalg.inv(pose) @ world for name, pose in known.items() if pose is not None}
    return replace(
        frame, views={**frame.views, **{name: other.image for name, other in others.items()}}, views_from_camera=poses
    )


def timeline(names: Sequence[str]) -> list[int]:
    """Return the times [frames] of images by their ordered names: a gap in their numbers is a gap in time.

    The usual difference of the numbers that names end in (of frames, or time stamps) is one frame. Names that begin
    otherwise are of another clip. Unless all names end in numbers, each image follows the one before.

    >>> timeline(["f010", "f015", "f025", "f030"])
    [0, 1, 3, 4]
    >>> timeline(["1.00", "1.034", "1.066", "1.30"])
    [0, 1, 2, 9]
    >>> timeline(["begin", "f2", "middle"])
    [0, 1, 2]
    """
    parts = [re.fullmatch(r"(.*?)(\d+(?:\.\d+)?)", name, re.DOTALL) for name in names]
    found = [(match[1], float(match[2])) for match in parts if match]
    if len(found) < len(names) or len(found) < 2:
        return list(range(len(names)))
    steps = [b - a if start == other else 0.0 for (start, a), (other, b) in pairwise(found)]
    usual = float(np.median([step for step in steps if step > 0] or [1.0]))
    times = [0]
    for step in steps:
        times.append(times[-1] + (max(round(step / usual), 1) if step > 0 else _GAP))
    return times
