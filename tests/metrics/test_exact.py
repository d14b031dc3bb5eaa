"""Sums stay float64 on every device, and a metric refuses what is no alignment when it is made."""

import pytest
import torch

from depthkit.errors import RecipeError
from depthkit.evaluation import PROTOCOLS
from depthkit.evaluation.scores import ProtocolMetrics
from depthkit.metrics import AbsRel
from depthkit.metrics.trajectory import TrajectoryError

METRICS = [AbsRel, TrajectoryError, lambda: ProtocolMetrics(next(iter(PROTOCOLS.values())))]


class _WithoutFloat64(torch.Tensor):
    """A tensor on a device without float64: its states cannot follow."""

    @property
    def device(self):
        return _Device()


class _Device:
    """No device that ``Tensor.to`` takes, so that it raises the TypeError of MPS."""


@pytest.mark.parametrize("make", METRICS)
def test_states_stay_float64_where_the_device_has_none(make):
    metric = make()
    metric._apply(lambda x: x.as_subclass(_WithoutFloat64) if x.numel() == 0 else x)
    states = [getattr(metric, name) for name in metric._defaults]
    assert {state.dtype for state in states} == {torch.float64, torch.int64}
    assert all(type(state) is torch.Tensor and state.device.type == "cpu" for state in states)


@pytest.mark.parametrize("make", METRICS)
def test_a_cast_keeps_the_precision_of_the_states(make):
    metric = make().half().to(torch.bfloat16)
    assert {getattr(metric, name).dtype for name in metric._defaults} == {torch.float64, torch.int64}


def test_a_name_is_no_alignment():
    with pytest.raises(RecipeError, match="alignment"):
        AbsRel(alignment="least_squares")
