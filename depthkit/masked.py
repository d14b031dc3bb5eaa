"""Per-image statistics over valid pixels: the only code that divides by a count of pixels.

Every function takes ``x`` and a bool ``valid`` of one shape ``(B, ...)`` and reduces all axes but the first to ``(B,)``.
Values where ``valid`` is False may be NaN or infinite: they are never read and get gradient 0. Of an image without a valid
pixel each statistic is 0, with gradient 0. A NaN in a valid pixel is not hidden.
"""

import numpy as np
import torch
from torch import Tensor

from depthkit.precision import in_float32, to_float64

NEGLIGIBLE_SPREAD = 1e-6
"""A map whose spread is below this fraction of its magnitude is constant in float32: it determines no scale."""


@in_float32
def masked_count(valid: Tensor) -> Tensor:
    """Count the valid pixels of each image, int64 ``(B,)``."""
    return valid.flatten(1).sum(1)


@in_float32
def masked_sum(x: Tensor, valid: Tensor) -> Tensor:
    """Sum the valid pixels, ``(B,)``."""
    return x.where(valid, 0).flatten(1).sum(1)


@in_float32
def masked_mean(x: Tensor, valid: Tensor, *, count: Tensor | None = None) -> Tensor:
    """Average the valid pixels, ``(B,)``; with ``count`` ``(B,)``, divide their sum by it instead of their number."""
    return zeroed_mean(x.where(valid, 0), masked_count(valid) if count is None else count)


@in_float32
def zeroed_mean(x: Tensor, count: Tensor) -> Tensor:
    """Average the ``count`` ``(B,)`` valid pixels, ``(B,)``, of a map that is 0 in all others and so needs no mask."""
    return x.flatten(1).sum(1) / count.clamp_min(1)


@in_float32
def masked_variance(x: Tensor, valid: Tensor, *, correction: int = 0) -> Tensor:
    """Compute the variance of the valid pixels, ``(B,)``, centred before it is squared.

    ``correction`` is subtracted from the divisor, as in ``torch.var``.
    """
    count = masked_count(valid)
    deviation = centred(x, masked_mean(x, valid, count=count)).where(valid, 0)  # before the square, whose gradient spreads NaN
    return zeroed_mean(deviation**2, count - correction)


@in_float32
def masked_median(x: Tensor, valid: Tensor) -> Tensor:
    """Compute the median of the valid pixels, ``(B,)``; for an even count the mean of the two middle values, as in NumPy."""
    return masked_quantile(x, valid, 0.5)


@in_float32
def masked_mean_absolute_deviation(x: Tensor, valid: Tensor) -> Tensor:
    """Average the absolute deviation of valid pixels from their median, ``(B,)``: MiDaS's robust scale (eq. 5)."""
    return zeroed_mean(centred(x, masked_median(x, valid)).where(valid, 0).abs(), masked_count(valid))


@in_float32
def masked_quantile(x: Tensor, valid: Tensor, q: float) -> Tensor:
    """Compute the ``q``-quantile, q in [0, 1], of the valid pixels, ``(B,)``, linear between neighbours as in NumPy.

    Two elements are picked by rank rather than with ``torch.median``, which returns the lower of two middle values and
    raises on CUDA under deterministic algorithms. So the median of -x is minus the median of x.
    """
    count = masked_count(valid)
    position = q * to_float64((count - 1).clamp_min(0))
    low, high = position.floor(), position.ceil()
    index = _index_of_rank(_last_if_invalid(x, valid), torch.stack([low, high], 1).long().to(x.device))
    below, above = x.flatten(1).gather(1, index).where((count > 0)[:, None], 0).unbind(1)
    return below + (above - below) * (position - low).to(x)


@in_float32
def masked_trimmed_mean(x: Tensor, valid: Tensor, trim: float) -> Tensor:
    """Sum the floor((1 - trim) M) smallest of the M valid values and divide by M, ``(B,)``.

    Values that tie with the largest one kept share its gradient evenly, so the order of the pixels does not matter.
    """
    if trim == 0:
        return masked_mean(x, valid)
    count = masked_count(valid)
    keep = ((1 - trim) * to_float64(count)).round(decimals=6).floor().long().to(x.device)  # (1 - 0.9) * 10 is just short of 1
    with torch.no_grad():
        values = _last_if_invalid(x, valid)
        threshold = values.gather(1, _index_of_rank(values, (keep - 1).clamp_min(0)[:, None]))
        below, at = values < threshold, values == threshold
        share = (keep - below.sum(1)) / at.sum(1).clamp_min(1)
        weight = below + share[:, None].to(x.dtype) * at
    return zeroed_mean(x.where(valid, 0) * weight.view_as(x), count)


