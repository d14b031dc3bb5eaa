import pytest
import torch
from torch.nn.functional import normalize
from torch.testing import assert_close

from depthkit.geometry import depth_to_normals, unproject

K = torch.tensor([[[40.0, 0.5, 15.2], [0, 44.0, 10.9], [0, 0, 1]]])
RAYS = unproject(torch.ones(1, 1, 24, 32), K)


def plane(normal: tuple[float, float, float], distance: float) -> torch.Tensor:
    return distance / torch.einsum("i,bihw->bhw", torch.tensor(normal), RAYS)[:, None]


@pytest.mark.parametrize("normal", [(0.0, 0.0, 1.0), (0.3, -0.5, 0.8), (0.0, 1.0, 1.2), (-1.0, 0.2, 1.1)])
def test_normals_of_a_plane_are_exact_to_the_last_row_and_column(normal):
    found = depth_to_normals(plane(normal, 4.0), K)
    expected = -normalize(torch.tensor(normal), dim=0)[None, :, None, None].expand(1, 3, 24, 32)
    assert_close(found, expected, atol=1e-4, rtol=0)


def test_normals_of_a_sphere_point_from_its_centre():
    centre, radius = torch.tensor([0.1, -0.2, 6.0]), 4.0
    b = torch.einsum("i,bihw->bhw", centre, RAYS)
    squared = RAYS.square().sum(1)
    inside = b**2 - squared * (centre @ centre - radius**2)
    depth = ((b - inside.clamp_min(0).sqrt()) / squared)[:, None]
    expected = (depth * RAYS - centre[:, None, None]) / radius
    smooth = (inside > 4)[:, None]
    error = (depth_to_normals(depth, K, smooth) - expected).norm(dim=1)
    assert error[smooth[:, 0]].quantile(0.9) < 1e-2


def test_normals_face_the_camera_and_have_unit_length():
    normals = depth_to_normals(torch.rand(1, 1, 24, 32) + 2, K)
    assert_close(normals.norm(dim=1), torch.ones(1, 24, 32))
    assert ((normals * RAYS).sum(1) < 0).all()


@pytest.mark.parametrize("poison", [float("nan"), torch.inf, -1.0, 0.0])
def test_invalid_pixels_have_no_normal_and_spoil_no_other(poison):
    valid = torch.rand(1, 1, 24, 32) > 0.3
    depth = plane((0.3, -0.5, 0.8), 4.0)
    poisoned = depth.where(valid, poison).requires_grad_()
    normals = depth_to_normals(poisoned, K, valid)
    assert (normals.where(~valid, 0) == 0).all()
    defined = normals.abs().sum(1, keepdim=True) > 0
    assert defined.any()
    assert_close(normals.where(defined, 0), depth_to_normals(depth, K).where(defined, 0), atol=1e-4, rtol=0)
    assert_close(depth_to_normals(poisoned, K), normals)
    (gradient,) = torch.autograd.grad(normals[:, 0].sum(), poisoned)
    assert gradient.isfinite().all()
    assert (gradient[~valid] == 0).all()


def test_gradient_is_that_of_finite_differences():
    depth = (torch.rand(1, 1, 4, 5, dtype=torch.float64) + 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda d: depth_to_normals(d, K.double()), depth)


def test_half_precision_depth_is_upcast():
    depth = plane((0.0, 1.0, 1.2), 4.0).bfloat16()
    assert_close(depth_to_normals(depth, K), depth_to_normals(depth.float(), K))
