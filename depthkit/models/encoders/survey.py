"""Facts of timm backbones, found on the meta device before weights are made: strides, layout, and legal image sizes."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import timm
import torch

from depthkit.checks import first_line
from depthkit.errors import RecipeError
from depthkit.models.weights.backbone import check_name

_ANY_SIZE: tuple[dict[str, Any], ...] = ({}, {"dynamic_img_size": True}, {"strict_img_size": False})
"""Options by which timm opens backbones of a fixed size to any size: none needed, transformers', Swin's."""
_TRIED = (9, 5)  # height and width in multiples of the stride: coprime, and no multiple of usual windows


class Survey(NamedTuple):
    """Facts of a backbone.

    Attributes:
        strides: input pixels per pixel of each map that it offers.
        channels_last: whether its maps are ``(B, h, w, C)``.
        blocks: number of maps that it can return; of a transformer, its blocks.
        options: arguments of ``timm.create_model`` with which it takes images of any size.
    """

    strides: tuple[int, ...]
    channels_last: bool
    blocks: int
    options: dict[str, Any]


_SURVEYS: dict[str, Survey] = {}


def survey(name: str, options: Mapping[str, Any]) -> Survey:
    """Find the facts of a backbone of timm, and open it to images of any size if timm can.

    Args:
        name: timm's name of the model.
        options: arguments of ``timm.create_model``.

    Raises:
        RecipeError: timm has no such model, or the model takes images of one size only.
    """
    check_name(name)
    key = repr((name, sorted(options.items())))
    if key not in _SURVEYS:
        _SURVEYS[key] = _open(name, options)
    return _SURVEYS[key]


def _open(name: str, options: Mapping[str, Any]) -> Survey:
    fault = ""
    for more in _ANY_SIZE:
        try:
            with torch.random.fork_rng(devices=[]), torch.device("meta"):
                backbone: Any = timm.create_model(name, features_only=True, **{**more, **options})
        except TypeError:  # it does not take the option
            if not more:
                raise
            continue
        except RuntimeError as error:
            raise RecipeError(
                f"expected a backbone of timm that returns maps; {name} does not ({first_line(error)})."
            ) from error
        info = backbone.feature_info
        strides = tuple(info.reduction())
        multiple = math.lcm(*strides)
        channels, height, width = backbone.pretrained_cfg["input_size"]
        channels = options.get("in_chans", channels)
        tried = _layout(backbone, channels, (multiple * _TRIED[0], multiple * _TRIED[1]))
        own = _layout(backbone, channels, (height, width))
        if isinstance(tried, bool) or isinstance(own, str):  # one that fails at its own size cannot run without data
            return Survey(strides, tried is True, len(info.info), {**more, **options})
        fault = fault or tried
    raise RecipeError(
        f"expected a backbone for images of any multiple of {multiple} px; {name} takes {height}x{width} only: {fault}. "
        "Choose another, for example a ConvNeXt, ResNet or EfficientNet."
    )


def _layout(backbone: Any, channels: int, size: tuple[int, int]) -> bool | str:
    """Run a backbone on no data; return whether its maps have their channels last, or a sentence on what is wrong."""
    info = backbone.feature_info
    grids = [(-(-size[0] // stride), -(-size[1] // stride)) for stride in info.reduction()]
    try:
        with torch.no_grad():
            maps = backbone.eval()(torch.empty(1, channels, *size, device="meta"))
    except Exception as error:  # whatever a network raises that cannot take the size
        return f"{type(error).__name__}, {first_line(error)}"
    shapes = [tuple(x.shape[1:]) for x in maps]
    if shapes == [(width, *grid) for width, grid in zip(info.channels(), grids, strict=True)]:
        return False
    if shapes == [(*grid, width) for width, grid in zip(info.channels(), grids, strict=True)]:
        return True
    return f"its maps of {size[0]}x{size[1]} have shapes {', '.join(map(str, shapes))}"