@in_float32
def masked_mean_difference(x: Tensor, valid: Tensor) -> Tensor:
    r"""Average abs(x_i - x_j) over all N^2 pairs of valid pixels, ``(B,)``: Gini's mean difference, in O(N log N).

    With ``x`` sorted ascending it is ``2 / N^2 * sum_i (2 i - N - 1) x_(i)``, i = 1..N (Romanov et al. 2020, eq. 2). The rank
    weights are divided by N and ``x`` is centred, so that float32 suffices for images of any size.
    """
    count = masked_count(valid)
    with torch.no_grad():
        order = _ascending(_last_if_invalid(x, valid))
        middle = x.flatten(1).gather(1, order.gather(1, count[:, None] // 2))
        rank = torch.arange(1, order.shape[1] + 1, dtype=x.dtype, device=x.device)
        by_rank = (2 * rank - 1 - count[:, None]).div_(count.clamp_min(1)[:, None])
        weight = torch.empty_like(by_rank).scatter_(1, order, by_rank)
    return 2 * zeroed_mean((centred(x, middle) * weight.view_as(x)).where(valid, 0), count)


@in_float32
def masked_range(x: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Find the smallest and the largest value of the valid pixels, ``(B,)`` each."""
    low = x.where(valid, torch.inf).flatten(1).amin(1)
    high = x.where(valid, -torch.inf).flatten(1).amax(1)
    some = masked_count(valid) > 0
    return low.where(some, 0), high.where(some, 0)


def centred(x: Tensor, centre: Tensor) -> Tensor:
    """Subtract one number per image, ``centre`` ``(B,)``, from ``x``."""
    return x - per_image(centre, x)


def per_image(value: Tensor, like: Tensor) -> Tensor:
    """Reshape one number per image, ``(B,)``, so that it broadcasts against ``like`` ``(B, ...)``."""
    return value.view(-1, *[1] * (like.ndim - 1))


def _last_if_invalid(x: Tensor, valid: Tensor) -> Tensor:
    """Flatten each image to a row without its graph, ``(B, N)``, in which invalid pixels rank after all valid ones."""
    return x.detach().where(valid, torch.inf).flatten(1)


# Ranks are picked by NumPy on the CPU, whose vectorised selection and argsort are many times as fast as torch's sort, and by a
# sort elsewhere. Indices carry no gradient: the caller gathers. They are operators so that torch.compile sees one graph, and
# defined by schema because torch.library.custom_op imports the compiler, which takes seconds, at the first call.

torch.library.define("depthkit::index_of_rank", "(Tensor x, Tensor rank) -> Tensor")
torch.library.define("depthkit::ascending", "(Tensor x) -> Tensor")


def _index_of_rank(x: Tensor, rank: Tensor) -> Tensor:
    """Find the positions of these ascending ranks in each row of ``x`` ``(B, N)``, ``(B, K) -> (B, K)``; NaN is last."""
    return torch.ops.depthkit.index_of_rank(x, rank)


def _ascending(x: Tensor) -> Tensor:
    """Compute the order that sorts each row of ``x`` ``(B, N)``, int64; NaN is last."""
    return torch.ops.depthkit.ascending(x)


@torch.library.impl("depthkit::index_of_rank", "cpu")
def _(x: Tensor, rank: Tensor) -> Tensor:
    index = torch.empty_like(rank)
    for row, ranks, found in zip(x.numpy(), rank.tolist(), index.numpy(), strict=True):
        for column, k in enumerate(ranks):
            if column and k == ranks[column - 1]:
                found[column] = found[column - 1]
                continue
            value = np.partition(row, k)[k]
            found[column] = (np.isnan(row) if np.isnan(value) else row == value).argmax()
    return index


def _index_of_rank_by_sort(x: Tensor, rank: Tensor) -> Tensor:
    return x.argsort(1).gather(1, rank)


torch.library.impl("depthkit::index_of_rank", "CompositeExplicitAutograd", _index_of_rank_by_sort)


@torch.library.register_fake("depthkit::index_of_rank")
def _(x: Tensor, rank: Tensor) -> Tensor:
    return torch.empty_like(rank)


@torch.library.impl("depthkit::ascending", "cpu")
def _(x: Tensor) -> Tensor:
    return torch.from_numpy(x.numpy().argsort(1))


def _ascending_by_sort(x: Tensor) -> Tensor:
    return x.argsort(1)


torch.library.impl("depthkit::ascending", "CompositeExplicitAutograd", _ascending_by_sort)


@torch.library.register_fake("depthkit::ascending")
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x, dtype=torch.int64)
