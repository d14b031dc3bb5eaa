import pytest
import torch
from torch.testing import assert_close

from depthkit.errors import GeometryError, ShapeError
from depthkit.geometry import depth_to_points, inside_image, project, unproject

K = torch.tensor([[[40.0, 0.5, 15.2], [0, 44.0, 10.9], [0, 0, 1]], [[30.0, 0, 16.0], [0, 30.0, 12.0], [0, 0, 1]]])
SIZE = (24, 32)


def pixel_grid() -> torch.Tensor:
    row, column = torch.meshgrid(torch.arange(24.0), torch.arange(32.0), indexing="ij")
    return torch.stack([column, row]).expand(2, 2, 24, 32)


@pytest.fixture
def depth() -> torch.Tensor:
    return torch.rand(2, 1, *SIZE) * 9 + 1


def test_project_undoes_unproject(depth):
    assert_close(project(unproject(depth, K), K), pixel_grid(), atol=1e-4, rtol=0)


def test_depth_is_the_z_of_the_point_not_its_distance(depth):
    assert_close(unproject(depth, K)[:, 2:], depth)


def test_a_point_on_the_optical_axis_is_seen_at_the_principal_point():
    pixel = project(torch.tensor([0.0, 0.0, 3.0]).view(1, 3, 1, 1).expand(2, 3, 1, 1), K)
    assert_close(pixel[..., 0, 0], K[:, :2, 2])


def test_points_behind_the_camera_are_in_no_image_and_get_no_gradient(depth):
    points = unproject(depth, K)
    points[:, 2, :5] = torch.tensor([-1.0, 0.0, 1e-9, -torch.inf, torch.nan])[:, None]
    points.requires_grad_()
    pixels = project(points, K)
    assert pixels.isfinite().all()
    assert not inside_image(pixels, SIZE)[:, :, :5].any()
    (gradient,) = torch.autograd.grad(pixels.sum(), points)
    assert gradient.isfinite().all()
    assert (gradient[:, :, :5] == 0).all()


def test_inside_image_holds_exactly_between_the_outer_pixel_centres():
    pixels = torch.tensor([[0.0, 0.0], [31.0, 23.0], [-0.01, 5.0], [31.01, 5.0], [5.0, 23.01]]).T.reshape(1, 2, 1, 5)
    assert inside_image(pixels, SIZE).flatten().tolist() == [True, True, False, False, False]


def test_half_precision_depth_is_unprojected_in_float32(depth):
    coarse = depth.bfloat16()
    assert_close(unproject(coarse, K), unproject(coarse.float(), K))


def test_depth_receives_the_gradient_of_its_ray():
    depth = torch.full((1, 1, 2, 2), 2.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda d: project(unproject(d, K[:1].double()) + 0.3, K[:1].double()), depth)


def test_point_clouds_hold_only_valid_finite_points_in_the_world(depth):
    valid = torch.rand(2, 1, *SIZE) > 0.5
    depth[:, :, 0] = torch.inf
    depth[:, :, 1] = torch.where(valid[:, :, 1], -1.0, torch.nan)
    pose = torch.eye(4).repeat(2, 1, 1)
    pose[:, :3, 3] = torch.tensor([[1.0, 2, 3], [0, 0, -1]])
    clouds = depth_to_points(depth, K, valid, world_from_camera=pose)
    for cloud, row_points, taken, moved in zip(clouds, unproject(depth, K), valid, pose, strict=True):
        expected = row_points[:, 2:][:, taken[0, 2:]].T + moved[:3, 3]
        assert_close(cloud, expected)


def test_unknown_intrinsics_are_an_error_with_a_remedy(depth):
    with pytest.raises(GeometryError, match="known intrinsics; got NaN"):
        unproject(depth, K * torch.nan)


def test_wrong_shapes_are_named(depth):
    with pytest.raises(ShapeError, match=r"depth of shape \(B, 1, H, W\)"):
        unproject(depth[:, 0], K)
    with pytest.raises(ShapeError, match=r"points of shape \(B, 3, H, W\)"):
        project(depth, K)
    with pytest.raises(ShapeError, match=r"intrinsics of shape \(2, 3, 3\)"):
        unproject(depth, K[:1])
