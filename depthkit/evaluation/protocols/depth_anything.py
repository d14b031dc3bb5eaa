"""The tests of Yang et al. 2024 (Depth Anything): zero-shot and relative; those in metres are ZoeDepth's.

Table 2 was made by aligning and by scoring in disparity, without an inversion (its author; no script was released). Others
invert the aligned disparity first, as MiDaS does: those are the tests ``..._in_depth``. Their numbers are not comparable, so
they carry no figures of the paper.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from depthkit.alignment import Alignment
from depthkit.evaluation.crops import FULL, GARG, Crop
from depthkit.evaluation.protocol import Protocol, kinds
from depthkit.metrics import RMSE, AbsRel, DeltaAccuracy, Formula, Log10, RMSELog, SILog, SqRel
from depthkit.resize import InputResize, OutputResize
from depthkit.types import Ambiguity, Representation

_THREAD = "thread 174 of LiheYoung/Depth-Anything"
_PAPER = "Yang et al., Depth Anything: Unleashing the Power of Large-Scale Unlabeled Data, CVPR 2024"
_FIT = Alignment("scale_shift", "least_squares", space=Representation.DISPARITY)
_RELATIVE: dict[str, Formula] = {"abs_rel": AbsRel().formula, "delta1": DeltaAccuracy(1.25).formula}

# The paper states no caps: these are the field's. DIODE's indoor and outdoor images are one column of table 2.
_SETS: Mapping[str, tuple[float, Crop]] = {
    "kitti": (80.0, GARG),
    "nyu": (10.0, FULL),
    "sintel": (72.0, FULL),
    "ddad": (120.0, FULL),
    "eth3d": (torch.inf, FULL),
    "diode": (300.0, FULL),
}
_FARTHEST = {"eth3d": 72.0}  # [m] of an inverted prediction where labels have no cap: MiDaS's

# One row per model in the order of _SETS. Table 2: AbsRel, delta 1; KITTI and NYU are not zero-shot for MiDaS v3.1.
_TABLE_2 = {
    "MiDaS v3.1 BEiT-L": ((0.127, 0.048, 0.587, 0.251, 0.139, 0.075), (0.850, 0.980, 0.699, 0.766, 0.867, 0.942)),
    "Depth Anything S": ((0.080, 0.053, 0.464, 0.247, 0.127, 0.076), (0.936, 0.972, 0.739, 0.768, 0.885, 0.939)),
    "Depth Anything B": ((0.080, 0.046, 0.432, 0.232, 0.126, 0.069), (0.939, 0.979, 0.756, 0.786, 0.884, 0.946)),
    "Depth Anything L": ((0.076, 0.043, 0.458, 0.230, 0.127, 0.066), (0.947, 0.981, 0.760, 0.789, 0.882, 0.952)),
}
# Table 6, likewise: what a network learns from one labelled set, or from all.
_TABLE_6 = {
    "L, BlendedMVS alone": ((0.089, 0.068, 0.556, 0.305, 0.148, 0.092), (0.918, 0.958, 0.689, 0.731, 0.845, 0.921)),
    "L, DIML alone": ((0.099, 0.055, 0.573, 0.381, 0.142, 0.107), (0.907, 0.969, 0.722, 0.657, 0.859, 0.908)),
    "L, HRWSI alone": ((0.095, 0.062, 0.502, 0.270, 0.186, 0.087), (0.917, 0.966, 0.731, 0.750, 0.775, 0.935)),
    "L, IRS alone": ((0.105, 0.057, 0.568, 0.328, 0.143, 0.088), (0.892, 0.970, 0.714, 0.691, 0.845, 0.926)),
    "L, MegaDepth alone": ((0.217, 0.071, 0.632, 0.479, 0.142, 0.104), (0.741, 0.953, 0.660, 0.566, 0.852, 0.910)),
    "L, TartanAir alone": ((0.088, 0.061, 0.602, 0.332, 0.160, 0.088), (0.920, 0.964, 0.723, 0.690, 0.818, 0.928)),
    "L, labelled images only": ((0.085, 0.053, 0.492, 0.245, 0.134, 0.070), (0.934, 0.971, 0.748, 0.771, 0.874, 0.945)),
}
# The ablations, AbsRel alone: what the unlabelled images add, the margin of the feature alignment, and where it is applied.
_ABLATIONS = {
    "L, unlabelled images unperturbed": (0.085, 0.054, 0.481, 0.242, 0.138, 0.073),
    "L, unlabelled images perturbed": (0.081, 0.048, 0.469, 0.235, 0.134, 0.068),
    "S, margin 1.00": (0.085, 0.055, 0.523, 0.250, 0.134, 0.079),
    "S, margin 0.70": (0.079, 0.054, 0.482, 0.248, 0.127, 0.077),
    "S, no feature alignment": (0.083, 0.055, 0.478, 0.249, 0.133, 0.080),
    "S, feature alignment on labelled images": (0.084, 0.054, 0.472, 0.252, 0.133, 0.081),
}


def _relative() -> Iterator[Protocol]:
    """Table 2 and, of each column, the same fit scored in depth."""
    for column, (name, (cap, crop)) in enumerate(_SETS.items()):
        shared: dict[str, Any] = {
            "accepts": kinds(Ambiguity.METRIC, Ambiguity.SCALE),
            "metrics": _RELATIVE,
            "alignment": _FIT,
            "label_range": (0.0, min(cap, 1e4)),  # 10 km: no cap, but sky has no relative error in disparity
            "crop": crop,
            "input": InputResize(518, "lower_bound", multiple=14),
            "output": OutputResize(Representation.DISPARITY),
        }
        published = {
            model: {"abs_rel": errors[column], "delta1": shares[column]}
            for model, (errors, shares) in (_TABLE_2 | _TABLE_6).items()
        }
        ablations = {model: {"abs_rel": errors[column]} for model, errors in _ABLATIONS.items()}
        yield Protocol(
            f"depth_anything_{name}",
            f"{_PAPER}, tables 2, 6, 9, 12 and 13; metrics of disparity, as its author states ({_THREAD})",
            space=Representation.DISPARITY,
            published={**published, **ablations},
            **shared,
        )
        yield Protocol(
            f"depth_anything_{name}_in_depth",
            f"{_PAPER}, but metrics of depth: not comparable with its table 2",
            max_depth=_FARTHEST.get(name, cap),
            **shared,
        )


def _v2() -> Iterator[Protocol]:
    """Make the validation of the released metric trainer (Depth Anything V2): no fit, no crop, one cap per dataset."""
    metrics = {
        **{f"delta{k}": DeltaAccuracy(1.25**k).formula for k in (1, 2, 3)},
        "abs_rel": AbsRel().formula,
        "sq_rel": SqRel().formula,
        "rmse": RMSE().formula,
        "rmse_log": RMSELog().formula,
        "log10": Log10().formula,
        "silog": SILog(variance_focus=0.5, factor=1.0).formula,
    }
    for name, cap in (("hypersim", 20.0), ("vkitti2", 80.0)):
        yield Protocol(
            f"depth_anything_v2_{name}",
            "Yang et al., Depth Anything V2, NeurIPS 2024, released code (metric_depth): validation while training",
            kinds(Ambiguity.METRIC),
            metrics,
            max_depth=cap,
            label_range=(1e-3, cap),
            input=InputResize(518, "lower_bound", multiple=14),
            output=OutputResize(Representation.DEPTH, align_corners=True),
        )


DEPTH_ANYTHING_PROTOCOLS: tuple[Protocol, ...] = (*_relative(), *_v2())
"""``depth_anything_{kitti,nyu,sintel,ddad,eth3d,diode}[_in_depth]`` and ``depth_anything_v2_{hypersim,vkitti2}``.

Tables 3 to 5, in metres, are ``zoedepth_...``.
"""
