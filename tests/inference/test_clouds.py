"""Point clouds come back from their files as they went in, and look as the image does."""

import sys

import numpy as np
import pytest
import torch
import trimesh

from depthkit.errors import DepthKitError, GeometryError, LabelError, PredictionError, ShapeError
from depthkit.geometry import intrinsics_from_field_of_view
from depthkit.inference import Prediction, write_point_cloud
from depthkit.types import Ambiguity, Representation

SIZE = (12, 16)
CAMERA = intrinsics_from_field_of_view(SIZE, 60.0)


def cloud(count=50):
    rng = np.random.default_rng(0)
    return rng.normal(size=(count, 3)).astype(np.float32), rng.integers(0, 256, (count, 3), dtype=np.uint8)


def read(path):
    """Points and RGB of the only object in a file."""
    loaded = trimesh.load(path)
    found = next(iter(loaded.geometry.values())) if isinstance(loaded, trimesh.Scene) else loaded
    return np.asarray(found.vertices), np.asarray(found.colors)[..., :3]


def prediction(depth, **changes):
    image = np.random.default_rng(1).integers(0, 256, (*depth.shape, 3), dtype=np.uint8)
    facts = {"representation": Representation.DEPTH, "ambiguity": Ambiguity.SCALE, "image": image, "intrinsics": CAMERA}
    return Prediction(depth.astype(np.float32), **(facts | changes))


@pytest.mark.parametrize(("suffix", "axes"), [(".ply", (1, 1, 1)), (".PLY", (1, 1, 1)), (".glb", (1, -1, -1))])
def test_points_and_colours_return_from_the_file(suffix, axes, tmp_path):
    points, colours = cloud()
    found, seen = read(write_point_cloud(tmp_path / "new" / f"cloud{suffix}", points, colours))
    np.testing.assert_array_equal(found.astype(np.float32), points * np.float32(axes))
    np.testing.assert_array_equal(seen, colours)


@pytest.mark.parametrize("suffix", [".ply", ".glb"])
def test_points_without_colours_return_from_the_file(suffix, tmp_path):
    points, _ = cloud()
    found, _ = read(write_point_cloud(tmp_path / f"cloud{suffix}", points))
    np.testing.assert_array_equal(abs(found).astype(np.float32), abs(points))


def test_a_glb_stands_upright_before_the_viewer(tmp_path):
    saved = prediction(np.full(SIZE, 3.0))
    found, colours = read(saved.save_point_cloud(tmp_path / "a.glb"))
    top_left, bottom_right = found[0], found[-1]
    np.testing.assert_array_equal(colours[0], saved.image[0, 0])
    assert (top_left[0] < 0 < bottom_right[0], top_left[1] > 0 > bottom_right[1]) == (True, True)
    np.testing.assert_allclose(found[:, 2], -3)


def test_a_saved_prediction_projects_onto_its_pixels(tmp_path):
    saved = prediction(np.random.default_rng(0).uniform(1, 9, SIZE))
    points, colours = read(saved.save_point_cloud(tmp_path / "a.ply"))
    pixels = points / points[:, 2:] @ CAMERA.T
    columns, rows = np.meshgrid(np.arange(16), np.arange(12))
    np.testing.assert_allclose(pixels[:, :2], np.stack([columns.ravel(), rows.ravel()], 1), atol=1e-4)
    np.testing.assert_array_equal(colours, saved.image.reshape(-1, 3))


def test_pixels_across_an_edge_are_dropped_on_request_only():
    depth = np.full(SIZE, 2.0)
    depth[:, 8:] = 5.0
    depth[:, 8] = 3.0  # blurred: of neither surface
    every, _ = prediction(depth).to_point_cloud()
    kept, colours = prediction(depth).to_point_cloud(max_edge=1.2)
    assert len(every) == 12 * 16
    assert len(kept) == len(colours) == 12 * 13  # without the columns 7, 8 and 9
    assert set(kept[:, 2].tolist()) == {2.0, 5.0}
    assert len(prediction(depth).to_point_cloud(max_edge=3.0)[0]) == 12 * 16
    with pytest.raises(GeometryError, match="expected max_edge above 1"):
        prediction(depth).to_point_cloud(max_edge=0.1)


def test_no_edge_lies_beside_a_pixel_without_depth():
    depth = np.full(SIZE, 2.0)
    depth[3, 4] = -1.0
    assert len(prediction(depth).to_point_cloud(max_edge=1.1)[0]) == 12 * 16 - 1


def test_scale_and_shift_reach_the_file(tmp_path):
    disparity = np.random.default_rng(0).uniform(0.2, 1, SIZE)
    affine = prediction(disparity, representation=Representation.DISPARITY, ambiguity=Ambiguity.SHIFT_SCALE)
    with pytest.raises(LabelError, match="has no depth"):
        affine.save_point_cloud(tmp_path / "a.ply")
    points, _ = read(affine.save_point_cloud(tmp_path / "a.ply", scale=2.0, shift=0.1))
    np.testing.assert_allclose(points[:, 2], 1 / (2 * disparity + 0.1).ravel(), rtol=1e-5)


def test_a_camera_in_a_tensor_will_do(tmp_path):
    saved = prediction(np.full(SIZE, 2.0), intrinsics=None)
    points, _ = read(saved.save_point_cloud(tmp_path / "a.ply", torch.from_numpy(CAMERA)))
    assert len(points) == 12 * 16
    with pytest.raises(GeometryError, match="expected intrinsics for a point cloud"):
        saved.save_point_cloud(tmp_path / "b.ply")


def test_what_is_no_cloud_is_refused(tmp_path):
    points, colours = cloud()
    with pytest.raises(ShapeError, match=r"expected a suffix of \.ply or \.glb"):
        write_point_cloud(tmp_path / "a.obj", points)
    with pytest.raises(ShapeError, match=r"expected points and colours of one shape \(N, 3\)"):
        write_point_cloud(tmp_path / "a.ply", points, colours[:-1])
    with pytest.raises(PredictionError, match="got NaN or infinity"):
        write_point_cloud(tmp_path / "a.ply", points * np.inf)
    with pytest.raises(PredictionError, match=r"expected points with finite coordinates .* got none"):
        prediction(np.full(SIZE, -1.0)).save_point_cloud(tmp_path / "a.ply")
    assert not list(tmp_path.iterdir())


def test_a_missing_trimesh_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "trimesh", None)
    with pytest.raises(DepthKitError, match=r"expected the package trimesh; .* pip install 'depthkit\[clouds\]'"):
        write_point_cloud(tmp_path / "a.ply", *cloud())
