"""Rigid motions as 4x4 matrices ``a_from_b``: ``x_a = a_from_b @ x_b``; composition is ``a_from_b @ b_from_c``."""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from depthkit.errors import ShapeError
from depthkit.geometry.intrinsics import Matrices, _like
from depthkit.precision import in_float32


@in_float32
def axis_angle_to_matrix(axis_angle: Tensor) -> Tensor:
    r"""Compute rotation matrices by Rodrigues' formula, smooth at the identity.

    .. math:: R = I + \frac{\sin\theta}{\theta} [r]_\times + \frac{1 - \cos\theta}{\theta^2} [r]_\times^2

    Args:
        axis_angle: r, rotation axis times angle [rad], ``(..., 3)``.

    Returns:
        ``(..., 3, 3)``.

    Example:
        >>> quarter_turn_about_z = torch.tensor([0.0, 0.0, torch.pi / 2])
        >>> (axis_angle_to_matrix(quarter_turn_about_z) @ torch.tensor([1.0, 0.0, 0.0])).round()
        tensor([-0.,  1.,  0.])
    """
    if axis_angle.shape[-1:] != (3,):
        raise ShapeError(f"expected axis_angle of shape (..., 3); got {tuple(axis_angle.shape)}.")
    squared = (axis_angle**2).sum(-1)
    tiny = squared < 1e-4  # where the next terms of the series are below float32's resolution
    angle = squared.where(~tiny, 1).sqrt()
    first = torch.where(tiny, 1 - squared / 6 + squared**2 / 120, angle.sin() / angle)[..., None, None]
    # 2 sin^2(a/2) rather than 1 - cos a, which cancels at small angles
    second = torch.where(tiny, 0.5 - squared / 24 + squared**2 / 720, 2 * ((angle / 2).sin() / angle) ** 2)[..., None, None]
    x, y, z = axis_angle.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    return torch.eye(3, dtype=cross.dtype, device=cross.device) + first * cross + second * (cross @ cross)


@in_float32
def pose_from_axis_angle(axis_angle: Tensor, translation: Tensor, *, invert: bool = False) -> Tensor:
    """Build poses from the output of a pose network: rotate, then translate, ``x_a = R x_b + t``.

    Args:
        axis_angle: rotation [rad], ``(..., 3)``.
        translation: t [m], ``(..., 3)``.
        invert: return the opposite motion, ``x_b = R^T (x_a - t)``: Monodepth2 feeds its pose network frames in temporal
            order and inverts the prediction for the previous frame.

    Returns:
        ``(..., 4, 4)``.
    """
    if translation.shape != axis_angle.shape:
        raise ShapeError(
            f"expected axis_angle and translation of one shape (..., 3); got {tuple(axis_angle.shape)} "
            f"and {tuple(translation.shape)}."
        )
    pose = _assemble(axis_angle_to_matrix(axis_angle), translation)
    return invert_pose(pose) if invert else pose


@in_float32
def invert_pose(pose: Tensor) -> Tensor:
    """Invert poses: ``b_from_a`` of ``a_from_b``, ``(..., 4, 4)``; exact if the rotation is orthonormal."""
    _check_poses(pose)
    rotation = pose[..., :3, :3].mT
    return _assemble(rotation, -(rotation @ pose[..., :3, 3:])[..., 0])


@in_float32
def chain_poses(current_from_next: Tensor) -> Tensor:
    """Chain motions into poses in the first frame: ``first_from_k = 0_from_1 @ 1_from_2 @ .. @ (k - 1)_from_k``.

    With the first camera as the world this is the camera's path, camera to world. A pose network fed ``(frame, next frame)``
    predicts ``next_from_current``: invert that first, for the motions do not commute.

    Args:
        current_from_next: motions between successive frames, ``(..., N, 4, 4)``.

    Returns:
        ``first_from_current`` of the N + 1 frames, the first the identity, ``(..., N + 1, 4, 4)``.

    Example:
        >>> next_from_current = torch.eye(4).repeat(3, 1, 1)
        >>> next_from_current[:, 2, 3] = -1.0  # points come nearer as the camera drives forward
        >>> chain_poses(invert_pose(next_from_current))[:, 2, 3]
        tensor([0., 1., 2., 3.])
    """
    _check_poses(current_from_next)
    if current_from_next.ndim < 3:
        raise ShapeError(f"expected motions of shape (..., N, 4, 4); got {tuple(current_from_next.shape)}.")
    identity = torch.eye(4, dtype=current_from_next.dtype, device=current_from_next.device)
    chained = [identity.expand(*current_from_next.shape[:-3], 4, 4)]
    for motion in current_from_next.unbind(-3):
        chained.append(chained[-1] @ motion)
    return torch.stack(chained, -3)


@in_float32
def flip_pose(pose: Matrices) -> Matrices:
    """Mirror a pose, ``(..., 4, 4)``, tensor or array, with its two images, whose x axes then point the other way."""
    _check_poses(pose)
    return pose * _like([[1, -1, -1, -1], [-1, 1, 1, 1], [-1, 1, 1, 1], [-1, 1, 1, 1]], pose)


def _assemble(rotation: Tensor, translation: Tensor) -> Tensor:
    top = torch.cat([rotation, translation[..., None]], -1)
    bottom = pad(torch.zeros_like(top[..., :1, :3]), (0, 1), value=1.0)
    return torch.cat([top, bottom], -2)


def _check_poses(pose: Tensor | np.ndarray) -> None:
    if pose.ndim < 2 or tuple(pose.shape[-2:]) != (4, 4):
        raise ShapeError(f"expected poses of shape (..., 4, 4); got {tuple(pose.shape)}.")
