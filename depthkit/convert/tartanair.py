"""TartanAir (Wang et al. 2020): eighteen rendered environments, flown through.

Below the root, at any depth, lie ``ENVIRONMENT/Easy`` and ``Hard`` with ``PNNN/image_left/NNNNNN_left.png``,
``PNNN/depth_left/NNNNNN_left_depth.npy`` and ``PNNN/pose_left.txt``, a line ``tx ty tz qx qy qz qw`` per image.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from depthkit.convert.records.dataset import Dataset
from depthkit.convert.records.files import folders_with, read_npy, read_table
from depthkit.convert.records.record import Annotation, Record, Records, camera_matrix, check_folder, paired, wrong_layout
from depthkit.convert.tum import pose_of
from depthkit.errors import GeometryError
from depthkit.shards import Reject
from depthkit.types import Ambiguity, LabelKind, Representation

CAMERA = (320.0, 320.0, 319.5, 239.5)
"""fx, fy, cx, cy [px]. Published are 320 and 240, the middle of 640 x 480 pixels counted from their corners."""
SIZE = (480, 640)
SKY = 5000.0
"""Depth [m] from which on a pixel shows the sky: the engine's sky is a sphere at some 10 km, never infinity."""
VALIDATION = ("carwelding", "seasidetown")
AXES = np.array([[0.0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])  # x forward, y right, z down of ours


def tartanair(root: str | Path, split: str, *, validation: Sequence[str] = VALIDATION, sky_depth: float = SKY) -> Records:
    """Read the left images of a split, by environment and flight. Sky is valid, at infinity.

    Args:
        root: folder of the environments.
        split: ``train`` or ``val``.
        validation: environments that are for validation.
        sky_depth: depth [m] from which on it is the sky.

    Raises:
        DepthKitError: the folder is not laid out like this.
        GeometryError: a flight's poses are garbled.
    """
    root = Path(root)
    check_folder(root, "TartanAir's environments, such as abandonedfactory/Easy,")
    flights = [place for place in folders_with(root, "image_left") if {"Easy", "Hard"} & set(place.split("/"))]
    if not flights:
        raise wrong_layout("abandonedfactory/Easy/P000/image_left and other environments", root)
    found: list[Record] = []
    rejects: list[Reject] = []
    for place in flights:
        *_, environment, level, flight = place.split("/")
        if (environment in validation) == (split == "val"):
            labels = f"{place}/depth_left"
            here, alone = paired(root, f"{place}/image_left", labels, _depth_name, f"{environment}/{level}/{flight}")
            found += _placed(root, place, here)
            rejects += alone
    return Records(root, tuple(found), _KIND, tuple(rejects), partial(_read_depth, sky=sky_depth))


def _depth_name(stem: str) -> str:
    return f"{stem}_depth.npy"


def _placed(root: Path, place: str, frames: list[Record]) -> list[Record]:
    """Give the records of a flight their camera, and where it was if the flight's file says so."""
    camera, file = camera_matrix(CAMERA, "TartanAir"), root / place / "pose_left.txt"
    poses = [pose_of(row) @ AXES for row in read_table(file, 7)] if file.exists() else None
    numbers = [int(Path(frame.image).stem.split("_")[0]) for frame in frames]
    if poses is not None and numbers and max(numbers) >= len(poses):
        raise GeometryError(f"{file}: expected a line for each image up to {max(numbers)}; got {len(poses)}. Get it again.")
    return [
        replace(frame, intrinsics=camera, size=SIZE, world_from_camera=None if poses is None else poses[number])
        for frame, number in zip(frames, numbers, strict=True)
    ]


def _read_depth(root: Path, frame: Record, size: tuple[int, int], sky: float) -> Annotation:
    assert frame.label
    depth = read_npy(root / frame.label)
    far = depth >= sky
    return Annotation(np.where(far, np.inf, depth), depth > 0, far)


_KIND = LabelKind(Ambiguity.METRIC, Representation.DEPTH)
DATASETS = (
    Dataset(
        name="tartanair",
        read=tartanair,
        layout="ENVIRONMENT/Easy|Hard/PNNN/ with image_left, depth_left, pose_left.txt",
        kind=_KIND,
        unit="depth along the axis in metres, float32",
        invalid="0, NaN",
        sky="5 km and more: valid, at infinity, marked",
        camera="fx = fy = 320, the middle of 640 x 480 pixels; poses with x forward, y right, z down",
        source="Wang et al. 2020; 306K as counted by Yang et al. 2024",
        licence="CC BY 4.0",
        published={"train": None, "val": None},
        total=306_000,
        splits="none are published; by environment: carwelding and seasidetown for validation unless said otherwise",
        test="tests/convert/test_tartanair.py",
    ),
)
