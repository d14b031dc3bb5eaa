import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from depthkit.errors import LabelError, PredictionError, RecipeError, ShapeError
from depthkit.resize import InputResize, OutputResize, input_rule_of, native_map, shown_part
from depthkit.types import Representation


@pytest.mark.parametrize(
    ("rule", "width", "height", "expected"),  # the cases of Ranftl et al.'s transforms, (width, height)
    [
        ("upper_bound", 640, 480, (384, 288)),
        ("upper_bound", 1242, 375, (384, 128)),
        ("lower_bound", 1242, 375, (1280, 384)),
        ("minimal", 640, 480, (512, 384)),
        ("minimal", 1242, 375, (1280, 384)),
        ("minimal", 320, 240, (384, 288)),
        ("lower_bound", 624, 464, (512, 384)),
        ("lower_bound", 1080, 1920, (384, 672)),
        ("native", 641, 479, (640, 480)),
        ("area", 1242, 375, (704, 224)),
    ],
)
def test_input_sizes_are_those_of_the_published_transforms(rule, width, height, expected):
    assert InputResize(384, rule).size(height, width)[::-1] == expected


@settings(deadline=None)
@given(
    rule=st.sampled_from(["upper_bound", "lower_bound", "minimal", "area", "native"]),
    height=st.integers(1, 3000),
    width=st.integers(1, 3000),
    multiple=st.sampled_from([1, 14, 16, 32, 64]),
)
def test_input_sizes_are_legal_and_on_the_right_side_of_the_bound(rule, height, width, multiple):
    rows, columns = InputResize(460, rule).size(height, width, multiple)
    assert rows > 0
    assert rows % multiple == columns % multiple == 0
    if rule == "upper_bound":
        assert max(rows, columns) <= 460
    if rule == "lower_bound":
        assert min(rows, columns) >= 460


def test_area_keeps_the_number_of_pixels_and_the_aspect():
    assert InputResize((192 * 256) ** 0.5, "area").size(480, 640) == (192, 256)


@pytest.mark.parametrize("antialias", [True, False])
def test_only_antialiased_images_are_clipped_to_the_unit_range(antialias):
    image = torch.zeros(1, 3, 40, 40)
    image[..., 20:] = 1  # bicubic interpolation rings at an edge
    resized = InputResize(96, antialias=antialias)(image)
    assert resized.shape == (1, 3, 96, 96)
    assert (resized.min() >= 0 and resized.max() <= 1) == antialias
    if not antialias:  # what OpenCV's INTER_CUBIC gives on floats
        cv2 = pytest.importorskip("cv2")
        cubic = cv2.resize(image[0, 0].numpy(), (96, 96), interpolation=cv2.INTER_CUBIC)
        torch.testing.assert_close(resized[0, 0], torch.from_numpy(cubic), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(30, 96), (192, 20)])
