import math
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from depthkit.errors import RecipeError
from depthkit.paradigms import OneCycle

STEPS = 41


def run(schedule: OneCycle, factory: Any = torch.optim.AdamW) -> list[list[dict[str, Any]]]:
    optimizer = factory([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (1.0, 0.02)])
    scheduler = schedule(optimizer, STEPS)
    seen = []
    for _ in range(STEPS):
        seen.append([dict(group) for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return seen


def cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))


def test_zoedepths_cycle_has_its_closed_form() -> None:
    """The rate stays and falls; momentum falls and comes back."""
    last = 0.75 * STEPS - 1  # step of the turn
    for step, (fresh, encoder) in enumerate(run(OneCycle(rise=0.75, start=1.0, final=1e-4))):
        rest = max(0.0, (step - last) / (STEPS - 1 - last))
        assert_close(fresh["lr"], cosine(1.0, 1e-4, rest))
        assert_close(encoder["lr"], 0.02 * fresh["lr"])
        momentum = cosine(0.85, 0.95, rest) if step > last else cosine(0.95, 0.85, step / last)
        assert_close(fresh["betas"][0], momentum)


def test_a_cycle_rises_from_its_start_to_one_and_ends_at_its_final_factor() -> None:
    rates = [fresh["lr"] for fresh, _ in run(OneCycle(rise=0.5, start=0.1, final=0.01, momentum=None))]
    assert_close([rates[0], rates[-1]], [0.1, 0.01])
    assert_close(max(rates), 1.0, atol=0.01, rtol=0)
    assert rates.index(max(rates)) in (19, 20)


def test_momentum_stays_where_it_is_not_asked_to_move() -> None:
    assert {fresh["betas"] for fresh, _ in run(OneCycle(momentum=None))} == {(0.9, 0.999)}
    assert run(OneCycle(momentum=None), torch.optim.Adagrad)


def test_what_no_cycle_can_be_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"expected an optimizer with momentum; got Adagrad. Set OneCycle's momentum to null"):
        run(OneCycle(), torch.optim.Adagrad)
    with pytest.raises(RecipeError, match=r"expected 0 < rise < 1 and 0 < final <= start <= 1; got 1.0"):
        OneCycle(rise=1.0)
    with pytest.raises(RecipeError, match="expected a run with a known end"):
        OneCycle()(torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))]), math.inf)
