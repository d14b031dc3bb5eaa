"""Errors of inverse depth, in one of two units."""

from dataclasses import dataclass
from enum import StrEnum

from torch import Tensor

from depthkit.alignment import Alignment
from depthkit.checks import check_choice
from depthkit.metrics.formula import PixelMean, RootPixelMean
from depthkit.metrics.metric import Caps, DepthMetric, Reduction


class InverseUnit(StrEnum):
    """Unit of an error of inverse depth: KITTI's, or Marigold's."""

    PER_KILOMETRE = "1/km"
    PER_METRE = "1/m"


_OF_ONE_PER_METRE: dict[str, float] = {InverseUnit.PER_KILOMETRE: 1000.0, InverseUnit.PER_METRE: 1.0}


@dataclass(frozen=True)
class IMAEFormula(PixelMean):
    """Mean of ``|1/d - 1/g|``."""

    unit: InverseUnit | str = InverseUnit.PER_KILOMETRE

    def __post_init__(self) -> None:
        object.__setattr__(self, "unit", check_choice("unit", self.unit, InverseUnit))

    def _terms(self, pred: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        return (_OF_ONE_PER_METRE[self.unit] * (1 / pred - 1 / target).abs(),)


def imae(pred: Tensor, target: Tensor, valid: Tensor, *, unit: InverseUnit | str = InverseUnit.PER_KILOMETRE) -> Tensor:
    r"""Mean absolute error of inverse depth: :math:`\overline{|1/d - 1/g|}` in ``unit``. Args and returns as ``irmse``."""
    return IMAEFormula(unit)(pred, target, valid)


class IMAE(DepthMetric):
    """Mean absolute error of inverse depth; see ``imae``."""

    def __init__(
        self,
        *,
        unit: InverseUnit | str = InverseUnit.PER_KILOMETRE,
        reduction: Reduction | str = Reduction.IMAGE,
        alignment: Alignment | None = None,
        caps: Caps | None = None,
    ) -> None:
        super().__init__(IMAEFormula(unit), reduction=reduction, alignment=alignment, caps=caps)


@dataclass(frozen=True)
class IRMSEFormula(RootPixelMean, IMAEFormula):
    """Root of the mean of ``(1/d - 1/g)^2``."""

    def _terms(self, pred: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        (error,) = IMAEFormula._terms(self, pred, target)
        return (error**2,)


def irmse(pred: Tensor, target: Tensor, valid: Tensor, *, unit: InverseUnit | str = InverseUnit.PER_KILOMETRE) -> Tensor:
    r"""Root mean squared error of inverse depth: :math:`\sqrt{\overline{(1/d - 1/g)^2}}`.

    Args:
        pred: predicted depth [m], ``(B, 1, H, W)``; infinite is allowed, zero is an infinite error.
        target: labelled depth [m], ``(B, 1, H, W)``; any value where not valid.
        valid: bool, ``(B, 1, H, W)``.
        unit: of the result: ``"1/km"`` (KITTI benchmark, slowtv_monodepth) or ``"1/m"`` (Marigold), 1000 times smaller.

    Returns:
        float64 ``(B,)``; NaN for an image without a valid pixel.

    Raises:
        ShapeError: the three do not fit together.
        RecipeError: another unit.
    """
    return IRMSEFormula(unit)(pred, target, valid)


class IRMSE(DepthMetric):
    """Root mean squared error of inverse depth; see ``irmse``."""

    def __init__(
        self,
        *,
        unit: InverseUnit | str = InverseUnit.PER_KILOMETRE,
        reduction: Reduction | str = Reduction.IMAGE,
        alignment: Alignment | None = None,
        caps: Caps | None = None,
    ) -> None:
        super().__init__(IRMSEFormula(unit), reduction=reduction, alignment=alignment, caps=caps)
