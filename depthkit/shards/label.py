r"""Dense labels as bytes: 16-bit PNG, linear or logarithmic, or float32.

A 16-bit code k > 0 stands for the value :math:`o + s k` (``linear``) or :math:`e^{o + s k}` (``log``), with the offset o
and the step s stated in the sample's meta.json; 0 is "no value" and the code named ``infinity`` there is a point at
infinity. What is read is within half a step of what was written: absolutely (``linear``) or in the logarithm (``log``).

PNG is the default because whatever reads a tar reads it, and because it is small: of 21 ways to store depth, measured on
rendered, predicted and recorded maps (``benchmarks/depth_storage.py``), compressed float32 takes twice its bytes for digits
that no label has, and float16 has four times the error of ``log`` for 15 % less. JPEG XL at its least effort has 6 % fewer
bytes and is written ten times as fast, but few tools read it at 16 bits, and sparse depth takes twice the bytes.

All rows of the PNG have one filter, differences from the row above where depth is dense and none where it is sparse, and are
compressed at zlib's level 4. Against filters chosen row by row at level 3, which is what OpenCV writes at its best, that is
10 % fewer bytes on eleven real and rendered kinds of maps (2 to 11 % where depth is dense, 15 to 38 % where it is sparse),
written in two thirds of the time (36 instead of 56 ms per megapixel) and read in half of it. Level 6 would save 4 % more for
2.7 times the time.
"""

import io
import math
from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from depthkit.errors import LabelError, ShardError
from depthkit.images import plain_array
from depthkit.shards.images import decode_codes, encode_codes, swapped
from depthkit.types import Ambiguity, LabelKind, Representation

MILLIMETRE = 0.001
"""Step of ``PNG_LINEAR16`` for metric depth [m] that fits, so that depth in whole millimetres is stored exactly."""
LOG_STEP = 2.0**-12
"""Step of ``PNG_LOG16`` in ln x: at most 0.0123 % off, over a range of 1 : 3,000,000. A wider range has a wider step."""
INFINITY_CODE = 65535
_FIRST, _LAST = 1, 65534
_PER_LABEL = 4096  # values of a label that are counted
_BIN = 16  # lowest bits of a float32 that do not count: bins are 0.8 % wide
_RANGE = (0.05, 0.5, 0.95)
UNITS = {Representation.DEPTH: "m", Representation.DISPARITY: "1/m", Representation.LOG_DEPTH: "ln m"}
UNITS |= {Representation.LOG_DISPARITY: "-ln m"}


class DepthFormat(StrEnum):
    """How a dense label is stored."""

    PNG_LOG16 = "png_log16"
    """16-bit PNG with the same relative precision at every distance."""
    PNG_LINEAR16 = "png_linear16"
    """16-bit PNG in millimetres: exact, and smallest, for what a depth camera or a 16-bit PNG in millimetres gives."""
    NPY = "npy"
    """float32 as it is: four bytes a pixel."""


class DenseLabel(NamedTuple):
    """A label as read: float32 ``(H, W)``, 0 where not valid; bool ``(H, W)``; bool ``(H, W)`` or None if nowhere."""

    value: np.ndarray
    valid: np.ndarray
    infinite: np.ndarray | None


def infinity(kind: LabelKind) -> float | None:
    """Return the value of a point at infinity; None for disparity of unknown offset, which has no such value."""
    if kind.ambiguity == Ambiguity.SHIFT_SCALE:
        return None
    return {Representation.DISPARITY: 0.0, Representation.LOG_DISPARITY: -math.inf}.get(kind.representation, math.inf)


def at_infinity(label: np.ndarray, valid: np.ndarray, kind: LabelKind) -> np.ndarray:
    """Where the label is at infinity, bool ``(H, W)``."""
    far = infinity(kind)
    return valid & (label == far) if far is not None else np.zeros_like(valid)


