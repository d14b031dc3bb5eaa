import numpy as np
import pytest
import torch

from depthkit.data.stream.collate import collate, to_float
from depthkit.errors import ShapeError
from depthkit.evaluation import batch_strip, colourise, picture_strip
from depthkit.representation import convert
from depthkit.types import Ambiguity, Representation, Sample


def stacked(samples, datasets, **options):
    return to_float(collate(samples, datasets, **options))


@pytest.mark.parametrize("representation", Representation)
def test_near_is_warm_whatever_the_representation(representation):
    depth = torch.linspace(1, 20, 100).view(10, 10)
    picture = colourise(convert(depth, Representation.DEPTH, representation), representation=representation).astype(int)
    warmth = picture[..., 0] - picture[..., 2]
    assert picture.shape == (10, 10, 3)
    assert warmth[0, 0] > 50
    assert warmth[-1, -1] < -50


def test_depth_and_disparity_of_one_scene_look_the_same():
    depth = 1 + torch.rand(8, 8)
    assert np.array_equal(
        colourise(depth, representation=Representation.DEPTH), colourise(1 / depth, representation=Representation.DISPARITY)
    )


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -1.0, 0.0])
def test_pixels_without_a_value_are_grey_and_change_no_other_colour(poison):
    disparity, valid = torch.rand(12, 12), torch.rand(12, 12) > 0.3
    clean = colourise(disparity, representation=Representation.DISPARITY, valid=valid)
    dirty = colourise(disparity.where(valid, poison), representation=Representation.DISPARITY, valid=valid)
    assert np.array_equal(clean, dirty)
    assert (clean[~valid.numpy()] == 128).all()


def test_a_map_without_a_valid_pixel_is_grey_and_a_constant_one_is_of_one_colour():
    assert (colourise(torch.full((3, 3), torch.nan), representation=Representation.DISPARITY) == 128).all()
    assert len(np.unique(colourise(torch.ones(3, 3), representation=Representation.DISPARITY).reshape(-1, 3), axis=0)) == 1


def test_a_batch_is_not_a_map():
    with pytest.raises(ShapeError, match=r"expected one map of shape \(H, W\) to draw; got \(2, 1, 4, 4\)"):
        colourise(torch.rand(2, 1, 4, 4), representation=Representation.DISPARITY)


def test_a_strip_puts_pictures_side_by_side_at_one_height():
    red, blue = np.full((10, 20, 3), (255, 0, 0), np.uint8), np.full((40, 40, 3), (0, 0, 255), np.uint8)
    strip = picture_strip([(red, blue), (blue,)], height=20, gap=2)
    assert strip.shape == (42, 62, 3)
    assert (strip[:20, :40] == (255, 0, 0)).all()
    assert (strip[:20, 42:] == (0, 0, 255)).all()
    assert (strip[20:22] == 255).all()
    assert (strip[22:, 20:] == 255).all()


def test_a_batch_is_drawn_as_image_prediction_label():
    label = np.linspace(1, 5, 48, dtype=np.float32).reshape(6, 8)
    sample = Sample("a", np.zeros((6, 8, 3), np.uint8), label, label > 0, Ambiguity.METRIC, Representation.DEPTH)
    batch = stacked([sample] * 3, [0] * 3)
    strip = batch_strip(batch, torch.rand(3, 1, 12, 16), Representation.LOG_DISPARITY, rows=2, height=12)
    assert strip.shape == (2 * 16 - 4, 3 * 16 + 8, 3)
    assert (strip[:12, :16] == 0).all()
