"""Depth-boundary errors of iBims-1 (Koch et al. 2018): how far predicted edges are from labelled ones, and the reverse."""

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

import torch
from torch import Tensor

from depthkit.checks import check_choice, check_map
from depthkit.errors import ShapeError
from depthkit.masked import masked_count, masked_range, masked_sum, per_image
from depthkit.metrics.boundaries.edges import canny, distance_to
from depthkit.metrics.formula import Formula
from depthkit.metrics.metric import FormulaMetric, Reduction

FARTHEST = 10
"""Distance [px] beyond which an edge has no counterpart, and the error of a map without edges."""


class BoundarySide(StrEnum):
    """Which of the two errors; see ``depth_boundary_error``."""

    ACCURACY = "accuracy"
    COMPLETENESS = "completeness"


@dataclass(frozen=True)
class DepthBoundaryErrorFormula(Formula):
    """Mean distance between predicted and labelled edges."""

    n_sums: ClassVar[int] = 2
    reads_edges: ClassVar[bool] = True
    side: BoundarySide | str = BoundarySide.ACCURACY

    def __post_init__(self) -> None:
        object.__setattr__(self, "side", check_choice("side", self.side, BoundarySide))

    def sums(self, pred: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
        """Sum the distances, and the edge pixels that they are of; a map without edges near the label's is one at the limit."""
        check_map("pred", pred)
        if edges.shape != pred.shape or edges.dtype != torch.bool:
            raise ShapeError(
                f"expected edges as bool {tuple(pred.shape)}; got {edges.dtype} {tuple(edges.shape)}. "
                "True is where the label jumps."
            )
        known, finite = pred.isfinite(), pred.isfinite().flatten(1).all(1)
        low, high = masked_range(pred.double(), known)
        unit = (pred.double() - per_image(low, pred)) / per_image((high - low).where(high > low, 1), pred)
        found = canny(unit.where(known, 0))
        to_label, to_found = distance_to(edges, FARTHEST), distance_to(found, FARTHEST)
        near = found & (to_label < FARTHEST)
        if self.side == BoundarySide.ACCURACY:
            total, number = masked_sum(to_label, near), masked_count(near)
        else:
            total = masked_sum(to_label, found) + masked_sum(to_found, edges)
            number = masked_count(found) + masked_count(edges)
        none = masked_count(near) == 0
        total, number = total.where(~none, FARTHEST), number.where(~none, 1).double()
        labelled = masked_count(edges)
        sums = torch.stack([total.where(finite, torch.nan), number], -1)
        return sums.where((labelled > 0)[:, None], 0), labelled

    def finish(self, sums: Tensor, count: Tensor) -> Tensor:
        """Compute the mean distance."""
        return sums[..., 0] / sums[..., 1].where(count > 0, 1)


def depth_boundary_error(pred: Tensor, edges: Tensor, *, side: BoundarySide | str = BoundarySide.ACCURACY) -> Tensor:
    """Distance between the edges of the predicted depth and labelled ones, per image [px], lower is better.

    The prediction is scaled to [0, 1], its edges are found by Canny's rule (deviation sqrt 2 px, thresholds 0.15 and 0.3), and

    - ``accuracy`` is the mean distance of the predicted edges to the label's, over those nearer than 10 px;
    - ``completeness`` is the mean over the edges of both of the distance to the other's, at most 10 px.

    An image none of whose predicted edges is nearer than 10 px has 10. A scale and a shift of the prediction change nothing.
    Koch et al. average over images; ``DepthBoundaryError(reduction="pixel")`` pools the edges of all.

    Args:
        pred: predicted depth, dense, ``(B, 1, H, W)``; NaN or infinity makes the result NaN.
        edges: where the label jumps, bool ``(B, 1, H, W)``, such as ``edges`` of iBims-1's ``.mat`` files.
        side: which of the two.

    Returns:
        float64 ``(B,)``; NaN for an image without labelled edges.

    Raises:
        ShapeError: the two do not fit together.
        RecipeError: an unknown side.
    """
    return DepthBoundaryErrorFormula(side)(pred, edges)


class DepthBoundaryError(FormulaMetric):
    """Distance between predicted and labelled edges [px], lower is better; see ``depth_boundary_error``."""

    def __init__(
        self, *, side: BoundarySide | str = BoundarySide.ACCURACY, reduction: Reduction | str = Reduction.IMAGE
    ) -> None:
        super().__init__(DepthBoundaryErrorFormula(side), reduction=reduction)

    def update(self, preds: Tensor, edges: Tensor) -> None:
        """Add a batch.

        Args:
            preds: predicted depth, dense, ``(B, 1, H, W)``.
            edges: where the label jumps, bool ``(B, 1, H, W)``.

        Raises:
            ShapeError: the two do not fit together.
        """
        self.score(preds, edges)
