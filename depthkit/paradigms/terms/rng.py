"""Random numbers of a training step."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def step_rng(seed: int, step: int, rank: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed the random generators from (seed, step, rank), so that a resumed run repeats the same draws; restore them after.

    Args:
        seed: of the run.
        step: number of the batch.
        rank: of the process, so that ranks draw different numbers.
        device: whose generator is seeded beside the CPU's, if it is a CUDA device.

    >>> with step_rng(0, 7, 0):
    ...     first = torch.rand(())
    >>> with step_rng(0, 7, 0):
    ...     bool(torch.rand(()) == first)
    True
    """
    with torch.random.fork_rng([device] if device is not None and device.type == "cuda" else []):
        torch.manual_seed(hash((seed, step, rank)) % 2**63)
        yield
