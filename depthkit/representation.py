"""Convert maps between depth, disparity and their logarithms."""

import math

import torch
from torch import Tensor

from depthkit.errors import LabelError
from depthkit.masked import per_image
from depthkit.precision import in_float32
from depthkit.types import REPRESENTATIONS, Ambiguity, LabelKind, Representation

_LOGARITHMS = (Representation.LOG_DEPTH, Representation.LOG_DISPARITY)
_INVERSES = (Representation.DISPARITY, Representation.LOG_DISPARITY)


@in_float32
def convert(x: Tensor, source: Representation, target: Representation) -> Tensor:
    """Convert a map to another representation, elementwise.

    Args:
        x: a map in ``source``, any shape. Infinite depth and zero disparity (sky) convert into each other exactly.
        source: representation of ``x``.
        target: representation of the result.

    Returns:
        The map in ``target``, of the shape of ``x``. Zero or negative depth has no logarithm: mask it before, since the
        result and its gradient are NaN or infinite there.

    Example:
        >>> convert(torch.tensor([2.0, torch.inf]), Representation.DEPTH, Representation.DISPARITY)
        tensor([0.5000, 0.0000])
    """
    if source == target:
        return x
    inverted = (source in _INVERSES) != (target in _INVERSES)
    if source in _LOGARITHMS:
        x = -x if inverted else x
        return x if target in _LOGARITHMS else x.exp()
    if target in _LOGARITHMS:
        return -x.log() if inverted else x.log()
    return 1 / x


def depth_limits(space: Representation, near: float, far: float) -> tuple[float, float]:
    """Express limits of depth [m] as limits of the numbers in ``space``; 0 and infinity do not limit.

    Returns:
        The least and the greatest number in ``space``. A farthest depth is a floor of disparity.

    Example:
        >>> depth_limits(Representation.DISPARITY, 0.5, 80.0)
        (0.0125, 2.0)
    """
    ends = [
        convert(torch.tensor(depth, dtype=torch.float64), Representation.DEPTH, space).item() if 0 < depth < torch.inf else None
        for depth in ((far, near) if space in _INVERSES else (near, far))
    ]
    return -torch.inf if ends[0] is None else ends[0], torch.inf if ends[1] is None else ends[1]


def clamp_depth(x: Tensor, space: Representation, near: float, far: float) -> Tensor:
    """Raise and lower depth to ``near`` and ``far`` [m], in a map that is in ``space``, any shape.

    A disparity below ``1 / far``, also a negative one that a fitted shift leaves, becomes ``1 / far``.
    """
    low, high = depth_limits(space, near, far)
    return x if (low, high) == (-torch.inf, torch.inf) else x.clamp(low, high)


def check_convertible(kind: LabelKind, target: Representation) -> None:
    """Check that a label of this kind can be converted to ``target``.

    Raises:
        LabelError: it cannot: while the shift is unknown, a disparity has no depth and no logarithm, and a depth has no
            disparity.
    """
    if kind.ambiguity in (Ambiguity.ORDINAL, Ambiguity.UNLABELLED):
        raise LabelError(f"a label of kind {kind.ambiguity} has no dense values to express as {target}.")
    if kind.ambiguity == Ambiguity.SHIFT_SCALE and kind.representation != target:
        raise LabelError(
            f"a {kind} label has no {target} (1 / (a x + b) needs a and b). "
            f"Give these labels a loss or protocol in {kind.representation}."
        )


def convert_label(label: Tensor, valid: Tensor, source: Representation, target: Representation) -> tuple[Tensor, Tensor]:
    """Convert a label to another representation, and mask the pixels without a finite value in it.

    Args:
        label: a map in ``source``, ``(B, 1, H, W)``; any value where not valid.
        valid: bool, ``(B, 1, H, W)``.
        source: representation of ``label``.
        target: representation of the result.

    Returns:
        The label in ``target``, finite everywhere, and its mask. Zero or negative depth leaves the mask; sky (infinite
        depth) stays in it as disparity 0 and leaves it in every other representation; a disparity that stays a disparity
        may be negative, as in stereo films.
    """
    if source == Representation.DEPTH or (source == Representation.DISPARITY and target != source):
        valid = valid & (label > 0)
    converted = convert(label.where(valid, 1), source, target)
    valid = valid & converted.isfinite()
    return converted.where(valid, 1), valid


def convert_rows(label: Tensor, valid: Tensor, stored: Tensor, target: Representation) -> tuple[Tensor, Tensor]:
    """Convert labels as ``convert_label`` does, for a batch whose rows are stored in different representations.

    Args:
        label: ``(B, 1, H, W)``; any value where not valid.
        valid: bool, ``(B, 1, H, W)``.
        stored: representation of each row, as position in ``REPRESENTATIONS``, int64 ``(B,)``.
        target: representation of the result.
    """
    converted, readable = torch.ones_like(label), torch.zeros_like(valid)
    for code, source in enumerate(REPRESENTATIONS):
        rows = per_image(stored == code, valid)
        part, kept = convert_label(label, valid & rows, source, target)
        converted, readable = torch.where(rows, part, converted), readable | kept
    return converted, readable


def sigmoid_to_disparity(sigma: Tensor, *, min_depth: float, max_depth: float) -> Tensor:
    """Map a sigmoid to disparity as Monodepth2 does: between ``1 / max_depth`` and ``1 / min_depth`` [1/m].

    Args:
        sigma: sigmoid activation in [0, 1], any shape.
        min_depth: depth [m] at ``sigma`` = 1.
        max_depth: depth [m] at ``sigma`` = 0.
    """
    _check_range(min_depth, max_depth)
    return 1 / max_depth + (1 / min_depth - 1 / max_depth) * sigma


@in_float32
def log_depth_to_unit(depth: Tensor, *, min_depth: float, max_depth: float) -> Tensor:
    """Map depth to a logarithmic scale, from -1 at ``min_depth`` to 1 at ``max_depth`` (MetricGold eq. 3).

    Args:
        depth: depth [m], > 0, any shape.
        min_depth: depth [m] that becomes -1.
        max_depth: depth [m] that becomes 1.
    """
    _check_range(min_depth, max_depth)
    low, high = math.log(min_depth), math.log(max_depth)
    return (depth.log() - low) * (2 / (high - low)) - 1


@in_float32
def unit_to_depth(unit: Tensor, *, min_depth: float, max_depth: float) -> Tensor:
    """Invert ``log_depth_to_unit``: depth [m] of numbers in [-1, 1] (MetricGold eq. 3)."""
    _check_range(min_depth, max_depth)
    low, high = math.log(min_depth), math.log(max_depth)
    return (low + (unit + 1) * ((high - low) / 2)).exp()


def _check_range(min_depth: float, max_depth: float) -> None:
    if not 0 < min_depth < max_depth:
        raise LabelError(f"expected 0 < min_depth < max_depth in metres; got {min_depth} and {max_depth}.")
