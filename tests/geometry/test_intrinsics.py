import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate
from torch.testing import assert_close

from depthkit.errors import GeometryError, ShapeError
from depthkit.geometry import crop_intrinsics, flip_intrinsics, intrinsics_from_field_of_view, scale_intrinsics, unproject

K = torch.tensor([[[40.0, 0.5, 15.2], [0, 44.0, 10.9], [0, 0, 1]], [[30.0, 0, 16.0], [0, 30.0, 12.0], [0, 0, 1]]])


def plane_depth(intrinsics: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Depth of the plane 0.2 x + 0.1 y + z = 5 seen by each camera."""
    rays = unproject(torch.ones(len(intrinsics), 1, height, width), intrinsics)
    return 5 / torch.einsum("i,bihw->bhw", torch.tensor([0.2, 0.1, 1.0]), rays)[:, None]


def test_resize_keeps_unprojected_points():
    """Averaging 2 x 2 pixels of points gives the points of the half-size image of the same plane."""
    full = torch.ones(2, 1, 24, 32) * 3
    half = torch.ones(2, 1, 12, 16) * 3
    averaged = interpolate(unproject(full, K), scale_factor=0.5, mode="area")
    assert_close(unproject(half, scale_intrinsics(K, 0.5, 0.5)), averaged)


def test_crop_keeps_unprojected_points():
    depth = plane_depth(K, 24, 32)
    assert_close(unproject(depth[..., 3:, 5:], crop_intrinsics(K, 5, 3)), unproject(depth, K)[..., 3:, 5:])


def test_flip_mirrors_unprojected_points():
    depth = plane_depth(K, 24, 32)
    mirrored = unproject(depth.flip(-1), flip_intrinsics(K, 32)).flip(-1)
    assert_close(mirrored * torch.tensor([-1.0, 1, 1])[:, None, None], unproject(depth, K))


def test_flip_twice_is_the_identity():
    assert_close(flip_intrinsics(flip_intrinsics(K, 32), 32), K)


def test_resize_and_back_is_the_identity():
    assert_close(scale_intrinsics(scale_intrinsics(K, 2.5, 0.7), 0.4, 1 / 0.7), K)


def test_padding_undoes_a_crop():
    assert_close(crop_intrinsics(crop_intrinsics(K, 7, 2), -7, -2), K)


@pytest.mark.parametrize(
    "change", [lambda k: scale_intrinsics(k, 0.3, 1.7), lambda k: crop_intrinsics(k, 4, 9), lambda k: flip_intrinsics(k, 32)]
)
def test_arrays_and_tensors_single_and_batched_agree(change):
    batched = change(K.double())
    array = change(K.double().numpy())
    assert isinstance(array, np.ndarray)
    assert_close(torch.from_numpy(array), batched)
    assert_close(change(K[0].double()), batched[0])
    assert change(K.bfloat16()).dtype == torch.float32


def test_integer_arrays_are_not_truncated():
    assert scale_intrinsics(np.array([[10, 0, 5], [0, 10, 5], [0, 0, 1]]), 0.5, 0.5)[0, 2] == 2.25


def test_another_shape_is_an_error_that_shows_the_right_one():
    with pytest.raises(ShapeError, match=r"\(\.\.\., 3, 3\); got \(4,\)"):
        flip_intrinsics(torch.ones(4), 32)


@pytest.mark.parametrize("degrees", [20.0, 60.0, 120.0])
def test_a_field_of_view_is_the_angle_between_the_borders(degrees):
    camera = intrinsics_from_field_of_view((48, 64), degrees)
    left, right = (np.linalg.solve(camera, [column, 23.5, 1]) for column in (-0.5, 63.5))  # borders of the outer pixels
    assert np.degrees(np.arccos(left @ right / np.linalg.norm(left) / np.linalg.norm(right))) == pytest.approx(degrees)
    assert_close(intrinsics_from_field_of_view((96, 128), degrees), scale_intrinsics(camera, 2, 2))
    assert_close(flip_intrinsics(camera, 64), camera)


@pytest.mark.parametrize("degrees", [0.0, -60.0, 180.0, float("nan")])
def test_an_impossible_field_of_view_is_refused(degrees):
    with pytest.raises(GeometryError, match="expected a field of view between 0 and 180 degrees"):
        intrinsics_from_field_of_view((48, 64), degrees)
