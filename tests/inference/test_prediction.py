import numpy as np
import pytest
import torch
from PIL import Image

from depthkit.errors import GeometryError, LabelError, PredictionError, ShapeError
from depthkit.inference import Prediction, load_prediction
from depthkit.representation import convert
from depthkit.types import AMBIGUITIES, REPRESENTATIONS, Ambiguity, Representation

CAMERA = np.array([[20.0, 0, 7.5], [0, 20.0, 5.5], [0, 0, 1]])


def prediction(representation=Representation.DISPARITY, ambiguity=Ambiguity.SHIFT_SCALE, **changes):
    rng = np.random.default_rng(0)
    values = {
        "map": rng.uniform(0.2, 7, (12, 16)).astype(np.float32),
        "image": rng.integers(0, 256, (12, 16, 3), dtype=np.uint8),
    } | changes
    return Prediction(representation=representation, ambiguity=ambiguity, **values)


@pytest.mark.parametrize("values", [np.linspace(-800, 3000, 192), np.linspace(1e-6, 1e-5, 192), np.full(192, 2.5)])
def test_a_png_holds_the_map_within_half_a_step(values, tmp_path):
    saved = prediction(map=values.reshape(12, 16).astype(np.float32))
    loaded = load_prediction(saved.save(tmp_path / "new" / "map.png"))
    step = (values.max() - values.min()) / 65535
    assert np.abs(loaded.map.astype(float) - saved.map).max() <= step * 0.501 + np.spacing(np.float32(np.abs(values).max()))
    assert loaded.map.dtype == np.float32
    assert Image.open(tmp_path / "new" / "map.png").mode == "I;16"


@pytest.mark.parametrize("suffix", [".png", ".npy"])
def test_files_say_what_their_numbers_are(suffix, tmp_path):
    for representation in REPRESENTATIONS:
        for ambiguity in AMBIGUITIES[:3]:
            saved = prediction(representation, ambiguity, name="there/a.jpg")
            loaded = load_prediction(saved.save(tmp_path / f"map{suffix}"))
            assert (loaded.representation, loaded.ambiguity, loaded.name) == (representation, ambiguity, "there/a.jpg")


def test_an_npy_holds_the_map_exactly(tmp_path):
    saved = prediction()
    assert np.array_equal(load_prediction(saved.save(tmp_path / "map.npy")).map, saved.map)


def test_a_saved_map_saves_to_the_same_bytes_again(tmp_path):
    first = prediction().save(tmp_path / "a.png")
    second = load_prediction(first).save(tmp_path / "b.png")
    assert np.array_equal(np.asarray(Image.open(first)), np.asarray(Image.open(second)))


@pytest.mark.parametrize("name", ["absent.png", "picture.png", "bare.npy", "text.png"])
def test_a_file_that_is_no_saved_map_is_refused(name, tmp_path):
    prediction().save_colour(tmp_path / "picture.png")
    np.save(tmp_path / "bare.npy", np.zeros((2, 2)))
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(ShapeError, match=f"expected a map written by Prediction.save at .*{name}"):
        load_prediction(tmp_path / name)


def test_what_cannot_be_saved_is_refused(tmp_path):
    with pytest.raises(PredictionError, match="expected a finite map"):
        prediction(map=np.full((2, 2), np.nan, np.float32)).save(tmp_path / "a.png")
    with pytest.raises(ShapeError, match=r"expected a suffix of \.png"):
        prediction().save(tmp_path / "a.xyz")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("representation", REPRESENTATIONS)
def test_depth_of_a_metric_map_is_its_conversion(representation):
    depth = 1 + 8 * torch.rand(12, 16)
    metric = prediction(representation, Ambiguity.METRIC, map=convert(depth, Representation.DEPTH, representation).numpy())
    np.testing.assert_allclose(metric.depth(), depth.numpy(), rtol=1e-5)


