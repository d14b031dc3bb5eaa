"""Sums that depend neither on batching, nor on the precision of the module around them, nor on the number of processes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torchmetrics import Metric
from torchmetrics.utilities.plot import plot_single_or_multi_val

from depthkit.precision import float64_device


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

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plot the metric; needs matplotlib.

        Args:
            val: results of ``compute`` or ``forward``, one or several in order; None computes one now.
            ax: axes to draw in; None makes a figure.

        Returns:
            The figure and its axes.
        """
        shown = self.compute() if val is None else val
        return plot_single_or_multi_val(shown, ax=ax, higher_is_better=self.higher_is_better, name=type(self).__name__)

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Any = "") -> Module:
        return super()._apply(lambda state: _moved(state, fn), exclude_state)


def _moved(state: Tensor, fn: Callable[[Tensor], Tensor]) -> Tensor:
    return state.to(float64_device(fn(torch.empty(0, device=state.device)).device))
