from dataclasses import replace
from itertools import permutations

import pytest
import torch

from depthkit.alignment import Alignment
from depthkit.errors import LabelError, PredictionError, RecipeError, ShapeError
from depthkit.evaluation import GARG, PROTOCOLS, Crop, OutputResize, Protocol, kinds
from depthkit.evaluation.protocol import STEPS
from depthkit.metrics import AbsRel, depth_metrics, functional
from depthkit.representation import convert
from depthkit.types import REPRESENTATIONS, Ambiguity, LabelKind, Representation

DEPTH, DISPARITY = Representation.DEPTH, Representation.DISPARITY
METRIC_DEPTH = LabelKind(Ambiguity.METRIC, DEPTH)
AFFINE, METRIC = PROTOCOLS["synthetic_affine"], PROTOCOLS["synthetic_metric"]
OF_EDGES = [p for p in PROTOCOLS.values() if any(formula.reads_edges for formula in p.metrics.values())]
DENSE = [p for p in PROTOCOLS.values() if not p.ordinal and p.scale_of == "image" and p not in OF_EDGES]
MEDIAN = Protocol(
    "median",
    "a test",
    kinds(Ambiguity.METRIC),
    {"abs_rel": AbsRel().formula},
    alignment=Alignment("scale", "ratio_of_medians"),
    min_depth=1e-3,
    max_depth=80.0,
)


@pytest.fixture
def scene():
    depth = 1 + 8 * torch.rand(3, 1, 24, 32)
    return depth, torch.rand(3, 1, 24, 32) > 0.3


def size_of(protocol):
    """What the protocol's crops take: a full-sized image, or a small one."""
    return protocol.shown.size or protocol.shown.window or protocol.crop.size or (24, 32)


PAIRS = [(p, r) for p in DENSE for r in (REPRESENTATIONS if size_of(p) == (24, 32) else (DISPARITY,))]


@pytest.mark.parametrize(("protocol", "representation"), PAIRS, ids=lambda x: getattr(x, "name", x))
def test_the_perfect_prediction_scores_perfectly(protocol, representation):
    size = size_of(protocol)
    rows = 3 if size == (24, 32) else 1
    depth, valid = 1 + 8 * torch.rand(rows, 1, *size), torch.rand(rows, 1, *size) > 0.3
    top, bottom, left, right = protocol.shown.box(*size)
    seen = depth[..., top:bottom, left:right]
    scores = protocol.score(convert(seen, DEPTH, representation), representation, depth, valid, kind=METRIC_DEPTH)
    for name in protocol.metrics:
        best = 1.0 if name in ("delta1", "delta2", "delta3") else 0.0
        torch.testing.assert_close(scores[name], torch.full((rows,), best, dtype=torch.float64), atol=1e-3, rtol=0)
    assert not scores["left_out"].any()
    assert not scores["degenerate"].any()


@pytest.mark.parametrize(("scale", "shift"), [(3.0, 0.0), (0.5, 2.0), (7.0, -4.0), (0.01, 100.0)])
def test_the_affine_protocol_ignores_scale_and_shift_of_the_disparity(scale, shift, scene):
    depth, valid = scene
    scores = AFFINE.score(scale / depth + shift, DISPARITY, depth, valid, kind=METRIC_DEPTH)
    assert (scores["abs_rel"] < (1e-2 if shift == 100 else 1e-5)).all()


def test_the_metric_protocol_forgives_nothing(scene):
    depth, valid = scene
    scores = METRIC.score(1.5 * depth, DEPTH, depth, valid, kind=METRIC_DEPTH)
    torch.testing.assert_close(scores["abs_rel"], torch.full((3,), 0.5, dtype=torch.float64))


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -1.0, 0.0])
def test_invalid_label_pixels_change_nothing(poison, scene):
    depth, valid = scene
    pred = 1 / (depth + torch.rand_like(depth))
    for protocol in (AFFINE, METRIC, MEDIAN):
        clean = protocol.score(pred, DISPARITY, depth, valid, kind=METRIC_DEPTH)
        poisoned = protocol.score(pred, DISPARITY, depth.where(valid, poison), valid, kind=METRIC_DEPTH)
        assert all(torch.equal(clean[name], poisoned[name]) for name in clean)


