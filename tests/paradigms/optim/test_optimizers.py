import torch
from torch.testing import assert_close

from depthkit.paradigms import LookaheadRAdam


def test_slow_weights_start_where_training_does() -> None:
    """Zhang et al. 2019: after k steps the weights are start + alpha (fast - start)."""
    weight, alone = torch.ones(1, requires_grad=True), torch.ones(1, requires_grad=True)
    ours = LookaheadRAdam([weight], lr=0.2, k=6, alpha=0.5)
    fast = torch.optim.RAdam([alone], lr=0.2, betas=(0.95, 0.999), eps=1e-5)
    for _ in range(6):
        for parameter, optimizer in ((weight, ours), (alone, fast)):
            optimizer.zero_grad()
            (parameter**2).sum().backward()
            optimizer.step()
    assert_close(weight, 1 + 0.5 * (alone - 1))
    assert alone.item() < 0.9
