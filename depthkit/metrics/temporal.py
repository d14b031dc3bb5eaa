"""Flicker of the predicted depth of a film: how much successive frames contradict each other."""

from typing import Any

import torch
from torch import Tensor

from depthkit.errors import ShapeError
from depthkit.geometry import invert_pose, unproject
from depthkit.geometry.warp import sample_pixels
from depthkit.masked import masked_mean
from depthkit.metrics.exact import ExactSums
from depthkit.precision import in_float32, where_float64_exists


@torch.no_grad()
def temporal_alignment_error(depth: Tensor, intrinsics: Tensor, world_from_camera: Tensor) -> Tensor:
    r"""Mean contradiction of successive depth maps through known poses [1] (TAE; Chen et al. 2025, arXiv 2501.12375).

    The points of each frame are seen from the next one and the other way round; at the pixel nearest to each, the depths are
    compared:

    .. math:: \frac{1}{2(T-1)}\sum_k \text{AbsRel}(P(d_k), d_{k+1}) + \text{AbsRel}(P(d_{k+1}), d_k)

    The divisor of AbsRel is the depth that is predicted there. Of several points in one pixel the nearest counts. Constant
    depth has little flicker: report the error of depth beside it. The paper fits disparity once per film before.

    Args:
        depth: predicted depth of T frames in the unit of the poses, ``(T, 1, H, W)``; not positive or not finite: no point.
        intrinsics: ``(T, 3, 3)`` [px].
        world_from_camera: ``(T, 4, 4)``.

    Returns:
        float64 scalar; multiply by 100 for the paper's unit. NaN if no frame shows a point of its neighbour.

    Raises:
        ShapeError: fewer than two frames, or shapes that do not fit together.
    """
    return _mean_of(_alignment_errors(depth, intrinsics, world_from_camera))


@torch.no_grad()
def flow_warped_error(depth: Tensor, pixels: Tensor, seen: Tensor) -> Tensor:
    """Mean absolute change of ln depth along the optical flow between successive frames [1].

    Poses are not needed. What the camera's motion itself changes counts too, alike for every method: compare methods on one
    film. Constant depth has no flicker: report the error of depth beside it.

    Args:
        depth: predicted depth of T frames, ``(T, 1, H, W)``.
        pixels: column and row at which each pixel of a frame was in the frame before, ``(T - 1, 2, H, W)`` [px].
        seen: pixels that both frames show, bool ``(T - 1, 1, H, W)``.

    Returns:
        Mean over frame pairs of the mean over pixels, float64 scalar; NaN if no pair shares a pixel.

    Raises:
        ShapeError: fewer than two frames, or shapes that do not fit together.
    """
    return _mean_of(_flow_errors(depth, pixels, seen))


class _PairMean(ExactSums):
    """A mean over pairs of successive frames, of all films."""

    full_state_update = False
    higher_is_better = False
    total: Tensor
    n_pairs: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("total")
        self.add_count("n_pairs")

    def _add(self, errors: Tensor) -> None:
        known = ~errors.isnan()
        self.accumulate("total", errors.where(known, 0).sum())
        self.accumulate("n_pairs", known.sum())

    def compute(self) -> Tensor:
        """Compute the mean over everything seen, float64 scalar; NaN if nothing was."""
        return self.total / self.n_pairs


class TemporalAlignmentError(_PairMean):
    """``temporal_alignment_error`` over the frame pairs of any number of films, each given in one ``update``."""

    def update(self, depth: Tensor, intrinsics: Tensor, world_from_camera: Tensor) -> None:
        """Add a film; arguments and errors as of ``temporal_alignment_error``."""
        self._add(_alignment_errors(depth, intrinsics, world_from_camera))


class FlowWarpedError(_PairMean):
    """``flow_warped_error`` over the frame pairs of any number of films, each given in one ``update``."""

    def update(self, depth: Tensor, pixels: Tensor, seen: Tensor) -> None:
        """Add a film; arguments and errors as of ``flow_warped_error``."""
        self._add(_flow_errors(depth, pixels, seen))


