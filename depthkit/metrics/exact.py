"""Sums that depend neither on batching, nor on the precision of the module around them, nor on the number of processes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torchmetrics import Metric


class ExactSums(Metric):
    """Accumulate float64 sums and int64 counts of fixed shape, added up over processes.

    A cast of the whole module (``.to(torch.bfloat16)``) moves the states to its device and keeps their precision. Where that
    device has no float64 (MPS), the states are on the CPU.
    """

    def add_sum(self, name: str, *shape: int) -> None:
        """Declare a float64 state of ``shape``, zero at first."""
        self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    def add_count(self, name: str) -> None:
        """Declare an int64 scalar state, zero at first."""
        self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def accumulate(self, name: str, value: Tensor | int) -> None:
        """Add ``value`` to the state ``name``."""
        state = getattr(self, name)
        setattr(self, name, state + (value.detach().to(state.device) if isinstance(value, Tensor) else value))

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Any = "") -> Module:
        return super()._apply(lambda state: _moved(state, fn), exclude_state)


def _moved(state: Tensor, fn: Callable[[Tensor], Tensor]) -> Tensor:
    device = fn(torch.empty(0, device=state.device)).device
    try:
        return state.to(device)
    except TypeError:
        return state.cpu()