def test_lanczos_is_that_of_pillow_on_8_bits(size):
    picture = torch.randint(0, 256, (2, 61, 83, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = [np.array(Image.fromarray(x.numpy()).resize(size[::-1], Image.Resampling.LANCZOS)) for x in picture]
    rule = InputResize(size, "stretch", 1, "lanczos")
    found = rule(picture.permute(0, 3, 1, 2) / 255)
    assert torch.equal(found, torch.from_numpy(np.stack(expected)).permute(0, 3, 1, 2) / 255)


def test_an_image_whose_corners_are_aligned_keeps_ramps():
    ramp = torch.linspace(0, 1, 33).expand(1, 3, 17, 33)
    wide = InputResize((20, 77), "stretch", 1, "bilinear", align_corners=True)(ramp)
    torch.testing.assert_close(wide, torch.linspace(0, 1, 77).expand(1, 3, 20, 77))


def test_two_sides_are_compared_each_with_its_own():
    assert InputResize((384, 512), "minimal").size(480, 640) == (384, 512)
    assert InputResize((384, 768), "minimal").size(375, 1242) == (384, 1280)
    assert InputResize((100, 400), "upper_bound", 1).size(480, 640) == (100, 133)
    assert InputResize((100, 400), "lower_bound", 1).size(480, 640) == (300, 400)


class Red(nn.Module):
    """The red channel."""

    representation, size_multiple = Representation.DISPARITY, 8

    def forward(self, image):
        assert image.shape[-2] % 8 == image.shape[-1] % 8 == 0
        return image[:, :1]


@settings(deadline=None)
@given(height=st.integers(1, 70), width=st.integers(1, 70))
def test_what_is_put_around_an_image_is_dropped_from_its_map(height, width):
    image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    for rule in (InputResize(rule="native", multiple=8, extend=True), InputResize(rule="native", extend=True, padding=3)):
        assert torch.equal(native_map(Red(), image, rule).map, image[:, :1])
        assert rule.size(height, width)[0] >= height
    assert InputResize(padding=3).margins(64, 32) == (16, 12)


def test_extending_shows_the_last_row_and_column_again():
    seen = InputResize(64, "upper_bound", 8, "bilinear", extend=True)(IMAGE)
    assert seen.shape[-2:] == (48, 64)  # 37 x 53 become 44 x 64
    assert torch.equal(seen[..., 44:, :], seen[..., 43:44, :].expand(-1, -1, 4, -1))


def test_padding_shows_the_border_mirrored():
    rule = InputResize(rule="native", multiple=1, padding=3)
    (top, left), seen = rule.margins(37, 53), rule(IMAGE)
    inside = seen[..., top:-top, left:-left]
    assert torch.equal(inside, IMAGE)
    assert torch.equal(seen[..., :top, left:-left], IMAGE[..., 1 : top + 1, :].flip(-2))
    assert torch.equal(seen[..., top:-top, -left:], IMAGE[..., -left - 1 : -1].flip(-1))


def test_a_bound_that_is_extended_is_reached_whatever_rounding():
    rule = InputResize(384, "upper_bound", 32, extend=True)
    assert {max(rule.size(length, 7)) for length in range(8, 3000)} == {384}


def test_the_part_of_a_map_that_is_shown_ends_at_the_nearest_of_its_pixels():
    assert shown_part(torch.zeros(1, 1, 10, 10), (40, 40), (39, 37)).shape == (1, 1, 10, 9)


def test_unknown_rules_and_modes_are_refused():
    with pytest.raises(RecipeError, match=r"expected rule to be one of upper_bound, .*; got 'longest'"):
        InputResize(rule="longest")
    with pytest.raises(RecipeError, match=r"expected mode to be one of nearest, .*; got 'lanczos'"):
        OutputResize(mode="lanczos")


class Half(nn.Module):
    """Depth is 1 + 9 times the red channel, at half the input's size."""

    representation, size_multiple = Representation.DEPTH, 8

    def forward(self, image):
        return 1 + 9 * image[:, :1, ::2, ::2]


IMAGE = torch.rand(2, 3, 37, 53, generator=torch.Generator().manual_seed(0))


def test_a_map_is_resized_by_the_rule_given_else_the_networks_own():
    model, rule = Half(), OutputResize(mode="bicubic", align_corners=True)
    plain, given = native_map(model, IMAGE).map, native_map(model, IMAGE, output_rule=rule).map
    assert plain.shape == (2, 1, 37, 53)
    model.output_rule = rule
    assert torch.equal(native_map(model, IMAGE).map, given)
    assert not torch.allclose(plain, given, atol=0.05)
    model.resize_space = Representation.DISPARITY
    assert not torch.allclose(native_map(model, IMAGE).map, given, atol=0.05)
    explicit = OutputResize(Representation.DEPTH, "bicubic", align_corners=True)
    assert torch.equal(native_map(model, IMAGE, output_rule=explicit).map, given)


def test_a_network_sees_images_by_its_own_rule_else_at_its_trained_size():
    model = Half()
    assert input_rule_of(model).size(100, 100, 32) == (384, 384)
    model.trained_size = (64, 64)
    assert input_rule_of(model).size(100, 100, 32) == (64, 64)
    model.input_rule = InputResize((24, 40), "stretch", 8)
    assert input_rule_of(model).size(100, 100, 8) == (24, 40)


def test_what_is_no_map_is_refused():
    class Wrong(Half):
        def forward(self, image):
            return self.answer(super().forward(image))

    model = Wrong()
    for answer, error, message in (
        (lambda x: {"predicted_depth": x}, ShapeError, "Wrong: expected a map, as a tensor or array; got dict.*load_depth"),
        (lambda x: x.repeat(1, 2, 1, 1), ShapeError, r"expected a prediction of shape \(2, 1, h, w\).*got \(2, 2, "),
        (lambda x: x / 0, PredictionError, "expected a finite prediction"),
    ):
        model.answer = answer
        with pytest.raises(error, match=message):
            native_map(model, IMAGE)
    model.representation = None
    with pytest.raises(LabelError, match="expected the representation of the model's output"):
        native_map(model, IMAGE)


def test_bilinear_resize_to_the_label_is_exact_on_ramps_with_corners_aligned():
    ramp = torch.arange(5.0).expand(1, 1, 4, 5)
    wide = OutputResize(align_corners=True)(ramp, (7, 9))
    torch.testing.assert_close(wide, torch.linspace(0, 4, 9).expand(1, 1, 7, 9))


@pytest.mark.parametrize("rule", [InputResize((1, 3), "stretch", 1, "nearest"), OutputResize(mode="nearest")])
def test_nearest_takes_the_pixel_whose_centre_is_nearest(rule):
    ramp = torch.arange(9.0).expand(1, 3, 1, 9)
    found = rule(ramp) if isinstance(rule, InputResize) else rule(ramp[:, :1], (1, 3))
    assert found[0, 0, 0].tolist() == [1, 4, 7]


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("shape", "size"), [((375, 1242), (192, 640)), ((375, 1242), (384, 1271)), ((1, 9), (20, 31)), ((5, 7), (1, 1))]
)
def test_images_are_resized_as_the_papers_code_does_by_opencv(mode, shape, size):
    levels = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    exact = torch.from_numpy(levels).permute(2, 0, 1)[None].double() / 255
    expected = F.interpolate(exact, size, mode=mode)[0].permute(1, 2, 0).numpy()
    if mode == "bicubic":  # whose coordinates are of float32: 8e-5 from these
        expected = cv2.resize(levels / 255, size[::-1], interpolation=cv2.INTER_CUBIC)
    rule, image = InputResize(size, "stretch", 1, mode), torch.from_numpy(levels).permute(2, 0, 1)[None]
    found = rule(image)
    assert found.dtype == torch.float32
    assert np.abs(found[0].permute(1, 2, 0).double().numpy() - expected).max() < 1e-6
    assert torch.equal(found, rule(image.float() / 255))
    of_half = rule(image.half() / 255)
    assert of_half.dtype == torch.half
    assert (of_half - found).abs().max() < 5e-3
    assert (rule(image.float() / 256) * 256 - found * 255).abs().max() < 1e-4


@pytest.mark.parametrize(
    "rule",
    [
        InputResize(32, "minimal", interpolation="bilinear", align_corners=True, padding=3.0),
        InputResize((32, 64), "stretch", interpolation="lanczos"),
        InputResize(32, "area", antialias=True),
        InputResize(rule="native", multiple=1),
        InputResize(1, "native", 8, "bilinear", antialias=True, extend=True),
    ],
)
def test_images_of_8_bits_are_resized_as_their_floating_point_by_every_rule(rule):
    levels = torch.randint(0, 256, (1, 3, 40, 56), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    assert torch.equal(rule(levels), rule(levels.float() / 255))
