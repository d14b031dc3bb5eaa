"""Depth in metres under the rules of Bhat et al. 2023 (ZoeDepth), which Depth Anything's metric models are tested by, too.

A model is tuned on NYUv2 or on KITTI and tested there, and on sets it has not seen: the indoor ones by the model of NYUv2, the
outdoor ones by that of KITTI. What differs from set to set is a range of depth and a crop.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from depthkit.evaluation.crops import EIGEN_NYU, EIGEN_NYU_ON_ANY, EIGEN_NYU_ON_HYPERSIM, GARG, GARG_IN_KB, KB_CROP, Crop
from depthkit.evaluation.protocol import Protocol, kinds
from depthkit.metrics import RMSE, AbsRel, DeltaAccuracy, Formula, Log10, RMSELog
from depthkit.resize import InputResize, OutputResize
from depthkit.types import Ambiguity, Representation

_ZOE = "Bhat et al., ZoeDepth: Zero-shot Transfer by Combining Relative and Metric Depth, arXiv 2302.12288"
_YANG = "Yang et al., Depth Anything, CVPR 2024"
_METRIC: dict[str, Formula] = {
    "delta1": DeltaAccuracy(1.25).formula,
    "delta2": DeltaAccuracy(1.25**2).formula,
    "delta3": DeltaAccuracy(1.25**3).formula,
    "abs_rel": AbsRel().formula,
    "rmse": RMSE().formula,
}
_INDOOR: dict[str, Any] = {
    "metrics": {**_METRIC, "log10": Log10().formula},
    "input": InputResize((392, 518), "stretch", 14, "bilinear", align_corners=True),
}
_OUTDOOR: dict[str, Any] = {
    "metrics": {**_METRIC, "rmse_log": RMSELog().formula},
    "input": InputResize((384, 768), "stretch", 14, "bilinear", align_corners=True),
}
_UNSEEN = ("delta1", "abs_rel", "rmse")
_OF_YANG = ("kitti", "vkitti2", "diode_outdoor")
"""Outdoor sets that Yang et al. tested on, by a command that shows their networks all images at the indoor size."""
_Figures = Mapping[str, tuple[float, ...]]

# Bhat et al., table 1, and Yang et al., table 3: the metrics of _INDOOR in order.
_NYU: _Figures = {
    "BTS": (0.885, 0.978, 0.994, 0.110, 0.392, 0.047),
    "AdaBins": (0.903, 0.984, 0.997, 0.103, 0.364, 0.044),
    "LocalBins": (0.907, 0.987, 0.998, 0.099, 0.357, 0.042),
    "DPT": (0.904, 0.988, 0.998, 0.110, 0.357, 0.045),
    "P3Depth": (0.898, 0.981, 0.996, 0.104, 0.356, 0.043),
    "NeWCRFs": (0.922, 0.992, 0.998, 0.095, 0.334, 0.041),
    "SwinV2-L": (0.949, 0.994, 0.999, 0.083, 0.287, 0.035),
    "AiT": (0.954, 0.994, 0.999, 0.076, 0.275, 0.033),
    "VPD": (0.964, 0.995, 0.999, 0.069, 0.254, 0.030),
    "ZoeD-X-N": (0.946, 0.994, 0.999, 0.082, 0.294, 0.035),
    "ZoeD-M12-N": (0.955, 0.995, 0.999, 0.075, 0.270, 0.032),
    "ZoeD-M12-NK": (0.953, 0.995, 0.999, 0.077, 0.277, 0.033),
    "ZoeDepth (reproduced by Yang et al.)": (0.951, 0.994, 0.999, 0.077, 0.282, 0.033),
    "Depth Anything L": (0.984, 0.998, 1.000, 0.056, 0.206, 0.024),
}
# Yang et al., table 4: the metrics of _OUTDOOR in order.
_KITTI: _Figures = {
    "AdaBins": (0.964, 0.995, 0.999, 0.058, 2.360, 0.088),
    "DPT": (0.959, 0.995, 0.999, 0.062, 2.573, 0.092),
    "P3Depth": (0.953, 0.993, 0.998, 0.071, 2.842, 0.103),
    "NeWCRFs": (0.974, 0.997, 0.999, 0.052, 2.129, 0.079),
    "SwinV2-L": (0.977, 0.998, 1.000, 0.050, 1.966, 0.075),
    "NDDepth": (0.978, 0.998, 0.999, 0.050, 2.025, 0.075),
    "GEDepth": (0.976, 0.997, 0.999, 0.048, 2.044, 0.076),
    "ZoeDepth (reproduced by Yang et al.)": (0.971, 0.996, 0.999, 0.054, 2.281, 0.082),
    "Depth Anything L": (0.982, 0.998, 1.000, 0.046, 1.896, 0.069),
}
# Bhat et al., tables 3 and 4: delta 1, AbsRel, RMSE on SUN RGB-D, iBims-1, DIODE indoor, Hypersim ...
_ROWS_INDOOR = ("BTS", "AdaBins", "LocalBins", "NeWCRFs", "ZoeD-X-N", "ZoeD-M12-N", "ZoeD-M12-NK")
_SUN = (
    (0.740, 0.172, 0.515),
    (0.771, 0.159, 0.476),
    (0.777, 0.156, 0.470),
    (0.798, 0.151, 0.424),
    (0.857, 0.124, 0.363),
    (0.864, 0.119, 0.346),
    (0.856, 0.123, 0.356),
)
_IBIMS = (
    (0.538, 0.231, 0.919),
    (0.555, 0.212, 0.901),
    (0.558, 0.211, 0.880),
    (0.548, 0.206, 0.861),
    (0.668, 0.173, 0.730),
    (0.658, 0.169, 0.711),
    (0.615, 0.186, 0.777),
)
_DIODE_INDOOR = (
    (0.210, 0.418, 1.905),
    (0.174, 0.443, 1.963),
    (0.229, 0.412, 1.853),
    (0.187, 0.404, 1.867),
    (0.400, 0.324, 1.581),
    (0.376, 0.327, 1.588),
    (0.386, 0.331, 1.598),
)
_HYPERSIM = (
    (0.225, 0.476, 6.404),
    (0.221, 0.483, 6.546),
    (0.234, 0.468, 6.362),
    (0.255, 0.442, 6.017),
    (0.284, 0.421, 5.889),
    (0.292, 0.410, 5.771),
    (0.274, 0.419, 5.830),
)
# ... and on Virtual KITTI 2, DDAD, DIML outdoor, DIODE outdoor.
_ROWS_OUTDOOR = ("BTS", "AdaBins", "LocalBins", "NeWCRFs", "ZoeD-X-K", "ZoeD-M12-K", "ZoeD-M12-NK")
_VKITTI2 = (
    (0.831, 0.115, 5.368),
    (0.826, 0.122, 5.420),
    (0.810, 0.127, 5.981),
    (0.829, 0.117, 5.691),
    (0.837, 0.112, 5.338),
    (0.864, 0.100, 4.974),
    (0.850, 0.105, 5.095),
)
_DDAD = (
    (0.805, 0.147, 7.550),
    (0.766, 0.154, 8.560),
    (0.777, 0.151, 8.139),
    (0.874, 0.119, 6.183),
    (0.790, 0.137, 7.734),
    (0.835, 0.129, 7.108),
    (0.824, 0.138, 7.225),
)
_DIML_OUTDOOR = (
    (0.016, 1.785, 5.908),
    (0.013, 1.941, 6.272),
    (0.016, 1.820, 6.706),
    (0.010, 1.918, 6.283),
    (0.005, 1.756, 6.180),
    (0.003, 1.921, 6.978),
    (0.292, 0.641, 3.610),
)
_DIODE_OUTDOOR = (
    (0.171, 0.837, 10.48),
    (0.161, 0.863, 10.35),
    (0.170, 0.821, 10.27),
    (0.176, 0.854, 9.228),
    (0.242, 0.799, 7.806),
    (0.269, 0.852, 6.898),
    (0.208, 0.757, 7.569),
)


def _test(
    name: str, tables: str, figures: Mapping[str, Mapping[str, float]], cap: float, crop: Crop, **settings: Any
) -> Protocol:
    """One test.

    The code brings Hypersim, DIODE and DDAD to another size before; here images are resized once. The figures are of
    predictions averaged with those of the mirrored image.
    """
    near = settings.pop("near", 1e-3)
    return Protocol(
        name=f"zoedepth_{name}",
        source=f"{_ZOE}{tables}, mean with the mirrored image",
        accepts=kinds(Ambiguity.METRIC),
        min_depth=near,
        max_depth=cap,
        label_range=(near, cap),
        crop=crop,
        output=OutputResize(Representation.DEPTH, align_corners=True),
        min_valid=1,
        published=figures,
        **settings,
    )


def _zero_shot(rows: tuple[str, ...], figures: tuple[tuple[float, ...], ...], *yang: tuple[float, float]) -> dict[str, Any]:
    """Figures of Bhat et al. (table 3 or 4), and AbsRel and delta 1 of Yang et al. (table 5), of ZoeDepth and their own."""
    theirs = {name: dict(zip(_UNSEEN, row, strict=True)) for name, row in zip(rows, figures, strict=True)}
    names = ("ZoeDepth (reproduced by Yang et al.)", "Depth Anything L")
    pairs = zip(names, yang, strict=True) if yang else ()
    return theirs | {name: {"abs_rel": error, "delta1": share} for name, (error, share) in pairs}


def _tests() -> Iterator[Protocol]:
    encoders = {  # Yang et al., tables 10 and 11: AbsRel and delta 1 by where the encoder comes from
        "encoder of MiDaS v3.1": ((0.077, 0.951), (0.054, 0.971)),
        "encoder of DINOv2": ((0.066, 0.973), (0.058, 0.971)),
    }
    nyu, kitti = (
        {model: dict(zip(rules["metrics"], row, strict=True)) for model, row in table.items()}
        for rules, table in ((_INDOOR, _NYU), (_OUTDOOR, _KITTI))
    )
    for figures, column in ((nyu, 0), (kitti, 1)):
        figures |= {row: dict(zip(("abs_rel", "delta1"), pairs[column], strict=True)) for row, pairs in encoders.items()}
    yield _test("nyu", f", table 1; {_YANG}, table 3", nyu, 10.0, EIGEN_NYU, **_INDOOR)
    yield _test("kitti", f"; figures of {_YANG}, table 4", kitti, 80.0, GARG_IN_KB, shown=KB_CROP, **_OUTDOOR)
    both = "; Yang et al., Depth Anything, CVPR 2024, table 5"
    disputed = " (the two disagree about ZoeDepth, and users about both)"
    sun = _zero_shot(_ROWS_INDOOR, _SUN, (0.520, 0.545), (0.500, 0.660))
    ibims = _zero_shot(_ROWS_INDOOR, _IBIMS, (0.169, 0.656), (0.150, 0.714))
    hypersim = _zero_shot(_ROWS_INDOOR, _HYPERSIM, (0.407, 0.302), (0.363, 0.361))
    vkitti2 = _zero_shot(_ROWS_OUTDOOR, _VKITTI2, (0.106, 0.844), (0.085, 0.913))
    diode = _zero_shot(_ROWS_OUTDOOR, _DIODE_OUTDOOR, (0.814, 0.237), (0.794, 0.288))
    diode_indoor, ddad, diml = (
        _zero_shot(rows, figures)
        for rows, figures in ((_ROWS_INDOOR, _DIODE_INDOOR), (_ROWS_OUTDOOR, _DDAD), (_ROWS_OUTDOOR, _DIML_OUTDOOR))
    )
    yield _test("sun_rgbd", f", table 3{both}{disputed}", sun, 8.0, EIGEN_NYU_ON_ANY, near=0.0, **_INDOOR)
    yield _test("ibims", f", table 3{both}", ibims, 10.0, EIGEN_NYU, near=0.0, **_INDOOR)
    yield _test("diode_indoor", ", table 3", diode_indoor, 10.0, EIGEN_NYU_ON_ANY, **_INDOOR)
    yield _test("hypersim", f", table 3{both}", hypersim, 80.0, EIGEN_NYU_ON_HYPERSIM, **_INDOOR)
    yield _test("diml_indoor", ", released code, without figures", {}, 10.0, EIGEN_NYU_ON_ANY, near=0.0, **_INDOOR)
    yield _test("vkitti2", f", table 4{both}", vkitti2, 80.0, GARG_IN_KB, shown=KB_CROP, **_OUTDOOR)
    # whatever the released settings say, DDAD is shown whole, and scored in Garg's fractions of its own size
    yield _test("ddad", ", table 4", ddad, 80.0, GARG, **_OUTDOOR)
    yield _test("diml_outdoor", ", table 4", diml, 80.0, GARG, near=2.0, **_OUTDOOR)
    yield _test("diode_outdoor", f", table 4{both}", diode, 80.0, GARG, **_OUTDOOR)


def _as_yang_command(tests: tuple[Protocol, ...]) -> Iterator[Protocol]:
    for test in tests:
        if test.name.removeprefix("zoedepth_") in _OF_YANG:
            source = f"{_YANG}, the command for outdoor sets in their README; else as {test.name}, without figures of its own"
            yield replace(test, name=f"{test.name}_at_392x518", source=source, input=_INDOOR["input"], published={})


_TESTS = tuple(_tests())
ZOEDEPTH_PROTOCOLS: tuple[Protocol, ...] = (*_TESTS, *_as_yang_command(_TESTS))
"""``zoedepth_{nyu,kitti,sun_rgbd,ibims,diode_indoor,hypersim,diml_indoor,vkitti2,ddad,diml_outdoor,diode_outdoor}``, and
``zoedepth_{kitti,vkitti2,diode_outdoor}_at_392x518``, by which the tables of Yang et al. are scored."""
