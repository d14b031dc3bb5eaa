"""Point clouds as files for viewers."""

from pathlib import Path

import numpy as np

from depthkit.errors import DepthKitError, GeometryError, PredictionError, ShapeError

_GLTF_FROM_CAMERA = np.array([1.0, -1.0, -1.0])


def write_point_cloud(path: str | Path, points: np.ndarray, colours: np.ndarray | None = None) -> Path:
    """Write points and their colours; the suffix says how. Needs the package ``trimesh``.

    ``.ply``: in the axes the points have, so x right, y down, z forward for those of a camera.
    ``.glb``: in the axes of glTF, x right, y up, z backward, so that a viewer shows a camera's points upright.

    Args:
        path: of the file; its folder is made.
        points: ``(N, 3)``, x right, y down, z forward; stored as float32.
        colours: uint8 RGB, ``(N, 3)``.

    Raises:
        ShapeError: an unknown suffix, or shapes that do not fit together.
        PredictionError: there is no point, or a coordinate is not finite.
        DepthKitError: trimesh is not installed.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in (".ply", ".glb"):
        raise ShapeError(f"expected a suffix of .ply or .glb to write a point cloud as; got {path}.")
    if points.ndim != 2 or points.shape[1] != 3 or (colours is not None and colours.shape != points.shape):
        got = f"{points.shape} and {None if colours is None else colours.shape}"
        raise ShapeError(f"expected points and colours of one shape (N, 3); got {got}.")
    if not len(points) or not np.isfinite(points).all():
        found = "NaN or infinity" if len(points) else "none"
        raise PredictionError(f"expected points with finite coordinates to write as {path}; got {found}.")
    try:
        from trimesh import PointCloud
    except ImportError as error:
        raise DepthKitError(
            "expected the package trimesh to write point clouds; it is missing. Run: pip install trimesh"
        ) from error
    cloud = PointCloud(points * _GLTF_FROM_CAMERA if kind == ".glb" else points, colours)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cloud.export(file_type=kind[1:]))
    return path


def across_edges(depth: np.ndarray, max_edge: float) -> np.ndarray:
    """Pixels that are more than ``max_edge`` times as far as one of their four neighbours, or as near, bool ``(H, W)``.

    Networks blur occlusion edges, and the pixels in between hang in the air as points of neither surface.

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
