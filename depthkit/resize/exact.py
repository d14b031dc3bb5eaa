"""Resizing as OpenCV does with images of float64, neither smoothed nor clipped."""

import torch
from torch import Tensor

_SHARPNESS = -0.75
"""Of the cubic kernel, in OpenCV and torch."""


def exactly_resized(image: Tensor, size: tuple[int, int], *, cubic: bool) -> Tensor:
    """Resize images ``(B, C, H, W)`` by bilinear or cubic interpolation; the result is floating point.

    The papers' code reads 8 bits, divides them by 255 in float64 and has OpenCV resize them. Its cubic kernel has coordinates
    and weights of float32, which at pixel 1000 are up to 6e-5 of a pixel away; its bilinear one has them of float64.
    ``torch.nn.functional.interpolate`` rounds otherwise, and takes four times as long in float64.

    Args:
        image: in [0, 1], or uint8.
        size: (height, width) [px].
        cubic: by four pixels along each axis instead of two.
    """
    x = image.double() / 255 if image.dtype == torch.uint8 else _in_float64(image)
    for axis in (-2, -1):
        pixels, weights = _taps(x.shape[axis], size[axis], cubic=cubic, device=x.device)
        shape = (-1, 1) if axis == -2 else (-1,)
        parts = (x.index_select(axis, i) * w.view(shape) for i, w in zip(pixels, weights, strict=True))
        total = next(parts)
        for part in parts:
            total += part
        x = total
    return x.to(image.dtype if image.is_floating_point() else torch.float32)


def _in_float64(image: Tensor) -> Tensor:
    levels = (image * 255).round()
    return torch.where(levels / 255 == image, levels.double() / 255, image.double())


def _taps(length: int, out: int, *, cubic: bool, device: torch.device) -> tuple[list[Tensor], list[Tensor]]:
    """Find which pixels make each pixel of the result, ``(out,)`` per tap, and their weights."""
    centre = (torch.arange(out, dtype=torch.float64, device=device) + 0.5) * (1 / (out / length)) - 0.5
    centre = centre.float() if cubic else centre
    first = centre.floor()
    t, a = centre - first, _SHARPNESS
    weights = [1 - t, t]
    if cubic:
        far, near = ((a * (t + 1) - 5 * a) * (t + 1) + 8 * a) * (t + 1) - 4 * a, ((a + 2) * t - (a + 3)) * t * t + 1
        next_one = ((a + 2) * (1 - t) - (a + 3)) * (1 - t) * (1 - t) + 1
        weights = [far, near, next_one, 1 - far - near - next_one]
    begin = -1 if cubic else 0
    return [(first.long() + begin + k).clamp(0, length - 1) for k in range(len(weights))], [w.double() for w in weights]
