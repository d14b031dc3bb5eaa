"""Errors of the logarithm of depth. A zero or negative prediction has none and makes the result infinite or NaN."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from depthkit.alignment import Alignment
from depthkit.errors import RecipeError
from depthkit.metrics.formula import PixelMean, RootPixelMean
from depthkit.metrics.metric import Caps, DepthMetric, Reduction


class RMSELogFormula(RootPixelMean):
    """Root of the mean of ``(ln d - ln g)^2``."""

    def _terms(self, pred: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        return ((pred.log() - target.log()) ** 2,)


def rmse_log(pred: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    r"""Root mean squared error of the natural logarithm [1]: :math:`\sqrt{\overline{(\ln d - \ln g)^2}}`.

    Args and returns as ``abs_rel``.
    """
    return RMSELogFormula()(pred, target, valid)


class RMSELog(DepthMetric):
    """Root mean squared error of the natural logarithm [1]; see ``rmse_log``."""

    def __init__(
        self,
        *,
        reduction: Reduction | str = Reduction.IMAGE,
        alignment: Alignment | None = None,
        caps: Caps | None = None,
    ) -> None:
        super().__init__(RMSELogFormula(), reduction=reduction, alignment=alignment, caps=caps)


class Log10Formula(PixelMean):
    """Mean of ``|log10 d - log10 g|``."""

    def _terms(self, pred: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        return ((pred.log10() - target.log10()).abs(),)


def log10(pred: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    r"""Mean absolute error of the decimal logarithm [1]: :math:`\overline{|\log_{10} d - \log_{10} g|}`.

    Args and returns as ``abs_rel``. Marigold pools this one over pixels: ``reduction="pixel"``.
    """
    return Log10Formula()(pred, target, valid)


class Log10(DepthMetric):
    """Mean absolute error of the decimal logarithm [1]; see ``log10``."""

    def __init__(
        self,
        *,
        reduction: Reduction | str = Reduction.IMAGE,
        alignment: Alignment | None = None,
        caps: Caps | None = None,
    ) -> None:
        super().__init__(Log10Formula(), reduction=reduction, alignment=alignment, caps=caps)


class RMSELog10Formula(RootPixelMean):
    """Root of the mean squared difference of the decimal logarithms."""

    def _terms(self, pred: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        return ((pred.log10() - target.log10()) ** 2,)


def rmse_log10(pred: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    r"""Root mean squared error of the decimal logarithm [1]: :math:`\sqrt{\frac1n\sum(\log_{10} p - \log_{10} g)^2}`.

    Monodepth2's figures on Make3D are of this one and call it "log10"; it is ``rmse_log`` over ln 10, not ``log10``.

    Args and returns as ``abs_rel``.
    """
    return RMSELog10Formula()(pred, target, valid)


class RMSELog10(DepthMetric):
    """Root mean squared error of the decimal logarithm of depth [1]; see ``rmse_log10``."""

    def __init__(
        self,
        *,
        reduction: Reduction | str = Reduction.IMAGE,
        alignment: Alignment | None = None,
        caps: Caps | None = None,
    ) -> None:
        super().__init__(RMSELog10Formula(), reduction=reduction, alignment=alignment, caps=caps)


@dataclass(frozen=True)
class LogMAEFormula(PixelMean):
    """``factor`` times the mean of ``|ln d - ln g|``."""

    factor: float = 1.0

    def _terms(self, pred: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        return (self.factor * (pred.log() - target.log()).abs(),)


def log_mae(pred: Tensor, target: Tensor, valid: Tensor, *, factor: float = 1.0) -> Tensor:
    r"""Mean absolute error of the natural logarithm [1]: :math:`f\,\overline{|\ln d - \ln g|}`.

    ``factor=100`` is slowtv_monodepth's. Other args and returns as ``abs_rel``.
    """
    return LogMAEFormula(factor)(pred, target, valid)


class LogMAE(DepthMetric):
    """Mean absolute error of the natural logarithm [1]; see ``log_mae``."""

    def __init__(
        self,
        *,
        factor: float = 1.0,
        reduction: Reduction | str = Reduction.IMAGE,
        alignment: Alignment | None = None,
        caps: Caps | None = None,
    ) -> None:
        super().__init__(LogMAEFormula(factor), reduction=reduction, alignment=alignment, caps=caps)


@dataclass(frozen=True)
class SILogFormula(PixelMean):
    """``factor`` times the root of mean ``e^2`` less ``variance_focus`` times squared mean ``e``, with ``e = ln d - ln g``."""

    n_sums: ClassVar[int] = 2
    variance_focus: float = 1.0
    factor: float = 100.0
    unbiased: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.variance_focus <= 1:
            raise RecipeError(f"SILog: expected variance_focus in [0, 1]; got {self.variance_focus}.")
        if self.unbiased and self.variance_focus != 1:
            raise RecipeError("SILog: unbiased=True is a standard deviation, which has variance_focus=1; drop one of the two.")

    def _terms(self, pred: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        error = pred.log() - target.log()
        return error, error**2

    def _of_means(self, means: Tensor, count: Tensor) -> Tensor:
        mean, mean_square = means.unbind(-1)
        spread = (mean_square - self.variance_focus * mean**2).clamp_min(0)  # an exact 0 may round below; NaN stays NaN
        if self.unbiased:
            spread = spread * (count / (count - 1).where(count > 1, torch.nan))
        return self.factor * spread.sqrt()


def silog(
    pred: Tensor,
    target: Tensor,
    valid: Tensor,
    *,
    variance_focus: float = 1.0,
    factor: float = 100.0,
    unbiased: bool = False,
) -> Tensor:
    r"""Scale-invariant logarithmic error: :math:`f\sqrt{\overline{e^2} - \lambda\,\bar e^2}` with :math:`e = \ln d - \ln g`.

    ===============================================  =============================================
    options                                          whose "SILog"
    ===============================================  =============================================
    (default)                                        KITTI benchmark, ZoeDepth, vidar, slowtv, Marigold
    ``variance_focus=0.5, factor=1``                 Depth Anything V2, metric evaluation
    ``factor=1``                                     unscaled standard deviation
    ``unbiased=True``                                UniDepth: n - 1 in the denominator
    ===============================================  =============================================

    Args:
        pred: predicted depth [m], > 0, ``(B, 1, H, W)``.
        target: labelled depth [m], ``(B, 1, H, W)``; any value where not valid.
        valid: bool, ``(B, 1, H, W)``.
        variance_focus: lambda in [0, 1]; 1 ignores a global factor, 0 is ``rmse_log``.
        factor: f [1].
        unbiased: divide by n - 1; NaN for a single valid pixel.

    Returns:
        float64 ``(B,)``; NaN for an image without a valid pixel.

    Raises:
        ShapeError: the three do not fit together.
        RecipeError: ``variance_focus`` outside [0, 1], or below 1 together with ``unbiased``.

    Example:
        >>> depth = torch.rand(2, 1, 4, 4) + 1
        >>> silog(3 * depth, depth, depth > 0) < 1e-4
        tensor([True, True])
    """
    return SILogFormula(variance_focus, factor, unbiased)(pred, target, valid)


class SILog(DepthMetric):
    """Scale-invariant logarithmic error; see ``silog`` for its variants."""

    def __init__(
        self,
        *,
        variance_focus: float = 1.0,
        factor: float = 100.0,
        unbiased: bool = False,
        reduction: Reduction | str = Reduction.IMAGE,
        alignment: Alignment | None = None,
        caps: Caps | None = None,
    ) -> None:
        super().__init__(SILogFormula(variance_focus, factor, unbiased), reduction=reduction, alignment=alignment, caps=caps)
