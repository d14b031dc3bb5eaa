"""DDAD (Guizilini et al. 2020): drives with six cameras and long-range lasers, in the files of TRI's DGP format.

The root is ``ddad_train_val``, or the folder that holds it: ``ddad.json`` names the scenes of each split (``"0"`` train,
``"1"`` validation), such as ``000150/scene_HASH.json``. A scene's file lists samples with the keys of their data, and data with
files relative to the scene and poses from sensor to world; ``calibration/KEY.json`` holds intrinsics by sensor.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from depthkit.checks import check_choice
from depthkit.convert.records.dataset import Dataset
from depthkit.convert.records.files import read_bytes
from depthkit.convert.records.record import Annotation, Record, Records, camera_matrix, check_folder, key_of, wrong_layout
from depthkit.convert.tum import pose_of
from depthkit.errors import DepthKitError, GeometryError, LabelError
from depthkit.shards import Reject
from depthkit.shards.images import ImageFormat
from depthkit.types import Ambiguity, LabelKind, Representation

_SPLITS = {"train": "0", "val": "1"}


class Projection(StrEnum):
    """Which pixel a point belongs to, and which point a pixel shows."""

    NEAREST = "nearest"
    """The pixel whose centre is nearest; of several points the nearest to the camera."""
    DGP = "dgp"
    """Coordinates cut off to integers, of several points the last: TRI's own code, with which published numbers are made."""


@dataclass(frozen=True)
class LidarRecord(Record):
    """A frame whose label is a file of laser points.

    Attributes:
        camera_from_lidar: pose ``(4, 4)`` [m], each at its own time.
    """

    camera_from_lidar: np.ndarray | None = None


def ddad(
    root: str | Path,
    split: str = "val",
    *,
    camera: str = "CAMERA_01",
    lidar: str = "LIDAR",
    projection: Projection | str = Projection.NEAREST,
) -> Records:
    """Read the images of one camera in a split, by scene and time, with the laser points in them.

    Args:
        root: ``ddad_train_val``, or the folder that holds it.
        split: ``val`` or ``train``.
        camera: ``CAMERA_01``, which looks ahead and is what others test on, or another.
        lidar: name of the laser.
        projection: ``nearest``, or ``dgp`` for the labels that others score on: three quarters of their pixels are other ones.

    Raises:
        DepthKitError: the folder is not laid out like this.
        GeometryError: a scene's poses or cameras are garbled.
    """
    root, rule = Path(root), check_choice("projection", projection, Projection)
    check_folder(root, "DDAD's ddad_train_val/ddad.json")
    root = root / "ddad_train_val" if (root / "ddad_train_val").is_dir() else root
    if not (root / "ddad.json").is_file():
        raise wrong_layout("ddad.json", root)
    try:
        scenes = _read(root / "ddad.json")["scene_splits"][_SPLITS[split]]["filenames"]
    except (KeyError, TypeError) as error:
        raise LabelError(
            f"{root / 'ddad.json'}: expected scene_splits with filenames for split {_SPLITS[split]}; {error!r} is missing."
        ) from error
    found: list[Record] = []
    rejects: list[Reject] = []
    for scene in scenes:
        if not (root / scene).is_file():
            rejects.append(Reject(scene, "there is no such scene"))
            continue
        here, alone = _listed(root, scene, camera, lidar)
        found, rejects = found + here, rejects + alone
    if not found:
        raise wrong_layout(f"{scenes[0] if scenes else 'scenes'} with rgb/{camera} and point_cloud/{lidar},", root)
    return Records(root, tuple(found), _KIND, tuple(rejects), partial(read_points, projection=rule))


def read_points(root: Path, frame: Record, size: tuple[int, int], *, projection: Projection = Projection.NEAREST) -> Annotation:
    """Return the depth of a laser point in each pixel; pixels without a point are not valid."""
    assert isinstance(frame, LidarRecord)
    assert frame.label
    assert frame.intrinsics is not None
    assert frame.camera_from_lidar is not None
    data = read_bytes(root / frame.label)
    try:
        with np.load(BytesIO(data), allow_pickle=False) as content:
            points = np.asarray(content["data"], np.float64)[:, :3]
    except Exception as error:  # parsers of damaged heads have classes of their own
        raise LabelError(
            f"{root / frame.label}: expected a .npz of points under 'data'; got {error!r}. Get it again."
        ) from error
    depth = project(points, frame.camera_from_lidar, frame.intrinsics, size, projection)
    return Annotation(depth, depth > 0)


