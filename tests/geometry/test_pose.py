import numpy as np
import pytest
import torch
from torch.testing import assert_close

from depthkit.errors import ShapeError
from depthkit.geometry import axis_angle_to_matrix, chain_poses, flip_pose, invert_pose, pose_from_axis_angle

ANGLES = [0.0, 1e-9, 1e-5, 1e-3, 9.9e-3, 1.01e-2, 0.3, 3.0, 7.0]


def motion(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(*shape, 3, dtype=torch.float64), torch.randn(*shape, 3, dtype=torch.float64)


@pytest.mark.parametrize("angle", ANGLES)
def test_rotations_are_the_exponential_of_the_cross_product_matrix(angle):
    """Independent implementation: torch's matrix exponential."""
    axis = torch.nn.functional.normalize(torch.randn(5, 3, dtype=torch.float64), dim=-1)
    cross = torch.linalg.cross(axis[:, None].expand(5, 3, 3), torch.eye(3, dtype=torch.float64).expand(5, 3, 3)).mT
    expected = torch.matrix_exp(angle * cross)
    assert_close(axis_angle_to_matrix(angle * axis), expected, atol=1e-12, rtol=0)
    assert_close(axis_angle_to_matrix((angle * axis).float()), expected.float(), atol=1e-5, rtol=0)


def test_rotations_are_orthonormal_and_keep_their_axis():
    r, _ = motion(4, 2)
    matrix = axis_angle_to_matrix(r)
    assert_close(matrix @ matrix.mT, torch.eye(3, dtype=r.dtype).expand(4, 2, 3, 3))
    assert_close(torch.linalg.det(matrix), torch.ones(4, 2, dtype=r.dtype))
    assert_close((matrix @ r[..., None])[..., 0], r)


@pytest.mark.parametrize("angle", ANGLES)
def test_gradient_is_finite_and_right_at_every_angle_even_zero(angle):
    r = (angle * torch.tensor([[0.6, 0.0, -0.8]], dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(axis_angle_to_matrix, r)


def test_a_pose_rotates_then_translates():
    r, t = motion(6)
    point = torch.randn(6, 3, 1, dtype=r.dtype)
    moved = pose_from_axis_angle(r, t) @ torch.cat([point, torch.ones(6, 1, 1, dtype=r.dtype)], 1)
    assert_close(moved[:, :3], axis_angle_to_matrix(r) @ point + t[..., None])


def test_the_inverse_composes_to_the_identity_on_both_sides():
    pose = pose_from_axis_angle(*motion(6))
    identity = torch.eye(4, dtype=pose.dtype).expand(6, 4, 4)
    assert_close(invert_pose(pose) @ pose, identity)
    assert_close(pose @ invert_pose(pose), identity)


def test_inverted_motion_is_the_transposed_rotation_after_the_opposite_translation():
    """Monodepth2's order for the previous frame: R^T T(-t), not T(-t) R^T."""
    r, t = motion(6)
    rotation, shift = torch.eye(4, dtype=r.dtype).repeat(2, 6, 1, 1)
    rotation[:, :3, :3] = axis_angle_to_matrix(r).mT
    shift[:, :3, 3] = -t
    assert_close(pose_from_axis_angle(r, t, invert=True), rotation @ shift)


def test_half_precision_angles_are_turned_in_float32():
    r, t = (x.bfloat16() for x in motion(6))
    assert_close(pose_from_axis_angle(r, t), pose_from_axis_angle(r.float(), t.float()))


def test_flipping_a_pose_mirrors_the_points_it_moves():
    pose = pose_from_axis_angle(*motion(6))
    mirror = torch.tensor([-1.0, 1, 1, 1], dtype=pose.dtype).diag()
    assert_close(flip_pose(pose), mirror @ pose @ mirror)
    assert_close(flip_pose(flip_pose(pose)), pose)
    np.testing.assert_array_equal(flip_pose(pose.numpy()), flip_pose(pose).numpy())


def test_wrong_shapes_are_named():
    with pytest.raises(ShapeError, match=r"axis_angle of shape \(\.\.\., 3\); got \(2, 4\)"):
        axis_angle_to_matrix(torch.ones(2, 4))
    with pytest.raises(ShapeError, match="of one shape"):
        pose_from_axis_angle(torch.ones(2, 3), torch.ones(3))
    with pytest.raises(ShapeError, match=r"poses of shape \(\.\.\., 4, 4\); got \(3, 4\)"):
        invert_pose(torch.ones(3, 4))


def test_a_chain_of_motions_is_undone_by_the_motions_between_its_poses():
    motions = pose_from_axis_angle(*motion(3, 6))
    chain = chain_poses(motions)
    assert chain.shape == (3, 7, 4, 4)
    assert_close(chain[:, 0], torch.eye(4, dtype=chain.dtype).expand(3, 4, 4))
    assert_close(invert_pose(chain[:, :-1]) @ chain[:, 1:], motions)
    assert_close(chain[:, 2], motions[:, 0] @ motions[:, 1])
    assert not torch.allclose(chain[:, 2], motions[:, 1] @ motions[:, 0])


def test_a_chain_of_one_pose_is_refused():
    with pytest.raises(ShapeError, match=r"expected motions of shape \(\.\.\., N, 4, 4\); got \(4, 4\)"):
        chain_poses(torch.eye(4))
