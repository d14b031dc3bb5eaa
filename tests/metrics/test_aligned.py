"""What an alignment forgives, and what it does not."""

from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing import assert_close

from depthkit.alignment import Alignment, ScaleMethod, ScaleShiftMethod
from depthkit.errors import RecipeError
from depthkit.metrics import AbsRel, DeltaAccuracy, RMSELog, depth_metrics
from depthkit.representation import clamp_depth
from depthkit.types import Representation
from tests.contracts.metric import depth_maps, run

DEPTH, DISPARITY, LOG_DEPTH = Representation.DEPTH, Representation.DISPARITY, Representation.LOG_DEPTH
SCALE, SCALE_SHIFT, FAR = list(ScaleMethod), list(ScaleShiftMethod), (0.0, 20.0)


def score(pred, target, valid, alignment, metric=AbsRel, reduction="image", caps=None):
    return run(metric(alignment=alignment, reduction=reduction, caps=caps), (pred, target, valid), (1, 3)).compute()


@pytest.mark.parametrize("reduction", ["image", "pixel"])
@pytest.mark.parametrize("method", SCALE)
def test_scale_alignment_ignores_a_factor_per_image(method, reduction):
    pred, target, valid = depth_maps()
    factor = torch.tensor([0.01, 0.5, 3.0, 200.0]).view(4, 1, 1, 1)
    a = Alignment("scale", method)
    assert_close(
        score(factor * pred, target, valid, a, reduction=reduction), score(pred, target, valid, a, reduction=reduction)
    )
    assert score(target * factor, target, valid, a) < 1e-6


@pytest.mark.parametrize("method", SCALE_SHIFT)
def test_alignment_in_disparity_ignores_what_an_affine_disparity_leaves_open(method):
    pred, target, valid = depth_maps()
    a = Alignment("scale_shift", method, space=DISPARITY)
    twisted = 1 / (0.3 / pred + 0.7)
    assert_close(score(twisted, target, valid, a, caps=FAR), score(pred, target, valid, a, caps=FAR), rtol=1e-3, atol=0)
    assert score(1 / (0.3 / target + 0.7), target, valid, a, caps=FAR) < 1e-4


@pytest.mark.parametrize("method", SCALE_SHIFT)
def test_alignment_in_depth_ignores_an_affine_depth_and_not_an_affine_disparity(method):
    _, target, valid = depth_maps()
    a = Alignment("scale_shift", method)
    assert score(2 * target + 5, target, valid, a) < 1e-5
    assert score(1 / (0.3 / target + 0.7), target, valid, a) > 0.01


def test_scale_and_shift_in_log_depth_ignore_a_power_and_a_factor_of_depth():
    _, target, valid = depth_maps()
    assert score(3 * target**0.5, target, valid, Alignment("scale_shift", "least_squares", space=LOG_DEPTH)) < 1e-5


def test_aligning_twice_is_aligning_once():
    maps = depth_maps()
    metric = AbsRel(alignment=Alignment("scale_shift", "least_squares", space=DISPARITY), caps=FAR)
    once = metric.finished(*maps)
    valid = maps[2]
    assert_close(metric.finished(once, *maps[1:])[valid], once[valid], rtol=1e-4, atol=0)


@pytest.mark.parametrize("space", [DEPTH, DISPARITY])
@pytest.mark.parametrize("method", SCALE_SHIFT)
@pytest.mark.parametrize(("constant", "positive"), [(0.7, False), (-0.7, True)])  # or is nowhere fitted
def test_constant_prediction_is_scored_as_the_best_constant(method, space, constant, positive):
    _, target, valid = depth_maps()
    a = Alignment("scale_shift", method, space=space, positive=positive)
    fit = a.fit(torch.full_like(target, constant), target, valid)
    centre = torch.mean if method == "least_squares" else (lambda x: x.quantile(0.5))
    assert_close(fit.shift, torch.stack([centre(t[v].double()) for t, v in zip(target, valid, strict=True)]))
    assert fit.scale.tolist() == [0, 0, 0, 0]
    assert fit.degenerate.all()
    assert 0.1 < score(torch.full_like(target, constant), target, valid, a, caps=FAR) < 1


@pytest.mark.parametrize("method", ["median_ratio", "ratio_of_medians", "least_squares"])
def test_factor_that_does_not_exist_is_nan_and_is_not_left_out(method):
    pred, target, valid = depth_maps()
    pred = pred.clone()
    pred[2] = 0
    a = Alignment("scale", method)
    metric = run(AbsRel(alignment=a), (pred, target, valid), (4,))
    assert metric.compute().isnan()
    assert metric.n_images == 4
    assert a.fit(pred, target, valid).degenerate.tolist() == [False, False, True, False]


def test_nan_prediction_stays_nan_through_any_alignment():
    pred, target, valid = depth_maps()
    pred = pred.clone()
    y, x = valid[1, 0].nonzero()[0]
    pred[1, 0, y, x] = torch.nan
    for degrees, methods in (("scale", SCALE), ("scale_shift", SCALE_SHIFT)):
        for method in methods:
            a = Alignment(degrees, method, space=DISPARITY)
            assert score(pred, target, valid, a, caps=(0.1, 20.0)).isnan(), (degrees, method)
            assert score(pred, target, valid, a, DeltaAccuracy, caps=(0.1, 20.0)).isnan(), (degrees, method)


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -1.0, 0.0])
def test_invalid_pixels_do_not_reach_the_fit(poison):
    pred, target, valid = depth_maps()
    for degrees, method in (("scale", "median_ratio"), ("scale_shift", "least_squares"), ("scale_shift", "l1")):
        a = Alignment(degrees, method, space=DISPARITY)
        dirty = pred.where(valid, poison), target.where(valid, poison), valid
        assert_close(score(*dirty, a, caps=FAR), score(pred, target, valid, a, caps=FAR), rtol=0, atol=0)


