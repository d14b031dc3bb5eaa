"""Per-image statistics over valid pixels: the only code that divides by a count of pixels.

Every function takes ``x`` and a bool ``valid`` of one shape ``(B, ...)`` and reduces all axes but the first to ``(B,)``.
Values where ``valid`` is False are never read, be they NaN or infinite, and get gradient 0; so does an image without
a valid pixel, for which each statistic is 0.
"""

import torch
from torch import Tensor

from depthkit.precision import in_float32


@in_float32
def masked_count(valid: Tensor) -> Tensor:
    """Number of valid pixels per image, int64 ``(B,)``."""
    return valid.flatten(1).sum(1)


@in_float32
def masked_sum(x: Tensor, valid: Tensor) -> Tensor:
    """Sum over valid pixels, ``(B,)``."""
    return x.where(valid, 0).flatten(1).sum(1)


@in_float32
def masked_mean(x: Tensor, valid: Tensor) -> Tensor:
    """Mean over valid pixels, ``(B,)``."""
    return masked_sum(x, valid) / masked_count(valid).clamp_min(1)


@in_float32
def masked_variance(x: Tensor, valid: Tensor) -> Tensor:
    """Mean squared deviation from the mean over valid pixels, ``(B,)``; centred before it is squared."""
    return masked_mean(centred(x, masked_mean(x, valid)) ** 2, valid)


@in_float32
def masked_median(x: Tensor, valid: Tensor) -> Tensor:
    """Median over valid pixels, ``(B,)``; the mean of the two middle values for an even count, as in NumPy."""
    return masked_quantile(x, valid, 0.5)


@in_float32
def masked_mean_absolute_deviation(x: Tensor, valid: Tensor) -> Tensor:
    """Mean absolute deviation from the median over valid pixels, ``(B,)``: MiDaS's robust scale (eq. 5)."""
    return masked_mean(centred(x, masked_median(x, valid)).abs(), valid)


@in_float32
def masked_quantile(x: Tensor, valid: Tensor, q: float) -> Tensor:
    """The ``q``-quantile in [0, 1] over valid pixels, ``(B,)``, linear between neighbours as in NumPy.

    A full sort and a gather rather than ``torch.median``: the same on CPU and CUDA, deterministic in backward, and
    symmetric (the median of -x is minus the median of x).
    """
    count = masked_count(valid)
    ordered = x.where(valid, torch.inf).flatten(1).sort(1).values
    position = q * (count - 1).clamp_min(0).double()
    low, high = position.floor().long(), position.ceil().long()
    below, above = ordered.gather(1, torch.stack([low, high], 1)).where((count > 0)[:, None], 0).unbind(1)
    return below + (above - below) * (position - low).to(x.dtype)


def centred(x: Tensor, centre: Tensor) -> Tensor:
    """``x`` minus one number per image, ``centre`` ``(B,)``."""
    return x - per_image(centre, x)


def per_image(value: Tensor, like: Tensor) -> Tensor:
    """One number per image, ``(B,)``, shaped to broadcast against ``like`` ``(B, ...)``."""
    return value.view(-1, *[1] * (like.ndim - 1))


@in_float32
def masked_range(x: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest and largest value over valid pixels, ``(B,)`` each."""
    low = x.where(valid, torch.inf).flatten(1).amin(1)
    high = x.where(valid, -torch.inf).flatten(1).amax(1)
    some = masked_count(valid) > 0
    return low.where(some, 0), high.where(some, 0)
