"""Validation while training, on what training sets hold out: the papers' rules without the caps and crops of their tests.

The papers do not say how they validate, or did it on their tests. A recipe shall not choose anything on those.
"""

from dataclasses import replace
from types import MappingProxyType

from depthkit.evaluation.protocol import Protocol, kinds
from depthkit.evaluation.protocols.gp2 import LOG_RESIZE, UTS_FIT
from depthkit.evaluation.protocols.midas import IN_DISPARITY
from depthkit.metrics import RMSE, AbsRel, DeltaAccuracy, Log10
from depthkit.resize import InputResize, OutputResize
from depthkit.types import Ambiguity, Representation

_OURS = "depthkit: images held out of a training set"
_DEPTH = MappingProxyType({"abs_rel": AbsRel().formula, "rmse": RMSE().formula, "delta1": DeltaAccuracy(1.25).formula})

_AFFINE = Protocol(
    name="held_out_affine_518",
    source=f"{_OURS}; scale and shift fitted per image, error in disparity, at Depth Anything's input size",
    **IN_DISPARITY,
    input=InputResize(518, "lower_bound", multiple=14),
    output=OutputResize(Representation.DISPARITY),
)
_SCALE = Protocol(
    name="held_out_scale_384",
    source=f"{_OURS}; one factor per image fitted as in GP2's UTS tests, at GP2's input size",
    accepts=kinds(Ambiguity.METRIC, Ambiguity.SCALE),
    metrics={"abs_rel": AbsRel().formula, "delta1": DeltaAccuracy(1.25).formula, "log10": Log10().formula},
    alignment=UTS_FIT,
    input=InputResize(384, "lower_bound", interpolation="bilinear"),
    output=LOG_RESIZE,
)
_METRIC = Protocol(
    name="held_out_metric",
    source=f"{_OURS}; metres as predicted, at the size of the images, all beyond 80 m not scored",
    accepts=kinds(Ambiguity.METRIC),
    metrics=_DEPTH,
    min_depth=1e-3,
    max_depth=80.0,
    label_range=(1e-3, 80.0),
    input=InputResize(rule="native", multiple=8, interpolation="bilinear", antialias=True),
)
HELD_OUT_PROTOCOLS: tuple[Protocol, ...] = (
    _AFFINE,
    replace(
        _AFFINE,
        name="held_out_affine_384",
        source=f"{_OURS}; scale and shift fitted per image, error in disparity, at MiDaS's input size",
        input=InputResize(),
    ),
    _SCALE,
    _METRIC,
)
"""``held_out_affine_{384,518}``, ``held_out_scale_384``, ``held_out_metric``."""
