"""What a protocol lets a prediction get wrong: the scale, or the scale and shift, fitted per image before scoring."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from depthkit.alignment import ScaleMethod, ScaleShiftMethod, apply_scale_shift, fit_scale, fit_scale_shift
from depthkit.errors import AlignmentError
from depthkit.masked import masked_count, masked_mean, masked_median
from depthkit.precision import in_float32
from depthkit.representation import convert
from depthkit.types import Representation

_METHODS: dict[str, tuple[str, ...]] = {"scale": get_args(ScaleMethod), "scale_shift": get_args(ScaleShiftMethod)}
_INVERSES = (Representation.DISPARITY, Representation.LOG_DISPARITY)


class Fit(NamedTuple):
    """Scale and shift of each image, float64 ``(B,)`` each; NaN where no fit exists."""

    scale: Tensor
    shift: Tensor

    @property
    def degenerate(self) -> Tensor:
        """Images whose aligned map is a constant or does not exist, bool ``(B,)``."""
        return ~(self.scale.abs() > 0)


@dataclass(frozen=True)
class Alignment:
    """One fit per image, in a named space by a named method, then caps.

    Attributes:
        degrees: ``"scale"`` (a factor) or ``"scale_shift"`` (a factor and an offset).
        method: of ``depthkit.alignment.fit_scale`` or ``fit_scale_shift``, by ``degrees``.
        space: what the maps are while they are fitted. MiDaS aligns in disparity, Marigold in depth.
        min_depth: aligned depth is raised to it [m]; None does not.
        max_depth: aligned depth is lowered to it [m]; None does not. Fitted in disparity this is a floor of 1 / max_depth, and
            the negative disparities an offset leaves become max_depth too; without it they become negative depths.

    A constant prediction has no scale and shift, but it is a prediction: it is scored as the best constant, the mean (for
    ``least_squares``) or median of the label. A factor alone that does not exist is NaN, and so is then the metric.

    Raises:
        AlignmentError: no such method for these degrees, or caps that are not 0 < min_depth < max_depth.

    Example:
        >>> midas = Alignment("scale_shift", "least_squares", space=Representation.DISPARITY, max_depth=80.0)
        >>> depth = 1 + torch.rand(1, 1, 4, 4)
        >>> twisted = 1 / (0.5 / depth + 0.2)
        >>> bool((midas(twisted, depth, depth > 0) - depth).abs().max() < 1e-5)
        True
    """

    degrees: Literal["scale", "scale_shift"]
    method: str
    space: Representation = Representation.DEPTH
    min_depth: float | None = None
    max_depth: float | None = None

    def __post_init__(self) -> None:
        if self.degrees not in _METHODS:
            raise AlignmentError(f"expected degrees 'scale' or 'scale_shift'; got {self.degrees!r}.")
        if self.method not in _METHODS[self.degrees]:
            raise AlignmentError(
                f"expected a method of fitting {self.degrees}, one of {', '.join(_METHODS[self.degrees])}; got {self.method!r}."
            )
        caps = [depth for depth in (0.0, self.min_depth, self.max_depth) if depth is not None]
        if not all(low < high for low, high in pairwise(caps)):
            raise AlignmentError(
                f"expected 0 < min_depth < max_depth in metres; got {self.min_depth} and {self.max_depth}. None does not cap."
            )
        object.__setattr__(self, "space", Representation(self.space))

    @in_float32
    @torch.no_grad()
    def fit(self, pred: Tensor, target: Tensor, valid: Tensor) -> Fit:
        """The scale and shift per image for which ``scale * pred + shift`` fits ``target``.

        Args:
            pred: predicted map in ``space`` up to the degrees fitted, ``(B, 1, H, W)``: an affine disparity may be negative.
            target: labelled map in ``space``, ``(B, 1, H, W)``; any value where not valid.
            valid: bool, ``(B, 1, H, W)``.
        """
        if self.degrees == "scale":
            scale = fit_scale(pred, target, valid, method=self.method)  # type: ignore[arg-type]
            return Fit(scale, torch.zeros_like(scale))
        scale, shift = fit_scale_shift(pred, target, valid, method=self.method)  # type: ignore[arg-type]
        constant = scale.isnan() & (masked_count(valid) > 0)
        centre = masked_mean if self.method == "least_squares" else masked_median
        return Fit(scale.where(~constant, 0), shift.where(~constant, centre(target.double(), valid)))

    @in_float32
    def apply(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """``scale * x + shift`` within the caps, all in ``space``, ``(B, 1, H, W)``."""
        return self.clamp(apply_scale_shift(x, scale, shift))

    def clamp(self, x: Tensor) -> Tensor:
        """A map in ``space`` within the caps."""
        low, high = (self._in_space(depth) for depth in (self.min_depth, self.max_depth))
        if self.space in _INVERSES:
            low, high = high, low
        return x if low is None and high is None else x.clamp(low, high)

    @in_float32
    def __call__(self, pred: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """Predicted depth [m] aligned to labelled depth [m], ``(B, 1, H, W)`` each."""
        x, y = (convert(depth.where(valid, 1), Representation.DEPTH, self.space) for depth in (pred, target))
        return convert(self.apply(x, *self.fit(x, y, valid)), self.space, Representation.DEPTH)

    def _in_space(self, depth: float | None) -> float | None:
        if depth is None:
            return None
        return convert(torch.tensor(depth, dtype=torch.float64), Representation.DEPTH, self.space).item()