def _mean_of(errors: Tensor) -> Tensor:
    return errors.nanmean()


@in_float32
def _flow_errors(depth: Tensor, pixels: Tensor, seen: Tensor) -> Tensor:
    """Compute the error of each pair, float64 ``(T - 1,)``; NaN where the frames share nothing."""
    _check_film(depth, {"pixels": (pixels, 2), "seen": (seen, 1)})
    depth, pixels = where_float64_exists(depth, pixels)
    depth, pixels = depth.double(), pixels.double()
    known = (depth > 0) & depth.isfinite()
    safe = depth.where(known, 1)
    before = sample_pixels(safe[:-1].log(), pixels)
    whole = sample_pixels(known[:-1].double(), pixels) == 1
    counted = seen & whole & known[1:]
    return masked_mean((safe[1:].log() - before).abs(), counted).where(counted.flatten(1).any(1), torch.nan)


@in_float32
def _alignment_errors(depth: Tensor, intrinsics: Tensor, world_from_camera: Tensor) -> Tensor:
    """Compute the mean of both directions for each pair, float64 ``(T - 1,)``; NaN where the frames share nothing."""
    _check_film(depth, {})
    frames = len(depth)
    if tuple(intrinsics.shape) != (frames, 3, 3) or tuple(world_from_camera.shape) != (frames, 4, 4):
        raise ShapeError(
            f"expected intrinsics ({frames}, 3, 3) and poses ({frames}, 4, 4) for {frames} frames; "
            f"got {tuple(intrinsics.shape)} and {tuple(world_from_camera.shape)}. Give one of each per frame."
        )
    depth, intrinsics, poses = (x.double() for x in where_float64_exists(depth, intrinsics, world_from_camera))
    relative = invert_pose(poses[1:]) @ poses[:-1]  # next_from_current
    there = _one_way(depth[:-1], depth[1:], intrinsics[:-1], intrinsics[1:], relative)
    back = _one_way(depth[1:], depth[:-1], intrinsics[1:], intrinsics[:-1], invert_pose(relative))
    return torch.stack([there, back]).nanmean(0)


def _one_way(depth: Tensor, other: Tensor, camera: Tensor, other_camera: Tensor, other_from_this: Tensor) -> Tensor:
    """Compare each frame's points, seen from the other frame, with the depth there, ``(N,)``."""
    height, width = depth.shape[-2:]
    known = (depth > 0) & depth.isfinite()
    points = unproject(depth.where(known, 1), camera).flatten(2)
    moved = other_from_this[:, :3, :3] @ points + other_from_this[:, :3, 3:]
    z = moved[:, 2]
    pixels = (other_camera @ moved)[:, :2] / z.where(z > 0, 1)[:, None]
    column, row = pixels.round().unbind(1)
    inside = known.flatten(1) & (z > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    place = (row * width + column).where(inside, 0).long()
    nearest = depth.new_full((len(depth), height * width), torch.inf)
    nearest.scatter_reduce_(1, place, z.where(inside, torch.inf), "amin")
    there = other[:, 0].flatten(1)
    counted = nearest.isfinite() & (there > 0) & there.isfinite()
    error = ((nearest - there).where(counted, 0) / there.where(counted, 1)).abs()
    shape = (len(depth), 1, height, width)
    return masked_mean(error.view(shape), counted.view(shape)).where(counted.any(1), torch.nan)


def _check_film(depth: Tensor, others: dict[str, Any]) -> None:
    if depth.ndim != 4 or depth.shape[1] != 1 or len(depth) < 2:
        raise ShapeError(
            f"expected the depth of two or more frames, (T, 1, H, W); got {tuple(depth.shape)}. One frame has no flicker."
        )
    for name, (x, channels) in others.items():
        expected = (len(depth) - 1, channels, *depth.shape[-2:])
        if tuple(x.shape) != expected:
            raise ShapeError(f"expected {name} of shape {expected} for {len(depth)} frames; got {tuple(x.shape)}.")
