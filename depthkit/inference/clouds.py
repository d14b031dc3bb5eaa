"""Point clouds as files for viewers."""

from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from depthkit.checks import optional_import
from depthkit.errors import GeometryError, PredictionError, ShapeError
from depthkit.writing import replacing


class CloudFormat(StrEnum):
    """Formats of point clouds, as suffixes of files."""

    PLY = ".ply"
    GLB = ".glb"


_GLTF_FROM_CAMERA = np.array([1.0, -1.0, -1.0])


def write_point_cloud(
    path: str | Path, points: np.ndarray, colours: np.ndarray | None = None, *, unit: str = "unknown"
) -> Path:
    """Write points and their colours in the format of the suffix. Needs the package ``trimesh``.

    ``.ply`` keeps the axes of the points: x right, y down, z forward in a camera's frame.
    ``.glb`` has the axes of glTF, x right, y up, z backward, so that a viewer shows a camera's points upright.

    Args:
        path: file to write; its folder is created.
        points: ``(N, 3)``, x right, y down, z forward; stored as float32.
        colours: uint8 RGB, ``(N, 3)``.
        unit: of the coordinates, which the file states: a comment of the PLY, ``asset.extras.unit`` of the GLB.

    Raises:
        ShapeError: an unknown suffix, or shapes that do not fit together.
        PredictionError: there is no point, or a coordinate is not finite.
        MissingPackageError: trimesh is not installed.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in tuple(CloudFormat):
        raise ShapeError(f"expected a suffix of .ply or .glb to write a point cloud as; got {path}.")
    if points.ndim != 2 or points.shape[1] != 3 or (colours is not None and colours.shape != points.shape):
        got = f"{points.shape} and {None if colours is None else colours.shape}"
        raise ShapeError(f"expected points and colours of one shape (N, 3); got {got}.")
    if not len(points) or not np.isfinite(points).all():
        found = "NaN or infinity" if len(points) else "none"
        raise PredictionError(f"expected points with finite coordinates to write as {path}; got {found}.")
    axes = _GLTF_FROM_CAMERA if kind == CloudFormat.GLB else 1
    cloud = optional_import("trimesh", "clouds").PointCloud(points * axes, colours)
    with replacing(path) as part:
        part.write_bytes(_ply(cloud, unit) if kind == CloudFormat.PLY else _glb(cloud, unit))
    return path


def _ply(cloud: Any, unit: str) -> bytes:
    content: bytes = cloud.export(file_type="ply")
    head, end, rest = content.partition(b"end_header")
    return head + f"comment unit {unit}\n".encode() + end + rest


def _glb(cloud: Any, unit: str) -> bytes:
    def state(tree: dict[str, Any]) -> None:
        tree["asset"]["extras"] = {"unit": unit}

    export = optional_import("trimesh.exchange.gltf", "clouds").export_glb
    content: bytes = export(cloud.scene(), tree_postprocessor=state)
    return content


def across_edges(depth: np.ndarray, max_edge: float) -> np.ndarray:
    """Mask pixels whose depth differs from one of four neighbours by more than a factor ``max_edge``, bool ``(H, W)``.

    Networks blur occlusion edges, so that pixels between two surfaces become points of neither.

    Raises:
        GeometryError: ``max_edge`` is not above 1.

    Example:
        >>> across_edges(np.array([[1.0, 1.02, 1.5, 1.52]]), 1.1)
        array([[False,  True,  True, False]])
    """
    if not max_edge > 1:
        raise GeometryError(f"expected max_edge above 1, a ratio of the depths of neighbours such as 1.1; got {max_edge}.")
    found = np.zeros(depth.shape, bool)
    for a, b in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        step = np.maximum(depth[a], depth[b]) > max_edge * np.minimum(depth[a], depth[b])  # False beside NaN
        found[a] |= step
        found[b] |= step
    return found
