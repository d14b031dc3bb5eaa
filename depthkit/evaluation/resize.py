"""How an image is resized for the network and its prediction back to the label."""

import math
from dataclasses import dataclass
from typing import Literal, cast

import torch.nn.functional as F
from torch import Tensor

from depthkit.errors import RecipeError
from depthkit.types import Representation

InputRule = Literal["upper_bound", "lower_bound", "minimal", "area", "native", "stretch"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "area"]


@dataclass(frozen=True)
class InputResize:
    """The size of the network's input: a scale, then each side to the nearest multiple.

    ==============  ==========================================================================================
    rule            scale
    ==============  ==========================================================================================
    upper_bound     the longer side becomes ``side``; rounding never exceeds it (MiDaS v2)
    lower_bound     the shorter side becomes ``side``; rounding never falls below it
    minimal         whichever of the two is nearer to 1 (DPT)
    area            the number of pixels becomes ``side`` squared
    native          1
    stretch         each side has its own: both become ``side``, whatever the image's aspect (Monodepth2)
    ==============  ==========================================================================================

    Attributes:
        side: side [px], for ``stretch`` (height, width); unused by ``native``.
        rule: a row of the table.
        multiple: each side becomes a multiple of it [px], unless the network asks for one that does not divide it.
        interpolation: as in ``torch.nn.functional.interpolate``, corners not aligned.
        antialias: smooth before shrinking (bilinear and bicubic only). OpenCV's and hence MiDaS's resize does not.

    Example:
        >>> InputResize(384, "upper_bound").size(480, 640), InputResize(384, "upper_bound").size(375, 1242)
        ((288, 384), (128, 384))
        >>> InputResize(384, "lower_bound").size(375, 1242), InputResize(384, "minimal").size(240, 320)
        ((384, 1280), (288, 384))
        >>> InputResize((192, 640), "stretch").size(375, 1242)
        (192, 640)

    Raises:
        RecipeError: two sides without ``stretch``, or one with it.
    """

    side: float | tuple[int, int] = 384
    rule: InputRule = "upper_bound"
    multiple: int = 32
    interpolation: Interpolation = "bicubic"
    antialias: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.side, tuple) != (self.rule == "stretch"):
            raise RecipeError(
                f"expected side to be (height, width) for the rule 'stretch' and one number for any other; got "
                f"{self.side!r} for {self.rule!r}."
            )

    def size(self, height: int, width: int, multiple: int = 1) -> tuple[int, int]:
        """(height, width) [px] of the network's input for an image of this size.

        Args:
            height: of the image [px].
            width: of the image [px].
            multiple: what the network can take; it wins over the protocol's unless it divides that one.
        """
        step = self.multiple if self.multiple % multiple == 0 else multiple
        if isinstance(self.side, tuple):
            return self._round(self.side[0], step), self._round(self.side[1], step)
        fit_height, fit_width = self.side / height, self.side / width
        scale = {
            "upper_bound": min(fit_height, fit_width),
            "lower_bound": max(fit_height, fit_width),
            "minimal": min(fit_width, fit_height, key=lambda s: abs(1 - s)),
            "area": math.sqrt(fit_height * fit_width),
            "native": 1.0,
        }[self.rule]
        return self._round(height * scale, step), self._round(width * scale, step)

    def _round(self, length: float, step: int) -> int:
        count = round(length / step)
        if self.rule == "upper_bound" and count * step > cast(float, self.side):
            count = math.floor(cast(float, self.side) / step)
        if self.rule == "lower_bound" and count * step < cast(float, self.side):
            count = math.ceil(cast(float, self.side) / step)
        return max(count, 1) * step

    def __call__(self, image: Tensor, multiple: int = 1) -> Tensor:
        """The image ``(B, 3, H, W)`` in [0, 1] at the network's size, still in [0, 1]."""
        size = self.size(image.shape[-2], image.shape[-1], multiple)
        if size == tuple(image.shape[-2:]):
            return image
        smooth = self.antialias and self.interpolation in ("bilinear", "bicubic")
        return interpolate(image, size, self.interpolation, antialias=smooth).clamp(0, 1)

    def __str__(self) -> str:
        side = {
            "upper_bound": "long side",
            "lower_bound": "short side",
            "minimal": "nearer side",
            "area": "square root of area",
        }
        if isinstance(self.side, tuple):
            to = f"stretched to {self.side[0]}x{self.side[1]}"
        else:
            to = f"{side[self.rule]} {self.side:g}" if self.rule in side else "native size"
        return f"{to}, nearest multiple of {self.multiple}, {self.interpolation}{' antialiased' * self.antialias}"


@dataclass(frozen=True)
class OutputResize:
    """How a prediction is brought to the label's size (never the label to the prediction's).

    Attributes:
        space: what is interpolated; None: whatever the network outputs. Resized depth is not inverted resized disparity.
        mode: as in ``torch.nn.functional.interpolate``.
        align_corners: for bilinear and bicubic.
    """

    space: Representation | None = None
    mode: Interpolation = "bilinear"
    align_corners: bool = False

    def __call__(self, pred: Tensor, size: tuple[int, int]) -> Tensor:
        """``pred`` ``(B, 1, h, w)`` at ``size``."""
        if size == tuple(pred.shape[-2:]):
            return pred
        return interpolate(pred, size, self.mode, align_corners=self.align_corners)

    def __str__(self) -> str:
        corners = ", corners aligned" if self.align_corners else ""
        return f"{self.mode} in {self.space or 'the representation predicted'}{corners}"


def interpolate(x: Tensor, size: tuple[int, int], mode: str, *, align_corners: bool = False, antialias: bool = False) -> Tensor:
    """``torch.nn.functional.interpolate`` with arguments that mean nothing to ``nearest`` and ``area`` left out."""
    if mode in ("nearest", "area"):
        return F.interpolate(x, size, mode="nearest-exact" if mode == "nearest" else mode)
    return F.interpolate(x, size, mode=mode, align_corners=align_corners, antialias=antialias)
