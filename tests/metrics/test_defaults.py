"""What a metric, its function and its formula do when nothing is said: the most used variant, the mean over images."""

import inspect
from dataclasses import fields, is_dataclass
from typing import Any

import pytest

from depthkit import metrics
from depthkit.metrics import functional

OPTIONS: dict[str, dict[str, Any]] = {
    "SqRel": {"variant": "eigen"},
    "SILog": {"variance_focus": 1.0, "factor": 100.0, "unbiased": False},
    "LogMAE": {"factor": 1.0},
    "MAE": {"signed": False},
    "RMSE": {"signed": False},
    "IMAE": {"unit": "1/km"},
    "IRMSE": {"unit": "1/km"},
    "DeltaAccuracy": {"threshold": 1.25},
    "DeltaError": {"threshold": 1.25},
    "DepthBoundaryError": {"side": "accuracy"},
    "BoundaryF1": {"variant": "depth_pro", "radius": 1},
    "PointCloudFScore": {"threshold": 0.1, "relative": False},
    "PlanarityError": {"min_share": 0.01},
    "PlaneOrientationError": {"min_share": 0.01},
    "WHDR": {"representation": "depth", "equal_ratio": None, "tie": 0},
    "SparsificationCurve": {"error": "abs_rel", "steps": 50, "normalised": False},
    "AUSE": {"error": "abs_rel", "steps": 50, "normalised": False},
    "CalibrationCurve": {"levels": 20},
    "CalibrationError": {"levels": 20},
    "TrajectoryError": {"frames": 5, "chaining": "published", "partial": True},
}
SHARED = {"reduction": "image", "alignment": None, "caps": None}
METRICS = {
    name: cls
    for name in metrics.__all__
    if inspect.isclass(cls := getattr(metrics, name))
    and hasattr(cls, "compute")
    and name not in ("DepthMetric", "FormulaMetric")
}


def defaults(function: Any) -> dict[str, Any]:
    return {n: p.default for n, p in inspect.signature(function).parameters.items() if p.default is not p.empty}


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_has_the_customary_options(name: str) -> None:
    found = defaults(METRICS[name])
    shared = {key: value for key, value in SHARED.items() if key in found}
    assert found == OPTIONS.get(name, {}) | shared
    formula = getattr(METRICS[name](), "formula", None)
    if is_dataclass(formula):
        assert type(formula)() == formula
        assert {field.name for field in fields(formula)} == OPTIONS.get(name, {}).keys()


@pytest.mark.parametrize("name", functional.__all__)
def test_a_function_has_the_options_of_its_metric(name: str) -> None:
    (metric,) = [key for key in METRICS if key.lower() == name.replace("_", "")]
    found = defaults(getattr(functional, name))
    expected = OPTIONS.get(metric, {})
    assert {key: found[key] for key in expected} == expected


def test_the_collections_shares_are_within_powers_of_1_25() -> None:
    found = {name: metric.formula.threshold for name, metric in metrics.depth_metrics().items() if name.startswith("delta")}
    assert found == {"delta1": 1.25, "delta2": 1.25**2, "delta3": 1.25**3}


@pytest.mark.parametrize("name", METRICS)
def test_help_of_a_metric_says_what_each_argument_is(name: str) -> None:
    described = inspect.getdoc(METRICS[name]) or ""
    parameters = [name for name in inspect.signature(METRICS[name]).parameters if name != "self"]
    assert [x for x in parameters if f"\n    {x}: " not in described] == []
