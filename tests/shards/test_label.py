"""Laws of stored labels: what is read is what was written, within half the stated step."""

import io
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from depthkit.errors import LabelError, ShardError
from depthkit.shards.label import LOG_STEP, MILLIMETRE, DepthFormat, decode_label, encode_label
from depthkit.types import Ambiguity, LabelKind, Representation

METRIC_DEPTH = LabelKind(Ambiguity.METRIC, Representation.DEPTH)
KINDS = [
    LabelKind(ambiguity, representation)
    for ambiguity in (Ambiguity.METRIC, Ambiguity.SCALE, Ambiguity.SHIFT_SCALE)
    for representation in Representation
]
FLOAT32 = 2.0**-23


def round_trip(label, valid, kind, depth_format):
    name, data, facts = encode_label(label, valid, kind, depth_format)
    return decode_label(name, data, facts, kind, "here"), facts


def random_label(kind, rng):
    label = rng.uniform(0.3, 70, (40, 50))
    if kind.ambiguity == Ambiguity.SHIFT_SCALE or "log" in kind.representation:
        label -= 30  # these may be negative
    return label.astype(np.float32), rng.random((40, 50)) < 0.7


@pytest.mark.parametrize("depth_format", DepthFormat)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_label_is_read_within_half_the_stated_step_and_valid_exactly(kind, depth_format):
    label, valid = random_label(kind, np.random.default_rng(0))
    dense, facts = round_trip(label, valid, kind, depth_format)
    assert dense.value.dtype == np.float32
    assert np.array_equal(dense.valid, valid)
    assert dense.infinite is None
    got, want = dense.value[valid].astype(np.float64), label[valid].astype(np.float64)
    if facts["encoding"] == "float32":
        assert np.array_equal(got, want)
    elif facts["encoding"] == "log":
        assert np.abs(np.log(got / want)).max() <= facts["step"] / 2 + 2 * FLOAT32
    else:
        assert np.abs(got - want).max() <= facts["step"] / 2 + 2 * FLOAT32 * np.abs(want).max()


@settings(max_examples=60, deadline=None)
@given(arrays.arrays(np.float32, (3, 4), elements=st.floats(2.0**-20, 2.0**20, width=32)))
def test_log_codes_keep_relative_precision_over_any_range(label):
    dense, facts = round_trip(label, np.ones_like(label, bool), METRIC_DEPTH, DepthFormat.PNG_LOG16)
    ratio = np.log(dense.value.astype(np.float64) / label)
    assert np.abs(ratio).max() <= facts["step"] / 2 + 2 * FLOAT32
    spread = math.log(label.max() / label.min())
    assert facts["step"] <= max(LOG_STEP, spread / 65533 * 1.000001)


@settings(max_examples=60, deadline=None)
@given(arrays.arrays(np.float32, (3, 4), elements=st.floats(-(2.0**20), 2.0**20, width=32)))
def test_linear_codes_span_the_range_of_a_label_of_any_sign(label):
    kind = LabelKind(Ambiguity.SHIFT_SCALE, Representation.DISPARITY)
    dense, facts = round_trip(label, np.ones_like(label, bool), kind, DepthFormat.PNG_LINEAR16)
    assert np.abs(dense.value - label.astype(np.float64)).max() <= facts["step"] / 2 + 2 * FLOAT32 * np.abs(label).max()


@settings(max_examples=60, deadline=None)
@given(arrays.arrays(np.uint16, (3, 4), elements=st.integers(1, 65534)))
def test_depth_in_whole_millimetres_is_stored_exactly(millimetres):
    label = (millimetres * MILLIMETRE).astype(np.float32)
    dense, facts = round_trip(label, np.ones_like(label, bool), METRIC_DEPTH, DepthFormat.PNG_LINEAR16)
    assert facts["step"] == MILLIMETRE
    assert np.array_equal(dense.value, label)


def test_linear_depth_beyond_the_millimetre_range_gets_a_wider_step_and_loses_nothing_to_clipping():
    label = np.array([[0.5, 65.535, 250.0]], np.float32)
    dense, facts = round_trip(label, label > 0, METRIC_DEPTH, DepthFormat.PNG_LINEAR16)
    assert facts["step"] > MILLIMETRE
    assert np.abs(dense.value - label).max() <= facts["step"] / 2 + 1e-5


@pytest.mark.parametrize("depth_format", DepthFormat)
@pytest.mark.parametrize(
    ("representation", "far"),
    [
        (Representation.DEPTH, math.inf),
        (Representation.DISPARITY, 0.0),
        (Representation.LOG_DEPTH, math.inf),
        (Representation.LOG_DISPARITY, -math.inf),
    ],
)
def test_points_at_infinity_survive_in_every_representation(representation, far, depth_format):
    kind = LabelKind(Ambiguity.METRIC, representation)
    label = np.array([[far, 2.0, far], [3.0, 0.7, 1.5]], np.float32)
    valid = np.array([[True, True, False], [True, True, False]])
    dense, _ = round_trip(label, valid, kind, depth_format)
    assert np.array_equal(dense.valid, valid)
    assert dense.infinite is not None
    assert np.array_equal(dense.infinite, [[True, False, False], [False, False, False]])
    assert dense.value[0, 0] == far


