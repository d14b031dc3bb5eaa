"""The tests of Yang et al. 2024 (Depth Anything): zero-shot and relative, and in metres under the rules of Bhat et al. 2023.

Table 2 was made by aligning and by scoring in disparity, without an inversion (its author; no script was released). Others
invert the aligned disparity first, as MiDaS does: those are the tests ``..._in_depth``. Their numbers are not comparable, so
they carry no figures of the paper.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from depthkit.evaluation.crops import EIGEN_NYU, EIGEN_NYU_ON_HYPERSIM, FULL, GARG, GARG_IN_KB, KB_CROP, Crop
from depthkit.evaluation.protocol import Protocol, kinds
from depthkit.evaluation.resize import InputResize, OutputResize
from depthkit.metrics import RMSE, AbsRel, Alignment, DeltaAccuracy, Formula, Log10, RMSELog
from depthkit.types import Ambiguity, Representation

_PAPER = "Yang et al., Depth Anything: Unleashing the Power of Large-Scale Unlabeled Data, CVPR 2024"
_ZOE = "Bhat et al., ZoeDepth: Zero-shot Transfer by Combining Relative and Metric Depth, arXiv 2302.12288"
_FIT = Alignment("scale_shift", "least_squares", space=Representation.DISPARITY)
_RELATIVE: dict[str, Formula] = {"abs_rel": AbsRel().formula, "delta1": DeltaAccuracy(1.25).formula}
_METRIC: dict[str, Formula] = {
    "delta1": DeltaAccuracy(1.25).formula,
    "delta2": DeltaAccuracy(1.25**2).formula,
    "delta3": DeltaAccuracy(1.25**3).formula,
    "abs_rel": AbsRel().formula,
    "rmse": RMSE().formula,
}
_INDOOR = {**_METRIC, "log10": Log10().formula}
_OUTDOOR = {**_METRIC, "rmse_log": RMSELog().formula}

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
# The ablations, AbsRel alone: what the unlabelled images add, the margin of the feature alignment, and where it is applied.
_ABLATIONS = {
    "L, labelled images only": (0.085, 0.053, 0.492, 0.245, 0.134, 0.070),
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
            model: {"abs_rel": errors[column], "delta1": shares[column]} for model, (errors, shares) in _TABLE_2.items()
        }
        ablations = {model: {"abs_rel": errors[column]} for model, errors in _ABLATIONS.items()}
        yield Protocol(
            f"depth_anything_{name}",
            f"{_PAPER}, table 2; metrics of disparity, as its author states (thread 174 of LiheYoung/Depth-Anything)",
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


def _zoe(name: str, table: str, figures: Mapping[str, tuple[float, ...]], cap: float, crop: Crop, **settings: Any) -> Protocol:
    """One test in metres. The code aligns the corners of its input, too; here only those of its prediction are.

    The figures are of predictions averaged with those of the mirrored image.
    """
    metrics = settings["metrics"]
    order = ("abs_rel", "delta1") if "zero-shot" in table else tuple(metrics)
    near = settings.pop("near", 1e-3)
    return Protocol(
        name=f"zoedepth_{name}",
        source=f"{_ZOE}; figures: {_PAPER}, {table}, mean with the mirrored image",
        accepts=kinds(Ambiguity.METRIC),
        min_depth=near,
        max_depth=cap,
        label_range=(near, cap),
        crop=crop,
        output=OutputResize(Representation.DEPTH, align_corners=True),
        min_valid=1,
        published={model: dict(zip(order, row, strict=True)) for model, row in figures.items()},
        **settings,
    )


def _metric() -> Iterator[Protocol]:
    """Models fine-tuned on NYUv2 and KITTI, there and on sets they have not seen.

    SUN RGB-D is not among them: the code cuts NYUv2's pixels out of labels of any size, and its figures are disputed.
    """
    indoor: dict[str, Any] = {
        "metrics": _INDOOR,
        "input": InputResize((392, 518), "stretch", multiple=14, interpolation="bilinear"),
    }
    outdoor: dict[str, Any] = {
        "metrics": _OUTDOOR,
        "input": InputResize((384, 768), "stretch", multiple=14, interpolation="bilinear"),
    }
    known, unseen = "in-domain metric depth", "zero-shot metric depth"
    nyu = {
        "ZoeDepth": (0.951, 0.994, 0.999, 0.077, 0.282, 0.033),
        "Depth Anything L": (0.984, 0.998, 1.000, 0.056, 0.206, 0.024),
    }
    kitti = {
        "ZoeDepth": (0.971, 0.996, 0.999, 0.054, 2.281, 0.082),
        "Depth Anything L": (0.982, 0.998, 1.000, 0.046, 1.896, 0.069),
    }
    ibims = {"ZoeDepth": (0.169, 0.656), "Depth Anything L": (0.150, 0.714)}
    hypersim = {"ZoeDepth": (0.407, 0.302), "Depth Anything L": (0.363, 0.361)}
    vkitti2 = {"ZoeDepth": (0.106, 0.844), "Depth Anything L": (0.085, 0.913)}
    diode = {"ZoeDepth": (0.814, 0.237), "Depth Anything L": (0.794, 0.288)}
    yield _zoe("nyu", known, nyu, 10.0, EIGEN_NYU, **indoor)
    yield _zoe("kitti", known, kitti, 80.0, GARG_IN_KB, shown=KB_CROP, **outdoor)
    yield _zoe("ibims", unseen, ibims, 10.0, EIGEN_NYU, near=0.0, **indoor)
    yield _zoe("hypersim", unseen, hypersim, 80.0, EIGEN_NYU_ON_HYPERSIM, **indoor)
    yield _zoe("vkitti2", unseen, vkitti2, 80.0, GARG_IN_KB, shown=KB_CROP, **outdoor)
    yield _zoe("diode_outdoor", unseen, diode, 80.0, GARG, **outdoor)


DEPTH_ANYTHING_PROTOCOLS: tuple[Protocol, ...] = (*_relative(), *_metric())
"""``depth_anything_{kitti,nyu,sintel,ddad,eth3d,diode}[_in_depth]`` and
``zoedepth_{nyu,kitti,ibims,hypersim,vkitti2,diode_outdoor}``."""
