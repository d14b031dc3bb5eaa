"""Laws of single metrics, and of their names."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close
from torchmetrics import MetricCollection

from depthkit import metrics as m
from depthkit.errors import RecipeError, ShapeError
from depthkit.metrics import functional as f
from tests.contracts.metric import depth_maps, run


@pytest.mark.parametrize("k", [0.5, 0.9, 1.0, 1.2, 2.0])
def test_closed_forms_for_a_prediction_that_is_k_times_the_truth(k):
    _, target, valid = depth_maps()
    pred, ones = k * target, torch.ones(4, dtype=torch.float64)
    log = abs(np.log(k))
    assert_close(f.abs_rel(pred, target, valid), ones * abs(k - 1), rtol=1e-5, atol=1e-6)
    assert_close(f.delta_accuracy(pred, target, valid), ones * (max(k, 1 / k) < 1.25))
    assert_close(f.delta_error(pred, target, valid), ones * (max(k, 1 / k) > 1.25))
    assert_close(f.rmse_log(pred, target, valid), ones * log, rtol=1e-5, atol=1e-6)
    assert_close(f.log10(pred, target, valid), ones * log / np.log(10), rtol=1e-5, atol=1e-6)
    assert_close(f.silog(pred, target, valid), 0 * ones, rtol=0, atol=1e-4)
    assert_close(f.silog(pred, target, valid, variance_focus=0.5, factor=1.0), ones * log * 0.5**0.5, rtol=1e-5, atol=1e-6)
    assert_close(f.sq_rel(pred, target, valid, variant="kitti"), ones * 100 * (k - 1) ** 2, rtol=1e-5, atol=1e-6)
    for variant in ("depth_pro", "moge"):
        assert_close(f.boundary_f1(pred, target, valid, variant=variant), f.boundary_f1(target, target, valid, variant=variant))


def test_a_ratio_of_exactly_the_threshold_is_neither_within_it_nor_beyond():
    target = torch.tensor([4.0, 5.0, 4.0, 4.0]).view(1, 1, 2, 2)
    pred = torch.tensor([5.0, 4.0, 4.0, 8.0]).view(1, 1, 2, 2)
    assert f.delta_accuracy(pred, target, target > 0).item() == 1 / 4
    assert f.delta_error(pred, target, target > 0).item() == 1 / 4


def test_a_formula_alone_has_the_defaults_of_its_metric():
    formulas = [type(m.SILog().formula), type(m.SqRel().formula), type(m.IRMSE().formula), type(m.DeltaAccuracy().formula)]
    assert [formula() for formula in formulas] == [x().formula for x in (m.SILog, m.SqRel, m.IRMSE, m.DeltaAccuracy)]


def test_depth_in_millimetres_moves_each_metric_by_its_unit():
    pred, target, valid = depth_maps()
    scaled = 1000 * pred, 1000 * target, valid
    for function, power in [
        (f.mae, 1), (f.rmse, 1), (f.sq_rel, 1), (f.irmse, -1), (f.imae, -1),
        (f.abs_rel, 0), (f.rmse_log, 0), (f.log10, 0), (f.log_mae, 0), (f.silog, 0), (f.delta_accuracy, 0), (f.boundary_f1, 0),
    ]:  # fmt: skip
        assert_close(function(*scaled), function(pred, target, valid) * 1000.0**power, rtol=1e-4, atol=1e-9)


def test_silog_variants_order_as_their_definitions_do():
    maps = depth_maps()
    assert_close(f.silog(*maps, variance_focus=0.0, factor=1.0), f.rmse_log(*maps), rtol=1e-12, atol=0)
    n = maps[2].flatten(1).sum(1)
    assert_close(f.silog(*maps, unbiased=True), f.silog(*maps) * (n / (n - 1)) ** 0.5, rtol=1e-6, atol=0)
    assert f.silog(*(x[..., :1, :1] for x in maps[:2]), torch.ones(4, 1, 1, 1, dtype=torch.bool), unbiased=True).isnan().all()


def test_units_of_inverse_depth_differ_by_a_thousand():
    maps = depth_maps()
    assert_close(f.irmse(*maps), 1000 * f.irmse(*maps, unit="1/m"))


def test_accuracy_and_error_add_up_to_one():
    maps = depth_maps()
    assert_close(f.delta_accuracy(*maps) + f.delta_error(*maps), torch.ones(4, dtype=torch.float64))


@pytest.mark.parametrize("depth", [0.0, -1.0, -1e9, float("inf")])
def test_zero_negative_or_infinite_depth_is_within_no_factor(depth):
    _, target, valid = depth_maps()
    assert f.delta_accuracy(torch.full_like(target, depth), target, valid).tolist() == [0, 0, 0, 0]
    assert f.delta_error(torch.full_like(target, depth), target, valid).tolist() == [1, 1, 1, 1]


def test_negative_prediction_has_no_logarithm():
    pred, target, valid = depth_maps()
    for function in (f.rmse_log, f.log10, f.log_mae, f.silog):
        assert function(-pred, target, valid).isnan().all()


@pytest.mark.parametrize("label", [0.0, -1.0, float("inf"), float("nan")])
def test_label_that_is_no_depth_but_called_valid_is_never_scored_silently(label):
    pred, target, valid = depth_maps()
    everywhere = torch.ones_like(valid)
    camera = torch.eye(3).expand(4, 3, 3)
    further = {"point_cloud_fscore": [camera], "plane_orientation_error": [everywhere.int(), camera]}
    further |= {
        name: [torch.ones_like(pred)] for name in ("sparsification_curve", "ause", "calibration_curve", "calibration_error")
    }
    without = {"whdr", "planarity_error", "trajectory_error", "depth_boundary_error"}  # of labelled depth
    films = {"flow_warped_error", "temporal_alignment_error"}
    for name in set(f.__all__) - without - films:
        spoilt = target.where(valid, label)
        assert getattr(f, name)(pred, spoilt, everywhere, *further.get(name, [])).isnan().all(), name


@pytest.mark.parametrize("function", [f.rmse, f.mae])
def test_errors_of_affine_disparities_do_not_depend_on_the_offset(function):
    pred, target, valid = depth_maps()
    assert_close(function(pred - 3, target - 3, valid, signed=True), function(pred, target, valid), rtol=1e-5, atol=0)


def test_image_and_pixel_reductions_differ_when_labels_are_unequal():
    target = torch.ones(2, 1, 2, 2)
    valid = torch.tensor([[1, 0, 0, 0], [1, 1, 1, 1]], dtype=torch.bool).view(2, 1, 2, 2)
    pred = target + torch.tensor([4.0, 1.0]).view(2, 1, 1, 1)
    assert run(m.RMSE(), (pred, target, valid), (2,)).compute() == (4 + 1) / 2
    assert_close(run(m.RMSE(reduction="pixel"), (pred, target, valid), (2,)).compute().item(), ((16 + 4) / 5) ** 0.5)


def test_perfect_boundaries_score_one_where_every_direction_has_some_and_smooth_maps_score_zero():
    steps = torch.ones(1, 1, 12, 12)
    steps[..., 4:8, 4:8] = 2.0
    valid = torch.ones_like(steps, dtype=torch.bool)
    smooth = torch.ones_like(steps)
    for options in ({}, *({"variant": "moge", "radius": r} for r in (1, 2, 3))):
        assert_close(f.boundary_f1(5 * steps, steps, valid, **options).item(), 1.0)
        assert f.boundary_f1(smooth, steps, valid, **options).item() == 0
        assert f.boundary_f1(1 / steps, steps, valid, **options).item() == 0  # near and far swapped


@pytest.mark.parametrize("depth", [0.0, -1.0])
def test_boundary_of_zero_or_negative_depth_is_nan(depth):
    pred, target, valid = depth_maps()
    pred = pred.clone()
    y, x = valid[1, 0].nonzero()[0]
    pred[1, 0, y, x] = depth
    for variant in ("depth_pro", "moge"):
        assert f.boundary_f1(pred, target, valid, variant=variant).isnan().tolist() == [False, True, False, False]


def test_map_smaller_than_the_neighbourhood_has_no_boundary():
    tiny = torch.ones(1, 1, 2, 3)
    assert f.boundary_f1(tiny, tiny, tiny > 0, variant="moge", radius=3).tolist() == [0]


def test_sum_loses_no_pixel_to_its_magnitude():
    """After 2^40 images of error 1 (a float32 sum stops at 2^24), one more image still counts."""
    metric, one = m.MAE(), torch.ones(1, 1, 1, 1)
    metric.update(2 * one, one, one > 0)
    image = {name: getattr(metric, name) for name in metric._defaults}
    metric.merge_state({name: value * (2**40 - 1) for name, value in image.items()})
    before = getattr(metric, metric._total).clone()
    metric.update(2 * one, one, one > 0)
    assert (getattr(metric, metric._total) - before).item() == 1
    assert metric.n_images == 2**40 + 1
    assert metric.compute() == 1


def test_sums_of_float32_maps_are_exact_where_float32_would_round():
    big = torch.full((1, 1, 200, 200), 1e5)
    assert_close(f.rmse(big + 0.0625, big, big > 0), torch.tensor([0.0625], dtype=torch.float64), rtol=1e-12, atol=0)


def test_collection_holds_the_customary_names_under_the_prefix():
    values = run(m.depth_metrics(prefix="val/"), depth_maps(), (4,)).compute()
    names = ["abs_rel", "sq_rel", "rmse", "rmse_log", "log10", "silog", "irmse", "mae", "delta1", "delta2", "delta3"]
    assert sorted(values) == sorted(f"val/{name}" for name in names)
    assert sorted(run(m.depth_metrics(), depth_maps(), (4,)).compute()) == sorted(names)


@pytest.mark.parametrize("first", ["perfect", "no valid pixel"])
def test_metrics_that_agree_on_the_first_batch_are_not_taken_for_one(first):
    """torchmetrics merges metrics whose states are equal after one update, and updates only the first from then on."""
    pred, target, valid = depth_maps()
    opening = (target, target, valid) if first == "perfect" else (pred, target, torch.zeros_like(valid))
    makers = {
        **{name: type(metric) for name, metric in m.depth_metrics().items() if not name.startswith("delta")},
        "delta1": lambda: m.DeltaAccuracy(1.25),
        "delta2": lambda: m.DeltaAccuracy(1.25**2),
        "sq_rel_kitti": lambda: m.SqRel(variant="kitti"),
        "silog_half": lambda: m.SILog(variance_focus=0.5),
        "abs_rel_pooled": lambda: m.AbsRel(reduction="pixel"),
        "abs_rel_aligned": lambda: m.AbsRel(alignment=m.Alignment("scale", "least_squares")),
        "abs_rel_aligned_otherwise": lambda: m.AbsRel(alignment=m.Alignment("scale", "median_ratio")),
        "boundary": m.BoundaryF1,
        "boundary_moge": lambda: m.BoundaryF1(variant="moge"),
    }
    together = MetricCollection({name: make() for name, make in makers.items()})
    together.update(*opening)
    together.update(pred, target, valid)
    for name, value in together.compute().items():
        alone = makers[name]()
        alone.update(*opening)
        alone.update(pred, target, valid)
        assert_close(value, alone.compute(), msg=name)


def test_equal_metrics_do_share_one_state():
    together = MetricCollection({"a": m.AbsRel(), "b": m.AbsRel(), "c": m.MAE()})
    together.update(*depth_maps())
    assert sorted(map(sorted, together.compute_groups.values())) == [["a", "b"], ["c"]]


def test_only_accuracy_and_f_scores_are_better_when_higher():
    higher = {name for name in m.__all__ if getattr(getattr(m, name), "higher_is_better", False)}
    assert higher == {"DeltaAccuracy", "BoundaryF1", "PointCloudFScore"}


def test_user_adds_a_metric_with_one_formula():
    class Bias(m.PixelMean):
        def _terms(self, pred, target):
            return (pred - target,)

    pred, target, valid = depth_maps()
    expected = torch.stack([(p - t)[v].double().mean() for p, t, v in zip(pred, target, valid, strict=True)]).mean()
    assert_close(run(m.DepthMetric(Bias()), (pred, target, valid), (1, 3)).compute(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: m.SqRel(variant="devkit"), "expected variant to be one of eigen, kitti; got 'devkit'"),
        (lambda: m.IRMSE(unit="1/mm"), "expected unit to be one of 1/km, 1/m; got '1/mm'"),
        (lambda: m.DeltaAccuracy(1.0), "expected a threshold above 1 .* got 1.0"),
        (lambda: m.DeltaError(0.25), "expected a threshold above 1 .* got 0.25"),
        (lambda: m.SILog(variance_focus=2.0), r"expected variance_focus in \[0, 1\]; got 2.0"),
        (lambda: m.SILog(variance_focus=0.5, unbiased=True), "unbiased=True is a standard deviation"),
        (lambda: m.BoundaryF1(variant="canny"), "expected variant to be one of depth_pro, moge; got 'canny'"),
        (lambda: m.BoundaryF1(radius=2), "expected radius >= 1, and 1 for 'depth_pro'.*; got 2"),
        (lambda: m.WHDR(equal_ratio=0.9), "expected equal_ratio of at least 1, such as 1.1, or None; got 0.9"),
    ],
)
def test_unknown_option_is_refused(make, message):
    with pytest.raises(RecipeError, match=message):
        make()


def test_maps_of_different_shape_are_refused():
    pred, target, valid = depth_maps()
    with pytest.raises(ShapeError, match="Resize the prediction to the label"):
        f.abs_rel(pred[..., :4], target, valid)
    with pytest.raises(ShapeError, match="Pass a mask"):
        m.RMSE().update(pred, target, valid.float())
