"""The zero-shot tests of Ranftl et al. 2022 (MiDaS): six datasets that none of its training sets is part of.

Dense labels are compared in depth after a fit of scale and shift in disparity, floored at 1 / cap. Point pairs of DIW need no
fit. Losses and encoders (figures 3 and 4) are compared on what the training sets hold out, in disparity. Of the mixtures and
single training sets the paper gives WHDR on 10,000 images of DIW's training set, and of the models it compares with on the
74,441 of its test set: those are two protocols of one rule.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from depthkit.alignment import Alignment
from depthkit.evaluation.protocol import Protocol, kinds
from depthkit.metrics import RMSE, WHDR, AbsRel, DeltaError, Formula
from depthkit.resize import InputResize
from depthkit.types import Ambiguity, LabelKind, Representation

DISPARITY_FIT = Alignment("scale_shift", "least_squares", space=Representation.DISPARITY)
_PAPER = "Ranftl et al., Towards Robust Monocular Depth Estimation, TPAMI 44(3) 2022"

# Six numbers per model, as printed: DIW WHDR [%], ETH3D AbsRel, Sintel AbsRel, and KITTI, NYU, TUM delta > 1.25 [%].
_Figures = Mapping[str, tuple[float, float, float, float, float, float]]

# Table 11 (table 10 gives the same relative to the first row), and the release notes of v2.1 to v3.1.
_TABLE_11: _Figures = {
    "MiDaS v2 (MIX 5, Pareto)": (12.46, 0.129, 0.327, 23.90, 9.55, 14.29),
    "MiDaS v2 (MIX 5, ResNet-50)": (12.48, 0.155, 0.330, 21.81, 15.73, 17.00),
    "Li & Snavely 2018 (MegaDepth)": (23.15, 0.181, 0.385, 36.29, 27.52, 29.54),
    "Li et al. 2019 (Mannequin Challenge)": (26.52, 0.183, 0.405, 47.94, 18.57, 17.71),
    "Wang et al. 2019 (WSVD)": (19.09, 0.205, 0.390, 31.92, 29.57, 20.18),
    "Xian et al. 2018 (ReDWeb)": (14.59, 0.186, 0.422, 34.08, 27.00, 25.02),
    "Casser et al. 2019 (Cityscapes)": (32.80, 0.235, 0.422, 21.15, 39.58, 37.18),
    "Godard et al. 2019 (KITTI)": (29.67, 0.189, 0.406, 5.53, 33.29, 36.03),
    "Fu et al. 2018 (NYU)": (28.79, 0.195, 0.433, 61.61, 8.69, 24.65),
    "Chen et al. 2016 (NYU, DIW)": (14.47, 0.221, 0.440, 36.30, 28.33, 30.16),
    "Casser et al. 2019 (KITTI)": (33.49, 0.217, 0.409, 11.93, 36.08, 37.03),
    "Fu et al. 2018 (KITTI)": (30.39, 0.216, 0.432, 7.13, 40.61, 40.13),
    "MiDaS v2.1 large 384": (12.95, 0.1155, 0.3285, 16.08, 8.71, 12.51),
    "MiDaS v2.1 small 256": (13.44, 0.1344, 0.3370, 29.27, 13.43, 14.53),
    "MiDaS v3.0 DPT-L 384": (10.82, 0.0888, 0.2697, 8.46, 8.32, 9.97),
    "MiDaS v3.0 DPT-H 384": (11.06, 0.0934, 0.2741, 11.56, 8.69, 10.89),
    "MiDaS v3.1 BEiT-L-512 at 384": (12.45, 0.0681, 0.2176, 6.28, 2.16, 6.13),  # KITTI and NYU are not zero-shot
}
# Tables 4, 7 and 9: one training set added to ReDWeb, and mixtures with equal weights or those of MGDA. DIW: its training set.
_ABLATIONS: _Figures = {
    "ReDWeb": (14.59, 0.151, 0.349, 27.95, 18.74, 21.69),
    "ReDWeb, then DIML": (20.08, 0.148, 0.364, 48.35, 12.68, 17.48),
    "ReDWeb, then movies": (18.39, 0.175, 0.403, 25.12, 20.65, 22.44),
    "ReDWeb, then MegaDepth": (19.18, 0.145, 0.383, 34.73, 19.05, 32.96),
    "ReDWeb, then WSVD": (19.31, 0.196, 0.359, 37.59, 24.72, 20.99),
    "MIX 1, naive": (13.00, 0.136, 0.362, 22.91, 10.98, 14.53),
    "MIX 2, naive": (13.62, 0.138, 0.338, 25.39, 11.10, 13.94),
    "MIX 3, naive": (12.62, 0.135, 0.332, 24.06, 10.54, 15.39),
    "MIX 4, naive": (12.88, 0.134, 0.331, 24.78, 11.46, 14.00),
    "MIX 5, naive": (12.79, 0.132, 0.324, 25.41, 11.52, 13.62),
    "MIX 1, Pareto": (13.22, 0.140, 0.376, 24.26, 10.48, 14.50),
    "MIX 2, Pareto": (12.54, 0.138, 0.346, 23.05, 10.21, 14.76),
    "MIX 3, Pareto": (12.29, 0.133, 0.331, 24.68, 9.78, 14.66),
    "MIX 4, Pareto": (12.35, 0.130, 0.343, 23.13, 10.61, 13.41),
    "MIX 5, Pareto": (12.27, 0.129, 0.327, 23.90, 9.55, 14.29),
}


def _test(name: str, images: str, column: int, metric: str, formula: Formula, *figures: _Figures, **settings: Any) -> Protocol:
    """One test: fit in disparity, floor it at 1 / cap, invert, score in depth (section 6)."""
    unit = 1.0 if metric == "abs_rel" else 0.01
    return Protocol(
        name=f"midas_{name}",
        source=f"{_PAPER}, section 6 and tables 4, 7, 9 to 11: {images}",
        metrics={metric: formula},
        published={model: {metric: row[column] * unit} for table in figures for model, row in table.items()},
        **{"accepts": kinds(Ambiguity.METRIC, Ambiguity.SCALE), "alignment": DISPARITY_FIT, **settings},
    )


def _tests() -> Iterator[Protocol]:
    whdr = WHDR(representation=Representation.DISPARITY).formula
    pairs: dict[str, Any] = {
        "accepts": kinds(Ambiguity.ORDINAL),
        "alignment": None,
        "space": Representation.DISPARITY,
    }
    both, delta = (_TABLE_11, _ABLATIONS), DeltaError(1.25).formula
    kitti = "161 images, those of the benchmark's validation that are in Eigen's test"
    yield _test("diw", "74,441 images of the test set", 0, "whdr", whdr, _TABLE_11, **pairs)
    yield _test("diw_train", "10,000 images of the training set", 0, "whdr", whdr, _ABLATIONS, **pairs)
    yield _test("eth3d", "454 images", 1, "abs_rel", AbsRel().formula, *both, max_depth=72.0)
    yield _test(
        "sintel",
        "1,064 images of the final pass",
        2,
        "abs_rel",
        AbsRel().formula,
        *both,
        max_depth=72.0,
        label_range=(0.0, 72.0),
    )
    lower = InputResize(384, "lower_bound")
    yield _test("kitti", kitti, 3, "delta1_error", delta, *both, max_depth=80.0, input=lower)
    yield _test("nyu", "654 test images", 4, "delta1_error", delta, *both, max_depth=10.0)
    yield _test("tum", "1,815 images of sequences with people", 5, "delta1_error", delta, *both, max_depth=10.0)


AFFINE = kinds(Ambiguity.METRIC, Ambiguity.SCALE) | {LabelKind(Ambiguity.SHIFT_SCALE, Representation.DISPARITY)}
"""Every label that can be read as disparity up to scale and shift."""
IN_DISPARITY: Mapping[str, Any] = MappingProxyType(
    {
        "accepts": AFFINE,
        "metrics": {"rmse": RMSE(signed=True).formula},
        "alignment": DISPARITY_FIT,
        "space": Representation.DISPARITY,
        "unit_labels": True,  # films have pixels, web photos shares of 255, and depth 1/m
    }
)
"""The RMSE of an affine disparity."""


def _held_out() -> Iterator[Protocol]:
    """Make the tests of figures 3 and 4, whose unit the paper does not state: here the range of each image's label."""
    images = {"redweb": "360 images", "megadepth": "2,963 images", "movies": "3,058 frames of two films"}
    for name, words in images.items():
        yield Protocol(
            name=f"midas_{name}",
            source=f"{_PAPER}, figures 3 and 4, without figures to compare with: {words} held out of a training set",
            **IN_DISPARITY,
        )


MIDAS_PROTOCOLS: tuple[Protocol, ...] = (*_tests(), *_held_out())
"""``midas_{diw,diw_train,eth3d,sintel,kitti,nyu,tum}``, and of what is held out ``midas_{redweb,megadepth,movies}``."""
