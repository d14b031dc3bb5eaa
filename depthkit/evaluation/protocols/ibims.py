"""Edges of depth under the rules of Koch et al. 2018, on iBims-1 as its authors marked them."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from depthkit.evaluation.protocol import Protocol, kinds
from depthkit.evaluation.protocols.midas import DISPARITY_FIT
from depthkit.evaluation.protocols.monodepth2 import MEDIAN_FIT
from depthkit.metrics import Formula
from depthkit.metrics.boundaries.depth_boundary_error import BoundarySide, DepthBoundaryErrorFormula
from depthkit.resize import InputResize, OutputResize
from depthkit.types import Ambiguity, Representation

_ERRORS: Mapping[str, Formula] = MappingProxyType({f"dbe_{side}": DepthBoundaryErrorFormula(side) for side in BoundarySide})
_SOURCE = (
    "Koch et al., Evaluation of CNN-based Single-Image Depth Estimation Methods, ECCV Workshops 2018; distances between edges "
    "of the whole prediction and marked ones [px], at most 10, without figures"
)
_DISTANCE = Protocol(
    name="ibims_edges",
    source=f"{_SOURCE}; one factor per image, which changes nothing here",
    accepts=kinds(Ambiguity.METRIC),
    metrics=_ERRORS,
    alignment=MEDIAN_FIT,
    input=InputResize(384, "minimal"),
    output=OutputResize(Representation.DEPTH),
    min_valid=1,
)
IBIMS_PROTOCOLS: tuple[Protocol, ...] = (
    _DISTANCE,
    replace(
        _DISTANCE,
        name="ibims_edges_affine",
        source=f"{_SOURCE}; scale and shift fitted in disparity, as edges of depth depend on the shift, at most 50 m",
        alignment=DISPARITY_FIT,
        output=OutputResize(Representation.DISPARITY),
        max_depth=50.0,
    ),
)
"""``ibims_edges`` of predictions up to scale, ``ibims_edges_affine`` of disparity up to scale and shift."""
