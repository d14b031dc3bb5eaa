"""Memory for batches that is used again once nobody holds it: fresh memory costs a page fault per 4 kB."""

import math
import weakref
from collections import deque
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_idle: deque[np.ndarray] = deque(maxlen=12)  # what two batches hold


def borrowed(shape: Sequence[int], dtype: torch.dtype = torch.float32, *, pin_memory: bool = False) -> Tensor:
    """Return an uninitialised tensor, which reuses the memory of an earlier one that nobody holds any more.

    Args:
        shape: of it.
        dtype: of it.
        pin_memory: whether it lies in page-locked memory, which torch keeps for such use itself.
    """
    size = math.prod(shape) * dtype.itemsize
    if pin_memory or not size:
        return torch.empty(tuple(shape), dtype=dtype, pin_memory=pin_memory)
    memory = _found(size)
    lent = memory[:]  # the tensor and all that share its memory hold this view, and nobody else does
    weakref.finalize(lent, _idle.append, memory).atexit = False
    return torch.from_numpy(lent).view(dtype).view(tuple(shape))


def _found(size: int) -> np.ndarray:
    for _ in range(len(_idle)):
        try:
            memory = _idle.popleft()
        except IndexError:  # another thread has taken it
            break
        if memory.nbytes == size:
            return memory
        _idle.append(memory)
    return np.empty(size, np.uint8)
