"""Say as data what a metric or protocol lets a prediction get wrong."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import torch
from torch import Tensor

from depthkit.alignment.fits import ScaleMethod, ScaleShiftMethod, apply_scale_shift, fit_scale, fit_scale_shift
from depthkit.checks import check_choice
from depthkit.masked import masked_mean, masked_median
from depthkit.precision import in_float32, to_float64, where_float64_exists
from depthkit.types import Representation


class Degrees(StrEnum):
    """What is fitted per image: a factor, or a factor and an offset."""

    SCALE = "scale"
    SCALE_SHIFT = "scale_shift"


class Fit(NamedTuple):
    """Scale and shift of each image, float64 ``(B,)`` each; NaN where no fit exists."""

    scale: Tensor
    shift: Tensor

    @property
    def degenerate(self) -> Tensor:
        """Whether an image's aligned map is a constant or does not exist, bool ``(B,)``."""
        return ~(self.scale.abs() > 0)


@dataclass(frozen=True)
class Alignment:
    """One fit per image, in a named space by a named method.

    Attributes:
        degrees: ``"scale"`` (a factor) or ``"scale_shift"`` (a factor and an offset).
        method: of ``fit_scale`` or ``fit_scale_shift``, by ``degrees``.
        space: what the maps are while they are fitted. MiDaS aligns in disparity, Marigold in depth.
        positive: fit over the pixels alone whose prediction is above 0, as Marigold's code does in disparity: networks that
            end in a ReLU give 0 in the sky. All pixels are scored.

    A constant prediction has no scale and shift, but it is a prediction: it is scored as the best constant, the mean (for
    ``least_squares``) or median of the label. A factor alone that does not exist is NaN, and so is then the metric.

    Raises:
        RecipeError: unknown ``degrees``, or no such ``method`` for them.

    Example:
        >>> midas = Alignment("scale_shift", "least_squares", space=Representation.DISPARITY)
        >>> disparity = torch.rand(1, 1, 4, 4)
        >>> twisted = 0.5 * disparity + 0.2
        >>> fit = midas.fit(twisted, disparity, disparity > 0)
        >>> bool((midas.apply(twisted, *fit) - disparity).abs().max() < 1e-5)
        True
    """

    degrees: Degrees | str
    method: str
    space: Representation = Representation.DEPTH
    positive: bool = False

    def __post_init__(self) -> None:
        degrees = check_choice("degrees", self.degrees, Degrees)
        methods: type[ScaleMethod | ScaleShiftMethod] = ScaleMethod if degrees == Degrees.SCALE else ScaleShiftMethod
        object.__setattr__(self, "degrees", degrees)
        object.__setattr__(self, "method", check_choice(f"the method of fitting {degrees}", self.method, methods))
        object.__setattr__(self, "space", check_choice("space", self.space, Representation))

    @in_float32
    def fit(self, pred: Tensor, target: Tensor, valid: Tensor) -> Fit:
        """Fit the scale and shift per image for which ``scale * pred + shift`` is nearest to ``target``.

        Args:
            pred: predicted map in ``space`` up to the degrees fitted, ``(B, 1, H, W)``: an affine disparity may be negative.
            target: labelled map in ``space``, ``(B, 1, H, W)``; any value where not valid.
            valid: bool, ``(B, 1, H, W)``.
        """
        seen = valid & (pred > 0) if self.positive else valid
        if self.degrees == Degrees.SCALE:
            scale = fit_scale(pred, target, seen, method=self.method)
            return Fit(scale, torch.zeros_like(scale))
        pred, target, valid, seen = where_float64_exists(pred, target, valid, seen)
        scale, shift = fit_scale_shift(pred, target, seen, method=self.method)
        constant = scale.isnan() & valid.flatten(1).any(1)
        centre = masked_mean if self.method == ScaleShiftMethod.LEAST_SQUARES else masked_median
        return Fit(scale.where(~constant, 0), shift.where(~constant, centre(to_float64(target), valid)))

    @in_float32
    def apply(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """Return ``scale * x + shift`` for a map in ``space``, ``(B, 1, H, W)``."""
        return apply_scale_shift(x, scale, shift)
