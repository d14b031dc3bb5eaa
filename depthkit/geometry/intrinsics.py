"""Intrinsics from a field of view, and of a resized, cropped or mirrored image, as arrays or tensors.

Each change of the image is an affine map of its pixels, a 3x3 matrix, that multiplies the intrinsics from the left. Pixel
centres are integers, so the image reaches from -0.5 to W - 0.5 and a resize moves the principal point by half pixels.
"""

import math
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from depthkit.devices import sent
from depthkit.errors import GeometryError, ShapeError
from depthkit.precision import in_float32

Matrices = TypeVar("Matrices", Tensor, np.ndarray)


def intrinsics_from_field_of_view(size: tuple[int, int], degrees: float) -> np.ndarray:
    """Compute the intrinsics of a camera with square pixels and a centred principal point, float64 ``(3, 3)`` [px].

    Args:
        size: (height, width) of the image [px].
        degrees: angle from the left to the right border; about 65 for a phone's main camera, 55 for a laptop's.

    Raises:
        GeometryError: the angle is not between 0 and 180 degrees.

    Example:
        >>> intrinsics_from_field_of_view((60, 100), 90.0)
        array([[50. ,  0. , 49.5],
               [ 0. , 50. , 29.5],
               [ 0. ,  0. ,  1. ]])
    """
    if not 0 < degrees < 180:
        raise GeometryError(f"expected a field of view between 0 and 180 degrees; got {degrees}.")
    height, width = size
    focal = width / 2 / math.tan(math.radians(degrees) / 2)
    return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])


@in_float32
def scale_intrinsics(intrinsics: Matrices, x: float, y: float) -> Matrices:
    """Scale intrinsics with a resized image: ``f' = f s``, ``c' = (c + 0.5) s - 0.5``.

    Args:
        intrinsics: ``(..., 3, 3)`` [px], tensor or array.
        x: new width / old width.
        y: new height / old height.

    Example:
        >>> scale_intrinsics(np.array([[100.0, 0, 49.5], [0, 100, 29.5], [0, 0, 1]]), 0.5, 0.5)
        array([[50. ,  0. , 24.5],
               [ 0. , 50. , 14.5],
               [ 0. ,  0. ,  1. ]])
    """
    return _move_pixels(intrinsics, [[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])


@in_float32
def crop_intrinsics(intrinsics: Matrices, left: float, top: float) -> Matrices:
    """Move intrinsics, ``(..., 3, 3)`` [px], with a crop of ``left`` columns and ``top`` rows (negative: padding)."""
    return _move_pixels(intrinsics, [[1, 0, -left], [0, 1, -top], [0, 0, 1]])


@in_float32
def flip_intrinsics(intrinsics: Matrices, width: int) -> Matrices:
    """Mirror intrinsics with an image of ``width`` pixels that is flipped left to right: ``cx' = W - 1 - cx``.

    The camera's x axis is mirrored with the image, so focal lengths stay positive and poses change by ``flip_pose``.
    """
    mirrored = _move_pixels(intrinsics, [[-1, 0, width - 1], [0, 1, 0], [0, 0, 1]])
    return mirrored * _like([[-1, 1, 1]], mirrored)


def _move_pixels(intrinsics: Matrices, new_from_old: list[list[float]]) -> Matrices:
    if intrinsics.ndim < 2 or tuple(intrinsics.shape[-2:]) != (3, 3):
        raise ShapeError(
            f"expected intrinsics of shape (..., 3, 3); got {tuple(intrinsics.shape)}. "
            "Write fx, fy, cx, cy as [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]."
        )
    return _like(new_from_old, intrinsics) @ intrinsics


def _like(values: list[list[float]], matrices: Matrices) -> Matrices:
    if isinstance(matrices, Tensor):
        return sent(torch.tensor(values, dtype=matrices.dtype), matrices.device)
    return np.array(values, dtype=float)
