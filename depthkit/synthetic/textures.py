"""Materials: a colour pattern on a surface's own coordinates, averaged over the pixel's footprint.

One formula makes them all. Two square waves across u and v are either multiplied (bricks, planks, windows, tiles, stripes, lane
marks) or exclusive-ored (checkers); fractal noise shifts the mix of the two colours (grass, plaster) and the brightness. The
square waves are box-filtered in closed form and the noise is read from a pyramid, so far surfaces fade to their mean.
"""

from dataclasses import dataclass, fields
from functools import cache

import numpy as np

NOISE = 256
"""Side of the noise tile [texels]."""


@dataclass(frozen=True)
class Material:
    """The look of a surface; lengths in metres on the surface, colours linear RGB in [0, 1].

    Attributes:
        first: colour between the pattern's cells.
        second: colour of the cells.
        period: distance between cells along u and v.
        duty: share of the period that a cell fills, along u and v.
        shift: offset of each row against the row before, in periods.
        checker: 1 swaps the two colours from cell to cell, 0 draws cells on the first colour.
        blend: share of the mix that noise takes over from the pattern.
        variation: relative brightness differences from cell to cell.
        grain: relative brightness amplitude of the noise.
        grain_size: extent of the noise tile along u and v.
        angle: turns the pattern on the surface [rad].
        phase: shifts pattern and noise along u and v.
        glow: light sent out by itself, in units of the colour.
    """

    first: tuple[float, float, float] = (0.5, 0.5, 0.5)
    second: tuple[float, float, float] = (0.5, 0.5, 0.5)
    period: tuple[float, float] = (1.0, 1.0)
    duty: tuple[float, float] = (0.5, 0.5)
    shift: float = 0.0
    checker: float = 0.0
    blend: float = 0.0
    variation: float = 0.0
    grain: float = 0.0
    grain_size: tuple[float, float] = (2.0, 2.0)
    angle: float = 0.0
    phase: tuple[float, float] = (0.0, 0.0)
    glow: float = 0.0


def table(materials: list[Material]) -> np.ndarray:
    """Arrange materials as columns of numbers, float32 ``(21, M)``, in the order of the attributes."""
    names = [field.name for field in fields(Material)]
    return np.array([np.hstack([getattr(material, name) for name in names]) for material in materials], np.float32).T


def paint(columns: np.ndarray, u: np.ndarray, v: np.ndarray, du: np.ndarray, dv: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the colour of surface points.

    Args:
        columns: each point's column of ``table``, ``(21, N)``.
        u: surface coordinate [m], ``(N,)``.
        v: the second surface coordinate [m], ``(N,)``.
        du: extent of the pixel's footprint along u [m], ``(N,)``.
        dv: extent along v [m], ``(N,)``.

    Returns:
        Reflectance, linear RGB, ``(3, N)``, and glow, ``(N,)``.
    """
    first, second = columns[0:3], columns[3:6]
    period_u, period_v, duty_u, duty_v, shift, checker, blend, variation, grain, size_u, size_v, angle, at_u, at_v, glow = (
        columns[6:]
    )
    cos, sin = np.cos(angle), np.sin(angle)
    u, v = cos * u + sin * v + at_u, cos * v - sin * u + at_v
    cos, sin = np.abs(cos), np.abs(sin)
    du, dv = cos * du + sin * dv, cos * dv + sin * du

    cell_v, width_v = v / period_v, dv / period_v
    row = np.floor(cell_v)
    cell_u, width_u = u / period_u + shift * row, du / period_u
    a, b = _share(cell_u, duty_u, width_u), _share(cell_v, duty_v, width_v)
    pattern = a * b
    pattern += checker * (a + b - 3 * pattern)

    noise = _noise(u / size_u, v / size_v, np.sqrt(du * dv / (size_u * size_v)))
    mix = pattern + blend * (np.clip(0.5 + noise, 0, 1) - pattern)
    fade = np.clip(1.5 - np.maximum(width_u, width_v), 0, 1)
    brightness = (1 + grain * noise) * (1 + variation * fade * pattern * _per_cell(np.floor(cell_u), row))
    return np.maximum((first + mix * (second - first)) * brightness, 0.004), glow


def _share(x: np.ndarray, duty: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Average over ``x +- width / 2`` a wave that is 1 in the first ``duty`` of each unit and 0 in the rest."""
    width = np.maximum(width, np.float32(0.02))
    return (_integral(x + width / 2, duty) - _integral(x - width / 2, duty)) / width


def _integral(x: np.ndarray, duty: np.ndarray) -> np.ndarray:
    whole = np.floor(x)
    return whole * duty + np.minimum(x - whole, duty)


def _per_cell(column: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Hash each cell to a number in [-1, 1)."""
    key = column.astype(np.int32).astype(np.uint32) * np.uint32(0x9E3779B1) ^ row.astype(np.int32).astype(
        np.uint32
    ) * np.uint32(0x85EBCA77)
    key = (key ^ (key >> np.uint32(15))) * np.uint32(0x2C1B3C6D)
    return (key >> np.uint32(16)).astype(np.float32) / np.float32(32768) - 1


def _noise(x: np.ndarray, y: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Read fractal noise of mean 0 and a spread of about 0.5, with period 1, blurred to the footprint ``width``."""
    texels, starts = _pyramid()
    last = np.float32(len(starts) - 1)
    level = np.clip(np.log2(np.maximum(width * NOISE, 1)), 0, last)
    fine = np.floor(level)
    step = level - fine
    coarse = np.minimum(fine + 1, last)
    return (1 - step) * _read(texels, starts, x, y, fine) + step * _read(texels, starts, x, y, coarse)


def _read(texels: np.ndarray, starts: np.ndarray, x: np.ndarray, y: np.ndarray, level: np.ndarray) -> np.ndarray:
    level = level.astype(np.int32)
    side = NOISE >> level
    x, y = (x - np.floor(x)) * side, (y - np.floor(y)) * side
    left, top = x.astype(np.int32), y.astype(np.int32)
    x, y = x - left, y - top
    mask = side - 1
    start = starts[level]
    left, right = left & mask, (left + 1) & mask
    above, below = start + (top & mask) * side, start + ((top + 1) & mask) * side
    upper = texels[above + left] * (1 - x) + texels[above + right] * x
    lower = texels[below + left] * (1 - x) + texels[below + right] * x
    return upper + y * (lower - upper)


@cache
def _pyramid() -> tuple[np.ndarray, np.ndarray]:
    """Build all levels of one fixed noise tile, end to end, and the start of each."""
    frequency = np.hypot(np.fft.fftfreq(NOISE)[:, None], np.fft.fftfreq(NOISE)) * NOISE
    white = np.fft.fft2(np.random.default_rng(0).standard_normal((NOISE, NOISE)))
    level = np.fft.ifft2(white / np.maximum(frequency, 2.0) ** 1.1 * (frequency > 0)).real
    level *= 0.4 / level.std()
    levels = []
    while True:
        levels.append(level.astype(np.float32).ravel())
        if len(level) == 1:
            break
        level = level.reshape(len(level) // 2, 2, -1, 2).mean((1, 3))
    starts = np.cumsum([0] + [len(x) for x in levels[:-1]])
    return np.concatenate(levels), starts.astype(np.int32)