def encode_label(
    label: np.ndarray, valid: np.ndarray, kind: LabelKind, depth_format: DepthFormat
) -> tuple[str, bytes, dict[str, Any]]:
    """Member name, bytes, and the facts that meta.json must hold to read them.

    ``PNG_LOG16`` stores logarithms and labels that may be negative linearly over their own range.

    Args:
        label: float ``(H, W)``; arbitrary where not valid.
        valid: bool ``(H, W)``.
        kind: what the numbers are.
        depth_format: how to store them.

    Raises:
        LabelError: no pixel is valid, or a valid one is NaN or no possible value.
    """
    infinite, far = at_infinity(label, valid, kind), infinity(kind)
    finite = valid & ~infinite
    everywhere = finite.all()
    values = (label.ravel() if everywhere else label[finite]).astype(np.float64)
    positive = far is not None and kind.representation in (Representation.DEPTH, Representation.DISPARITY)
    if not valid.any():
        raise LabelError("expected a label with valid pixels; got none. Leave the sample out, or store it unlabelled.")
    if not np.isfinite(values).all() or (positive and values.min(initial=1) <= 0):
        raise LabelError(
            f"expected a finite{' positive' if positive else ''} {kind} at every valid pixel; "
            f"got {values.min()} to {values.max()}. Set valid to False there."
        )
    facts: dict[str, Any] = {"unit": UNITS[kind.representation]}
    if depth_format == DepthFormat.NPY:
        stream = io.BytesIO()
        np.save(stream, np.where(valid, label, np.nan).astype(np.float32), allow_pickle=False)
        return "depth.npy", stream.getvalue(), facts | {"encoding": "float32"}
    logarithmic = depth_format == DepthFormat.PNG_LOG16 and positive
    if logarithmic:
        np.log(values, out=values)
    millimetres = kind == LabelKind(Ambiguity.METRIC, Representation.DEPTH) and not logarithmic
    offset, step = _grid(values, logarithmic=logarithmic, millimetres=millimetres)
    values -= offset
    values /= step
    numbers = np.clip(np.rint(values, out=values), _FIRST, _LAST, out=values).astype(np.uint16)
    if everywhere:
        codes = numbers.reshape(label.shape)
    else:
        codes = np.zeros(label.shape, np.uint16)
        codes[finite] = numbers
    facts |= {"encoding": "log" if logarithmic else "linear", "offset": offset, "step": step}
    if infinite.any():
        codes[infinite] = INFINITY_CODE
        facts["infinity"] = INFINITY_CODE
    return "depth.png", encode_codes(codes), facts


def _grid(values: np.ndarray, *, logarithmic: bool, millimetres: bool) -> tuple[float, float]:
    """Offset and step such that all values get codes from 1 to 65534."""
    low, high = (float(values.min()), float(values.max())) if values.size else (1.0, 1.0)
    if millimetres and low > 0.5 * MILLIMETRE and high < (_LAST + 0.5) * MILLIMETRE:
        return 0.0, MILLIMETRE
    if logarithmic and high - math.floor(low) <= (_LAST - _FIRST) * LOG_STEP:
        return math.floor(low) - LOG_STEP, LOG_STEP  # few different grids, so that readers can keep their tables
    step = (high - low) / (_LAST - _FIRST) or 1.0
    return low - step, step


class CodedLabel(NamedTuple):
    """A label as stored in a PNG: numbers that pixels can be moved by before they are looked up.

    Attributes:
        codes: uint16 ``(H, W)`` as ``decode_codes`` gives them; 0 is "no value".
        table: value of each, float32 ``(65536,)``.
        infinity: the code of a point at infinity; None if there is none.
    """

    codes: np.ndarray
    table: np.ndarray
    infinity: np.uint16 | None

    def read(
        self, codes: np.ndarray | None = None, *, value: np.ndarray | None = None, valid: np.ndarray | None = None
    ) -> DenseLabel:
        """Look the values up.

        Args:
            codes: made of its own by moving pixels; its own if not given.
            value: where to write the values.
            valid: where to write which of them count.
        """
        codes = self.codes if codes is None else codes
        value = np.take(self.table, codes, out=value, mode="clip")  # no code is outside, and not to check is faster
        valid = np.greater(codes, 0, out=valid)
        return DenseLabel(value, valid, codes == self.infinity if self.infinity is not None else None)


def decode_label(name: str, data: bytes, facts: Mapping[str, Any], kind: LabelKind, what: str) -> DenseLabel:
    """Decode a label that ``encode_label`` encoded.

    Raises:
        ShardError: the bytes are no such label, or meta.json lacks or garbles its facts.
    """
    return _decode_npy(data, kind, what) if name == "depth.npy" else decode_coded(data, facts, kind, what).read()


