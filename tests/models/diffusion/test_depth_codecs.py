import copy
import math
import pickle

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from depthkit.errors import RecipeError, ShapeError
from depthkit.models import AffineDepth, LinearDepth, LogDepth, codec_of, valid_latents
from depthkit.types import Ambiguity, LabelKind, Representation

METRIC = [LogDepth(0.1, 100), LogDepth(0.5, 80), LinearDepth(0.1, 100), LinearDepth(0.5, 80)]
ALL = [*METRIC, AffineDepth(), AffineDepth(0.0, 1.0)]


def depth_map(low=0.6, high=70.0, size=(24, 32), rows=2):
    return low * (high / low) ** torch.rand(rows, 1, *size)


def everywhere(depth):
    return torch.ones_like(depth, dtype=torch.bool)


@pytest.mark.parametrize("codec", METRIC, ids=str)
def test_metric_depth_survives_the_round_trip(codec):
    depth = codec.d_min * (codec.d_max / codec.d_min) ** torch.rand(2, 1, 8, 8, dtype=torch.float64)
    y = codec.encode(depth, everywhere(depth))
    assert y.abs().max() <= 1
    assert_close(codec.decode(y), depth, rtol=1e-12, atol=0)


@pytest.mark.parametrize("codec", METRIC, ids=str)
def test_the_bounds_are_the_end_points(codec):
    ends = torch.tensor([codec.d_min, codec.d_max], dtype=torch.float64).view(1, 1, 1, 2)
    assert_close(codec.encode(ends, everywhere(ends)).flatten(), torch.tensor([-1.0, 1.0], dtype=torch.float64))
    assert_close(codec.decode(torch.tensor([-1.0, 1.0], dtype=torch.float64)), ends.flatten())


def test_the_middle_is_the_geometric_mean_in_log_and_the_arithmetic_mean_in_linear():
    assert float(LogDepth(0.1, 100).decode(torch.zeros(()))) == pytest.approx(math.sqrt(0.1 * 100))
    assert float(LinearDepth(0.1, 100).decode(torch.zeros(()))) == pytest.approx(50.05)


def test_one_error_of_y_is_one_relative_error_of_log_depth_and_one_distance_of_linear_depth():
    y = torch.linspace(-0.9, 0.9, 7, dtype=torch.float64)
    ratio = LogDepth(0.1, 100).decode(y + 0.02) / LogDepth(0.1, 100).decode(y)
    assert_close(ratio, torch.full_like(y, math.exp(0.01 * math.log(1000))))  # 7.2 %
    distance = LinearDepth(0.1, 100).decode(y + 0.02) - LinearDepth(0.1, 100).decode(y)
    assert_close(distance, torch.full_like(y, 0.02 * 99.9 / 2))


@pytest.mark.parametrize("codec", ALL, ids=str)
def test_the_spread_in_depth_is_what_a_small_spread_of_y_makes_of_it(codec):
    y, step = torch.linspace(-0.8, 0.8, 5, dtype=torch.float64), 1e-6
    moved = codec.decode(y + step) - codec.decode(y - step)
    divisor = 2 * (1 if isinstance(codec, AffineDepth) else codec.decode(y))
    assert_close(codec.relative_spread(torch.full_like(y, step), y), moved / divisor, rtol=1e-4, atol=0)


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (3.0, 0.0), (0.5, 2.0)])
def test_affine_depth_forgets_scale_and_offset_and_puts_its_quantiles_at_the_ends(scale, shift):
    depth, codec = depth_map(), AffineDepth(0.1, 0.9)
    y = codec.encode(scale * depth + shift, everywhere(depth))
    assert_close(y, codec.encode(depth, everywhere(depth)), rtol=1e-4, atol=1e-5)
    low, high = np.quantile(depth[0].numpy(), [0.1, 0.9])
    expected = ((depth[0] - low) / (high - low) * 2 - 1).clamp(-1, 1)
    assert_close(codec.encode(depth, everywhere(depth))[0], expected, rtol=1e-4, atol=1e-5)


def test_affine_depth_of_a_constant_map_is_finite():
    flat = torch.full((1, 1, 4, 4), 3.0)
    assert AffineDepth().encode(flat, everywhere(flat)).isfinite().all()


def test_a_sky_at_infinity_moves_no_quantile():
    depth, codec = depth_map(), AffineDepth()
    under_sky = depth.clone()
    under_sky[..., :4, :] = torch.inf
    ground = everywhere(depth)
    ground[..., :4, :] = False
    y = codec.encode(under_sky, everywhere(depth))
    assert torch.equal(y[ground], codec.encode(depth, ground)[ground])
    assert (y[~ground] == 1).all()


@pytest.mark.parametrize("codec", ALL, ids=str)
@pytest.mark.parametrize("poison", [torch.nan, torch.inf, 0.0, -1.0, 1e9])
def test_what_stands_in_invalid_pixels_changes_nothing(codec, poison):
    depth, valid = depth_map(), torch.rand(2, 1, 24, 32) > 0.3
    poisoned = depth.where(valid, poison)
    assert_close(codec.encode(poisoned, valid), codec.encode(depth, valid), rtol=0, atol=0)
    assert_close(codec.clipped(poisoned, valid), codec.clipped(depth, valid), rtol=0, atol=0)
    assert torch.equal(codec.within(poisoned, valid), codec.within(depth, valid))


