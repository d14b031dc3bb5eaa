from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from depthkit.paradigms import AffineInvariantModule, LookaheadRAdam
from tests.contracts.paradigm import METRIC_DEPTH, Memory, TinyNet, batch, weights_after


def test_an_epoch_ends_with_the_slow_weights(tmp_path: Path) -> None:
    """Also without validation: half the way back to the start, for no move came before."""
    data = Memory([batch([(0, METRIC_DEPTH)], seed=seed) for seed in range(3)], (METRIC_DEPTH,))

    def weights(optimizer: Any) -> Tensor:
        torch.manual_seed(0)
        m = AffineInvariantModule(TinyNet(), optimizer=optimizer)
        after = weights_after(m, data, tmp_path, max_steps=-1, max_epochs=1)
        return torch.cat([x.flatten() for x in after.values()])

    start = weights(partial(torch.optim.SGD, lr=0.0))
    fast = weights(partial(torch.optim.RAdam, lr=1e-2, betas=(0.95, 0.999), eps=1e-5))
    slow = weights(partial(LookaheadRAdam, lr=1e-2, k=100))
    assert (fast - start).norm() > 1e-3
    assert_close(slow - start, (fast - start) / 2, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.5, 0.2])
def test_slow_weights_start_where_training_does(alpha: float) -> None:
    """Zhang et al. 2019: after k steps the weights are start + alpha (fast - start)."""
    weight, alone = torch.ones(1, requires_grad=True), torch.ones(1, requires_grad=True)
    ours = LookaheadRAdam([weight], lr=0.2, k=6, alpha=alpha)
    fast = torch.optim.RAdam([alone], lr=0.2, betas=(0.95, 0.999), eps=1e-5)
    for _ in range(6):
        for parameter, optimizer in ((weight, ours), (alone, fast)):
            optimizer.zero_grad()
            (parameter**2).sum().backward()
            optimizer.step()
    assert_close(weight, 1 + alpha * (alone - 1))
    assert alone.item() < 0.9


def test_weights_decay_by_their_rate_times_the_learning_rate_whatever_the_gradient() -> None:
    weight = torch.ones(1, requires_grad=True)
    optimizer = LookaheadRAdam([weight], lr=0.1, weight_decay=0.5, k=100)
    for _ in range(8):  # beyond the steps in which RAdam has no denominator
        weight.grad = torch.zeros(1)
        optimizer.step()
    assert_close(weight, torch.full((1,), (1 - 0.1 * 0.5) ** 8))