def test_an_affine_map_has_no_points_without_a_shift_and_the_true_ones_with_it():
    depth = 1 + 8 * torch.rand(12, 16)
    affine = prediction(map=((1 / depth - 0.3) / 2.0).numpy(), intrinsics=CAMERA)
    with pytest.raises(LabelError, match="known up to scale and shift has no depth: a wrong shift turns walls and floors"):
        affine.to_point_cloud()
    points, colours = affine.to_point_cloud(scale=2.0, shift=0.3)
    truth, _ = prediction(Representation.DEPTH, Ambiguity.METRIC, map=depth.numpy()).to_point_cloud(CAMERA)
    np.testing.assert_allclose(points, truth, rtol=1e-4)
    assert np.array_equal(colours, affine.image.reshape(-1, 3))


def test_points_project_onto_their_pixels():
    points, _ = prediction(Representation.DEPTH, Ambiguity.SCALE).to_point_cloud(torch.from_numpy(CAMERA))
    pixels = points / points[:, 2:] @ CAMERA.T
    columns, rows = np.meshgrid(np.arange(16), np.arange(12))
    np.testing.assert_allclose(pixels[:, :2], np.stack([columns.ravel(), rows.ravel()], 1), atol=1e-4)


def test_pixels_beyond_infinity_have_no_point():
    below = prediction(map=np.array([[1.0, -2.0], [0.0, 3.0]], np.float32), image=np.zeros((2, 2, 3), np.uint8))
    points, colours = below.to_point_cloud(np.array([[2.0, 0, 0.5], [0, 2.0, 0.5], [0, 0, 1]]), shift=0.0)
    assert len(points) == len(colours) == 2


def test_points_need_a_camera():
    with pytest.raises(GeometryError, match="expected intrinsics for a point cloud"):
        prediction(ambiguity=Ambiguity.METRIC).to_point_cloud()


def test_kittis_codes_say_nothing_only_where_there_is_no_depth(tmp_path):
    """KITTI's server reads 0 as a missing pixel: what is too near or too far for its codes becomes the nearest of them."""
    depth = np.array([[0.001, 1.0, 255.0, 400.0]], np.float32)
    Prediction(depth, Representation.DEPTH, Ambiguity.METRIC).save_kitti(tmp_path / "a.png")
    assert np.asarray(Image.open(tmp_path / "a.png")).tolist() == [[1, 256, 65280, 65535]]
    disparity = np.array([[0.0, 0.1]], np.float32)
    Prediction(disparity, Representation.DISPARITY, Ambiguity.METRIC).save_kitti(tmp_path / "b.png")
    assert np.asarray(Image.open(tmp_path / "b.png")).tolist() == [[0, 2560]]
    with pytest.raises(LabelError, match="expected a metric prediction for the unit 256"):
        Prediction(depth, Representation.DEPTH, Ambiguity.SCALE).save_kitti(tmp_path / "c.png")


@pytest.mark.parametrize(
    "camera",
    [
        np.zeros((3, 3)),
        [[0.8, 0, 0.5], [0, 0.8, 0.5], [0, 0, 1]],  # in units of the image
        [[20, 0, 70.5], [0, 20, 5.5], [0, 0, 1]],  # of a larger image
        [[-20, 0, 7.5], [0, 20, 5.5], [0, 0, 1]],
        [[np.nan, 0, 7.5], [0, 20, 5.5], [0, 0, 1]],
        [20, 20, 7.5, 5.5],
    ],
)
def test_intrinsics_that_no_camera_of_the_image_has_are_refused(camera):
    depth = prediction(Representation.DEPTH, Ambiguity.METRIC)
    with pytest.raises(GeometryError, match=r"expected intrinsics .px. of an image of 12x16, with its centre inside"):
        depth.to_point_cloud(np.asarray(camera))
    assert len(depth.to_point_cloud(CAMERA)[0]) == 12 * 16


@pytest.mark.parametrize("suffix", [".png", ".npy"])
def test_the_camera_is_saved_with_the_map(suffix, tmp_path):
    camera = CAMERA + np.diag([0.123456789, 0.2, 0])
    found = load_prediction(prediction(intrinsics=camera).save(tmp_path / f"a{suffix}"))
    assert np.array_equal(found.intrinsics, camera)
    assert load_prediction(prediction().save(tmp_path / f"b{suffix}")).intrinsics is None
