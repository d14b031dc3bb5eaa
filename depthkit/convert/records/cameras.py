"""Intrinsics as datasets write them into a file of their own."""

from pathlib import Path

import numpy as np

from depthkit.convert.records.files import read_bytes
from depthkit.convert.records.record import camera_matrix
from depthkit.errors import GeometryError


def read_camera(file: Path) -> np.ndarray:
    """Read intrinsics ``(3, 3)`` [px] from a file of fx, fy, cx, cy, or of a 3 x 3 or 4 x 4 matrix row by row.

    Args:
        file: numbers apart by blanks, commas or line ends.

    Raises:
        DepthKitError: it is not there.
        GeometryError: it holds something else.
    """
    text = read_bytes(file).decode("utf-8", "replace")
    try:
        numbers = np.array(text.replace(",", " ").split(), np.float64)
    except ValueError:
        numbers = np.zeros(0)
    if numbers.size in (9, 16):
        matrix = numbers.reshape(round(numbers.size**0.5), -1)
        if not np.allclose(matrix[2, :3], (0, 0, 1)):
            raise GeometryError(
                f"{file}: expected a matrix row by row, whose third row is 0, 0, 1; got {matrix[2].tolist()}. Transpose it."
            )
        numbers = np.array([matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]])
    if numbers.size != 4:
        raise GeometryError(
            f"{file}: expected fx, fy, cx, cy or a matrix of 3 x 3 or 4 x 4 numbers; got '{text.strip()[:40]}'. Get it again."
        )
    return camera_matrix(numbers.tolist(), str(file))
