"""Checks of arguments: each error names what was expected, what was given, and the remedy."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

from depthkit.errors import DepthKitError, GeometryError, MissingPackageError, RecipeError, ShapeError

if TYPE_CHECKING:  # what reads no tensors does not wait for torch
    import torch
    from torch import Tensor

Choice = TypeVar("Choice", bound=StrEnum)
_GARBLED = (
    ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError,
    struct.error,
)  # fmt: skip


def _shape(x: Tensor) -> tuple[int, ...]:
    return tuple(x.shape)


def check_map(name: str, x: Tensor) -> None:
    """Check that ``x`` is a floating-point map, ``(B, 1, H, W)``."""
    check_tensor(name, x)
    if x.ndim != 4 or x.shape[1] != 1:
        raise ShapeError(f"expected {name} of shape (B, 1, H, W); got {_shape(x)}. Add the batch or channel axis with [None].")
    if not x.is_floating_point():
        raise ShapeError(f"expected {name} in floating point; got {x.dtype}. Convert stored integers to their unit first.")


def check_tensor(name: str, x: Tensor) -> None:
    """Check that ``x`` is a tensor, not an array of another library."""
    import torch

    if not isinstance(x, torch.Tensor):
        raise ShapeError(f"expected {name} as a torch.Tensor; got {type(x).__name__}. Pass torch.as_tensor(x).")


def check_map_pair(pred: Tensor, target: Tensor, valid: Tensor) -> None:
    """Check that ``pred`` and ``target`` are maps of one shape and ``valid`` is their bool mask, all ``(B, 1, H, W)``."""
    check_map("pred", pred)
    check_tensor("target", target)
    if pred.shape != target.shape:
        raise ShapeError(
            f"expected pred and target of one shape (B, 1, H, W); got {_shape(pred)} and {_shape(target)}. "
            "Resize the prediction to the label (never the label to the prediction)."
        )
    check_map("target", target)
    check_valid(valid, pred)


def check_valid(valid: Tensor, like: Tensor) -> None:
    """Check that ``valid`` is a bool mask with the batch and image size of ``like``."""
    import torch

    check_tensor("valid", valid)
    expected = (like.shape[0], 1, *like.shape[-2:])
    if valid.dtype != torch.bool or _shape(valid) != expected:
        raise ShapeError(
            f"expected valid as bool of shape {expected}; got {valid.dtype} of shape {_shape(valid)}. "
            "Pass a mask that is True where the label may be read, for example target > 0."
        )


def check_image(name: str, image: Tensor) -> None:
    """Check that ``image`` is floating-point RGB, ``(B, 3, H, W)``."""
    if image.ndim != 4 or image.shape[1] != 3 or not image.is_floating_point():
        raise ShapeError(
            f"expected {name} as float RGB of shape (B, 3, H, W) in [0, 1]; got {image.dtype} of shape {_shape(image)}. "
            "Move the channels first and divide 8-bit images by 255."
        )


def check_intrinsics(intrinsics: Tensor, batch: int) -> None:
    """Check that ``intrinsics`` are ``(B, 3, 3)``, and known: NaN on a GPU is not looked for, since looking would wait."""
    from depthkit.devices import readable_at_once

    if _shape(intrinsics) != (batch, 3, 3):
        raise ShapeError(f"expected intrinsics of shape ({batch}, 3, 3); got {_shape(intrinsics)}.")
    if readable_at_once(intrinsics) and not intrinsics.isfinite().all():
        raise GeometryError(
            "expected known intrinsics; got NaN or infinite ones. Give fx, fy, cx, cy in pixels for every sample "
            "(`intrinsics` in its meta.json), or leave out what needs a camera."
        )


def check_pose(name: str, pose: Tensor, batch: int) -> None:
    """Check that ``pose`` is ``(B, 4, 4)``."""
    if _shape(pose) != (batch, 4, 4):
        raise ShapeError(f"expected {name} of shape ({batch}, 4, 4); got {_shape(pose)}.")


def check_device(name: str | torch.device) -> torch.device:
    """Return the device of this name.

    Raises:
        RecipeError: this machine has no such device, or there is no device of this name.
    """
    import torch

    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise RecipeError(
            f"expected a device that this machine has; got {name} ({first_line(error)}). Choose cpu, or cuda:0."
        ) from error
    return device


def check_least(least: float, **numbers: float | None) -> None:
    """Raise a ``RecipeError`` if one of some numbers, given by their names, is below ``least``; None is no number."""
    for name, value in numbers.items():
        if value is not None and not value >= least:
            raise RecipeError(f"expected {name} of at least {least:g}; got {value:g}.")


def check_choice(name: str, value: str, choices: type[Choice]) -> Choice:
    """Return ``value`` as a member of the closed vocabulary ``choices``.

    Args:
        name: of the argument, for the message.
        value: a member, or its string.
        choices: the vocabulary.

    Raises:
        RecipeError: ``value`` is not in the vocabulary.
    """
    if isinstance(value, choices):  # torch 2.6 cannot compile choices(member)
        return value
    try:
        return choices(value)
    except ValueError:
        raise RecipeError(f"expected {name} to be one of {', '.join(choices)}; got {value!r}.") from None


def optional_import(module: str, extra: str) -> ModuleType:
    """Import a module of an optional dependency.

    Args:
        module: dotted name, for example ``"trimesh"``.
        extra: the extra of depthkit that installs it, for example ``"clouds"``.

    Raises:
        MissingPackageError: it is not installed; names the command that installs it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise MissingPackageError(
            f"expected the package {package}; it cannot be imported ({first_line(error)}). "
            f"Install it: pip install 'depthkit[{extra}]'."
        ) from error


@contextmanager
def garbled(what: str, error: type[DepthKitError], remedy: str) -> Iterator[None]:
    """Turn into one sentence whatever a foreign file's words and numbers cause that are not what they should be.

    Args:
        what: what was expected, and where.
        error: class of error to raise.
        remedy: what to do.
    """
    try:
        yield
    except DepthKitError:
        raise
    except _GARBLED as found:
        raise error(f"expected {what}; it does not read ({type(found).__name__}: {first_line(found)}). {remedy}") from found


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message without its full stop, or the error's type if it has none."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".")
