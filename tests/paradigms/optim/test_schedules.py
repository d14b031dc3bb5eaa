import math

import pytest
import torch
from torch.testing import assert_close

from depthkit.errors import RecipeError
from depthkit.paradigms import CosineDecay, ExponentialDecay, LinearDecay, Schedule, StepDecay


def rates(schedule: Schedule, steps: int) -> list[list[float]]:
    optimizer = torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (1.0, 0.1)], lr=1.0)
    scheduler = schedule(optimizer, steps)
    seen = []
    for _ in range(steps):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return seen


KINDS = (Schedule, LinearDecay, CosineDecay, StepDecay, ExponentialDecay)


@pytest.mark.parametrize("schedule", [kind(warmup=5) for kind in KINDS])
def test_groups_keep_their_ratio_and_warm_up_rises_to_one(schedule: Schedule) -> None:
    seen = rates(schedule, 40)
    assert_close([encoder / decoder for decoder, encoder in seen], [0.1] * 40)
    assert_close([decoder for decoder, _ in seen[:5]], [0.2, 0.4, 0.6, 0.8, 1.0])
    assert max(decoder for decoder, _ in seen) == 1.0


def test_each_schedule_has_its_closed_form() -> None:
    assert_close([d for d, _ in rates(LinearDecay(final=0.5), 4)], [1.0, 0.875, 0.75, 0.625])
    assert_close([d for d, _ in rates(LinearDecay(final=0.5, power=2), 4)], [1.0, 0.78125, 0.625, 0.53125])
    assert_close([d for d, _ in rates(StepDecay(milestones=(0.5,), gamma=0.1), 4)], [1.0, 1.0, 0.1, 0.1])
    cosine = CosineDecay(flat=0.5)
    assert [cosine.factor(p) for p in (0.0, 0.25, 0.5)] == [1.0, 1.0, 1.0]
    assert_close([cosine.factor(0.75), cosine.factor(1.0)], [0.5, 0.0])
    assert_close([d for d, _ in rates(ExponentialDecay(final=0.01, until=0.5), 4)], [1.0, 0.1, 0.01, 0.01])
    assert Schedule().factor(0.7) == 1.0


def test_a_schedule_begins_when_the_warm_up_ends() -> None:
    assert_close([d for d, _ in rates(LinearDecay(warmup=2), 6)], [0.5, 1.0, 1.0, 0.75, 0.5, 0.25])
    assert_close([d for d, _ in rates(StepDecay(warmup=2, milestones=(0.5,)), 6)], [0.5, 1.0, 1.0, 1.0, 0.1, 0.1])
    assert_close(LinearDecay(final=0.3, power=0.9).factor(1.0), 0.3)


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (Schedule, {"warmup": -1}, "warmup of 0 steps or more; got -1"),
        (LinearDecay, {"final": -0.1}, "final of 0 or more"),
        (LinearDecay, {"power": 0.0}, "power above 0; got 0.0"),
        (CosineDecay, {"flat": 1.0}, "flat from 0 to below 1, a share of the run; got 1.0"),
        (StepDecay, {"milestones": (100, 200)}, r"milestones from 0 to 1, shares of the run; got \(100, 200\)"),
        (ExponentialDecay, {"final": 0.0}, "final above 0"),
        (ExponentialDecay, {"until": 0.0}, "until from above 0 to 1"),
    ],
)
def test_arguments_out_of_range_are_refused(kind, arguments: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        kind(**arguments)


def test_a_run_without_an_end_has_a_constant_rate_only() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    scheduler = Schedule(warmup=2)(optimizer, math.inf)
    seen = []
    for _ in range(4):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert seen == [0.25, 0.5, 0.5, 0.5]
    for kind in KINDS[1:]:
        with pytest.raises(RecipeError, match=f"a run with a known end for {kind.__name__}; got neither trainer.max_epochs"):
            kind()(optimizer, math.inf)
