import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from depthkit.evaluation import InputResize, OutputResize


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
    ],
)
def test_input_sizes_are_those_of_the_published_transforms(rule, width, height, expected):
    assert InputResize(384, rule).size(height, width)[::-1] == expected


@given(
    rule=st.sampled_from(["upper_bound", "lower_bound", "minimal", "area", "native"]),
    height=st.integers(1, 3000),
    width=st.integers(1, 3000),
    multiple=st.sampled_from([1, 14, 16, 32, 64]),
)
def test_input_sizes_are_legal_and_on_the_right_side_of_the_bound(rule, height, width, multiple):
    rows, columns = InputResize(448, rule).size(height, width, multiple)
    assert rows > 0
    assert rows % multiple == columns % multiple == 0
    if rule == "upper_bound":
        assert max(rows, columns) <= 448
    if rule == "lower_bound":
        assert min(rows, columns) >= 448


def test_area_keeps_the_number_of_pixels_and_the_aspect():
    assert InputResize((192 * 256) ** 0.5, "area").size(480, 640) == (192, 256)


def test_resized_images_stay_in_the_unit_range():
    image = torch.zeros(1, 3, 40, 40)
    image[..., 20:] = 1  # bicubic interpolation rings at an edge
    resized = InputResize(96)(image)
    assert resized.shape == (1, 3, 96, 96)
    assert 0 <= resized.min() <= resized.max() <= 1


def test_bilinear_resize_to_the_label_is_exact_on_ramps_with_corners_aligned():
    ramp = torch.arange(5.0).expand(1, 1, 4, 5)
    wide = OutputResize(align_corners=True)(ramp, (7, 9))
    torch.testing.assert_close(wide, torch.linspace(0, 4, 9).expand(1, 1, 7, 9))