def test_negative_disparities_are_floored_at_the_inverse_cap():
    depth = torch.tensor([1.0, 1.0, 1.0, 1.0, 2.0, 40.0]).repeat(4)[None, None, None]
    pred = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.5, -3.0]).repeat(4)[None, None, None]  # one far outlier
    scores = PROTOCOLS["midas_nyu"].score(pred, DISPARITY, depth, depth > 0, kind=METRIC_DEPTH)
    alignment = Alignment("scale_shift", "least_squares", space=DISPARITY)
    scale, shift = (x.float().view(-1, 1, 1, 1) for x in alignment.fit(pred, 1 / depth, depth > 0))
    assert (scale * pred + shift).min() < 0
    by_hand = 1 / (scale * pred + shift).clamp_min(1 / 10.0)
    torch.testing.assert_close(scores["delta1_error"], functional.delta_error(by_hand, depth, depth > 0))


def test_a_prediction_is_capped_and_labels_beyond_the_range_are_not_scored():
    depth = torch.tensor([5.0, 50.0, 500.0]).repeat(8)[None, None, None]
    scores = METRIC.score(10 * depth, DEPTH, depth, depth > 0, kind=METRIC_DEPTH)
    expected = ((50 - 5) / 5 + (80 - 50) / 50) / 2  # the second is capped at 80 m, the third label lies beyond
    assert scores["abs_rel"].item() == pytest.approx(expected)


def test_labels_at_either_end_of_the_range_are_not_scored():
    depth = torch.tensor([2.0, 3.0, 80.0]).repeat(12)[None, None, None]
    protocol = replace(METRIC, label_range=(2.0, 80.0), min_depth=0.0)
    scores = protocol.score(1.5 * torch.full_like(depth, 3.0), DEPTH, depth, depth > 0, kind=METRIC_DEPTH)
    assert scores["abs_rel"].item() == pytest.approx(0.5)


@pytest.mark.parametrize("pixels", [9, 10])
def test_ten_valid_pixels_are_enough_where_a_protocol_does_not_say(pixels):
    depth = 1 + torch.rand(1, 1, 4, 6)
    valid = (torch.arange(24) < pixels).view(1, 1, 4, 6)
    assert MEDIAN.score(depth, DEPTH, depth, valid, kind=METRIC_DEPTH)["left_out"].item() == (pixels < 10)


def test_sky_is_not_scored_as_depth():
    depth = torch.tensor([5.0, torch.inf]).repeat(16)[None, None, None]
    disparity_label = LabelKind(Ambiguity.METRIC, DISPARITY)
    for target, kind in ((depth, METRIC_DEPTH), (1 / depth, disparity_label)):
        scores = METRIC.score(torch.full_like(depth, 10.0), DEPTH, target, torch.ones_like(depth, dtype=torch.bool), kind=kind)
        assert scores["abs_rel"].item() == pytest.approx(1.0)


def _outside_spoilt(crop):
    """A prediction that is right up to a factor inside the crop and wild outside."""
    depth = 1 + 8 * torch.rand(1, 1, 40, 60)
    inside = crop.mask(40, 60)[None, None]
    return torch.where(inside, depth / 4, 50 * torch.rand_like(depth) + 30), depth


def test_cropping_before_aligning_keeps_the_outside_out_of_the_fit():
    pred, depth = _outside_spoilt(GARG)
    valid = torch.ones_like(depth, dtype=torch.bool)
    before = replace(MEDIAN, crop=GARG)
    after = replace(before, order=("resize", "mask", "align", "crop", "clamp"))
    assert before.score(pred, DEPTH, depth, valid, kind=METRIC_DEPTH)["abs_rel"] < 1e-6
    assert after.score(pred, DEPTH, depth, valid, kind=METRIC_DEPTH)["abs_rel"] > 0.1


def test_clamping_before_aligning_changes_the_fit():
    depth = torch.linspace(1, 60, 400).view(1, 1, 20, 20)
    valid = depth > 0
    after = MEDIAN.score(4 * depth, DEPTH, depth, valid, kind=METRIC_DEPTH)["abs_rel"]
    clamp_first = replace(MEDIAN, order=("resize", "mask", "crop", "clamp", "align"))
    pred = (4 * depth).clamp(max=80)
    by_hand = functional.abs_rel(pred * depth.median() / pred.median(), depth, valid)
    torch.testing.assert_close(
        clamp_first.score(4 * depth, DEPTH, depth, valid, kind=METRIC_DEPTH)["abs_rel"], by_hand, rtol=1e-2, atol=0
    )
    assert after < 1e-6 < by_hand


