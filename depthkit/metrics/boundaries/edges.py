"""Edges of a map after Canny (1986), and how far each pixel is from one, both in torch alone."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from depthkit.devices import sent
from depthkit.precision import in_float32

SIGMA, LOW, HIGH = 2**0.5, 0.15, 0.3
"""Smoothing [px], and gradients of a map in [0, 1] from which an edge goes on and starts, as iBims-1 sets them."""
_NEIGHBOURS = 3  # pixels across
_TRUNCATE = 4.0  # deviations at which a Gaussian ends


@in_float32
def canny(x: Tensor, *, sigma: float = SIGMA, low: float = LOW, high: float = HIGH) -> Tensor:
    """Find the edges of maps ``(B, 1, H, W)``, bool ``(B, 1, H, W)``.

    The map is smoothed, by what of the Gaussian is inside the image; its gradient is Sobel's, whose weights add up to 4 per
    side; of it the local maxima along its direction are kept where they exceed ``low`` and touch one that exceeds ``high``.
    There is no edge on the border. So does scikit-image.

    Args:
        x: finite maps.
        sigma: of the Gaussian [px].
        low: gradient from which an edge goes on.
        high: gradient from which an edge starts.
    """
    x = x.double()
    smooth = _smoothed(x, sigma) / _smoothed(torch.ones_like(x), sigma)
    gx, gy = _sobel(smooth)
    strength = torch.hypot(gx, gy)
    peaks = _is_peak(strength, gx, gy)
    inner = F.pad(torch.ones_like(peaks[..., 1:-1, 1:-1]), (1, 1, 1, 1))
    weak = peaks & inner & (strength >= low)
    return _connected(weak & (strength >= high), weak)


@in_float32
def distance_to(edges: Tensor, limit: int) -> Tensor:
    """Compute each pixel's distance [px] to the nearest edge, float64 ``(B, 1, H, W)``; ``limit`` where none is as near.

    Args:
        edges: bool ``(B, 1, H, W)``.
        limit: distance beyond which nothing is looked for [px].
    """
    found = torch.full(edges.shape, float(limit), dtype=torch.float64, device=edges.device)
    padded = F.pad(edges, (limit,) * 4)
    height, width = edges.shape[-2:]
    for dy in range(-limit, limit + 1):
        for dx in range(-limit, limit + 1):
            if (distance := math.hypot(dy, dx)) < limit:
                there = padded[..., limit + dy : limit + dy + height, limit + dx : limit + dx + width]
                found = torch.where(there, found.clamp_max(distance), found)
    return found


def _smoothed(x: Tensor, sigma: float) -> Tensor:
    """Convolve with a Gaussian; outside of the image there are zeros."""
    radius = int(_TRUNCATE * sigma + 0.5)
    weights = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=x.dtype, device=x.device) / sigma) ** 2)
    weights = weights / weights.sum()
    x = F.conv2d(x, weights.view(1, 1, -1, 1), padding=(radius, 0))
    return F.conv2d(x, weights.view(1, 1, 1, -1), padding=(0, radius))


def _sobel(x: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the gradient along columns and along rows; the image goes on by its mirror image."""
    kernel = sent(torch.tensor([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]), x.device).to(x.dtype)
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")  # of two rows, mirrored and repeated borders are one
    return F.conv2d(padded, kernel.view(1, 1, 3, 3)), F.conv2d(padded, kernel.T.reshape(1, 1, 3, 3))


def _is_peak(strength: Tensor, gx: Tensor, gy: Tensor) -> Tensor:
    """Tell whether the gradient is at least as strong as a step along its direction on either side, bool.

    The strength a step away is linear between the two neighbours that the direction runs between.
    """
    padded = F.pad(strength, (1, 1, 1, 1))
    height, width = strength.shape[-2:]

    def at(dy: int, dx: int) -> Tensor:
        return padded[..., 1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]

    steep = gy.abs() > gx.abs()  # the step goes from row to row rather than from column to column
    share = torch.where(steep, gx.abs(), gy.abs()) / torch.where(steep, gy.abs(), gx.abs()).where(strength > 0, 1)
    falling = gx * gy < 0  # the direction is up to the right
    peak = strength > 0
    for side in (1, -1):
        straight = torch.where(steep, at(side, 0), at(0, side))
        diagonal = torch.where(falling, torch.where(steep, at(side, -side), at(-side, side)), at(side, side))
        peak = peak & (strength >= straight + share * (diagonal - straight))
    return peak


def _connected(seeds: Tensor, through: Tensor) -> Tensor:
    """Grow ``seeds`` over the pixels of ``through`` that they touch, also by a corner."""
    while True:
        near = F.max_pool2d(seeds.float(), _NEIGHBOURS, 1, _NEIGHBOURS // 2) > 0
        grown = near & through
        if bool((grown == seeds).all()):
            return seeds
        seeds = grown
