"""Every metric against the contract, each with an implementation of its own in NumPy."""

import inspect
from functools import partial

import numpy as np
import pytest
import torch
from torchmetrics import Metric

from depthkit import metrics
from depthkit.metrics import functional
from depthkit.types import Representation
from tests.contracts.metric import MetricCase, MetricContract, depth_maps, mean, point_pairs, run


def depth_pro_f1(pred, target, valid):
    """Pixel by pixel: is the neighbour above t times as far; one count per direction."""
    height, width = pred.shape[-2:]
    total, weights = 0.0, np.linspace(1.05, 1.25, 10)
    for t in weights:
        precision, recall = [], []
        for dy, dx in [(0, 1), (0, -1), (1, 0), (-1, 0)]:
            hit = found = true = 0
            for y in range(height):
                for x in range(width):
                    v, u = y + dy, x + dx
                    if not (0 <= v < height and 0 <= u < width and valid[0, y, x] and valid[0, v, u]):
                        continue
                    in_pred, in_target = (m[0, v, u] / m[0, y, x] > t for m in (pred, target))
                    hit, found, true = hit + (in_pred and in_target), found + in_pred, true + in_target
            precision.append(hit / max(found, 1))
            recall.append(hit / max(true, 1))
        p, r = np.mean(precision), np.mean(recall)
        total += t * (2 * p * r / (p + r) if p + r else 0)
    return total / weights.sum()


def moge_f1(pred, target, valid, radius):
    """Centre by centre over the disc, centres away from the border; all directions in one count."""
    height, width = pred.shape[-2:]
    total, weights = 0.0, np.linspace(0.05, 0.25, 10)
    disc = [(a, b) for a in range(-radius, radius + 1) for b in range(-radius, radius + 1) if a * a + b * b <= radius**2]
    for w in weights:
        hit = found = true = 0
        for y in range(radius, height - radius):
            for x in range(radius, width - radius):
                for dy, dx in disc:
                    if valid[0, y, x] and valid[0, y + dy, x + dx]:
                        in_pred, in_target = (m[0, y + dy, x + dx] / m[0, y, x] > 1 + w for m in (pred, target))
                        hit, found, true = hit + (in_pred and in_target), found + in_pred, true + in_target
        total += w * (2 * hit / (found + true) if found + true else 0)
    return total / weights.sum()


def disagreement(pred, pairs, *, closer_is_larger=False, equal_ratio=None):
    wrong = count = 0
    for ya, xa, yb, xb, order in pairs:
        if ya < 0 or (equal_ratio is None and order == 0):
            continue
        a, b = pred[0, ya, xa], pred[0, yb, xb]
        closer = np.sign(a - b) if closer_is_larger else np.sign(b - a)
        if equal_ratio is not None and max(a / b, b / a) <= equal_ratio:
            closer = 0
        wrong, count = wrong + (closer != order), count + 1
    return wrong / count


def ratio(p, g):
    return np.maximum(p / g, g / p)


def log_error(p, g):
    return np.log(p) - np.log(g)


def case(name, metric, function, reference, compacted=True, inputs=None, **options):
    extra = {} if inputs is None else {"inputs": inputs}
    return MetricCase(name, partial(metric, **options), partial(function, **options), reference, compacted=compacted, **extra)


