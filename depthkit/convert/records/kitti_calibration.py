"""KITTI's calibration files, numbered folders, and where its cameras were: odometry's poses and the drives' GPS and IMU."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from depthkit.errors import GeometryError

EARTH_RADIUS = 6378137.0
"""Of the sphere that KITTI's authors project from [m]."""


def numbered(root: Path, place: str, suffixes: tuple[str, ...]) -> dict[int, str]:
    """List the files of a folder by the numbers that are their names, relative to the root."""
    if not (root / place).is_dir():
        return {}
    files = sorted(file for file in (root / place).iterdir() if file.suffix in suffixes and file.stem.isdigit())
    return {int(file.stem): f"{place}/{file.name}" for file in files}


def square(matrix: np.ndarray) -> np.ndarray:
    """Put the matrix in the top left of a 4 x 4 identity."""
    full = np.eye(4)
    full[: matrix.shape[0], : matrix.shape[1]] = matrix
    return full


def facts(file: Path) -> Any:
    """Read numbers of a calibration file by name and count; with ``optional=True`` None for a missing name."""
    try:
        rows = dict(line.split(":", 1) for line in file.read_text().splitlines() if ":" in line)
    except (OSError, ValueError) as error:
        raise GeometryError(
            f"expected KITTI's calibration in {file}; it does not read ({error}). Unpack the calibration beside the drives."
        ) from error
    return partial(_fact, rows, file)


def _fact(rows: Mapping[str, str], file: Path, name: str, count: int, *, optional: bool = False) -> np.ndarray | None:
    if optional and name not in rows:
        return None
    try:
        numbers = np.array(rows[name].split(), np.float64)
    except (KeyError, ValueError):
        numbers = np.zeros(0)
    if numbers.shape != (count,) or not np.isfinite(numbers).all():
        raise GeometryError(
            f"expected {count} finite numbers for {name} in {file}; got {rows.get(name, 'none').strip()}. Get the file again."
        )
    return numbers


def rigid(file: Path) -> np.ndarray:
    """Read rotation R and shift T [m] of a calibration file, ``(4, 4)``."""
    turn, shift = (facts(file)(name, count) for name, count in (("R", 9), ("T", 3)))
    return square(np.hstack([turn.reshape(3, 3), shift[:, None]]))


def sequence_poses(root: Path, sequence: int) -> dict[int, np.ndarray]:
    """Read ``world_from_camera`` of camera 0 by number, if the odometry sequence has poses."""
    file = root / f"poses/{sequence:02d}.txt"
    if not file.is_file():
        return {}
    try:
        return {n: square(row.reshape(3, 4)) for n, row in enumerate(np.loadtxt(file, ndmin=2))}
    except ValueError as error:
        raise GeometryError(f"expected lines of 12 numbers in {file}; it does not read ({error}). Get it again.") from error


def drive_poses(root: Path, drive: str) -> dict[int, np.ndarray]:
    """Read ``world_from_imu`` by number, if the raw drive has ``oxts``: east, north and up [m] of its first frame.

    Latitude and longitude by Mercator's projection at the first latitude, as KITTI's authors do. Good to some centimetres from
    frame to frame, so that motion has its true scale; odometry's poses are smoother.
    """
    rows = {}
    for number, name in numbered(root, f"{drive}/oxts/data", (".txt",)).items():
        try:
            rows[number] = np.loadtxt(root / name, ndmin=1)[:6]
        except (OSError, ValueError) as error:
            raise GeometryError(f"expected numbers in {root / name}; it does not read ({error}). Get it again.") from error
        if rows[number].shape != (6,) or not np.isfinite(rows[number]).all():
            raise GeometryError(f"expected latitude, longitude, altitude, roll, pitch and yaw in {root / name}. Get it again.")
    poses: dict[int, np.ndarray] = {}
    start = next(iter(rows.values()), np.zeros(6))
    scale = EARTH_RADIUS * np.cos(np.radians(start[0]))
    for number, (latitude, longitude, altitude, roll, pitch, yaw) in rows.items():
        north = np.log(np.tan(np.radians(90 + latitude) / 2)) - np.log(np.tan(np.radians(90 + start[0]) / 2))
        poses[number] = square(_about(2, yaw) @ _about(1, pitch) @ _about(0, roll))
        poses[number][:3, 3] = scale * np.radians(longitude - start[1]), scale * north, altitude - start[2]
    return poses


def _about(axis: int, angle: float) -> np.ndarray:
    """Return the rotation about a coordinate axis, ``(3, 3)``."""
    matrix, (i, j) = np.eye(3), ((axis + 1) % 3, (axis + 2) % 3)
    matrix[i, i] = matrix[j, j] = np.cos(angle)
    matrix[i, j], matrix[j, i] = -np.sin(angle), np.sin(angle)
    return matrix
