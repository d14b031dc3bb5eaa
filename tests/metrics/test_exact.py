"""Sums stay float64 on every device, and a metric refuses what is no alignment when it is made."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from depthkit import precision
from depthkit.alignment import Alignment, ScaleMethod
from depthkit.errors import RecipeError
from depthkit.evaluation import PROTOCOLS, OutputResize
from depthkit.evaluation.scores import ProtocolMetrics
from depthkit.metrics import AbsRel
from depthkit.metrics.trajectory import TrajectoryError
from depthkit.types import Representation
from tests.metrics.test_contract import ALL_METRICS

DEVICE = "meta"
METRICS = [AbsRel, TrajectoryError, lambda: ProtocolMetrics(next(iter(PROTOCOLS.values())))]


class Refuse(TorchDispatchMode):
    """Raise where a float64 tensor is made on the pretended device, as Apple's does."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, torch.Tensor) and x.device.type == DEVICE and x.dtype == torch.float64:
                raise TypeError(f"Cannot convert a MPS Tensor to float64 dtype: {func}")
        return out


@pytest.fixture
def pretended(monkeypatch):
    """A device without float64, on fake tensors that hold no values."""
    monkeypatch.setattr(precision, "WITHOUT_FLOAT64", {DEVICE})
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # which the pretended device has not
    with FakeTensorMode(), Refuse():
        yield


def test_apples_device_has_no_float64():
    assert precision.float64_device(torch.device("mps")).type == "cpu"
    assert precision.float64_device(torch.device("cuda:1")) == torch.device("cuda:1")


@pytest.mark.parametrize("make", METRICS)
def test_states_stay_float64_where_the_device_has_none(make, pretended):
    metric = make().to(DEVICE)
    states = [getattr(metric, name) for name in metric._defaults]
    assert {state.dtype for state in states} == {torch.float64, torch.int64}
    assert {state.device.type for state in states} == {"cpu"}
    metric.reset()
    assert metric.device.type == "cpu"


def test_the_pretended_device_refuses_float64(pretended):
    with pytest.raises(TypeError, match="float64"):
        torch.ones(2, device=DEVICE).double()


@pytest.mark.filterwarnings("ignore:Accessing the data pointer")
@pytest.mark.parametrize("case", [case for case in ALL_METRICS if not case.waits], ids=lambda case: case.name)
def test_every_metric_scores_maps_on_a_device_without_float64(case, request):
    shapes = [(x.shape, x.dtype) for x in case.inputs()]
    request.getfixturevalue("pretended")
    inputs = tuple(torch.zeros(shape, dtype=dtype, device=DEVICE) for shape, dtype in shapes)
    assert case.function(*inputs).dtype == torch.float64
    for reduction in ("image", "pixel"):
        metric = case.metric(reduction=reduction).to(DEVICE)
        metric.update(*inputs)
        assert metric.compute().device.type == "cpu"


@pytest.mark.filterwarnings("ignore:Accessing the data pointer")
@pytest.mark.parametrize("space", list(Representation))
def test_every_alignment_fits_maps_on_a_device_without_float64(space, pretended):
    """The exact L1 line is the exception: it looks at values."""
    fits = [("scale", each) for each in ScaleMethod] + [("scale_shift", each) for each in ("least_squares", "median")]
    pred, target = (torch.zeros(2, 1, 4, 5, device=DEVICE) for _ in range(2))
    valid = torch.zeros(2, 1, 4, 5, dtype=torch.bool, device=DEVICE)
    for degrees, method in fits:
        metric = AbsRel(alignment=Alignment(degrees, method, space=space), caps=(0.1, 10.0)).to(DEVICE)
        metric.update(pred, target, valid)
        assert metric.finished(pred, target, valid).device.type == DEVICE


@pytest.mark.filterwarnings("ignore:Accessing the data pointer")
@pytest.mark.parametrize("name", ["synthetic_affine", "synthetic_median", "synthetic_metric"])
def test_a_protocol_compares_maps_on_a_device_without_float64(name, pretended, monkeypatch):
    for check in ("check_finite", "_express"):  # they look at values
        monkeypatch.setattr(f"depthkit.evaluation.protocol.{check}", lambda x, *_: x)
    protocol, shape = replace(PROTOCOLS[name], output=OutputResize()), (2, 1, 8, 9)
    pred, target = (torch.zeros(shape, device=DEVICE) for _ in range(2))
    valid = torch.zeros(shape, dtype=torch.bool, device=DEVICE)
    pairs = torch.zeros(2, 0, 5, dtype=torch.int64, device=DEVICE)
    found = protocol._compare(pred, Representation.DEPTH, target, valid, pairs, None, None)
    assert {x.device.type for x in found} == {"cpu"}
    assert protocol.sums(found)["abs_rel"][0].dtype == torch.float64


@pytest.mark.parametrize("make", METRICS)
def test_a_cast_keeps_the_precision_of_the_states(make):
    metric = make().half().to(torch.bfloat16)
    assert {getattr(metric, name).dtype for name in metric._defaults} == {torch.float64, torch.int64}


def test_a_name_is_no_alignment():
    with pytest.raises(RecipeError, match="alignment"):
        AbsRel(alignment="least_squares")
