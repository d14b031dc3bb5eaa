"""Fill what a map lacks with what lies nearest."""

import torch
from torch import Tensor

from depthkit.masked import masked_count, per_image


def nearest_valid(x: Tensor, valid: Tensor, *, otherwise: float) -> Tensor:
    """Each pixel's value, or that of the nearest valid pixel of its image.

    By jump flooding (Rong and Tan 2006): pixels pass on the place of the nearest valid pixel they have heard of over halving
    distances, in log2 of the longer side passes. A pixel may rarely end up with the second nearest.

    Args:
        x: ``(B, 1, H, W)``; any value where not valid.
        valid: bool, ``(B, 1, H, W)``.
        otherwise: value of an image without a valid pixel.
    """
    batch, _, height, width = x.shape
    rows = torch.arange(height, device=x.device).view(1, 1, -1, 1).expand(batch, 1, height, width)
    columns = torch.arange(width, device=x.device).view(1, 1, 1, -1).expand(batch, 1, height, width)
    place = torch.cat([rows, columns], 1)
    never = 4 * (height + width)  # farther than any pixel, and its square far from overflow
    known = place.where(valid, never)
    step = 1 << (max(height, width) - 1).bit_length()
    while step := step // 2:
        best = known
        for dy in (-step, 0, step):
            for dx in (-step, 0, step):
                heard = _shifted(known, dy, dx, never)
                nearer = _squared(heard - place) < _squared(best - place)
                best = heard.where(nearer, best)
        known = best
    index = (known[:, :1] * width + known[:, 1:]).clamp(max=height * width - 1)
    filled = x.where(valid, otherwise).flatten(2).gather(2, index.flatten(2)).view_as(x)
    return filled.where(per_image(masked_count(valid) > 0, x), otherwise)


def _squared(x: Tensor) -> Tensor:
    return x.square().sum(1, keepdim=True)


def _shifted(x: Tensor, dy: int, dx: int, outside: int) -> Tensor:
    """What stands ``(dy, dx)`` away from each pixel."""
    height, width = x.shape[-2:]
    shifted = torch.full_like(x, outside)
    if abs(dy) < height and abs(dx) < width:
        to = (..., slice(max(-dy, 0), height - max(dy, 0)), slice(max(-dx, 0), width - max(dx, 0)))
        source = (..., slice(max(dy, 0), height - max(-dy, 0)), slice(max(dx, 0), width - max(-dx, 0)))
        shifted[to] = x[source]
    return shifted