@pytest.mark.parametrize("codec", [LogDepth(), LinearDepth(), AffineDepth()], ids=str)
@pytest.mark.parametrize(("fill", "value"), [("far", 1.0), ("near", -1.0)])
def test_invalid_pixels_are_filled(codec, fill, value):
    codec = codec_of({**codec.facts(), "fill": fill})
    depth, valid = depth_map(), torch.rand(2, 1, 24, 32) > 0.3
    valid[1] = False
    y = codec.encode(depth, valid)
    assert (y[~valid] == value).all()
    assert y.isfinite().all()


def test_a_valid_depth_that_is_not_positive_counts_as_invalid_and_the_sky_is_far():
    depth = torch.tensor([2.0, 0.0, -3.0, torch.inf]).view(1, 1, 2, 2)
    y = LogDepth(1, 4, fill="near").encode(depth, everywhere(depth))
    assert_close(y.flatten(), torch.tensor([0.0, -1.0, -1.0, 1.0]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("codec", [LogDepth(0.5, 10), LinearDepth(0.5, 10)], ids=str)
def test_depth_beyond_the_range_is_clipped_and_counted(codec):
    depth = torch.tensor([[0.4, 0.5, 5.0, 10.0, 11.0, torch.inf, 1e9, 3.0], [1.0] * 8]).view(2, 1, 2, 4)
    valid = everywhere(depth)
    valid[0, 0, 1, 2] = False
    assert_close(codec.clipped(depth, valid), torch.tensor([3 / 7, 0.0]))
    assert codec.within(depth, valid)[0].flatten().tolist() == [False, True, True, True, False, False, False, True]
    assert codec.encode(depth, valid).abs().max() <= 1
    assert codec.clipped(depth, torch.zeros_like(valid)).tolist() == [0.0, 0.0]


def test_the_share_an_affine_codec_clips_is_the_share_beyond_its_quantiles():
    depth = torch.arange(1.0, 1001.0).view(1, 1, 25, 40)
    assert float(AffineDepth().clipped(depth, everywhere(depth))) == pytest.approx(0.04, abs=2e-3)


@pytest.mark.parametrize("codec", ALL, ids=str)
def test_a_codec_is_rebuilt_from_its_facts(codec):
    assert codec_of(codec.facts()) == codec == pickle.loads(pickle.dumps(codec)) == copy.deepcopy(codec)
    assert hash(codec_of(codec.facts())) == hash(codec)
    assert codec != LogDepth(0.2, 30)
    assert eval(repr(codec)) == codec


def test_codecs_say_what_they_leave_open_and_where_to_resize():
    assert LogDepth().kind == LinearDepth().kind == LabelKind(Ambiguity.METRIC, Representation.DEPTH)
    assert AffineDepth().kind == LabelKind(Ambiguity.SHIFT_SCALE, Representation.DEPTH)
    assert [codec.resize_space.value for codec in (LogDepth(), LinearDepth(), AffineDepth())] == ["log_depth", "depth", "depth"]


def test_one_invalid_pixel_masks_exactly_its_cell():
    valid = torch.ones(1, 1, 32, 48, dtype=torch.bool)
    valid[0, 0, 15, 24] = False
    expected = torch.ones(1, 1, 4, 6, dtype=torch.bool)
    expected[0, 0, 1, 3] = False
    assert torch.equal(valid_latents(valid), expected)
    assert valid_latents(valid, factor=4).sum() == 8 * 12 - 1


def test_a_mask_that_does_not_divide_into_cells_is_refused():
    with pytest.raises(ShapeError, match="multiples of 8; got 30x48"):
        valid_latents(torch.ones(1, 1, 30, 48, dtype=torch.bool))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LogDepth(0, 10), r"expected 0 < d_min < d_max in metres; got 0 and 10"),
        (lambda: LinearDepth(5, 5), r"expected 0 < d_min < d_max in metres; got 5 and 5"),
        (lambda: LogDepth(1, math.inf), r"expected 0 < d_min < d_max in metres"),
        (lambda: AffineDepth(0.9, 0.1), r"expected quantiles 0 <= low < high <= 1; got 0.9 and 0.1"),
        (lambda: LogDepth(fill="sky"), r"expected fill to be one of far, near; got 'sky'"),
        (lambda: codec_of({"codec": "SqrtDepth"}), r"expected a codec among LogDepth, .*; got 'SqrtDepth'"),
        (lambda: codec_of({"codec": "LogDepth", "max": 3}), r"expected settings of LogDepth as this version"),
    ],
)
def test_settings_without_meaning_are_refused(make, message):
    with pytest.raises(RecipeError, match=message):
        make()


def test_maps_of_other_shapes_are_refused():
    with pytest.raises(ShapeError, match=r"expected depth of shape \(B, 1, H, W\)"):
        LogDepth().encode(torch.ones(3, 4, 4), torch.ones(3, 4, 4, dtype=torch.bool))
    with pytest.raises(ShapeError, match="expected valid as bool"):
        LogDepth().encode(torch.ones(3, 1, 4, 4), torch.ones(3, 1, 4, 4))
