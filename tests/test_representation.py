"""Conversions are inverse to each other, and a label loses exactly the pixels that have no value in the new representation."""

import itertools
import math

import pytest
import torch
from torch.testing import assert_close

from depthkit.errors import LabelError
from depthkit.representation import (
    check_convertible,
    convert,
    convert_label,
    log_depth_to_unit,
    sigmoid_to_disparity,
    unit_to_depth,
)
from depthkit.types import Ambiguity, LabelKind, Representation

DEPTH, DISPARITY = Representation.DEPTH, Representation.DISPARITY
OF_DEPTH = {
    DEPTH: lambda z: z,
    DISPARITY: lambda z: 1 / z,
    Representation.LOG_DEPTH: lambda z: z.log(),
    Representation.LOG_DISPARITY: lambda z: -z.log(),
}
LOGARITHMS = [Representation.LOG_DEPTH, Representation.LOG_DISPARITY]


@pytest.mark.parametrize(("source", "target"), list(itertools.product(Representation, repeat=2)))
def test_every_conversion_is_the_formula_and_there_and_back_is_the_identity(source, target):
    depth = torch.rand(2, 1, 4, 5, dtype=torch.double) * 80 + 0.1
    x = OF_DEPTH[source](depth)
    assert_close(convert(x, source, target), OF_DEPTH[target](depth))
    assert_close(convert(convert(x, source, target), target, source), x)


def test_sky_has_disparity_zero_and_depth_infinity():
    assert convert(torch.tensor(torch.inf), DEPTH, DISPARITY) == 0
    assert convert(torch.tensor(0.0), DISPARITY, DEPTH) == torch.inf


def test_half_precision_is_converted_in_float32():
    x = torch.rand(9).bfloat16() + 1
    assert convert(x, DEPTH, DISPARITY).dtype == torch.float32


@pytest.mark.parametrize(
    ("source", "target", "value", "kept"),
    [
        (DEPTH, DISPARITY, 0.0, False),
        (DEPTH, DISPARITY, -1.0, False),
        (DEPTH, DISPARITY, math.nan, False),
        (DEPTH, DISPARITY, math.inf, True),
        (DEPTH, DEPTH, math.inf, False),
        (DEPTH, DEPTH, 0.0, False),
        (DISPARITY, DEPTH, 0.0, False),
        (DISPARITY, DEPTH, -0.5, False),
        (DISPARITY, DISPARITY, 0.0, True),
        (DISPARITY, DISPARITY, -0.5, True),
        (DISPARITY, DISPARITY, math.nan, False),
        *[(DEPTH, log, math.inf, False) for log in LOGARITHMS],
        *[(DISPARITY, log, 0.0, False) for log in LOGARITHMS],
        *[(DISPARITY, log, -2.0, False) for log in LOGARITHMS],
        *[(log, DEPTH, -2.0, True) for log in LOGARITHMS],
    ],
)
def test_a_pixel_stays_in_the_mask_exactly_if_it_has_a_finite_value(source, target, value, kept):
    label = torch.tensor([2.0, value]).view(1, 1, 1, 2)
    converted, valid = convert_label(label, torch.ones_like(label, dtype=torch.bool), source, target)
    assert valid.flatten().tolist() == [True, kept]
    assert converted.isfinite().all()
    assert_close(converted.flatten()[0], convert(torch.tensor(2.0), source, target))


@pytest.mark.parametrize("poison", [math.nan, math.inf, -1.0, 0.0])
@pytest.mark.parametrize(("source", "target"), list(itertools.product(Representation, repeat=2)))
def test_invalid_pixels_stay_out_and_become_finite(source, target, poison):
    label, valid = torch.full((1, 1, 2, 2), poison), torch.zeros(1, 1, 2, 2, dtype=torch.bool)
    converted, still = convert_label(label, valid, source, target)
    assert not still.any()
    assert converted.isfinite().all()


@pytest.mark.parametrize(("source", "target"), list(itertools.permutations(Representation, 2)))
def test_an_affine_label_stays_in_its_representation(source, target):
    check_convertible(LabelKind(Ambiguity.SHIFT_SCALE, source), source)
    with pytest.raises(LabelError, match=f"a shift_scale {source} label has no {target}"):
        check_convertible(LabelKind(Ambiguity.SHIFT_SCALE, source), target)
    check_convertible(LabelKind(Ambiguity.SCALE, source), target)
    check_convertible(LabelKind(Ambiguity.METRIC, source), target)


@pytest.mark.parametrize("ambiguity", [Ambiguity.ORDINAL, Ambiguity.UNLABELLED])
def test_a_label_without_values_has_no_representation(ambiguity):
    with pytest.raises(LabelError, match="has no dense values"):
        check_convertible(LabelKind(ambiguity, DEPTH), DEPTH)


def test_the_sigmoid_spans_the_depth_range_linearly_in_disparity():
    sigma = torch.tensor([0.0, 0.5, 1.0])
    assert_close(sigmoid_to_disparity(sigma, min_depth=0.1, max_depth=100), torch.tensor([0.01, 5.005, 10.0]))


def test_the_unit_scale_runs_from_minus_one_to_one_and_equal_ratios_are_equal_steps():
    depth = torch.tensor([0.5, 5.0, 50.0])
    unit = log_depth_to_unit(depth, min_depth=0.5, max_depth=50)
    assert_close(unit, torch.tensor([-1.0, 0.0, 1.0]))
    assert_close(unit_to_depth(unit, min_depth=0.5, max_depth=50), depth)


@pytest.mark.parametrize("function", [sigmoid_to_disparity, log_depth_to_unit, unit_to_depth])
@pytest.mark.parametrize(("low", "high"), [(0.0, 10.0), (10.0, 1.0), (-1.0, 2.0)])
def test_an_impossible_range_is_refused(function, low, high):
    with pytest.raises(LabelError, match="expected 0 < min_depth < max_depth"):
        function(torch.ones(1), min_depth=low, max_depth=high)
