"""From an image of any size to its map at that size: how the network's input and its output are resized."""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from depthkit.checks import check_choice
from depthkit.errors import LabelError, PredictionError, RecipeError, ShapeError
from depthkit.precision import in_float32
from depthkit.representation import convert
from depthkit.types import REPRESENTATIONS, Representation


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
        side: side [px], for ``stretch`` (height, width); unused by ``native``.
        rule: a row of the table.
        multiple: each side becomes a multiple of it [px], unless the network needs a multiple that does not divide it.
        interpolation: as in ``torch.nn.functional.interpolate``, corners not aligned.
        antialias: smooth before shrinking (bilinear and bicubic only), and clip what bicubic interpolation overshoots to
            [0, 1], as image libraries do with 8-bit pictures. OpenCV's resize of floats, hence that of MiDaS and Depth
            Anything, does neither.

    Example:
        >>> InputResize(384, "upper_bound").size(480, 640), InputResize(384, "upper_bound").size(375, 1242)
        ((288, 384), (128, 384))
        >>> InputResize(384, "lower_bound").size(375, 1242), InputResize(384, "minimal").size(240, 320)
        ((384, 1280), (288, 384))
        >>> InputResize((192, 640), "stretch").size(375, 1242)
        (192, 640)

    Raises:
        RecipeError: two sides without ``stretch``, or one with it; or an unknown rule or interpolation.
    """

    side: float | tuple[int, int] = 384
    rule: InputRule | str = InputRule.UPPER_BOUND
    multiple: int = 32
    interpolation: Interpolation | str = Interpolation.BICUBIC
    antialias: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "rule", check_choice("rule", self.rule, InputRule))
        object.__setattr__(self, "interpolation", check_choice("interpolation", self.interpolation, Interpolation))
        if isinstance(self.side, tuple) != (self.rule == "stretch"):
            raise RecipeError(
                f"expected side to be (height, width) for the rule 'stretch' and one number for any other; got "
                f"{self.side!r} for {self.rule!r}."
            )

    def size(self, height: int, width: int, multiple: int = 1) -> tuple[int, int]:
        """Find (height, width) [px] of the network's input for an image of this size.

        Args:
            height: of the image [px].
            width: of the image [px].
            multiple: the network's own; it replaces the rule's unless it divides that one.
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
        """Resize images ``(B, 3, H, W)`` in [0, 1] to the network's size; without ``antialias`` values may leave [0, 1]."""
        size = self.size(image.shape[-2], image.shape[-1], multiple)
        if size == tuple(image.shape[-2:]):
            return image
        smooth = self.antialias and self.interpolation in (Interpolation.BILINEAR, Interpolation.BICUBIC)
        resized = interpolate(image, size, self.interpolation, antialias=smooth)
        return resized.clamp(0, 1) if self.antialias else resized

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
    ) -> Tensor:
        """Resize a map.

        Args:
            pred: ``(B, 1, h, w)``.
            size: (height, width) [px].
            representation: of ``pred`` and of the result; None: interpolate the numbers as they are.
            resize_space: representation to interpolate in if ``space`` is None.
        """
        if size == tuple(pred.shape[-2:]):
            return pred
        space = self.space or resize_space
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


class NativeMap(NamedTuple):
    """What ``native_map`` returns.

    Attributes:
        map: in the network's representation, float32 ``(B, 1, H, W)``.
        spread: disagreement of an ensemble's members as a fraction of depth, float32 ``(B, 1, H, W)``; None without ensemble.
    """

    map: Tensor
    spread: Tensor | None


def native_map(
    model: nn.Module,
    image: Tensor,
    input_rule: InputResize | None = None,
    output_rule: OutputResize | None = None,
    *,
    representation: Representation | None = None,
) -> NativeMap:
    """Predict images at their own size, for every command in the same way.

    Args:
        model: called on RGB in [0, 1], ``(B, 3, h, w)``; returns ``(B, 1, h', w')``.
        image: float RGB in [0, 1], ``(B, 3, H, W)``.
        input_rule: size at which the network sees the images; default ``input_rule_of(model)``.
        output_rule: how the network's maps are resized; default ``output_rule_of(model)``.
        representation: of the maps; default ``model.representation``.

    Raises:
        LabelError: the representation is unknown.
        PredictionError: a map is not finite.
        ShapeError: the model does not return one map per image.

    Example:
        >>> class Brightness(nn.Module):
        ...     representation = Representation.DISPARITY
        ...     def forward(self, image):
        ...         return image.mean(1, keepdim=True)
        >>> native_map(Brightness(), torch.rand(2, 3, 31, 47)).map.shape
        torch.Size([2, 1, 31, 47])
    """
    own = representation_of(model, representation)
    seen = (input_rule or input_rule_of(model))(image, multiple_of(model))
    found, size = network_map(model, seen), (image.shape[-2], image.shape[-1])
    full = resized_map(found.map, size, model, output_rule, representation=own)
    check_finite(full)
    return NativeMap(full, None if found.spread is None else OutputResize()(found.spread, size))


