"""Virtual KITTI 2 (Cabon et al. 2020): five drives rendered in ten variations, two cameras each.

Under the root lie, as the archives of pictures, depth and text unpack into one folder,

- ``SceneNN/VARIATION/frames/rgb/Camera_C/rgb_FFFFF.jpg``,
- ``SceneNN/VARIATION/frames/depth/Camera_C/depth_FFFFF.png``, and
- ``SceneNN/VARIATION/intrinsic.txt`` and ``extrinsic.txt``, a line per frame and camera below a heading.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from depthkit.convert.records.dataset import Dataset
from depthkit.convert.records.files import read_png16, read_table
from depthkit.convert.records.record import (
    Annotation,
    Record,
    Records,
    camera_matrix,
    check_folder,
    paired,
    read_picture,
    wrong_layout,
)
from depthkit.errors import GeometryError, RecipeError, ShapeError
from depthkit.shards import Reject
from depthkit.types import Ambiguity, LabelKind, Representation

CENTIMETRE = 0.01
"""Metres per integer of a depth PNG."""
SKY_CODE = 65535
SIZE = (375, 1242)
"""Height and width of every picture [px]."""
BENCHMARK = (352, 1216)
"""Height and width that KITTI's depth benchmark keeps: the lowest rows, the columns in the middle [px]."""
SCENES = {"train": ("Scene02", "Scene06", "Scene18", "Scene20"), "val": ("Scene01",)}
WEATHER = ("clone", "fog", "morning", "overcast", "rain", "sunset")
"""Variations with the same way of the camera."""
TURNED = ("15-deg-left", "15-deg-right", "30-deg-left", "30-deg-right")
"""Variations with the camera turned."""
Crop = tuple[slice, slice]
_WHOLE: Crop = (slice(None), slice(None))


def virtual_kitti(
    root: str | Path, split: str, *, variations: Sequence[str] = WEATHER, benchmark_crop: bool = False
) -> Records:
    """Read the samples of a split, by scene, variation and camera.

    The renderer's farthest depth is the sky, a valid label at infinity.

    Args:
        root: folder of the scenes.
        split: ``train`` (scenes 2, 6, 18, 20) or ``val`` (scene 1).
        variations: folders of each scene to read; ``WEATHER`` by default, ``TURNED`` are the others.
        benchmark_crop: whether to keep only the rows and columns that KITTI's depth benchmark evaluates.

    Raises:
        DepthKitError: the folder is not laid out like this.
        RecipeError: there is no such variation.
    """
    root = Path(root)
    check_folder(root, "Virtual KITTI 2's scenes, such as Scene01,")
    if unknown := sorted(set(variations) - {*WEATHER, *TURNED}):
        raise RecipeError(
            f"expected variations among {', '.join((*WEATHER, *TURNED))}; got {', '.join(unknown)}. Choose from these."
        )
    places = [f"{scene}/{variation}" for scene in SCENES[split] for variation in variations]
    present = [place for place in places if (root / place / "frames/rgb").is_dir()]
    if not present:
        raise wrong_layout(f"{places[0]}/frames/rgb/Camera_0", root)
    crop = benchmark_window(SIZE) if benchmark_crop else _WHOLE
    found: list[Record] = []
    rejects = [Reject(place, "there is no such folder") for place in places if place not in present]
    for place in present:
        here, alone = _listed(root, place, crop)
        found, rejects = found + here, rejects + alone
    kind = LabelKind(Ambiguity.METRIC, Representation.DEPTH)
    picture = partial(_picture, crop=crop) if benchmark_crop else read_picture
    return Records(root, tuple(found), kind, tuple(rejects), partial(_read_depth, crop=crop), picture)


def benchmark_window(size: tuple[int, int]) -> Crop:
    """Return the rows and columns of a KITTI-sized picture that its depth benchmark keeps.

    >>> benchmark_window((375, 1242))
    (slice(23, 375, None), slice(13, 1229, None))
    """
    height, width = BENCHMARK
    left = (size[1] - width) // 2
    return slice(size[0] - height, size[0]), slice(left, left + width)


def _listed(root: Path, place: str, crop: Crop) -> tuple[list[Record], list[Reject]]:
    """List the records of a variation of a scene with their cameras, and what lacks a label."""
    matrices = {(int(row[0]), int(row[1])): row[2:] for row in read_table(root / place / "intrinsic.txt", 6, skip=1)}
    poses = {(int(row[0]), int(row[1])): row[2:] for row in read_table(root / place / "extrinsic.txt", 18, skip=1)}
    found: list[Record] = []
    rejects: list[Reject] = []
    for camera in (0, 1):
        images, labels = (f"{place}/frames/{what}/Camera_{camera}" for what in ("rgb", "depth"))
        here, alone = paired(root, images, labels, _depth_name, f"{place}/{camera}")
        found += [_placed(frame, int(frame.image[-9:-4]), camera, matrices, poses, root / place, crop) for frame in here]
        rejects += alone
    return found, rejects


def _depth_name(stem: str) -> str:
    return stem.replace("rgb", "depth") + ".png"


def _placed(
    frame: Record, number: int, camera: int, matrices: dict[Any, Any], poses: dict[Any, Any], where: Path, crop: Crop
) -> Record:
    if (number, camera) not in matrices or (number, camera) not in poses:
        raise GeometryError(
            f"expected frame {number} of camera {camera} in intrinsic.txt and extrinsic.txt of {where}; it is missing. "
            "Unpack the archive of texts again."
        )
    matrix = camera_matrix(matrices[number, camera], str(where / "intrinsic.txt"))
    matrix[:2, 2] -= (crop[1].start or 0, crop[0].start or 0)
    return replace(frame, intrinsics=matrix, world_from_camera=np.linalg.inv(poses[number, camera].reshape(4, 4)))


def _picture(root: Path, name: str, crop: Crop) -> np.ndarray:
    image = read_picture(root, name)
    if image.shape[:2] != SIZE:
        raise ShapeError(f"{root / name}: expected {SIZE} (height, width) to crop; got {image.shape[:2]}. Leave the crop out.")
    return np.ascontiguousarray(image[crop])


def _read_depth(root: Path, frame: Record, size: tuple[int, int], crop: Crop) -> Annotation:
    assert frame.label
    codes = read_png16(root / frame.label)[crop]
    sky = codes == SKY_CODE
    depth = codes * np.float32(CENTIMETRE)
    depth[sky] = np.inf
    return Annotation(depth, codes > 0, sky)


DATASETS = (
    Dataset(
        name="virtual_kitti",
        read=virtual_kitti,
        layout="SceneNN/VARIATION/ with frames/rgb, frames/depth, intrinsic.txt, extrinsic.txt",
        kind=LabelKind(Ambiguity.METRIC, Representation.DEPTH),
        unit="depth along the axis in centimetres",
        invalid="0, which the renderer does not write",
        sky="65535: valid, at infinity, marked",
        camera="intrinsic.txt (cx 620.5 of 1242 columns: pixel centres at integers), extrinsic.txt from world to camera",
        source="Cabon et al. 2020; the six weather variations give the counts of Marigold's split",
        licence="CC BY-NC-SA 3.0",
        published={"train": 20148, "val": 5364},
        splits="by scene: 01 is for validation",
        test="tests/convert/test_virtual_kitti.py",
    ),
)
