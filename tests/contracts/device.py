"""A pretended GPU: tensors that say ``cuda:0`` and compute on the CPU, and a count of what would make a real one wait.

A step that reads a number from the device, or copies to or from it without ``non_blocking``, waits for all the work that is
queued there. ``Device`` counts such calls by the line of depthkit that makes them, and refuses tensors of two devices in one
operation. Tensors made inside it on ``cuda`` and those of ``moved`` count; all others are on the CPU, where nothing waits.
"""

import sys
from collections import Counter
from types import TracebackType
from typing import Any, Self

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from depthkit.types import Batch

NAME = torch.device("cuda", 0)
aten = torch.ops.aten

_READS = {
    aten._local_scalar_dense: "reads a number",
    aten.nonzero: "nonzero",
    aten.masked_select: "masked_select",
    aten.equal: "equal",
    aten.bincount: "bincount",
    aten._unique2: "unique",
    aten.unique_dim: "unique",
    aten.unique_consecutive: "unique",
    aten._linalg_check_errors: "checks a linear solver",
    aten._linalg_eigh: "checks a linear solver",
    aten._linalg_svd: "checks a linear solver",
}
_INDEXED = (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_, aten._unsafe_index)


class There(Tensor):
    """A tensor on the pretended GPU, which holds its values in ``here``."""

    here: Tensor
    has_float64 = True

    @staticmethod
    def __new__(cls, here: Tensor) -> "There":
        if here.dtype == torch.float64 and not cls.has_float64:
            raise TypeError(f"Cannot convert a Tensor to float64 dtype as the framework doesn't support float64: {_place()}")
        made = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, here.size(), strides=here.stride(), storage_offset=here.storage_offset(), dtype=here.dtype, device=NAME
        )
        made.here = here
        return made

    def __repr__(self, *_: Any, **__: Any) -> str:
        return f"There({self.here!r})"

    def tolist(self) -> Any:
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})

    __torch_function__ = torch._C._disabled_torch_function_impl


class Device(TorchDispatchMode):
    """Count what waits for the device, while inside: ``waits`` by reason and place, ``copies`` to the device by place.

    With ``has_float64=False`` it has none, as Apple's devices.

    Autograd needs a real device. So backward passes are counted on the CPU, with ``everywhere``: as if all tensors were there.
    """

    _mode_key = torch._C._TorchDispatchModeKey.FAKE  # where it is set, torch looks for no driver

    def __init__(self, *, everywhere: bool = False, has_float64: bool = True) -> None:
        super().__init__()
        self.has_float64 = has_float64
        self.everywhere = everywhere
        self.waits: Counter[str] = Counter()
        self.copies: Counter[str] = Counter()

    def __enter__(self) -> Self:
        if not hasattr(torch._C, "_ensureCUDADeviceGuardSet"):
            pytest.skip("this version of torch cannot pretend a GPU; take 2.8 or later")
        torch._C._ensureCUDADeviceGuardSet()
        self._lifts, self._cudnn = torch._C._only_lift_cpu_tensors(), torch.backends.cudnn.enabled
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(x, device=...) is seen as a copy
        torch.backends.cudnn.enabled = False  # torch would choose its operators by the device's name
        There.has_float64 = self.has_float64
        super().__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        super().__exit__(kind, error, trace)
        There.has_float64 = True
        torch._C._set_only_lift_cpu_tensors(self._lifts)
        torch.backends.cudnn.enabled = self._cudnn

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self._note(func, args, kwargs)
        return _run(func, args, kwargs)

    def _note(self, func: Any, args: Any, kwargs: Any) -> None:
        packet, tensors = func.overloadpacket, _tensors(args, kwargs)
        there = [x for x in tensors if isinstance(x, There)]
        if packet is aten._to_copy or packet is aten.copy_:
            source = args[0] if packet is aten._to_copy else args[1]
            goes = _goes_there(kwargs) if packet is aten._to_copy else isinstance(args[0], There)
            free = kwargs.get("non_blocking", False) or (packet is aten.copy_ and len(args) > 2 and args[2])
            named = packet is aten.copy_ or kwargs.get("device") is not None
            if named and goes and not isinstance(source, There) and not (packet is aten.copy_ and source.ndim == 0):
                self.copies[_place()] += 1
                if not free:
                    self.waits[f"copies to the device: {_place()}"] += 1
            elif named and not goes and isinstance(source, There):
                self.waits[f"copies to the host: {_place()}"] += 1
            return
        if not there and not self.everywhere:
            return
        if packet in _READS:
            self.waits[f"{_READS[packet]}: {_place()}"] += 1
        elif packet is aten.repeat_interleave and kwargs.get("output_size") is None:
            self.waits[f"repeat_interleave: {_place()}"] += 1
        elif packet in _INDEXED:
            for index in args[1]:
                if (
                    index is not None
                    and index.dtype in (torch.bool, torch.uint8)
                    and (self.everywhere or isinstance(index, There))
                ):
                    self.waits[f"indexes by a mask: {_place()}"] += 1
                elif there and not isinstance(index, There):
                    self.copies[_place()] += 1
                    self.waits[f"copies to the device: {_place()}"] += 1
            tensors = [x for x in tensors if not any(x is i for i in args[1])]
        if there and (mixed := [x for x in tensors if not isinstance(x, There) and x.ndim]):
            raise AssertionError(f"{func} of tensors on cuda and on the CPU {tuple(mixed[0].shape)} at {_place()}")


def moved(x: Any) -> Any:
    """A batch, a module (in place) or a tensor on the pretended GPU."""
    if isinstance(x, Tensor):
        return x if isinstance(x, There) else There(x.detach())
    if isinstance(x, Batch):
        return x.to(NAME, non_blocking=True)
    for part in x.modules():
        for name, p in part._parameters.items():
            if p is not None:
                part._parameters[name] = nn.Parameter(moved(p), requires_grad=p.requires_grad)
        for name, b in part._buffers.items():
            part._buffers[name] = None if b is None else moved(b)
    return x


def _run(func: Any, args: Any, kwargs: Any) -> Any:
    tensors = _tensors(args, kwargs)
    wrapped = _goes_there(kwargs) if kwargs.get("device") is not None else any(isinstance(x, There) for x in tensors)
    if func.overloadpacket is aten.copy_:
        wrapped = isinstance(args[0], There)
    out = func(*tree_map(_here, args), **tree_map(_here, kwargs))
    if not wrapped or func.overloadpacket in (aten._local_scalar_dense, aten.equal):
        return out
    if func._schema.is_mutable and not isinstance(out, (tuple, list)) and isinstance(args[0], There) and out is args[0].here:
        return args[0]
    return tree_map(lambda x: There(x) if isinstance(x, Tensor) else x, out)


def _here(x: Any) -> Any:
    if isinstance(x, There):
        return x.here
    return torch.device("cpu") if isinstance(x, torch.device) else x


def _goes_there(kwargs: Any) -> bool:
    device = kwargs.get("device")
    return device is not None and torch.device(device).type == NAME.type


def _tensors(args: Any, kwargs: Any) -> list[Tensor]:
    return [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]


def _place() -> str:
    """The innermost line of depthkit, else of anything but torch and this file, that is being run."""
    frame: Any = sys._getframe(2)
    fallback = ""
    while frame is not None:
        name = frame.f_code.co_filename
        if "/depthkit/" in name:
            return f"{name.rpartition('/depthkit/')[2]} {frame.f_code.co_name}"
        if not fallback and "/torch/" not in name and name != __file__:
            fallback = f"{name.rpartition('/')[2]} {frame.f_code.co_name}"
        frame = frame.f_back
    return fallback
