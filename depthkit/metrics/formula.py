"""What a metric is: sums per image, and the number made of them.

A formula never divides before it has to, so one formula serves both reductions: the mean over images of its value, and its
value on the pooled sums. All of it runs in float64.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from depthkit.checks import check_map_pair
from depthkit.masked import masked_count, masked_sum
from depthkit.precision import in_float32, where_float64_exists


@dataclass(frozen=True)
class Formula:
    """A number per image that depends on additive sums only.

    A formula is frozen data, its fields are the options of the metric: two formulas are equal exactly if they compute the
    same thing.
    """

    n_sums: ClassVar[int] = 1
    reads_edges: ClassVar[bool] = False
    """Whether it compares a prediction with labelled edges, instead of with a map and where it is valid."""

    def sums(self, *inputs: Any) -> tuple[Tensor, Tensor]:
        """Add up each image: sums, float64 ``(B, n_sums)``, and how many pixels (pairs) they hold, int64 ``(B,)``."""
        raise NotImplementedError

    def finish(self, sums: Tensor, count: Tensor) -> Tensor:
        """Compute the number from sums ``(..., n_sums)`` over ``count`` ``(...)`` pixels, ``(...)``; any value at count 0."""
        raise NotImplementedError

    def value(self, sums: Tensor, count: Tensor) -> Tensor:
        """Do as ``finish``, with NaN where nothing was counted."""
        return self.finish(sums, count).where(count > 0, torch.nan)

    def __call__(self, *inputs: Any) -> Tensor:
        """Compute the number of each image, float64 ``(B,)``; NaN for an image in which nothing is valid."""
        return self.value(*self.sums(*where_float64_exists(*inputs)))


@dataclass(frozen=True)
class PixelMean(Formula):
    """A formula made of means over valid pixels: give ``_terms``, and ``_of_means`` unless it is their first."""

    signed: ClassVar[bool] = False

    def _terms(self, pred: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        """Compute the ``n_sums`` maps to average, elementwise in depth [m]."""
        raise NotImplementedError

    def _of_means(self, means: Tensor, count: Tensor) -> Tensor:
        """Compute the number from the means ``(..., n_sums)``."""
        return means[..., 0]

    def sums(self, pred: Tensor, target: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Sum the terms over valid pixels."""
        pred, target = map_pair(pred, target, valid, signed=self.signed)
        return torch.stack([masked_sum(term, valid) for term in self._terms(pred, target)], -1), masked_count(valid)

    def finish(self, sums: Tensor, count: Tensor) -> Tensor:
        """Compute the number from the means."""
        return self._of_means(sums / count[..., None], count)


@dataclass(frozen=True)
class RootPixelMean(PixelMean):
    """The root of a mean over valid pixels, taken last."""

    def _of_means(self, means: Tensor, count: Tensor) -> Tensor:
        """Take the root of the first mean."""
        return means[..., 0].sqrt()


@in_float32
def map_pair(pred: Tensor, target: Tensor, valid: Tensor, *, signed: bool = False) -> tuple[Tensor, Tensor]:
    """Both maps in float64, 1 where not valid; NaN where a valid label is no depth, so that no such pixel is scored unseen.

    A finite label that is zero or negative is no depth, but may be an affine disparity: ``signed`` admits it.

    Raises:
        ShapeError: the three are not ``(B, 1, H, W)`` of one size, or ``valid`` is not bool.
    """
    check_map_pair(pred, target, valid)
    pred, target = pred.where(valid, 1).double(), target.where(valid, 1).double()
    return pred, target.where(target.isfinite() & ((target > 0) | signed), torch.nan)
