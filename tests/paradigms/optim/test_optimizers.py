import pytest
import torch
from torch.testing import assert_close

from depthkit.paradigms import LookaheadRAdam


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
