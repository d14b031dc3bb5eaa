"""Precision: losses, metrics and geometry run in float32, networks in a precision of choice."""

import functools
from collections.abc import Callable
from enum import StrEnum
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")
_HALF = (torch.float16, torch.bfloat16)
WITHOUT_FLOAT64 = frozenset({"mps"})
"""Types of device that have no float64."""


class Precision(StrEnum):
    """Precisions of a network: float32, or autocast to bfloat16 or float16."""

    FLOAT32 = "32"
    BF16 = "bf16"
    FLOAT16 = "16"


def in_float32(function: Callable[P, R]) -> Callable[P, R]:
    """Run ``function`` with autocast off and its half-precision tensor arguments upcast to float32.

    Half precision holds neither a pixel grid above 2,048 nor the number of pixels of an image, so losses, alignment,
    geometry and metrics are all decorated with it; float32 and float64 arguments pass unchanged.
    """

    def upcast(x: Any) -> Any:
        return at_least_float32(x) if isinstance(x, Tensor) else x

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        devices = [x.device.type for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]
        if not devices and not torch.is_autocast_enabled("cpu"):  # arrays: a loader's every sample comes here
            return function(*args, **kwargs)
        with torch.autocast(devices[0] if devices else "cpu", enabled=False):
            return function(*map(upcast, args), **{name: upcast(x) for name, x in kwargs.items()})

    return wrapped


def at_least_float32(x: Tensor) -> Tensor:
    """Return ``x`` in float32 if it is in half precision, else as it is."""
    return x.float() if x.dtype in _HALF else x


def float64_device(device: torch.device) -> torch.device:
    """Return ``device``, or the CPU if it has no float64 (Apple's MPS)."""
    return torch.device("cpu") if device.type in WITHOUT_FLOAT64 else device


def where_float64_exists(*inputs: Any) -> tuple[Any, ...]:
    """Move the tensors among ``inputs`` to the CPU if their device has no float64; return all."""
    return tuple(x.to(float64_device(x.device)) if isinstance(x, Tensor) else x for x in inputs)


def to_float64(x: Tensor) -> Tensor:
    """Return ``x`` in float64, on the CPU if its device has none."""
    return x.to(float64_device(x.device)).double()