def test_masking_before_aligning_keeps_far_labels_out_of_the_fit():
    depth = torch.cat([torch.full((60,), 10.0), torch.full((61,), 500.0)])[None, None, None]
    pred = torch.cat([torch.full((60,), 5.0), torch.full((61,), 5.0)])[None, None, None]
    first = replace(MEDIAN, label_range=(0.0, 80.0))
    last = replace(first, order=("resize", "align", "clamp", "mask", "crop"))
    assert first.score(pred, DEPTH, depth, depth > 0, kind=METRIC_DEPTH)["abs_rel"] < 1e-6
    assert last.score(pred, DEPTH, depth, depth > 0, kind=METRIC_DEPTH)["abs_rel"] == pytest.approx(7.0)  # 500 clamped to 80


def test_every_order_with_the_resize_before_the_fit_is_executed(scene):
    depth, valid = scene
    for order in permutations(STEPS):
        if order.index("resize") < order.index("align"):
            scores = replace(AFFINE, order=order).score(1 / depth, DISPARITY, depth, valid, kind=METRIC_DEPTH)
            assert (scores["abs_rel"] < 1e-5).all()
        else:
            with pytest.raises(RecipeError, match="expected resize before align"):
                replace(AFFINE, order=order)


def test_resizing_depth_is_not_resizing_disparity():
    coarse = torch.tensor([[1.0, 9.0], [1.0, 9.0]])[None, None]
    depth = torch.ones(1, 1, 16, 16)
    depth_first, disparity_first = (
        replace(METRIC, output=OutputResize(space)).score(coarse, DEPTH, depth, depth > 0, kind=METRIC_DEPTH)["abs_rel"]
        for space in (DEPTH, DISPARITY)
    )
    assert depth_first > disparity_first + 0.5


def test_a_constant_prediction_is_scored_as_the_best_constant_and_counted(scene):
    depth, valid = scene
    scores = AFFINE.score(torch.full_like(depth, 0.7), DISPARITY, depth, valid, kind=METRIC_DEPTH)
    mean = torch.stack([(1 / d[v]).mean() for d, v in zip(depth, valid, strict=True)]).view(-1, 1, 1, 1)
    assert scores["degenerate"].all()
    torch.testing.assert_close(scores["abs_rel"], functional.abs_rel((1 / mean).expand_as(depth), depth, valid))


def test_an_image_with_too_few_valid_pixels_is_left_out(scene):
    depth, valid = scene
    valid = valid & (torch.arange(valid[0].numel()).view_as(valid[0]) < 9)
    scores = AFFINE.score(1 / depth, DISPARITY, depth, valid, kind=METRIC_DEPTH)
    assert scores["left_out"].all()
    assert scores["abs_rel"].isnan().all()
    assert not scores["degenerate"].any()


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_prediction_that_is_not_finite_is_refused_even_where_the_label_is_invalid(poison, scene):
    depth, valid = scene
    pred = (1 / depth).where(valid, poison)
    with pytest.raises(PredictionError, match="expected a finite prediction; got NaN or infinity in"):
        AFFINE.score(pred, DISPARITY, depth, valid, kind=METRIC_DEPTH)


def test_a_negative_depth_has_no_disparity_and_is_refused(scene):
    depth, valid = scene
    with pytest.raises(PredictionError, match="expected a positive depth to express as disparity; got"):
        AFFINE.score(depth - 3, DEPTH, depth, valid, kind=METRIC_DEPTH)


def test_labels_that_a_protocol_cannot_score_are_refused(scene):
    depth, valid = scene
    with pytest.raises(LabelError, match=r"protocol 'synthetic_metric' can score \(metric\); got scale depth"):
        METRIC.score(depth, DEPTH, depth, valid, kind=LabelKind(Ambiguity.SCALE, DEPTH))
    with pytest.raises(LabelError, match=r"1 / \(a x \+ b\) needs a and b"):
        replace(AFFINE, accepts=kinds(Ambiguity.SHIFT_SCALE))


