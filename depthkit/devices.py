"""Devices: what can be read from them, or copied to them, without waiting for the work that is queued there.

A step that waits for the device leaves it idle while Python prepares what comes next. So values are looked at on the CPU, where
they are known; on a device they are looked at when the trainer logs.
"""

import torch
from torch import Tensor


def readable_at_once(x: Tensor) -> bool:
    """Tell whether the values of ``x`` can be read without waiting: it is on the CPU, and not being compiled."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def own_part(x: Tensor) -> Tensor:
    """Return what this rank holds of a tensor that is spread over ranks; any other as it is."""
    held: Tensor = x.to_local() if hasattr(x, "to_local") else x
    return held


def sent(x: Tensor, device: torch.device) -> Tensor:
    """Copy a small tensor of the CPU to ``device`` without waiting for what is queued there."""
    return x.to(device, non_blocking=device.type == "cuda")
