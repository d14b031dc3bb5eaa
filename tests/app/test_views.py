"""What the page shows of a prediction, without a browser: values under the pointer, colours, points, files."""

import base64
import re
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from depthkit.app.server import read_source
from depthkit.app.views import NO_VALUE, Look, cloud, coded, colour_scale, downloads, scaled, view, write_shown_cloud
from depthkit.errors import DepthKitError, RecipeError
from depthkit.geometry import intrinsics_from_field_of_view
from depthkit.inference import Prediction, load_prediction
from depthkit.representation import convert
from depthkit.types import Ambiguity, Representation

torch = pytest.importorskip("torch")
DEPTH = np.linspace(1, 8, 24 * 32, dtype=np.float32).reshape(24, 32)


def prediction(representation=Representation.DEPTH, ambiguity=Ambiguity.METRIC, depth=DEPTH):
    values = convert(torch.from_numpy(depth), Representation.DEPTH, representation).numpy()
    image = np.random.default_rng(0).integers(0, 256, (*depth.shape, 3), dtype=np.uint8)
    return Prediction(values, representation, ambiguity, image, name="photo.jpg")


def read(page: str) -> tuple[np.ndarray, str]:
    """Values and unit as the page's script reads them."""
    low, step, unit = re.search(r'data-low="([^"]+)" data-step="([^"]+)" data-unit="([^"]*)"', page).groups()
    codes = re.search(r'class="dk-codes"[^>]*src="data:image/png;base64,([^"]+)"', page).group(1)
    picture = np.asarray(Image.open(BytesIO(base64.b64decode(codes))), np.float64)
    code = 256 * picture[..., 0] + picture[..., 1]
    return np.where(code == NO_VALUE, np.nan, float(low) + float(step) * code), unit


@pytest.mark.parametrize("representation", Representation)
def test_the_pointer_reads_metres_whatever_the_network_predicts(representation):
    values, unit = read(view(prediction(representation), Look(scale=2.0)))
    assert unit == "m"
    np.testing.assert_allclose(values, 2 * DEPTH, rtol=1e-4, atol=2 * 7 / 65534)


def test_a_map_up_to_scale_and_shift_is_read_as_it_is():
    found = prediction(Representation.DISPARITY, Ambiguity.SHIFT_SCALE)
    values, unit = read(view(found, Look(scale=3.0)))
    assert unit == "disparity, up to scale and shift"
    np.testing.assert_allclose(values, found.map, atol=1e-4)


def test_codes_are_exact_to_half_a_step_and_keep_what_has_no_value():
    values = np.random.default_rng(0).uniform(-5, 90, (7, 9))
    values[2, 3] = np.inf
    picture, low, step = coded(values)
    codes = 256.0 * picture[..., 0] + picture[..., 1]
    assert codes[2, 3] == NO_VALUE
    assert (codes == NO_VALUE).sum() == 1
    finite = np.isfinite(values)
    assert np.abs(low + step * codes - values)[finite].max() <= 0.5001 * step
    assert coded(np.full((2, 2), 3.0))[1:] == (3.0, 0.0)


def test_the_bar_ends_at_the_chosen_percentiles():
    scale = colour_scale(prediction(), Look(low=10, high=90))
    assert (scale.low, scale.high) == pytest.approx(np.percentile(DEPTH, (10, 90)).tolist())
    page = view(prediction(), Look(low=10, high=90))
    assert f'data-low="{scale.low}" data-high="{scale.high}" data-unit="m"' in page
    with pytest.raises(RecipeError, match="expected the range to begin before it ends; got 60 to 40 %"):
        Look(low=60, high=40)


@pytest.mark.parametrize("representation", [Representation.DEPTH, Representation.DISPARITY, Representation.LOG_DEPTH])
def test_points_are_within_the_range_and_scaled(representation):
    look = Look(low=20, high=80, scale=2.0, max_edge=1)
    points, colours = cloud(prediction(representation), look)
    low, high = np.percentile(2 * DEPTH, (20, 80))
    assert (points[:, 2].min(), points[:, 2].max()) == pytest.approx((low, high), rel=0.02)
    assert colours.shape == points.shape
    camera = intrinsics_from_field_of_view((24, 32), look.field_of_view)
    assert np.abs(points[:, 0] / points[:, 2]).max() <= 16.01 / camera[0, 0]


@pytest.mark.parametrize("representation", Representation)
def test_an_open_shift_is_closed_by_the_assumed_ratio(representation):
    points, _ = cloud(prediction(representation, Ambiguity.SHIFT_SCALE), Look(0, 100, scale=3.0, ratio=5.0, max_edge=1))
    near, far = np.percentile(points[:, 2], (2, 98))
    assert near == pytest.approx(3.0, rel=0.03)
    assert far == pytest.approx(15.0, rel=0.05)


def test_files_hold_what_the_page_shows(tmp_path):
    look = Look(scale=2.0, max_edge=1)
    files = downloads(prediction(Representation.DISPARITY), look, tmp_path)
    assert {name: file.name for name, file in files.items()} == {
        "16-bit PNG": "photo.png", "EXR": "photo.exr", "picture": "photo.colour.png", "PLY": "photo.ply", "GLB": "photo.glb",
    }  # fmt: skip
    np.testing.assert_allclose(load_prediction(files["16-bit PNG"]).depth(), 2 * DEPTH, rtol=1e-3)
    shown = colour_scale(prediction(Representation.DISPARITY), look).colour(2 * DEPTH)
    assert np.abs(np.asarray(Image.open(files["picture"])).astype(int) - shown).max() <= 8
    assert write_shown_cloud(prediction(), look, tmp_path).stat().st_size > 1000


def test_a_constant_map_and_a_map_without_depth_have_a_page(tmp_path):
    flat = prediction(depth=np.full((8, 8), 2.0, np.float32))
    assert read(view(flat, Look()))[0] == pytest.approx(2.0)
    assert set(downloads(flat, Look(max_edge=1), tmp_path)) == {"16-bit PNG", "picture", "EXR", "PLY", "GLB"}
    assert scaled(flat, 1.0) is flat


def test_a_file_that_is_no_image_is_one_sentence(tmp_path):
    for name in ("notes.txt", "photo.jpg", "film.mp4"):
        (tmp_path / name).write_text("no image")
        with pytest.raises(DepthKitError, match=name):
            read_source(tmp_path / name)
