"""Pinhole cameras: pixels to points and back."""

import torch
from torch import Tensor

from depthkit.checks import check_intrinsics, check_map, check_pose, check_valid
from depthkit.devices import readable_at_once
from depthkit.errors import ShapeError
from depthkit.precision import in_float32

NOWHERE = -1e6
"""Pixel coordinate of a point that no pixel shows: outside every image, and finite so that gradients stay finite."""
GRAZING = 1e-4
"""A ray that meets the image plane at a smaller z per metre of ray counts as behind the camera."""


def pixel_rays(intrinsics: Tensor, height: int, width: int) -> Tensor:
    """Compute the viewing rays of all pixels, with z = 1: ``K^-1 (column, row, 1)``, ``(B, 3, H, W)``."""
    row, column = torch.meshgrid(
        torch.arange(height, dtype=intrinsics.dtype, device=intrinsics.device),
        torch.arange(width, dtype=intrinsics.dtype, device=intrinsics.device),
        indexing="ij",
    )
    pixels = torch.stack([column, row, torch.ones_like(row)]).flatten(1)
    inverse = torch.linalg.inv_ex(intrinsics, check_errors=readable_at_once(intrinsics)).inverse
    return (inverse @ pixels).unflatten(2, (height, width))


@in_float32
def unproject(depth: Tensor, intrinsics: Tensor) -> Tensor:
    """Compute the point that each pixel shows, in the camera's frame.

    Args:
        depth: depth [m], ``(B, 1, H, W)``. Infinite depth (sky) gives no finite point.
        intrinsics: ``(B, 3, 3)`` [px].

    Returns:
        Points x, y, z [m], ``(B, 3, H, W)``.

    Raises:
        ShapeError: the arguments are not of these shapes.
        GeometryError: an intrinsic parameter is NaN or infinite.

    Example:
        >>> K = torch.tensor([[[2.0, 0, 1], [0, 2, 0], [0, 0, 1]]])
        >>> unproject(torch.full((1, 1, 1, 3), 4.0), K)[0, :, 0]
        tensor([[-2.,  0.,  2.],
                [ 0.,  0.,  0.],
                [ 4.,  4.,  4.]])
    """
    check_map("depth", depth)
    check_intrinsics(intrinsics, len(depth))
    return depth * pixel_rays(intrinsics.to(depth.dtype), *depth.shape[-2:])


@in_float32
def project(points: Tensor, intrinsics: Tensor) -> Tensor:
    """Project points of the camera's frame to the pixels that show them.

    Args:
        points: x, y, z [m], ``(B, 3, H, W)``.
        intrinsics: ``(B, 3, 3)`` [px].

    Returns:
        Column and row [px], ``(B, 2, H, W)``; far outside any image (-1e6, with gradient 0) for a point that is not in
        front of the camera, so that ``inside_image`` is False there.
    """
    if points.ndim != 4 or points.shape[1] != 3:
        raise ShapeError(f"expected points of shape (B, 3, H, W); got {tuple(points.shape)}.")
    check_intrinsics(intrinsics, len(points))
    x = torch.einsum("bij,bjhw->bihw", intrinsics.to(points.dtype), points)
    in_front = points[:, 2:] > GRAZING * points.detach().abs().amax(1, keepdim=True)
    z = x[:, 2:].where(in_front, 1)
    return (x[:, :2] / z).where(in_front, NOWHERE)


@in_float32
def depth_to_points(
    depth: Tensor, intrinsics: Tensor, valid: Tensor | None = None, *, world_from_camera: Tensor | None = None
) -> tuple[Tensor, ...]:
    """Compute one point cloud per image, row by row.

    Args:
        depth: depth [m], ``(B, 1, H, W)``; any value where not valid.
        intrinsics: ``(B, 3, 3)`` [px].
        valid: pixels to take, bool, ``(B, 1, H, W)``; all by default. Sky and non-positive depth have no point.
        world_from_camera: camera poses [m], ``(B, 4, 4)``; without them points are in their camera's frame.

    Returns:
        One tensor of points [m] per image, ``(N, 3)``, N differing from image to image.
    """
    points = unproject(depth, intrinsics)
    has_point = depth.isfinite() & (depth > 0)
    if valid is not None:
        check_valid(valid, depth)
        has_point = has_point & valid
    if world_from_camera is not None:
        check_pose("world_from_camera", world_from_camera, len(depth))
        points = transform(points.where(has_point, 0), world_from_camera.to(points.dtype))
    return tuple(xyz[:, kept[0]].T for xyz, kept in zip(points, has_point, strict=True))


def transform(points: Tensor, a_from_b: Tensor) -> Tensor:
    """Transform points ``(B, 3, H, W)`` from frame b to frame a."""
    return torch.einsum("bij,bjhw->bihw", a_from_b[:, :3, :3], points) + a_from_b[:, :3, 3, None, None]
