"""How images become a network's input, and its maps become as large as the images."""

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from depthkit.checks import check_choice
from depthkit.errors import RecipeError
from depthkit.precision import in_float32
from depthkit.representation import convert
from depthkit.resize.exact import exactly_resized
from depthkit.types import Representation


class InputRule(StrEnum):
    """Rules by which ``InputResize`` finds the scale; see its table."""

    UPPER_BOUND = "upper_bound"
    LOWER_BOUND = "lower_bound"
    MINIMAL = "minimal"
    AREA = "area"
    NATIVE = "native"
    STRETCH = "stretch"


class Interpolation(StrEnum):
    """Interpolations between pixels, as in ``torch.nn.functional.interpolate``."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    AREA = "area"


class ImageInterpolation(StrEnum):
    """Interpolations of images: those of ``Interpolation``, and Pillow's of 8-bit pictures by Lanczos' kernel."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    AREA = "area"
    LANCZOS = "lanczos"


@dataclass(frozen=True)
class InputResize:
    """Resize an image for a network: find a scale, then round each side to the nearest multiple.

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
        side: side [px], or (height, width), which "stretch" needs: the image's height is then compared with the one and its
            width with the other (ZoeDepth); unused by "native".
        rule: a row of the table.
        multiple: each side becomes a multiple of it [px], unless the network needs a multiple that does not divide it.
        interpolation: as in ``torch.nn.functional.interpolate``; or "lanczos", as Pillow resizes 8-bit pictures, rounded to
            8 bits after each axis (Monodepth2). That one runs on the CPU.
        antialias: smooth before shrinking (bilinear and bicubic only), and clip what bicubic interpolation overshoots to
            [0, 1], as image libraries do with 8-bit pictures. OpenCV's resize of floats, hence that of MiDaS and Depth
            Anything, does neither.
        align_corners: let the corners' pixels keep their places (bilinear and bicubic only), as ZoeDepth does.
        extend: reach the multiple by repeating the last row and column instead of by the scale, and round sides down to
            whole pixels before (Marigold). Of the network's map the part that was added is dropped.
        padding: reflect this many times the root of half a side at both of its ends before all else; the map is cropped
            (ZoeDepth: 3).

    Example:
        >>> InputResize(384, "upper_bound").size(480, 640), InputResize(384, "upper_bound").size(375, 1242)
        ((288, 384), (128, 384))
        >>> InputResize(384, "lower_bound").size(375, 1242), InputResize(384, "minimal").size(240, 320)
        ((384, 1280), (288, 384))
        >>> InputResize((192, 640), "stretch").size(375, 1242), InputResize((384, 512), "minimal").size(480, 640)
        ((192, 640), (384, 512))

    Raises:
        RecipeError: one side for "stretch"; or an unknown rule or interpolation.
    """

    side: float | tuple[int, int] = 384
    rule: InputRule | str = InputRule.UPPER_BOUND
    multiple: int = 32
    interpolation: ImageInterpolation | str = ImageInterpolation.BICUBIC
    antialias: bool = False
    align_corners: bool = False
    extend: bool = False
    padding: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "rule", check_choice("rule", self.rule, InputRule))
        object.__setattr__(self, "interpolation", check_choice("interpolation", self.interpolation, ImageInterpolation))
        if self.rule == InputRule.STRETCH and not isinstance(self.side, tuple):
            raise RecipeError(f"expected side to be (height, width) for the rule 'stretch'; got {self.side!r}.")

    def margins(self, height: int, width: int) -> tuple[int, int]:
        """Count the rows and columns [px] that ``padding`` adds at each end of an image of this size."""
        rows, columns = (int(math.sqrt(length / 2) * self.padding) for length in (height, width))
        return min(rows, height - 1), min(columns, width - 1)

    def size(self, height: int, width: int, multiple: int = 1) -> tuple[int, int]:
        """Find (height, width) [px] at which the network sees an image of this size, less what ``extend`` adds.

        Args:
            height: of the image [px].
            width: of the image [px].
            multiple: the network's own; it replaces the rule's unless it divides that one.
        """
        step, (top, left) = 1 if self.extend else self._step(multiple), self.margins(height, width)
        height, width = height + 2 * top, width + 2 * left
        bounds = self.side if isinstance(self.side, tuple) else (self.side, self.side)
        if self.rule == InputRule.STRETCH:
            return self._round(bounds[0], step, bounds[0]), self._round(bounds[1], step, bounds[1])
        fit_height, fit_width = bounds[0] / height, bounds[1] / width
        scale = {
            "upper_bound": min(fit_height, fit_width),
            "lower_bound": max(fit_height, fit_width),
            "minimal": fit_width if abs(1 - fit_width) < abs(1 - fit_height) else fit_height,
            "area": math.sqrt(fit_height * fit_width),
            "native": 1.0,
        }[self.rule]
        return self._round(height * scale, step, bounds[0]), self._round(width * scale, step, bounds[1])

    def _step(self, multiple: int) -> int:
        return self.multiple if self.multiple % multiple == 0 else multiple

    def _round(self, length: float, step: int, bound: float) -> int:
        if self.extend:
            return max(math.floor(length + 1e-6), 1)
        count = round(length / step)
        if self.rule == InputRule.UPPER_BOUND and count * step > bound:
            count = math.floor(bound / step)
        if self.rule == InputRule.LOWER_BOUND and count * step < bound:
            count = math.ceil(bound / step)
        return max(count, 1) * step

    def __call__(self, image: Tensor, multiple: int = 1) -> Tensor:
        """Resize images ``(B, 3, H, W)`` in [0, 1] or of 8 bits to the network's size, as floating point.

        Without ``antialias`` values may leave [0, 1].
        """
        height, width = image.shape[-2:]
        size, (top, left) = self.size(height, width, multiple), self.margins(height, width)
        if image.dtype == torch.uint8 and (top or left or size == (height, width) or not self._is_exact(image.device)):
            image = image.float() / 255
        if top or left:
            image = F.pad(image, (left, left, top, top), mode="reflect")
        if size != tuple(image.shape[-2:]):
            image = self._resized(image, size)
        if self.extend and (below := _up_to(size, self._step(multiple))) != (0, 0):
            image = F.pad(image, (0, below[1], 0, below[0]), mode="replicate")
        return image

    def _is_exact(self, device: torch.device) -> bool:
        """Whether the images are resized as OpenCV does, by which the papers' code does it."""
        plain = not (self.antialias or self.align_corners or device.type == "mps")
        return plain and self.interpolation in (Interpolation.BILINEAR, Interpolation.BICUBIC)

    def _resized(self, image: Tensor, size: tuple[int, int]) -> Tensor:
        if self.interpolation == ImageInterpolation.LANCZOS:
            return _by_pillow(image, size)
        smooth = self.antialias and self.interpolation in (Interpolation.BILINEAR, Interpolation.BICUBIC)
        if self._is_exact(image.device):
            return exactly_resized(image, size, cubic=self.interpolation == Interpolation.BICUBIC)
        resized = interpolate(image, size, self.interpolation, align_corners=self.align_corners, antialias=smooth)
        return resized.clamp(0, 1) if self.antialias else resized

    def __str__(self) -> str:
        side = {
            "upper_bound": "long side",
            "lower_bound": "short side",
            "minimal": "nearer side",
            "area": "square root of area",
            "stretch": "stretched to",
        }
        length = f"{self.side[0]}x{self.side[1]}" if isinstance(self.side, tuple) else f"{self.side:g}"
        parts = [f"{side[self.rule]} {length}" if self.rule in side else "native size"]
        if self.padding:
            parts.insert(0, f"reflected by {self.padding:g} roots of half a side")
        parts.append(f"{'extended to a' if self.extend else 'nearest'} multiple of {self.multiple}")
        corners = ", corners aligned" if self.align_corners else ""
        return f"{', '.join(parts)}, {self.interpolation}{' antialiased' * self.antialias}{corners}"