@pytest.mark.parametrize("depth_format", DepthFormat)
def test_a_label_may_be_all_sky(depth_format):
    label = np.full((2, 3), np.inf, np.float32)
    dense, _ = round_trip(label, np.ones((2, 3), bool), METRIC_DEPTH, depth_format)
    assert np.isinf(dense.value).all()
    assert dense.valid.all()


@pytest.mark.parametrize("depth_format", DepthFormat)
def test_zero_is_an_ordinary_value_of_a_disparity_of_unknown_offset(depth_format):
    kind = LabelKind(Ambiguity.SHIFT_SCALE, Representation.DISPARITY)
    label = np.array([[0.0, -2.0, 3.0]], np.float32)
    dense, facts = round_trip(label, np.ones((1, 3), bool), kind, depth_format)
    assert dense.valid.all()
    assert dense.infinite is None
    assert np.abs(dense.value - label).max() <= facts.get("step", 0)


@pytest.mark.parametrize("poison", [np.nan, np.inf, 0.0, -1.0])
@pytest.mark.parametrize("depth_format", DepthFormat)
def test_what_an_invalid_pixel_holds_changes_no_byte(poison, depth_format):
    label, valid = random_label(METRIC_DEPTH, np.random.default_rng(0))
    assert encode_label(np.where(valid, label, poison), valid, METRIC_DEPTH, depth_format) == encode_label(
        label, valid, METRIC_DEPTH, depth_format
    )


@pytest.mark.parametrize("depth_format", DepthFormat)
@pytest.mark.parametrize("value", [np.nan, 0.0, -1.0])
def test_a_valid_pixel_without_a_possible_value_is_an_error(value, depth_format):
    label = np.array([[1.0, value]], np.float32)
    with pytest.raises(LabelError, match=r"finite positive metric depth at every valid pixel.*Set valid to False"):
        encode_label(label, np.ones((1, 2), bool), METRIC_DEPTH, depth_format)


@pytest.mark.parametrize("depth_format", DepthFormat)
def test_a_label_without_a_valid_pixel_is_an_error(depth_format):
    with pytest.raises(LabelError, match="with valid pixels; got none"):
        encode_label(np.ones((2, 2), np.float32), np.zeros((2, 2), bool), METRIC_DEPTH, depth_format)


@pytest.mark.parametrize(
    "change",
    [
        {"encoding": "sqrt"},
        {"step": 0.0},
        {"step": -1},
        {"step": "wide"},
        {"offset": math.nan},
        {"step": math.inf},
        {"infinity": "x"},
    ],
)
def test_facts_that_cannot_be_are_an_error_and_not_a_guess(change):
    name, data, facts = encode_label(np.ones((2, 2), np.float32), np.ones((2, 2), bool), METRIC_DEPTH, DepthFormat.PNG_LOG16)
    with pytest.raises(ShardError, match=r"here: expected meta.json to give depth.encoding \(linear or log\)"):
        decode_label(name, data, facts | change, METRIC_DEPTH, "here")
    with pytest.raises(ShardError, match=r"depth.step"):
        decode_label(name, data, {}, METRIC_DEPTH, "here")


def npy(array, **options):
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (npy(np.array([{"run": "this"}], object), allow_pickle=True), "does not read"),
        (npy(np.ones((3, 4), np.float32))[:-5], "does not read"),
        (b"", "does not read"),
        (b"PK\x03\x04 a zip", "does not read"),
        (npy(np.ones((3, 4), np.float32)).replace(b"(3, 4)", b"(9999999, 9999999)"), "does not read"),
        (npy(np.ones((3, 4))), "float64"),
        (npy(np.ones(3, np.float32)), r"\(3,\)"),
    ],
    ids=["pickle", "truncated", "empty", "zip", "huge", "float64", "1-D"],
)
def test_an_npy_that_is_no_plain_float32_map_is_an_error(data, says):
    with pytest.raises(ShardError, match=f"here: expected .*float32.*{says}"):
        decode_label("depth.npy", data, {}, METRIC_DEPTH, "here")


def test_an_npy_of_another_maker_has_no_value_where_depth_is_nan_zero_or_negative():
    label = np.array([[1.5, np.nan, 0.0, -2.0, np.inf]], np.float32)
    dense = decode_label("depth.npy", npy(label), {}, METRIC_DEPTH, "here")
    assert dense.valid.tolist() == [[True, False, False, False, True]]
    assert np.isfinite(dense.value[:, :4]).all()
