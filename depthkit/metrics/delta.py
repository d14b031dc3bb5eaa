"""The share of pixels within, or beyond, a factor of the truth."""

from dataclasses import dataclass

import torch
from torch import Tensor

from depthkit.alignment import Alignment
from depthkit.errors import RecipeError
from depthkit.metrics.formula import PixelMean
from depthkit.metrics.metric import Caps, DepthMetric, Reduction


@dataclass(frozen=True)
class DeltaAccuracyFormula(PixelMean):
    """Share of ``max(d/g, g/d) < threshold``."""

    threshold: float = 1.25

    def __post_init__(self) -> None:
        if not self.threshold > 1:
            raise RecipeError(f"expected a threshold above 1 on the ratio of depths, such as 1.25; got {self.threshold}.")

    def ratio(self, pred: Tensor, target: Tensor) -> Tensor:
        """``max(d/g, g/d)``; infinite where d is not positive (the ratio of a negative depth would be small)."""
        return torch.maximum(pred / target, target / pred).where(~(pred <= 0), torch.inf)

    def _terms(self, pred: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        ratio = self.ratio(pred, target)
        return ((ratio < self.threshold).double().where(~ratio.isnan(), torch.nan),)


@dataclass(frozen=True)
class DeltaErrorFormula(DeltaAccuracyFormula):
    """Share of ``max(d/g, g/d) > threshold``."""

    def _terms(self, pred: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        ratio = self.ratio(pred, target)
        return ((ratio > self.threshold).double().where(~ratio.isnan(), torch.nan),)


def delta_accuracy(pred: Tensor, target: Tensor, valid: Tensor, *, threshold: float = 1.25) -> Tensor:
    r"""Share of pixels with :math:`\max(d/g, g/d) < t` [1], higher is better (Eigen et al. 2014).

    Args:
        pred: predicted depth [m], ``(B, 1, H, W)``; a zero, negative or infinite depth is within no factor.
        target: labelled depth [m], ``(B, 1, H, W)``; any value where not valid.
        valid: bool, ``(B, 1, H, W)``.
        threshold: t > 1; customary are 1.25, 1.25 ** 2, 1.25 ** 3, and 1.05 and 1.10 for close work.

    Returns:
        float64 ``(B,)`` in [0, 1]; NaN for an image without a valid pixel.

    Raises:
        ShapeError: the three do not fit together.
        RecipeError: a threshold of 1 or less.
    """
    return DeltaAccuracyFormula(threshold)(pred, target, valid)


def delta_error(pred: Tensor, target: Tensor, valid: Tensor, *, threshold: float = 1.25) -> Tensor:
    r"""Share of pixels with :math:`\max(d/g, g/d) > t` [1], lower is better: MiDaS's and GP2's "delta" (they print it x100).

    Args and returns as ``delta_accuracy``.
    """
    return DeltaErrorFormula(threshold)(pred, target, valid)


class DeltaAccuracy(DepthMetric):
    """Share of pixels within a factor of the truth [1], higher is better; see ``delta_accuracy``."""

    higher_is_better = True

    def __init__(
        self,
        threshold: float = 1.25,
        *,
        reduction: Reduction | str = Reduction.IMAGE,
        alignment: Alignment | None = None,
        caps: Caps | None = None,
    ) -> None:
        super().__init__(DeltaAccuracyFormula(threshold), reduction=reduction, alignment=alignment, caps=caps)


class DeltaError(DepthMetric):
    """Share of pixels beyond a factor of the truth [1], lower is better; see ``delta_error``."""

    def __init__(
        self,
        threshold: float = 1.25,
        *,
        reduction: Reduction | str = Reduction.IMAGE,
        alignment: Alignment | None = None,
        caps: Caps | None = None,
    ) -> None:
        super().__init__(DeltaErrorFormula(threshold), reduction=reduction, alignment=alignment, caps=caps)
