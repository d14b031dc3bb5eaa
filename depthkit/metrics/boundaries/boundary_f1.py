"""Boundary F1: are occlusion edges where they should be. Needs dense, sharp labels; sparse ones have no neighbours."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor

from depthkit.alignment import Alignment
from depthkit.checks import check_choice
from depthkit.errors import RecipeError
from depthkit.masked import masked_count, masked_sum
from depthkit.metrics.formula import Formula, map_pair
from depthkit.metrics.metric import Caps, DepthMetric, Reduction


class BoundaryVariant(StrEnum):
    """Whose boundary F1; see ``boundary_f1``."""

    DEPTH_PRO = "depth_pro"
    MOGE = "moge"


_THRESHOLDS = 10


@dataclass(frozen=True)
class BoundaryF1Formula(Formula):
    """F1 of "this neighbour is more than t times as far", weighted over ten t from 1.05 to 1.25."""

    variant: BoundaryVariant | str = BoundaryVariant.DEPTH_PRO
    radius: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "variant", check_choice("variant", self.variant, BoundaryVariant))
        if self.radius < 1 or (self.variant == BoundaryVariant.DEPTH_PRO and self.radius != 1):
            raise RecipeError(
                f"BoundaryF1: expected radius >= 1, and 1 for 'depth_pro', which compares direct neighbours; got {self.radius}."
            )

    @property
    def n_sums(self) -> int:  # type: ignore[override]
        """Hits, predicted and labelled edges, per threshold, and per direction where F1 is made of directions."""
        return 3 * _THRESHOLDS * (4 if self.variant == BoundaryVariant.DEPTH_PRO else 1)

    def sums(self, pred: Tensor, target: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Count the neighbour pairs that are edges in both maps, in the prediction, in the label."""
        pred, target = map_pair(pred, target, valid)
        pred = pred.where(pred > 0, torch.nan)
        directions = []
        for here, there in self._neighbours(*pred.shape[-2:]):
            both = valid[here] & valid[there]
            predicted, labelled = (_level(x[there] / x[here], both) for x in (pred, target))
            hits = torch.minimum(predicted, labelled)
            directions.append(torch.stack([_at_least(level) for level in (hits, predicted, labelled)], 1))
        counts = torch.stack(directions, 1)
        if self.variant == BoundaryVariant.MOGE:
            counts = counts.sum(1, keepdim=True)
        nan = (pred + target).isnan()  # no comparison is true of NaN, so it must be carried along
        unknown = masked_sum(pred.new_zeros(()).where(~nan, torch.nan), valid)
        return counts.flatten(1) + unknown[:, None], masked_count(valid)

    def finish(self, sums: Tensor, count: Tensor) -> Tensor:
        """Compute the weighted F1."""
        hits, predicted, labelled = sums.unflatten(-1, (-1, 3, _THRESHOLDS)).unbind(-2)
        precision = (hits / predicted.clamp_min(1)).mean(-2)
        recall = (hits / labelled.clamp_min(1)).mean(-2)
        f1 = 2 * precision * recall / (precision + recall).where(precision + recall != 0, 1)
        weights = _thresholds(f1) - (1.0 if self.variant == BoundaryVariant.MOGE else 0.0)
        return (f1 * weights).sum(-1) / weights.sum()

    def _neighbours(self, height: int, width: int) -> Iterator[tuple[tuple[Any, ...], tuple[Any, ...]]]:
        """Index of the pixels that have a neighbour at an offset, and index of those neighbours."""
        r = self.radius
        inner = r if self.variant == BoundaryVariant.MOGE else 0  # MoGe scores only pixels whose whole disc is in the image
        for dy in range(-r, r + 1):
            for dx in range(-r, r + 1):
                if 0 < dy * dy + dx * dx <= r * r:
                    (top, bottom), (left, right) = _span(dy, height, inner), _span(dx, width, inner)
                    here = (..., slice(top, bottom), slice(left, right))
                    yield here, (..., slice(top + dy, bottom + dy), slice(left + dx, right + dx))


def _span(offset: int, size: int, inner: int) -> tuple[int, int]:
    first = max(-offset, inner)
    return first, max(first, min(size - offset, size - inner))


def _thresholds(like: Tensor) -> Tensor:
    return torch.linspace(1.05, 1.25, _THRESHOLDS, dtype=torch.float64, device=like.device)


def _level(ratio: Tensor, valid: Tensor) -> Tensor:
    """How many of the thresholds a ratio exceeds; 0 where not valid."""
    return torch.bucketize(ratio, _thresholds(ratio), out_int32=True).where(valid & ~ratio.isnan(), 0).to(torch.uint8)


def _at_least(level: Tensor) -> Tensor:
    """Count the pixels that exceed each threshold, float64 ``(B, 10)``."""
    return torch.stack([(level > k).flatten(1).sum(1) for k in range(_THRESHOLDS)], -1).double()


def boundary_f1(
    pred: Tensor, target: Tensor, valid: Tensor, *, variant: BoundaryVariant | str = BoundaryVariant.DEPTH_PRO, radius: int = 1
) -> Tensor:
    """F1 of occlusion boundaries of each image [1], higher is better; a factor on either map changes nothing.

    A boundary is a pair of neighbours whose depths differ by a ratio of more than t. Both variants average F1 over ten t from
    1.05 to 1.25 with weights that grow with t.

    ``"depth_pro"`` (Bochkovskii et al. 2024): direct neighbours; precision and recall are each the mean of four directions,
    weights are proportional to t. A direction without boundaries in the label has recall 0, so on such an image even the
    perfect prediction scores below 1.
    ``"moge"`` (Wang et al. 2025): neighbours within ``radius`` of pixels at least ``radius`` from the border, all directions
    counted together, weights proportional to t - 1. MoGe reports radii 1, 2 and 3.

    Args:
        pred: predicted depth [m], ``(B, 1, H, W)``; a zero or negative depth makes the result NaN.
        target: labelled depth [m], ``(B, 1, H, W)``; any value where not valid.
        valid: bool, ``(B, 1, H, W)``; pairs with an invalid end are left out.
        variant: whose definition.
        radius: of the neighbourhood [px], for ``"moge"``.

    Returns:
        float64 ``(B,)``; 0 for an image without a common boundary, NaN for one without a valid pixel.

    Raises:
        ShapeError: the three do not fit together.
        RecipeError: an unknown variant, or a radius it does not have.
    """
    return BoundaryF1Formula(variant, radius)(pred, target, valid)


class BoundaryF1(DepthMetric):
    """F1 of occlusion boundaries [1], higher is better; see ``boundary_f1`` for its variants."""

    higher_is_better = True

    def __init__(
        self,
        *,
        variant: BoundaryVariant | str = BoundaryVariant.DEPTH_PRO,
        radius: int = 1,
        reduction: Reduction | str = Reduction.IMAGE,
        alignment: Alignment | None = None,
        caps: Caps | None = None,
    ) -> None:
        super().__init__(BoundaryF1Formula(variant, radius), reduction=reduction, alignment=alignment, caps=caps)
