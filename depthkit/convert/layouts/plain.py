"""The plain folder: images, depth beside them, and depthkit's own files of cameras and poses."""

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from depthkit.convert.layouts.layout import (
    DEPTH_FOLDERS,
    IMAGE_FOLDERS,
    Layout,
    images_in,
    labels_in,
    one_folder,
    side_by_side,
)
from depthkit.convert.records.cameras import read_camera
from depthkit.convert.records.record import camera_matrix
from depthkit.errors import GeometryError

_FACTS = re.compile(
    "fx|fy|cx|cy|width|height|K|per_frame|baseline_m|baseline_units|doffs|depth_scale|metric|pose_scale|depth_unit|"
    "disparity_unit|camera|name|model|registered_here|P_rect.*|R_rect.*|Tr_.*"
)
_NUMBERS = ("fx", "fy", "cx", "cy", "width", "height", "baseline_m", "doffs", "depth_scale")
CAMERA_FILES = ("intrinsics.txt", "camera-intrinsics.txt", "camera_matrix.csv", "K.txt", "intrinsic.txt")
"""Files of fx, fy, cx, cy or a matrix in the plain folder, where there is no intrinsics.json."""
_DISTORTION = re.compile("k[1-6]|p[12]|D|dist.*", re.IGNORECASE)


def plain(root: Path, depth_folder: str | None) -> Layout:
    """Read the folder that ``depthkit.convert.folder`` describes.

    Raises:
        DepthKitError: a file in it is not what it should be; the message names it.
    """
    folder = "rgb" if (root / "rgb").is_dir() else one_folder(root, IMAGE_FOLDERS)
    images, beside = (images_in(root, folder), {}) if folder else side_by_side(root)
    if not images:
        return Layout(images)
    depth = depth_folder or one_folder(root, DEPTH_FOLDERS)
    labels = labels_in(root, depth, images) if depth else {}
    cameras = _cameras(root, list(images))
    poses = _poses(root, images, cameras[next(iter(images))])
    return Layout(images, labels or beside, cameras, poses)


def pinhole(camera: Mapping[str, Any], where: str) -> list[float] | None:
    """Return fx, fy, cx, cy of a camera's facts, which may hold them as K or P_rect; None if there are none.

    Raises:
        GeometryError: they are no numbers, or a matrix column by column.
    """
    rectified = [value for name, value in sorted(camera.items()) if name.startswith("P_rect")]
    try:
        if "fx" in camera:
            return [float(camera[name]) for name in ("fx", "fy", "cx", "cy")]
        if "K" not in camera and not rectified:
            return None
        matrix = np.array(camera.get("K", rectified[0] if rectified else None), np.float64)[:3, :3].reshape(3, 3)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise GeometryError(f"expected numbers fx, fy, cx, cy in {where}; got {error!r}. Correct it.") from error
    if "K" in camera and not np.allclose(matrix[2], (0, 0, 1)):
        raise GeometryError(f"expected the last row of K in {where} to be 0, 0, 1; got {matrix[2].tolist()}. Transpose it.")
    return [float(matrix[0, 0]), float(matrix[1, 1]), float(matrix[0, 2]), float(matrix[1, 2])]


def check_numbers(facts: Mapping[str, Any], where: str) -> None:
    """Check that what a camera's facts say in numbers are some; NaN and infinity have an error of their own.

    Raises:
        GeometryError: one is none.
    """
    for name in _NUMBERS:
        value = facts.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or 1e18 < abs(value) < np.inf):
            raise GeometryError(f"expected numbers fx, fy, cx, cy in {where}; got {name}: {str(value)[:40]!r}. Correct it.")


def _check_facts(facts: Mapping[str, Any], file: Path) -> None:
    """Refuse distortion, and keys that would be ignored."""
    for key, value in facts.items():
        if _FACTS.fullmatch(key) and not (key == "model" and value not in ("PINHOLE", "SIMPLE_PINHOLE")):
            continue
        if not _DISTORTION.fullmatch(key):
            raise GeometryError(
                f"expected keys such as fx, K, baseline_m or depth_scale in {file}; got {key}: {value!r}. Remove it, or say it "
                "by one of these."
            )
        if np.any(np.asarray(value, np.float64)):
            raise GeometryError(
                f"expected a pinhole camera in {file}; got distortion {key}: {value}. Undistort the images first."
            )


def _cameras(root: Path, stems: list[str]) -> dict[str, Mapping[str, Any]]:
    """Return what intrinsics.json, or another file of a camera matrix, says of each image's camera."""
    file = root / "intrinsics.json"
    others = [root / name for name in CAMERA_FILES if (root / name).is_file()]
    if not file.exists() and others:
        (fx, _, cx), (_, fy, cy), _ = read_camera(others[0])
        return {stem: {"fx": fx, "fy": fy, "cx": cx, "cy": cy} for stem in stems}
    facts = _facts(file, file.stat().st_mtime_ns) if file.exists() else {}
    return {stem: {**facts, **facts.get("per_frame", {}).get(stem, {})} for stem in stems}


@lru_cache(4)
def _facts(file: Path, _changed: int) -> dict[str, Any]:
    """Read intrinsics.json, once as long as it does not change."""
    try:
        facts: dict[str, Any] = json.loads(file.read_bytes())
        for group in (facts, *facts.get("per_frame", {}).values()):
            _check_facts(group, file)
        return facts
    except GeometryError:
        raise
    except (ValueError, AttributeError, TypeError, OSError, RecursionError) as error:
        raise GeometryError(
            f"expected {file} to be JSON with fx, fy, cx, cy; it does not read ({error}). Correct it."
        ) from error


def camera_beside(root: Path, stem: str) -> tuple[np.ndarray | None, tuple[int, int] | None]:
    """Read what ``intrinsics.json`` in a folder says of one image: intrinsics ``(3, 3)`` [px], and the size they are for.

    Raises:
        GeometryError: the file is damaged, or its camera is no pinhole.
    """
    where = str(root / "intrinsics.json")
    camera = _cameras(root, [stem])[stem]
    numbers = pinhole(camera, where)
    size = (int(camera["height"]), int(camera["width"])) if camera.get("height") and camera.get("width") else None
    return None if numbers is None else camera_matrix(numbers, where), size


def _poses(root: Path, images: Mapping[str, str], facts: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Read ``world_from_camera`` by stem; return none without poses.txt, or if its unit is said not to be the metre."""
    file = root / "poses.txt"
    if not file.exists() or "pose_scale" in facts:
        return {}
    try:
        rows = np.loadtxt(file, ndmin=2)
    except ValueError as error:
        raise GeometryError(f"expected 12 numbers per line in {file}; it does not read ({error}). Correct it.") from error
    if rows.shape != (len(images), 12) or not np.isfinite(rows).all():
        raise GeometryError(
            f"expected a line of 12 finite numbers in {file} for each of the {len(images)} images; "
            f"got {rows.shape}. Correct it."
        )
    bottom = np.array([[0.0, 0, 0, 1]])
    return {stem: np.vstack([row.reshape(3, 4), bottom]) for stem, row in zip(images, rows, strict=True)}