def _up_to(size: tuple[int, int], step: int) -> tuple[int, int]:
    """Count the rows and columns missing to multiples of a step."""
    return -size[0] % step, -size[1] % step


def _by_pillow(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize images in [0, 1] as Pillow resizes 8-bit pictures by Lanczos' kernel."""
    pictures = (image * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    resized = [np.asarray(Image.fromarray(x).resize(size[::-1], Image.Resampling.LANCZOS)) for x in pictures]
    return (torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).to(image) / 255).contiguous()


@dataclass(frozen=True)
class OutputResize:
    """Resize a prediction to the size of its image or label (never the label to the prediction's).

    Attributes:
        space: in which values are interpolated; None: the network's ``resize_space`` if it has one, else what it outputs.
            Resized depth is not inverted resized disparity.
        mode: as in ``torch.nn.functional.interpolate``.
        align_corners: for bilinear and bicubic.

    Raises:
        RecipeError: an unknown mode.
    """

    space: Representation | None = None
    mode: str = Interpolation.BILINEAR
    align_corners: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "mode", check_choice("mode", self.mode, Interpolation))

    @in_float32
    def __call__(
        self,
        pred: Tensor,
        size: tuple[int, int],
        representation: Representation | None = None,
        resize_space: Representation | None = None,
        *,
        margins: tuple[int, int] = (0, 0),
    ) -> Tensor:
        """Resize a map.

        Args:
            pred: ``(B, 1, h, w)``.
            size: (height, width) [px].
            representation: of ``pred`` and of the result; None: interpolate the numbers as they are.
            resize_space: representation to interpolate in if ``space`` is None.
            margins: rows and columns [px] beyond each end of the image that the map shows, see ``InputResize.margins``; they
                are cropped.
        """
        (height, width), (top, left) = size, margins
        return self._resized(pred, (height + 2 * top, width + 2 * left), representation, self.space or resize_space)[
            ..., top : top + height, left : left + width
        ]

    def _resized(
        self, pred: Tensor, size: tuple[int, int], representation: Representation | None, space: Representation | None
    ) -> Tensor:
        if size == tuple(pred.shape[-2:]):
            return pred
        if representation is None or space is None:
            return interpolate(pred, size, self.mode, align_corners=self.align_corners)
        full = interpolate(convert(pred, representation, space), size, self.mode, align_corners=self.align_corners)
        return convert(full, space, representation)

    def __str__(self) -> str:
        corners = ", corners aligned" if self.align_corners else ""
        return f"{self.mode} in {self.space or 'the representation predicted'}{corners}"


def interpolate(x: Tensor, size: tuple[int, int], mode: str, *, align_corners: bool = False, antialias: bool = False) -> Tensor:
    """Call ``torch.nn.functional.interpolate``, leaving out the arguments that ``nearest`` and ``area`` do not take."""
    if mode in (Interpolation.NEAREST, Interpolation.AREA):
        return F.interpolate(x, size, mode="nearest-exact" if mode == Interpolation.NEAREST else str(mode))
    return F.interpolate(x, size, mode=str(mode), align_corners=align_corners, antialias=antialias)