def network_map(model: Any, image: Tensor) -> NativeMap:
    """Predict images that already have the network's size; return its maps, float32, at the size it gives them.

    Raises:
        ShapeError: the model does not return one map per image.
    """
    spread = None
    if getattr(getattr(model, "sampling", None), "members", 1) > 1:
        output, spread = model.with_uncertainty(image)
    else:
        output = model(image)
    return NativeMap(as_maps(output, len(image), type(model).__name__), spread)


def resized_map(
    pred: Tensor,
    size: tuple[int, int],
    model: Any,
    output_rule: OutputResize | None = None,
    *,
    representation: Representation | None = None,
) -> Tensor:
    """Resize the network's maps ``(B, 1, h, w)`` in the space of the rule, else in the network's ``resize_space``."""
    rule, own = output_rule or output_rule_of(model), representation_of(model, representation)
    return rule(pred, size, own, resize_space_of(model))


def input_rule_of(model: Any) -> InputResize:
    """Find the default rule for the size at which a network sees images.

    The first that is known of: its ``input_rule``; the number of pixels of its ``trained_size``; its ``processing_size`` [px]
    along the longer side; 384 x 384 pixels. All but ``input_rule`` keep the aspect of images.
    """
    rule, side = getattr(model, "input_rule", None), getattr(model, "processing_size", None)
    trained_size = getattr(model, "trained_size", None)
    if rule is not None:
        return cast(InputResize, rule)
    if trained_size is not None:
        return InputResize((trained_size[0] * trained_size[1]) ** 0.5, InputRule.AREA, antialias=True)
    if side is None:
        return InputResize(384, InputRule.AREA, antialias=True)
    bound = InputRule.UPPER_BOUND if side else InputRule.NATIVE
    return InputResize(side or 1, bound, multiple_of(model), Interpolation.BILINEAR, antialias=True)


def output_rule_of(model: Any) -> OutputResize:
    """Find the default rule for resizing a network's maps: its ``output_rule``, else bilinear."""
    return getattr(model, "output_rule", None) or OutputResize()


def resize_space_of(model: Any) -> Representation | None:
    """Find the representation in which a network's maps are resized; None if the network does not state one."""
    return getattr(model, "resize_space", None)


def multiple_of(model: Any) -> int:
    """Find the number [px] that must divide both sides of a network's input."""
    return int(getattr(model, "size_multiple", 1))


def representation_of(model: Any, given: Representation | None = None) -> Representation:
    """Find the representation of a model's maps.

    Raises:
        LabelError: it is neither given nor stated by the model.
    """
    found = getattr(model, "representation", None) if given is None else given
    if found not in REPRESENTATIONS:
        raise LabelError(
            f"expected the representation of the model's output, one of {', '.join(REPRESENTATIONS)}; got {found!r}. "
            "Pass representation=Representation.DISPARITY, say, or give the model an attribute of that name."
        )
    return Representation(found)


def as_maps(output: Any, count: int, name: str) -> Tensor:
    """Convert the output of a model for ``count`` images to float32 ``(B, 1, h, w)``.

    Args:
        output: tensor or array ``(B, 1, h, w)``, ``(B, h, w)`` or, for one image, ``(h, w)``.
        count: B.
        name: of the model or the image, for the message.

    Raises:
        ShapeError: something else.
    """
    if not isinstance(output, Tensor):
        try:
            output = torch.as_tensor(np.asarray(output, np.float32))
        except (TypeError, ValueError, RuntimeError) as error:
            raise ShapeError(
                f"{name}: expected a map, as a tensor or array; got {type(output).__name__}. Return its tensor of depth; a "
                "model of transformers does so once loaded by depthkit.models.weights.transformers_hub.load_depth."
            ) from error
    x = output.float()
    if count == 1 and x.ndim == 2:
        x = x[None, None]
    elif x.ndim == 3:
        x = x[:, None]
    if x.ndim != 4 or x.shape[:2] != (count, 1):
        raise ShapeError(
            f"{name}: expected a prediction of shape ({count}, 1, h, w), ({count}, h, w) or, for one image, (h, w); "
            f"got {tuple(output.shape)}. Return one map per image."
        )
    return x


def check_finite(pred: Tensor, name: str = "") -> None:
    """Check that a prediction is finite.

    Raises:
        PredictionError: it holds NaN or infinity.
    """
    if not pred.isfinite().all():
        bad = int((~pred.isfinite()).sum())
        raise PredictionError(
            f"{name}{': ' if name else ''}expected a finite prediction; got NaN or infinity in {bad} of {pred.numel()} pixels. "
            "It is not repaired: find out why the network overflows. In half precision it may; try precision 32."
        )
