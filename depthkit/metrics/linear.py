"""Errors of depth itself."""

from dataclasses import dataclass
from enum import StrEnum

from torch import Tensor

from depthkit.alignment import Alignment
from depthkit.checks import check_choice
from depthkit.metrics.formula import PixelMean, RootPixelMean
from depthkit.metrics.metric import Caps, DepthMetric, Reduction


class SqRelVariant(StrEnum):
    """Which mean squared relative error; see ``sq_rel``."""

    EIGEN = "eigen"
    KITTI = "kitti"


class AbsRelFormula(PixelMean):
    """Mean of ``|d - g| / g``."""

    def _terms(self, pred: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        return ((pred - target).abs() / target,)


def abs_rel(pred: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    r"""Mean absolute relative error [1]: :math:`\overline{|d - g| / g}` (Eigen et al. 2014).

    Args:
        pred: predicted depth [m], ``(B, 1, H, W)``.
        target: labelled depth [m], ``(B, 1, H, W)``; any value where not valid.
        valid: bool, ``(B, 1, H, W)``.

    Returns:
        float64 ``(B,)``; NaN for an image without a valid pixel.

    Raises:
        ShapeError: the three do not fit together.

    Example:
        >>> import torch
        >>> depth = torch.rand(2, 1, 4, 4) + 1
        >>> abs_rel(1.5 * depth, depth, depth > 0)
        tensor([0.5000, 0.5000], dtype=torch.float64)
    """
    return AbsRelFormula()(pred, target, valid)


class AbsRel(DepthMetric):
    """Mean absolute relative error [1]; see ``abs_rel``."""

    def __init__(
        self,
        *,
        reduction: Reduction | str = Reduction.IMAGE,
        alignment: Alignment | None = None,
        caps: Caps | None = None,
    ) -> None:
        super().__init__(AbsRelFormula(), reduction=reduction, alignment=alignment, caps=caps)


@dataclass(frozen=True)
class SqRelFormula(PixelMean):
    """Mean of ``(d - g)^2 / g`` or ``100 (d - g)^2 / g^2``."""

    variant: SqRelVariant | str = SqRelVariant.EIGEN

    def __post_init__(self) -> None:
        object.__setattr__(self, "variant", check_choice("variant", self.variant, SqRelVariant))

    def _terms(self, pred: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        squared = (pred - target) ** 2
        return (squared / target if self.variant == SqRelVariant.EIGEN else 100 * squared / target**2,)


def sq_rel(pred: Tensor, target: Tensor, valid: Tensor, *, variant: SqRelVariant | str = SqRelVariant.EIGEN) -> Tensor:
    r"""Mean squared relative error, one name for two quantities.

    ``"eigen"``: :math:`\overline{(d - g)^2 / g}` [m], as papers after Eigen et al. (2014) report it (monodepth2, ZoeDepth,
    Depth Anything V2, Marigold, UniDepth). ``"kitti"``: :math:`100\,\overline{(d - g)^2 / g^2}` [%], the KITTI benchmark's.

    Args and returns as ``abs_rel``.
    """
    return SqRelFormula(variant)(pred, target, valid)


class SqRel(DepthMetric):
    """Mean squared relative error, [m] or (``variant="kitti"``) [%]; see ``sq_rel``."""

    def __init__(
        self,
        *,
        variant: SqRelVariant | str = SqRelVariant.EIGEN,
        reduction: Reduction | str = Reduction.IMAGE,
        alignment: Alignment | None = None,
        caps: Caps | None = None,
    ) -> None:
        super().__init__(SqRelFormula(variant), reduction=reduction, alignment=alignment, caps=caps)


@dataclass(frozen=True)
class MAEFormula(PixelMean):
    """Mean of ``|d - g|``."""

    signed: bool = False  # type: ignore[misc]

    def _terms(self, pred: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        return ((pred - target).abs(),)


def mae(pred: Tensor, target: Tensor, valid: Tensor, *, signed: bool = False) -> Tensor:
    r"""Mean absolute error [m]: :math:`\overline{|d - g|}`.

    ``signed=True`` takes maps that may be zero or negative, such as affine disparities; otherwise such a label gives NaN.
    Other args and returns as ``abs_rel``.
    """
    return MAEFormula(signed)(pred, target, valid)


class MAE(DepthMetric):
    """Mean absolute error [m]; see ``mae``."""

    def __init__(
        self,
        *,
        signed: bool = False,
        reduction: Reduction | str = Reduction.IMAGE,
        alignment: Alignment | None = None,
        caps: Caps | None = None,
    ) -> None:
        super().__init__(MAEFormula(signed), reduction=reduction, alignment=alignment, caps=caps)


@dataclass(frozen=True)
class RMSEFormula(RootPixelMean):
    """Root of the mean of ``(d - g)^2``."""

    signed: bool = False  # type: ignore[misc]

    def _terms(self, pred: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        return ((pred - target) ** 2,)


def rmse(pred: Tensor, target: Tensor, valid: Tensor, *, signed: bool = False) -> Tensor:
    r"""Root mean squared error of each image [m]: :math:`\sqrt{\overline{(d - g)^2}}`.

    ``signed=True`` takes maps that may be zero or negative, such as affine disparities; otherwise such a label gives NaN.
    Other args and returns as ``abs_rel``.
    """
    return RMSEFormula(signed)(pred, target, valid)


class RMSE(DepthMetric):
    """Root mean squared error [m]; one root per image, or a single one for ``reduction="pixel"``; see ``rmse``."""

    def __init__(
        self,
        *,
        signed: bool = False,
        reduction: Reduction | str = Reduction.IMAGE,
        alignment: Alignment | None = None,
        caps: Caps | None = None,
    ) -> None:
        super().__init__(RMSEFormula(signed), reduction=reduction, alignment=alignment, caps=caps)