@pytest.mark.parametrize(
    ("protocol", "representation", "ambiguity", "fits"),
    [
        (AFFINE, DISPARITY, Ambiguity.SHIFT_SCALE, True),
        (AFFINE, DEPTH, Ambiguity.SHIFT_SCALE, False),
        (AFFINE, Representation.LOG_DISPARITY, Ambiguity.SHIFT_SCALE, True),
        (AFFINE, Representation.LOG_DEPTH, Ambiguity.SHIFT_SCALE, False),
        (AFFINE, DEPTH, Ambiguity.SCALE, True),
        (MEDIAN, DISPARITY, Ambiguity.SHIFT_SCALE, False),
        (MEDIAN, DISPARITY, Ambiguity.SCALE, True),
        (METRIC, DISPARITY, Ambiguity.SCALE, False),
        (METRIC, DEPTH, Ambiguity.METRIC, True),
        (PROTOCOLS["midas_diw"], DISPARITY, Ambiguity.SHIFT_SCALE, True),
    ],
)
def test_a_protocol_refuses_models_that_leave_open_what_it_does_not_align(protocol, representation, ambiguity, fits):
    if fits:
        protocol.check_prediction(representation, ambiguity)
    else:
        with pytest.raises(LabelError, match="Choose a protocol that aligns what the model leaves open"):
            protocol.check_prediction(representation, ambiguity)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"order": ("resize", "align")}, "expected order to hold each of"),
        ({"max_depth": torch.inf}, "expected a finite max_depth"),
        ({"min_depth": 90.0}, "expected 0 <= min_depth < max_depth"),
        ({"metrics": {}}, "expected at least one metric"),
    ],
)
def test_contradictory_protocols_are_refused(changes, message):
    plain = replace(AFFINE, alignment=None)
    alignment = Alignment("scale_shift", "least_squares", space=DISPARITY)
    with pytest.raises(RecipeError, match=message):
        replace(plain, **{"alignment": alignment, **changes})


def test_shapes_are_checked(scene):
    depth, valid = scene
    with pytest.raises(ShapeError, match="expected pred of shape"):
        AFFINE.score(depth[:, 0], DEPTH, depth, valid, kind=METRIC_DEPTH)


def test_the_midas_protocols_carry_the_papers_caps_rules_and_figures():
    caps = {"eth3d": 72, "sintel": 72, "kitti": 80, "nyu": 10, "tum": 10}
    assert {name: PROTOCOLS[f"midas_{name}"].max_depth for name in caps} == caps
    assert PROTOCOLS["midas_sintel"].label_range == (0, 72)
    assert PROTOCOLS["midas_kitti"].input_size(375, 1242) == (384, 1280)
    assert PROTOCOLS["midas_nyu"].input_size(480, 640) == (288, 384)
    assert PROTOCOLS["midas_nyu"].published["MiDaS v2 (MIX 5, Pareto)"]["delta1_error"] == pytest.approx(0.0955)
    assert PROTOCOLS["midas_eth3d"].published["MiDaS v2 (MIX 5, Pareto)"]["abs_rel"] == 0.129
    assert all(p.name == name for name, p in PROTOCOLS.items())


def test_metrics_made_for_a_protocol_cap_as_it_does(scene):
    depth, valid = scene
    pred = 0.2 / depth + 3 + 0.05 * torch.randn_like(depth)
    protocol = replace(AFFINE, min_depth=2.0, max_depth=6.0)
    scores = protocol.score(pred, DISPARITY, depth, valid, kind=METRIC_DEPTH)
    metrics = depth_metrics(protocol)
    metrics.update(1 / pred, depth, valid)
    torch.testing.assert_close(metrics.compute()["abs_rel"], scores["abs_rel"].mean())
    uncapped = AbsRel(alignment=protocol.alignment)
    uncapped.update(1 / pred, depth, valid)
    assert not torch.isclose(uncapped.compute(), scores["abs_rel"].mean())


def test_what_a_protocol_does_not_say_is_the_plain_way():
    plain = Protocol("plain", "a test", kinds(Ambiguity.METRIC), {"abs_rel": AbsRel().formula})
    assert (plain.alignment, plain.scale_of, plain.space, plain.reduction) == (None, "image", DEPTH, "image")
    assert (plain.min_depth, plain.max_depth, plain.label_range) == (0, torch.inf, (0, torch.inf))
    assert plain.order == ("resize", "mask", "crop", "align", "clamp")
    assert (plain.crop.name, plain.shown.name, plain.min_valid, plain.coarse_labels) == ("none", "none", 10, False)
    size, rule, multiple = plain.input.side, plain.input.rule, plain.input.multiple
    assert (size, rule, multiple, plain.input.interpolation, plain.input.antialias) == (
        384,
        "upper_bound",
        32,
        "bicubic",
        False,
    )
    assert (plain.output.space, plain.output.mode, plain.output.align_corners) == (None, "bilinear", False)


def test_a_crop_is_a_rectangle_of_one_author():
    assert replace(METRIC, crop=Crop("mine", "me", (0.5, 1), (0, 1))).crop.box(10, 10) == (5, 10, 0, 10)