m, f = metrics, functional
DISPARITY = Representation.DISPARITY
ALL_METRICS = [
    case("abs_rel", m.AbsRel, f.abs_rel, lambda p, g: mean(abs(p - g) / g)),
    case("sq_rel", m.SqRel, f.sq_rel, lambda p, g: mean((p - g) ** 2 / g)),
    case("sq_rel-kitti", m.SqRel, f.sq_rel, lambda p, g: 100 * mean((p / g - 1) ** 2), variant="kitti"),
    case("mae", m.MAE, f.mae, lambda p, g: mean(abs(p - g))),
    case("rmse", m.RMSE, f.rmse, lambda p, g: mean((p - g) ** 2) ** 0.5),
    case("rmse_log", m.RMSELog, f.rmse_log, lambda p, g: mean(np.log(p / g) ** 2) ** 0.5),
    case("rmse_log10", m.RMSELog10, f.rmse_log10, lambda p, g: mean(np.log10(p / g) ** 2) ** 0.5),
    case("log10", m.Log10, f.log10, lambda p, g: mean(abs(np.log10(p / g)))),
    case("log_mae", m.LogMAE, f.log_mae, lambda p, g: mean(abs(np.log(p / g)))),
    case("log_mae-x100", m.LogMAE, f.log_mae, lambda p, g: 100 * mean(abs(np.log(p / g))), factor=100.0),
    case("silog", m.SILog, f.silog, lambda p, g: 100 * np.std(log_error(p, g))),
    case("silog-unscaled", m.SILog, f.silog, lambda p, g: np.std(log_error(p, g)), factor=1.0),
    case(
        "silog-depth_anything_v2",
        m.SILog,
        f.silog,
        lambda p, g: (mean(log_error(p, g) ** 2) - 0.5 * mean(log_error(p, g)) ** 2) ** 0.5,
        variance_focus=0.5,
        factor=1.0,
    ),
    case("silog-unbiased", m.SILog, f.silog, lambda p, g: 100 * np.std(log_error(p, g), ddof=1), unbiased=True),
    case("irmse", m.IRMSE, f.irmse, lambda p, g: mean((1000 / p - 1000 / g) ** 2) ** 0.5),
    case("irmse-per_metre", m.IRMSE, f.irmse, lambda p, g: mean((1 / p - 1 / g) ** 2) ** 0.5, unit="1/m"),
    case("imae", m.IMAE, f.imae, lambda p, g: mean(abs(1000 / p - 1000 / g))),
    case("delta1", m.DeltaAccuracy, f.delta_accuracy, lambda p, g: mean(ratio(p, g) < 1.25)),
    case("delta2", m.DeltaAccuracy, f.delta_accuracy, lambda p, g: mean(ratio(p, g) < 1.25**2), threshold=1.25**2),
    case("delta_1.05", m.DeltaAccuracy, f.delta_accuracy, lambda p, g: mean(ratio(p, g) < 1.05), threshold=1.05),
    case("delta_error", m.DeltaError, f.delta_error, lambda p, g: mean(ratio(p, g) > 1.25)),
    case("boundary_f1-depth_pro", m.BoundaryF1, f.boundary_f1, depth_pro_f1, compacted=False),
    *(
        case(
            f"boundary_f1-moge-{radius}",
            m.BoundaryF1,
            f.boundary_f1,
            partial(moge_f1, radius=radius),
            compacted=False,
            variant="moge",
            radius=radius,
        )
        for radius in (1, 2, 3)
    ),
    case("whdr", m.WHDR, f.whdr, disagreement, compacted=False, inputs=point_pairs),
    case(
        "whdr-disparity",
        m.WHDR,
        f.whdr,
        partial(disagreement, closer_is_larger=True),
        compacted=False,
        inputs=point_pairs,
        representation=DISPARITY,
    ),
    case(
        "whdr-equality",
        m.WHDR,
        f.whdr,
        partial(disagreement, equal_ratio=1.1),
        compacted=False,
        inputs=point_pairs,
        equal_ratio=1.1,
    ),
]


@pytest.mark.parametrize("case", ALL_METRICS, ids=lambda case: case.name)
class TestMetrics(MetricContract):
    pass


ALONE = (
    metrics.TrajectoryError,
    metrics.FlowWarpedError,
    metrics.TemporalAlignmentError,
    metrics.SparsificationCurve,
    metrics.AUSE,
    metrics.CalibrationCurve,
    metrics.CalibrationError,
)
"""Metrics whose one mean is over images (or runs)."""
PUBLIC = [each for each in vars(metrics).values() if isinstance(each, type) and issubclass(each, Metric)]


@pytest.mark.parametrize("metric", PUBLIC, ids=lambda metric: metric.__name__)
def test_every_argument_of_a_metric_is_in_its_signature(metric):
    parameters = inspect.signature(metric).parameters.values()
    assert {p.kind for p in parameters} <= {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}
    assert "reduction" in {p.name for p in parameters} or metric in ALONE


def test_metrics_plot_one_value_several_and_collections():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    absolute, together = run(metrics.AbsRel(), depth_maps(), (2, 2)), run(metrics.depth_metrics(), depth_maps(), (4,))
    value = absolute.compute()
    for drawn in (absolute.plot(), absolute.plot([value, value / 2]), *together.plot()):
        figure, axes = drawn
        assert axes.figure is figure
    assert "AbsRel" in absolute.plot()[1].get_ylabel()
    trajectory = metrics.TrajectoryError()
    trajectory.update(torch.eye(4).repeat(6, 1, 1), torch.eye(4).repeat(6, 1, 1))
    assert trajectory.plot()[0] is not None
    matplotlib.pyplot.close("all")
