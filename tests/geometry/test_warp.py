import pytest
import torch
from torch.testing import assert_close

from depthkit.errors import ShapeError
from depthkit.geometry import (
    crop_intrinsics,
    flip_intrinsics,
    flip_pose,
    inside_image,
    pose_from_axis_angle,
    reproject,
    sample_pixels,
    warp,
)

K = torch.tensor([[[20.0, 0, 15.5], [0, 20.0, 11.5], [0, 0, 1]]])
SIZE = (24, 32)
STILL = torch.eye(4)[None]


def translate(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> torch.Tensor:
    return pose_from_axis_angle(torch.zeros(1, 3), torch.tensor([[x, y, z]]))


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(1, 3, *SIZE)


@pytest.fixture
def depth() -> torch.Tensor:
    return torch.rand(1, 1, *SIZE) * 3 + 2


@pytest.mark.parametrize("padding", ["border", "zeros"])
def test_without_motion_the_source_is_the_target_whatever_the_depth(image, depth, padding):
    depth[..., 3, :] = torch.inf
    assert_close(warp(image, depth, K, STILL, padding=padding), image, atol=2e-5, rtol=0)


def test_translation_past_a_frontal_plane_shifts_the_image_by_f_t_over_z(image):
    plane = torch.full((1, 1, *SIZE), 4.0)
    assert_close(warp(image, plane, K, translate(x=0.6))[..., :-3], image[..., 3:], atol=1e-4, rtol=0)
    assert_close(warp(image, plane, K, translate(y=-0.4))[..., 2:, :], image[..., :-2, :], atol=1e-4, rtol=0)


def test_outside_the_source_lies_its_border_or_zero(image):
    plane = torch.full((1, 1, *SIZE), 4.0)
    border = warp(image, plane, K, translate(x=0.6))[..., -3:]
    assert_close(border, image[..., -1:].expand_as(border), atol=1e-4, rtol=0)
    assert (warp(image, plane, K, translate(x=2.0), padding="zeros")[..., -9:] == 0).all()


def test_moving_towards_a_plane_magnifies_about_the_principal_point():
    plane = torch.full((1, 1, *SIZE), 4.0)
    pixels = reproject(plane, K, translate(z=-2.0))
    centre = K[0, :2, 2, None, None]
    still = reproject(plane, K, STILL)
    assert_close(pixels[0] - centre, 2 * (still[0] - centre), atol=1e-4, rtol=0)


def test_sky_moves_by_the_rotation_alone(image):
    sky = torch.full((1, 1, *SIZE), torch.inf)
    turn = torch.tensor([[0.0, 0.1, 0.02]])
    far = pose_from_axis_angle(turn, torch.tensor([[5.0, 1.0, 3.0]]))
    assert_close(reproject(sky, K, far), reproject(sky, K, pose_from_axis_angle(turn, torch.zeros(1, 3))))


def test_points_behind_the_source_camera_are_not_inside_its_image(depth):
    pixels = reproject(depth, K, translate(z=-3.0))
    assert_close(inside_image(pixels, SIZE) & (depth <= 3), torch.zeros_like(depth, dtype=torch.bool))


@pytest.mark.parametrize("poison", [float("nan"), -torch.inf, -1.0, 0.0])
def test_invalid_depth_leaves_the_image_and_spoils_no_gradient(image, depth, poison):
    hole = torch.zeros_like(depth, dtype=torch.bool)
    hole[..., 5:9, 5:9] = True
    depth = depth.where(~hole, poison).requires_grad_()
    pose = translate(x=0.3).requires_grad_()
    assert not inside_image(reproject(depth, K, pose), SIZE)[hole].any()
    gradients = torch.autograd.grad(warp(image, depth, K, pose).square().sum(), (depth, pose))
    assert all(g.isfinite().all() for g in gradients)
    assert (gradients[0][hole] == 0).all()


def test_warping_mirrored_views_mirrors_the_warp(image, depth):
    pose = pose_from_axis_angle(torch.tensor([[0.02, -0.05, 0.1]]), torch.tensor([[0.2, -0.1, 0.15]]))
    intrinsics = crop_intrinsics(K, 2.3, -1)
    mirrored = warp(image.flip(-1), depth.flip(-1), flip_intrinsics(intrinsics, 32), flip_pose(pose))
    assert_close(mirrored.flip(-1), warp(image, depth, intrinsics, pose), atol=1e-4, rtol=0)


def test_source_camera_may_differ(image, depth):
    """A source cropped by (5, 3) holds the same pixels five columns and three rows earlier."""
    cropped = warp(image[..., 3:, 5:], depth, K, STILL, source_intrinsics=crop_intrinsics(K, 5, 3))
    assert_close(cropped[..., 3:, 5:], image[..., 3:, 5:], atol=2e-5, rtol=0)


def test_gradients_of_depth_and_pose_are_those_of_finite_differences():
    columns = torch.linspace(0, 3, 6, dtype=torch.float64)
    image = (columns.sin()[:, None] * columns.cos())[None, None]
    k = K.double()
    k[:, :2, 2] = 2.3
    depth = (torch.rand(1, 1, 6, 6, dtype=torch.float64) + 3).requires_grad_()
    r, t = (torch.full((1, 3), v, dtype=torch.float64, requires_grad=True) for v in (0.011, 0.023))
    assert torch.autograd.gradcheck(lambda d, r, t: warp(image, d, k, pose_from_axis_angle(r, t)), (depth, r, t))


def test_half_precision_views_are_warped_in_float32(image, depth):
    pose = translate(x=0.3, z=0.1)
    low = warp(image.bfloat16(), depth.bfloat16(), K, pose.bfloat16())
    assert low.dtype == torch.float32
    same_values = (x.bfloat16().float() for x in (image, depth, pose))
    image, depth, pose = same_values
    assert_close(low, warp(image, depth, K, pose))


def test_autocast_does_not_reach_the_pixel_grid(image, depth):
    expected = warp(image, depth, K, translate(x=0.3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(warp(image, depth, K, translate(x=0.3)), expected)


def test_wrong_shapes_are_named(image, depth):
    with pytest.raises(ShapeError, match=r"source_from_target of shape \(1, 4, 4\)"):
        warp(image, depth, K, torch.eye(4))
    with pytest.raises(ShapeError, match=r"pixels \(B, 2, h, w\)"):
        sample_pixels(image, depth)
