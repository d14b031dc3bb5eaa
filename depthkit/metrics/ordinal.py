"""WHDR: how often the predicted order of two points contradicts people."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from depthkit.checks import check_choice, check_map
from depthkit.errors import RecipeError, ShapeError
from depthkit.metrics.formula import Formula
from depthkit.metrics.metric import FormulaMetric, Reduction
from depthkit.precision import in_float32
from depthkit.types import Representation

_CLOSER_IS_LARGER = (Representation.DISPARITY, Representation.LOG_DISPARITY)


@dataclass(frozen=True)
class WHDRFormula(Formula):
    """Weight of the contradicted pairs over the weight of all."""

    n_sums: ClassVar[int] = 2
    representation: Representation = Representation.DEPTH
    equal_ratio: float | None = None
    tie: Literal[-1, 0, 1] = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "representation", check_choice("representation", self.representation, Representation))
        if self.equal_ratio is not None and not self.equal_ratio >= 1:
            raise RecipeError(f"WHDR: expected equal_ratio of at least 1, such as 1.1, or None; got {self.equal_ratio}.")
        if self.tie not in (-1, 0, 1):
            raise RecipeError(f"WHDR: expected tie of -1, 0 or 1, the order that equal values stand for; got {self.tie}.")

    @in_float32
    def sums(
        self, pred: Tensor, pairs: Tensor, order: Tensor | None = None, weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Weights of the contradicted and of all scored pairs, and the number of the latter."""
        check_map("pred", pred)
        order = _check_pairs(pred, pairs, order, weights)
        row_a, column_a, row_b, column_b = pairs[..., :4].unbind(-1)
        a, b = _read(pred, row_a, column_a), _read(pred, row_b, column_b)
        sign = 1 if self.representation in _CLOSER_IS_LARGER else -1
        predicted = (sign * ((a > b).long() - (a < b).long())).where(a != b, self.tie)
        known = ~(a.isnan() | b.isnan())
        scored = row_a >= 0
        if self.equal_ratio is None:
            scored = scored & (order != 0)
        else:
            same = torch.maximum(a, b) <= self.equal_ratio * torch.minimum(a, b)
            predicted, known = predicted.where(~same, 0), known & (a > 0) & (b > 0)
        weight = torch.ones_like(a) if weights is None else weights.double()
        scored = scored & ~(weight == 0)
        wrong = (predicted != order).double().where(known, torch.nan)
        sums = torch.stack([(wrong * weight).where(scored, 0).sum(1), weight.where(scored, 0).sum(1)], -1)
        return sums, scored.sum(1)

    def finish(self, sums: Tensor, count: Tensor) -> Tensor:
        """Their ratio."""
        return sums[..., 0] / sums[..., 1]


def _read(x: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Values of ``x`` at pixels ``(B, P)``, float64; NaN outside the image, where no index may silently wrap."""
    height, width = x.shape[-2:]
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    index = (row * width + column).where(inside, 0).long()
    return x.double().flatten(1).gather(1, index).where(inside, torch.nan)


def _check_pairs(pred: Tensor, pairs: Tensor, order: Tensor | None, weights: Tensor | None) -> Tensor:
    if pairs.ndim != 3 or len(pairs) != len(pred) or pairs.shape[-1] not in (4, 5) or pairs.is_floating_point():
        raise ShapeError(
            f"expected integer pairs of shape ({len(pred)}, P, 4) or ({len(pred)}, P, 5); "
            f"got {pairs.dtype} of shape {tuple(pairs.shape)}. Columns: row a, column a, row b, column b, and the order."
        )
    if order is None and pairs.shape[-1] == 5:
        order = pairs[..., 4]
    if order is None:
        raise ShapeError("expected the order of the pairs; got pairs of four columns and no order. Pass order of shape (B, P).")
    for name, x in (("order", order), ("weights", weights)):
        if x is not None and x.shape != pairs.shape[:2]:
            raise ShapeError(f"expected {name} of shape {tuple(pairs.shape[:2])}, one per pair; got {tuple(x.shape)}.")
    return order


def whdr(
    pred: Tensor,
    pairs: Tensor,
    order: Tensor | None = None,
    weights: Tensor | None = None,
    *,
    representation: Representation = Representation.DEPTH,
    equal_ratio: float | None = None,
    tie: Literal[-1, 0, 1] = 0,
) -> Tensor:
    """Weighted human disagreement rate of each image [1], lower is better (Bell et al. 2014; on DIW, Chen et al. 2016).

    Only the order of the prediction counts, so a map up to scale and shift needs no alignment; but its direction matters:
    "a point lower in the image is closer" alone scores 0.14 on DIW, and a map read in the wrong direction 0.86.

    Args:
        pred: predicted map in ``representation``, ``(B, 1, H, W)``.
        pairs: int64 ``(B, P, 4)``: row a, column a, row b, column b [px], from 0; or ``(B, P, 5)`` with ``order`` last, as in
            ``Batch.pairs``. A pair whose first number is negative is padding. A point outside the image gives NaN.
        order: ``(B, P)``: +1: a is closer, -1: b is closer, 0: the same.
        weights: of the pairs, ``(B, P)``, >= 0; None weighs all alike.
        representation: of ``pred``: depth grows away from the camera, disparity towards it.
        equal_ratio: two points are predicted to be the same where the larger value is at most this many times the smaller
            (1.1 is customary; values must then be positive, others give NaN). None never predicts "the same" but for exact
            ties, and leaves out pairs labelled 0: DIW has none.
        tie: the order that an exact tie stands for. 0 contradicts any other order, so a constant map scores 1; GP2's code takes
            +1, which gives a constant map the share of pairs whose second point is closer.

    Returns:
        float64 ``(B,)``; NaN for an image without a scored pair.

    Raises:
        ShapeError: shapes do not fit together, or there is no order.
        RecipeError: ``equal_ratio`` below 1, or another ``tie``.

    Example:
        >>> depth = torch.tensor([1.0, 2.0]).view(1, 1, 1, 2)
        >>> pairs = torch.tensor([[[0, 0, 0, 1, +1], [0, 0, 0, 1, -1]]])
        >>> whdr(depth, pairs)
        tensor([0.5000], dtype=torch.float64)
    """
    return WHDRFormula(representation, equal_ratio, tie)(pred, pairs, order, weights)


class WHDR(FormulaMetric):
    """Weighted human disagreement rate [1]; see ``whdr``. ``reduction="pixel"`` pools the pairs of all images."""

    def __init__(
        self,
        *,
        representation: Representation = Representation.DEPTH,
        equal_ratio: float | None = None,
        tie: Literal[-1, 0, 1] = 0,
        reduction: Reduction | str = Reduction.IMAGE,
    ) -> None:
        super().__init__(WHDRFormula(representation, equal_ratio, tie), reduction=reduction)

    def update(self, preds: Tensor, pairs: Tensor, order: Tensor | None = None, weights: Tensor | None = None) -> None:
        """Add a batch; arguments as in ``whdr``."""
        self.score(preds, pairs, order, weights)