def project(
    points: np.ndarray,
    camera_from_lidar: np.ndarray,
    intrinsics: np.ndarray,
    size: tuple[int, int],
    projection: Projection = Projection.NEAREST,
) -> np.ndarray:
    """Return the depth of a point in each pixel [m], float32 of that size; 0 where there is none.

    Args:
        points: of the laser [m], ``(N, 3)``.
        camera_from_lidar: pose ``(4, 4)``.
        intrinsics: ``(3, 3)`` [px].
        size: (height, width) [px].
        projection: which pixel, and which point.
    """
    seen = points @ camera_from_lidar[:3, :3].T + camera_from_lidar[:3, 3]
    seen = seen[np.isfinite(seen).all(1)]
    seen = seen[seen[:, 2] > 0]
    u, v, _ = intrinsics @ (seen / seen[:, 2:]).T
    column, row = (np.trunc(x) if projection == Projection.DGP else np.rint(x) for x in (u, v))
    inside = (row >= 0) & (row < size[0]) & (column >= 0) & (column < size[1])
    row, column, value = row[inside].astype(int), column[inside].astype(int), seen[inside, 2]
    order = np.arange(len(value)) if projection == Projection.DGP else np.argsort(-value, kind="stable")
    depth = np.zeros(size, np.float32)
    depth[row[order], column[order]] = value[order]  # of several the last stays
    return depth


def _listed(root: Path, scene: str, camera: str, lidar: str) -> tuple[list[Record], list[Reject]]:
    folder, facts = Path(scene).parent, _read(root / scene)
    found: list[Record] = []
    rejects: list[Reject] = []
    matrices: dict[str, np.ndarray] = {}
    try:
        data = {datum["key"]: datum for datum in facts["data"]}
        for sample in facts["samples"]:
            here = {data[key]["id"]["name"]: data[key]["datum"] for key in sample["datum_keys"]}
            if camera not in here or lidar not in here:
                rejects.append(Reject(f"{folder} {sample['id'].get('index', '')}", f"it has no {camera} or no {lidar}"))
                continue
            image, cloud, key = here[camera]["image"], here[lidar]["point_cloud"], sample["calibration_key"]
            if key not in matrices:
                matrices[key] = _camera(root / folder / f"calibration/{key}.json", camera)
            frame = LidarRecord(
                key=key_of(folder.name, camera, Path(image["filename"]).stem),
                image=f"{folder}/{image['filename']}",
                label=f"{folder}/{cloud['filename']}",
                intrinsics=matrices[key],
                world_from_camera=_pose(image["pose"]),
                camera_from_lidar=np.linalg.inv(_pose(image["pose"])) @ _pose(cloud["pose"]),
            )
            found.append(frame)
    except DepthKitError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise GeometryError(
            f"{root / scene}: expected samples and data in the DGP format, with files and poses; {error!r} is missing or wrong."
        ) from error
    return found, rejects


def _camera(file: Path, name: str) -> np.ndarray:
    facts = _read(file)
    try:
        lens = facts["intrinsics"][facts["names"].index(name)]
        numbers = [float(lens[key]) for key in ("fx", "fy", "cx", "cy")]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise GeometryError(f"{file}: expected intrinsics of {name}; {error!r} is missing. Get it again.") from error
    return camera_matrix(numbers, str(file))


def _pose(facts: Mapping[str, Any]) -> np.ndarray:
    """Return the pose world from sensor."""
    shift, turn = facts["translation"], facts["rotation"]
    names = ("x", "y", "z"), ("qx", "qy", "qz", "qw")  # zeros are left out of the files
    return pose_of(np.array([*(shift.get(n, 0.0) for n in names[0]), *(turn.get(n, 0.0) for n in names[1])], np.float64))


def _read(file: Path) -> Any:
    try:
        return json.loads(read_bytes(file))
    except ValueError as error:
        raise LabelError(f"{file}: expected JSON; it does not read ({error}). Get it again.") from error


_KIND = LabelKind(Ambiguity.METRIC, Representation.DEPTH)

DATASETS = (
    Dataset(
        name="ddad",
        read=ddad,
        layout="ddad_train_val/ with ddad.json and NNNNNN/ of rgb/, point_cloud/, calibration/, scene_HASH.json",
        kind=_KIND,
        unit="laser points [m], the nearest in each pixel, along the camera's axis",
        invalid="pixels without a point",
        sky="without points",
        camera="calibration/, as it is; poses from sensor to world at the time of each",
        source="Guizilini et al. 2020; the counts are of one camera",
        licence="CC BY-NC-SA 4.0",
        published={"train": 12650, "val": 3950},
        splits="the authors' ddad.json, by scene",
        test="tests/convert/test_ddad.py",
        image_format=ImageFormat.PNG,
    ),
)