def test_a_cap_on_depth_is_a_floor_on_disparity_and_catches_negative_ones():
    target = torch.tensor([1.0, 2.0, 50.0, 60.0]).view(1, 1, 2, 2)
    valid = torch.ones_like(target, dtype=torch.bool)
    raw = torch.tensor([0.0, -5.0, -9.0, -11.0]).view(1, 1, 2, 2)  # affine disparity, as a network gives it
    a = Alignment("scale_shift", "least_squares", space=DISPARITY)
    aligned = a.apply(raw, *a.fit(raw, 1 / target, valid))
    assert (aligned < 0).any()
    assert_close(clamp_depth(aligned, DISPARITY, 0, 70.0).min(), torch.tensor(1 / 70.0))
    metric = AbsRel(alignment=a, caps=(0, 70.0))
    assert_close(metric.finished(1 / (raw + 20), target, valid).max(), torch.tensor(70.0))
    assert (AbsRel(alignment=a).finished(1 / (raw + 20), target, valid) < 0).any()


@pytest.mark.parametrize("space", list(Representation))
def test_caps_hold_in_every_space(space):
    metric = AbsRel(alignment=Alignment("scale_shift", "median", space=space), caps=(2.0, 3.0))
    capped = metric.finished(*depth_maps())
    assert_close(torch.stack([capped.min(), capped.max()]), torch.tensor([2.0, 3.0]))


def test_caps_hold_without_an_alignment():
    pred, target, valid = depth_maps()
    assert_close(AbsRel(caps=(2.0, 3.0)).finished(pred, target, valid), pred.clamp(2, 3))
    assert AbsRel(caps=(0.0, torch.inf)).finished(pred, target, valid) is pred


def test_metrics_of_unlike_caps_share_no_state():
    names = {AbsRel(caps=caps)._total for caps in (None, (0.0, 10.0), (0.0, 80.0), (0.1, 80.0))}
    assert len(names) == 4


@pytest.mark.quick(space=["depth", "disparity"])
@pytest.mark.filterwarnings("ignore:Accessing the data pointer")
@pytest.mark.parametrize("space", list(Representation))
def test_update_waits_for_no_value(space):
    """The exact L1 line is the exception: it bisects until it is done."""
    shapes = depth_maps()
    for degrees, methods in (("scale", SCALE), ("scale_shift", ("least_squares", "median"))):
        for method in methods:
            with FakeTensorMode():
                inputs = tuple(torch.zeros(x.shape, dtype=x.dtype) for x in shapes)
                AbsRel(alignment=Alignment(degrees, method, space=space), caps=(0.1, 20.0)).update(*inputs)


def test_image_without_a_label_has_no_fit_and_is_left_out():
    pred, target, valid = depth_maps()
    valid = valid.clone()
    valid[0] = False
    a = Alignment("scale_shift", "median")
    assert a.fit(pred, target, valid).scale.isnan().tolist() == [True, False, False, False]
    assert_close(score(pred, target, valid, a), run(AbsRel(alignment=a), (pred[1:], target[1:], valid[1:]), (3,)).compute())


def test_half_precision_is_aligned_in_full_precision():
    pred, target, valid = depth_maps()
    a = Alignment("scale_shift", "least_squares", space=DISPARITY)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = score(pred.bfloat16(), target, valid, a, caps=FAR)
    assert_close(half, score(pred.bfloat16().float(), target, valid, a, caps=FAR), rtol=0, atol=0)


def test_protocol_sets_alignment_caps_and_reduction_of_the_whole_collection():
    pred, target, valid = depth_maps()
    protocol = SimpleNamespace(alignment=Alignment("scale", "log_median"), reduction="pixel", min_depth=0, max_depth=3.0)
    values = run(depth_metrics(protocol, prefix="test/"), (pred, target, valid), (1, 3)).compute()
    alone = score(pred, target, valid, protocol.alignment, RMSELog, "pixel", caps=(0, 3.0))
    assert_close(values["test/rmse_log"], alone)
    assert not torch.isclose(alone, score(pred, target, valid, protocol.alignment, RMSELog, "pixel"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Alignment("scale", "median"), "the method of fitting scale to be one of median_ratio, .*; got 'median'"),
        (lambda: Alignment("scale_shift", "median_ratio"), "the method of fitting scale_shift to be one of .*'median_ratio'"),
        (lambda: Alignment("affine", "median"), "expected degrees to be one of scale, scale_shift; got 'affine'"),
        (lambda: Alignment("scale", "median_ratio", "metres"), "expected space to be one of depth, .*; got 'metres'"),
        (lambda: AbsRel(caps=(10.0, 1.0)), r"AbsRel: expected caps as 0 <= near < far in metres; got \(10.0, 1.0\)"),
        (lambda: AbsRel(caps=(-1.0, 1.0)), "expected caps as 0 <= near < far"),
    ],
)
def test_contradictory_settings_are_refused(make, message):
    with pytest.raises(RecipeError, match=message):
        make()
