"""View synthesis: sample another view where this one shows the same points, the basis of learning from video."""

from enum import StrEnum

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from depthkit.checks import check_choice, check_intrinsics, check_map, check_pose
from depthkit.errors import ShapeError
from depthkit.geometry.camera import pixel_rays, project
from depthkit.precision import in_float32


class Padding(StrEnum):
    """Values outside of an image: its nearest border pixel, or 0."""

    BORDER = "border"
    ZEROS = "zeros"


@in_float32
def reproject(
    depth: Tensor, intrinsics: Tensor, source_from_target: Tensor, *, source_intrinsics: Tensor | None = None
) -> Tensor:
    """Compute where the source camera sees the point that each target pixel shows.

    Args:
        depth: depth of the target view [m], ``(B, 1, H, W)``. Infinite depth (sky) moves by the rotation alone.
        intrinsics: of the target view, ``(B, 3, 3)`` [px].
        source_from_target: pose [m], ``(B, 4, 4)``.
        source_intrinsics: of the source view, ``(B, 3, 3)`` [px]; those of the target by default.

    Returns:
        Column and row in the source image [px], ``(B, 2, H, W)``; far outside it, with gradient 0, where the point lies
        behind the source camera or the depth is NaN, zero or negative.
    """
    check_map("depth", depth)
    check_intrinsics(intrinsics, len(depth))
    check_pose("source_from_target", source_from_target, len(depth))
    intrinsics, pose = intrinsics.to(depth.dtype), source_from_target.to(depth.dtype)
    positive = depth > 0
    disparity = 1 / depth.where(positive, 1)
    # The point divided by its depth: the same pixel, and finite for a point at infinity.
    rays = torch.einsum("bij,bjhw->bihw", pose[:, :3, :3], pixel_rays(intrinsics, *depth.shape[-2:]))
    points = rays + pose[:, :3, 3, None, None] * disparity
    behind = -1.0
    return project(points.where(positive, behind), intrinsics if source_intrinsics is None else source_intrinsics)


def inside_image(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Tell which pixels, ``(B, 2, h, w)``, lie inside an image of ``size`` (height, width), bool ``(B, 1, h, w)``."""
    column, row = pixels[:, :1], pixels[:, 1:]
    return (column >= 0) & (column <= size[1] - 1) & (row >= 0) & (row <= size[0] - 1)


@in_float32
def sample_pixels(image: Tensor, pixels: Tensor, *, padding: Padding | str = Padding.BORDER) -> Tensor:
    """Sample an image at fractional pixels, bilinearly.

    Args:
        image: ``(B, C, H, W)``.
        pixels: column and row [px], ``(B, 2, h, w)``; integers are pixel centres.
        padding: value outside of the image: the nearest border pixel, or 0.

    Returns:
        ``(B, C, h, w)``, differentiable in both arguments.
    """
    if image.ndim != 4 or pixels.ndim != 4 or pixels.shape[1] != 2 or len(image) != len(pixels):
        raise ShapeError(
            f"expected an image (B, C, H, W) and pixels (B, 2, h, w); got {tuple(image.shape)} and {tuple(pixels.shape)}."
        )
    outside = str(check_choice("padding", padding, Padding))
    height, width = image.shape[-2:]
    # Corner pixels' centres are -1 and 1 in grid_sample under align_corners=True: then integer pixels are read unblended.
    column, row = pixels.unbind(1)
    grid = torch.stack([column / max(width - 1, 1), row / max(height - 1, 1)], -1) * 2 - 1
    return grid_sample(image.to(grid.dtype), grid, mode="bilinear", padding_mode=outside, align_corners=True)


@in_float32
def warp(
    source: Tensor,
    depth: Tensor,
    intrinsics: Tensor,
    source_from_target: Tensor,
    *,
    source_intrinsics: Tensor | None = None,
    padding: Padding | str = Padding.BORDER,
) -> Tensor:
    """Synthesise the target view from the source image (Monodepth2 eq. 1, after Zhou et al. 2017).

    Args:
        source: image or map of the source view, ``(B, C, H, W)``.
        depth: depth of the target view [m], ``(B, 1, h, w)``.
        intrinsics: of the target view, ``(B, 3, 3)`` [px].
        source_from_target: pose [m], ``(B, 4, 4)``.
        source_intrinsics: of the source view, ``(B, 3, 3)`` [px]; those of the target by default.
        padding: value of target pixels that the source does not show: its nearest border pixel, or 0. The mask of these
            pixels is ``~inside_image(reproject(...), size)``.

    Returns:
        ``(B, C, h, w)``, differentiable in every tensor.

    Raises:
        ShapeError: the arguments are not of these shapes.
        GeometryError: an intrinsic parameter is NaN or infinite.
    """
    pixels = reproject(depth, intrinsics, source_from_target, source_intrinsics=source_intrinsics)
    return sample_pixels(source, pixels, padding=padding)
