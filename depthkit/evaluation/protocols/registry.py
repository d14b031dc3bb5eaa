"""The protocols by name. To add a benchmark, add an entry."""

import re
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from types import MappingProxyType
from typing import Any

from depthkit.errors import RecipeError
from depthkit.evaluation.protocol import Protocol, kinds
from depthkit.evaluation.protocols.depth_anything import DEPTH_ANYTHING_PROTOCOLS
from depthkit.evaluation.protocols.gp2 import GP2_PROTOCOLS, LOG_RESIZE, UTS_FIT
from depthkit.evaluation.protocols.held_out import HELD_OUT_PROTOCOLS
from depthkit.evaluation.protocols.ibims import IBIMS_PROTOCOLS
from depthkit.evaluation.protocols.marigold import MARIGOLD_PROTOCOLS
from depthkit.evaluation.protocols.midas import DISPARITY_FIT, MIDAS_PROTOCOLS
from depthkit.evaluation.protocols.monodepth2 import MEDIAN_FIT, MONODEPTH2_PROTOCOLS
from depthkit.evaluation.protocols.zoedepth import ZOEDEPTH_PROTOCOLS
from depthkit.metrics import RMSE, AbsRel, DeltaAccuracy, Formula, Log10, RMSELog, SILog, SqRel
from depthkit.resize import InputResize, OutputResize
from depthkit.types import Ambiguity, Representation

_AT_SIZE = re.compile(r"(?P<name>[^@]+)@(?P<height>[1-9]\d*)x(?P<width>[1-9]\d*)")
_DENSE = kinds(Ambiguity.METRIC, Ambiguity.SCALE)
_METRIC = kinds(Ambiguity.METRIC)

_USUAL: Mapping[str, Formula] = MappingProxyType(
    {
        "abs_rel": AbsRel().formula,
        "rmse": RMSE().formula,
        "rmse_log": RMSELog().formula,
        "silog": SILog().formula,
        "delta1": DeltaAccuracy(1.25).formula,
        "delta2": DeltaAccuracy(1.25**2).formula,
        "delta3": DeltaAccuracy(1.25**3).formula,
    }
)


def _on_scenes(name: str, rule: str, **settings: Any) -> tuple[Protocol, Protocol]:
    """Make tests of our own: on images of the size that a network was trained at, and on any image for small networks."""
    scored = f"{rule}, sky and all beyond 80 m not scored"
    common: dict[str, Any] = {"metrics": _USUAL, "label_range": (0.0, 80.0), **settings}
    small = InputResize((192 * 256) ** 0.5, rule="area", antialias=True)
    return (
        Protocol(
            name=f"synthetic_{name}",
            source=f"depthkit: unseen scenes, {scored}",
            input=InputResize(rule="native"),
            **common,
        ),
        Protocol(
            name=f"small_{name}",
            source=f"depthkit: any image shown with the pixels of 192x256, {scored}",
            input=small,
            **common,
        ),
    )


def _by_name(*protocols: Protocol) -> Mapping[str, Protocol]:
    return MappingProxyType({protocol.name: protocol for protocol in protocols})


PROTOCOLS: Mapping[str, Protocol] = _by_name(
    *MIDAS_PROTOCOLS,
    *GP2_PROTOCOLS,
    *MONODEPTH2_PROTOCOLS,
    *DEPTH_ANYTHING_PROTOCOLS,
    *ZOEDEPTH_PROTOCOLS,
    *MARIGOLD_PROTOCOLS,
    *IBIMS_PROTOCOLS,
    *HELD_OUT_PROTOCOLS,
    *_on_scenes(
        "affine", "scale and shift in disparity fitted per image", accepts=_DENSE, alignment=DISPARITY_FIT, max_depth=80.0
    ),
    *_on_scenes(
        "scale",
        "one factor per image fitted as in GP2's UTS tests",
        accepts=_DENSE,
        metrics={**_USUAL, "log10": Log10().formula},
        alignment=UTS_FIT,
        output=LOG_RESIZE,
    ),
    *_on_scenes(
        "median",
        "ratio of medians per image as Monodepth2's",
        accepts=_DENSE,
        metrics={**_USUAL, "sq_rel": SqRel().formula},
        alignment=MEDIAN_FIT,
        min_depth=0.001,
        max_depth=80.0,
        output=OutputResize(Representation.DISPARITY),
    ),
    *_on_scenes("metric", "metres as predicted", accepts=_METRIC, min_depth=0.001, max_depth=80.0),
)


def find_protocol(name: str) -> Protocol:
    """Find the protocol of that name, or one of your own by its path, such as ``mylab.protocols.INDOOR``.

    ``NAME@HEIGHTxWIDTH`` is the same at another input: as many pixels as that, in the aspect of each image.

    Raises:
        RecipeError: there is none.

    >>> find_protocol("small_metric@128x160").input.size(480, 640, 32)
    (128, 160)
    """
    if match := _AT_SIZE.fullmatch(name):
        own, side = find_protocol(match["name"]), (int(match["height"]) * int(match["width"])) ** 0.5
        source = f"{own.source}; shown at another size, not comparable with it"
        return replace(own, name=name, source=source, input=InputResize(side, rule="area", antialias=True), published={})
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    module, _, attribute = name.rpartition(".")
    if not module:
        raise RecipeError(f"unknown protocol {name!r}; expected one of {', '.join(PROTOCOLS)}, or the path of your own.")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise RecipeError(
            f"expected a Protocol at {name}; it cannot be imported ({error}). Put its folder on PYTHONPATH."
        ) from error
    if not isinstance(found, Protocol):
        raise RecipeError(f"expected a Protocol at {name}; it is a {type(found).__name__}.")
    return found
