"""From an image to a network's map at the image's size, for every command in the same way."""

from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from depthkit.errors import LabelError, PredictionError, ShapeError
from depthkit.resize.canonical import in_metres
from depthkit.resize.rules import InputResize, InputRule, Interpolation, OutputResize
from depthkit.types import REPRESENTATIONS, Representation


class NativeMap(NamedTuple):
    """What ``native_map`` returns.

    Attributes:
        map: in the network's representation, float32 ``(B, 1, H, W)``.
        spread: uncertainty of a network that gives it (``gives_uncertainty``), float32 ``(B, 1, H, W)``: a fraction of depth;
            up to scale and shift, in the units of the disparity or depth. None of any other network.
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
    intrinsics: Tensor | None = None,
    checked: bool = True,
) -> NativeMap:
    """Predict images at their own size, for every command in the same way.

    Args:
        model: called on RGB in [0, 1], ``(B, 3, h, w)``; returns ``(B, 1, h', w')``.
        image: float RGB in [0, 1], ``(B, 3, H, W)``.
        input_rule: size at which the network sees the images; default ``input_rule_of(model)``.
        output_rule: how the network's maps are resized; default ``output_rule_of(model)``.
        representation: of the maps; default ``model.representation``.
        intrinsics: of the images ``(B, 3, 3)`` [px], for a network with a canonical focal length.
        checked: look at once, waiting for the device, whether the maps are finite; else the caller looks.

    Raises:
        GeometryError: such a network without intrinsics.
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
    own, rule = representation_of(model, representation), input_rule or input_rule_of(model)
    size, multiple = (image.shape[-2], image.shape[-1]), multiple_of(model)
    seen = rule.size(*size, multiple)
    found = network_map(model, rule(image, multiple), seen)
    full = resized_map(found.map, size, model, output_rule, input_rule=rule, representation=own)
    full = in_metres(full, model, own, intrinsics, size=size, seen=seen, margins=rule.margins(*size))
    if checked:
        check_finite(full)
    return NativeMap(full, None if found.spread is None else resized_spread(found.spread, size, rule))


def network_map(model: Any, image: Tensor, shown: tuple[int, int] | None = None) -> NativeMap:
    """Predict images that already have the network's size; return its maps, float32, at the size it gives them.

    Args:
        model: as of ``native_map``.
        image: as its input rule makes it, ``(B, 3, h, w)``.
        shown: (height, width) [px] of ``image`` without what ``InputResize.extend`` adds; default all of it.

    Raises:
        ShapeError: the model does not return one map per image.
    """
    seen = image.shape[-2], image.shape[-1]
    if getattr(model, "gives_uncertainty", False):
        output, spread = model.with_uncertainty(image, shown)
        return NativeMap(as_maps(output, len(image), type(model).__name__), spread.float())
    return NativeMap(shown_part(as_maps(model(image), len(image), type(model).__name__), seen, shown or seen), None)


def shown_part(pred: Tensor, seen: tuple[int, int], shown: tuple[int, int]) -> Tensor:
    """Drop from maps ``(B, 1, h, w)`` what lies below and right of the image.

    Args:
        pred: maps of the network's whole input.
        seen: (height, width) [px] of that input.
        shown: (height, width) [px] of the image in it, see ``InputResize.size``.
    """
    rows, columns = (round(length * part / whole) for length, part, whole in zip(pred.shape[-2:], shown, seen, strict=True))
    return pred[..., :rows, :columns]


def resized_map(
    pred: Tensor,
    size: tuple[int, int],
    model: Any,
    output_rule: OutputResize | None = None,
    *,
    input_rule: InputResize | None = None,
    representation: Representation | None = None,
) -> Tensor:
    """Resize the network's maps ``(B, 1, h, w)`` in the space of the rule, else in the network's ``resize_space``.

    What ``input_rule``, by which the network saw the images, has put around them is cropped.
    """
    rule, own = output_rule or output_rule_of(model), representation_of(model, representation)
    margins = (0, 0) if input_rule is None else input_rule.margins(*size)
    return rule(pred, size, own, resize_space_of(model), margins=margins)


def resized_spread(spread: Tensor, size: tuple[int, int], input_rule: InputResize) -> Tensor:
    """Resize an uncertainty ``(B, 1, h, w)`` to the image's size, without what ``input_rule`` has put around the image."""
    return OutputResize()(spread, size, margins=input_rule.margins(*size))


def input_rule_of(model: Any) -> InputResize:
    """Find the default rule for the size at which a network sees images.

    The first that is known of: its ``input_rule``; the number of pixels of its ``trained_size``; its ``processing_size`` [px]
    along the longer side, whose ends are extended; 384 x 384 pixels. All but ``input_rule`` keep the aspect of images.
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
    return InputResize(side or 1, bound, multiple_of(model), Interpolation.BILINEAR, antialias=True, extend=True)


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
        raise not_finite(pred, name)


def not_finite(pred: Tensor, name: str = "") -> PredictionError:
    """Say in how many pixels a prediction is not finite."""
    bad = int((~pred.isfinite()).sum())
    return PredictionError(
        f"{name}{': ' if name else ''}expected a finite prediction; got NaN or infinity in {bad} of {pred.numel()} pixels. "
        "It is not repaired: find out why the network overflows. In half precision it may; try precision 32."
    )
