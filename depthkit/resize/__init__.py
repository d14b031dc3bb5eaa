"""From an image of any size to its map at that size: rules for a network's input and output, and the one path through them."""

from depthkit.resize.canonical import canonical_focal_of, in_metres, seen_focal
from depthkit.resize.maps import (
    NativeMap,
    as_maps,
    check_finite,
    input_rule_of,
    multiple_of,
    native_map,
    network_map,
    not_finite,
    output_rule_of,
    representation_of,
    resize_space_of,
    resized_map,
    resized_spread,
    shown_part,
)
from depthkit.resize.rules import ImageInterpolation, InputResize, InputRule, Interpolation, OutputResize, interpolate

__all__ = [
    "ImageInterpolation",
    "InputResize",
    "InputRule",
    "Interpolation",
    "NativeMap",
    "OutputResize",
    "as_maps",
    "canonical_focal_of",
    "check_finite",
    "in_metres",
    "input_rule_of",
    "interpolate",
    "multiple_of",
    "native_map",
    "network_map",
    "not_finite",
    "output_rule_of",
    "representation_of",
    "resize_space_of",
    "resized_map",
    "resized_spread",
    "seen_focal",
    "shown_part",
]