def decode_coded(data: bytes, facts: Mapping[str, Any], kind: LabelKind, what: str) -> CodedLabel:
    """Decode the PNG of a label that ``encode_label`` encoded, up to its values.

    Raises:
        ShardError: the bytes are no such label, or meta.json lacks or garbles its facts.
    """
    codes, far = decode_codes(data, what), infinity(kind)
    try:
        encoding, offset, step = facts["encoding"], float(facts["offset"]), float(facts["step"])
        code = int(facts["infinity"]) if "infinity" in facts else None
        table = _table(encoding, offset, step, code, far)
    except (KeyError, TypeError, ValueError, OverflowError, IndexError) as error:
        raise ShardError(
            f"{what}: expected meta.json to give depth.encoding (linear or log), depth.offset and depth.step (> 0); "
            f"got {dict(facts)}. Write the shard again."
        ) from error
    return CodedLabel(codes, table, None if code is None else swapped(np.array([code], np.uint16))[0])


@lru_cache(maxsize=64)
def _table(encoding: str, offset: float, step: float, code: int | None, far: float | None) -> np.ndarray:
    """Compute the value of every code, float32 ``(65536,)``, at its place as the file has its bytes."""
    if encoding not in ("linear", "log") or not (step > 0 and math.isfinite(offset) and math.isfinite(step)):
        raise ValueError(encoding)
    grid = offset + step * np.arange(65536, dtype=np.float64)
    with np.errstate(over="ignore"):
        table = (np.exp(grid) if encoding == "log" else grid).astype(np.float32)
    table[0] = 0
    if code is not None:
        if far is None:
            raise ValueError(code)
        table[code] = far
    stored = np.empty_like(table)
    stored[swapped(np.arange(65536, dtype=np.uint16))] = table
    return stored


def _decode_npy(data: bytes, kind: LabelKind, what: str) -> DenseLabel:
    try:
        label = plain_array(data)
    except Exception as error:  # parsers of damaged heads have classes of their own
        raise ShardError(
            f"{what}: expected a plain float32 .npy file; it does not read ({error}). Write the shard again."
        ) from error
    if label.dtype != np.float32 or label.ndim != 2:
        raise ShardError(f"{what}: expected float32 of shape (H, W); got {label.dtype} {label.shape}. Write the shard again.")
    far = infinity(kind)
    infinite = label == far if far is not None else np.zeros(label.shape, bool)
    valid = np.isfinite(label)
    if far is not None and kind.representation in (Representation.DEPTH, Representation.DISPARITY):
        valid &= label > 0
    valid |= infinite
    return DenseLabel(np.where(valid, label, np.float32(0)), valid, infinite if infinite.any() else None)


def count_values(label: np.ndarray, valid: np.ndarray) -> dict[int, int]:
    """Count about 4096 evenly spread pixels of a label, ``(H, W)``, by their value; only finite valid ones.

    >>> count_values(np.array([[2.0, 2.001, 4.0, np.inf]]), np.array([[True, True, True, True]]))
    {16384: 2, 16512: 1}
    """
    step = max(1, label.size // _PER_LABEL) | 1  # odd, so that it visits all columns
    values = label.ravel()[::step].astype(np.float32)
    values = values[valid.ravel()[::step] & np.isfinite(values)]
    codes, counts = np.unique(values.view(np.uint32) >> _BIN, return_counts=True)
    return dict(zip(codes.tolist(), counts.tolist(), strict=True))


def range_of(counts: Mapping[int, int]) -> tuple[float, float, float] | None:
    """Find the values below which 5, 50 and 95 % of the counted ones lie, to three digits; None if none is counted.

    >>> range_of(count_values(np.linspace(0, 100, 1001)[None], np.ones((1, 1001), bool)))
    (5.02, 50.1, 95.2)
    """
    if not counts:
        return None
    codes = np.array([*counts], np.uint32)
    values = ((codes << _BIN) | 1 << (_BIN - 1)).view(np.float32)
    order = np.argsort(values)
    ranks = np.cumsum(np.array([*counts.values()])[order])
    low, middle, high = (float(f"{values[order][np.searchsorted(ranks, part * ranks[-1])]:.3g}") for part in _RANGE)
    return low, middle, high
