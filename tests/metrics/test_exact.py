"""Sums stay float64 on every device, maps are scored on devices without float64, and a metric refuses what is no alignment."""

from contextlib import nullcontext

import pytest
import torch
from torch.testing import assert_close
from torch.utils._pytree import tree_leaves, tree_map_only

from depthkit.alignment import Alignment, ScaleMethod, ScaleShiftMethod
from depthkit.errors import RecipeError
from depthkit.evaluation import PROTOCOLS
from depthkit.evaluation.scores import ProtocolMetrics
from depthkit.metrics import AbsRel
from depthkit.metrics.trajectory import TrajectoryError
from depthkit.precision import float64_device
from depthkit.types import Ambiguity, LabelKind, Representation
from tests.contracts.metric import depth_maps
from tests.metrics.test_contract import ALL_METRICS

METRICS = [AbsRel, TrajectoryError, lambda: ProtocolMetrics(next(iter(PROTOCOLS.values())))]
CPU, MPS = torch.device("cpu"), torch.device("mps")


class OnMps(torch.Tensor):
    """A tensor as on Apple's device: it has no float64, and meets no tensor of another device."""

    device = MPS

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunctionSubclass():
            if func is torch.Tensor.to and CPU in args:
                return args[0].as_subclass(torch.Tensor)
            if func is torch.Tensor.to and isinstance(args[-1], OnMps):
                return args[0].to(args[-1].dtype).as_subclass(OnMps)
            given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor) and x.ndim]
            if not all(isinstance(x, OnMps) for x in given):
                raise RuntimeError(f"Expected all tensors to be on the same device: {func}")
            out = func(*args, **kwargs)
        if any(isinstance(x, torch.Tensor) and x.dtype == torch.float64 for x in tree_leaves(out)):
            raise TypeError(f"Cannot convert a MPS Tensor to float64 dtype: {func}")
        return tree_map_only(torch.Tensor, lambda x: x.as_subclass(OnMps), out)


@pytest.fixture
def on_mps(monkeypatch):
    """Move inputs to the pretended device, where autocast is off anyway."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    return lambda inputs: tuple(x.as_subclass(OnMps) for x in inputs)


def test_apples_device_has_no_float64(on_mps):
    assert float64_device(MPS) == CPU
    assert float64_device(torch.device("cuda:1")) == torch.device("cuda:1")
    (x,) = on_mps([torch.ones(2)])
    with pytest.raises(TypeError, match="float64"):
        x.double()
    with pytest.raises(RuntimeError, match="same device"):
        x + torch.ones(2)


@pytest.mark.parametrize("make", METRICS)
def test_states_stay_float64_where_the_device_has_none(make):
    metric = make()
    metric._apply(lambda x: x.as_subclass(OnMps))
    states = [getattr(metric, name) for name in metric._defaults]
    assert {state.dtype for state in states} == {torch.float64, torch.int64}
    assert all(type(state) is torch.Tensor and state.device == CPU for state in states)
    assert metric.device == CPU


@pytest.mark.parametrize("case", ALL_METRICS, ids=lambda case: case.name)
def test_every_metric_scores_maps_of_a_device_without_float64(case, on_mps):
    inputs = case.inputs()
    there = on_mps(inputs)
    assert_close(case.function(*there), case.function(*inputs), rtol=0, atol=0)
    for reduction in ("image", "pixel"):
        here, metric = case.metric(reduction=reduction), case.metric(reduction=reduction)
        here.update(*inputs)
        metric.update(*there)
        assert_close(metric.compute(), here.compute(), rtol=0, atol=0)


@pytest.mark.parametrize("space", list(Representation))
@pytest.mark.parametrize(
    ("degrees", "method"), [*(("scale", m) for m in ScaleMethod), *(("scale_shift", m) for m in ScaleShiftMethod)]
)
def test_every_alignment_fits_maps_of_a_device_without_float64(degrees, method, space, on_mps):
    inputs = depth_maps()
    metric = AbsRel(alignment=Alignment(degrees, method, space=space), caps=(0.1, 10.0))
    found = metric.finished(*on_mps(inputs))
    assert found.device == MPS
    assert_close(found.as_subclass(torch.Tensor), metric.finished(*inputs), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", ["synthetic_affine", "synthetic_median", "synthetic_metric"])
def test_a_protocol_scores_maps_of_a_device_without_float64(name, on_mps):
    pred, target, valid = depth_maps()
    kind = LabelKind(Ambiguity.METRIC, Representation.DEPTH)
    space = Representation.DEPTH if name == "synthetic_metric" else Representation.DISPARITY
    here = PROTOCOLS[name].score(pred, space, target, valid, kind=kind)
    moved = on_mps((pred, target, valid))
    there = PROTOCOLS[name].score(moved[0], space, *moved[1:], kind=kind)
    assert all(torch.equal(there[metric], here[metric]) for metric in here)


@pytest.mark.parametrize("make", METRICS)
def test_a_cast_keeps_the_precision_of_the_states(make):
    metric = make().half().to(torch.bfloat16)
    assert {getattr(metric, name).dtype for name in metric._defaults} == {torch.float64, torch.int64}


def test_a_name_is_no_alignment():
    with pytest.raises(RecipeError, match="alignment"):
        AbsRel(alignment="least_squares")
