"""The zero-shot tests of Romanov et al. 2020 (GP2), with one factor per image (UTS) and with a factor and an offset (UTSS).

The two differ in what is interpolated and what is fitted: UTS resizes log-disparity and takes the median of the differences
of logarithms, which minimises their absolute error; UTSS resizes disparity and fits it by least squares, as MiDaS does.
"""

from collections.abc import Iterator
from typing import Any

from depthkit.alignment import Alignment
from depthkit.evaluation.crops import BORDER_NYU
from depthkit.evaluation.protocol import Protocol, kinds
from depthkit.metrics import WHDR, AbsRel, DeltaError, Formula, Log10
from depthkit.resize import InputResize, OutputResize
from depthkit.types import Ambiguity, Representation

UTS_FIT = Alignment("scale", "log_l1")
LOG_RESIZE = OutputResize(Representation.LOG_DISPARITY)
_UTSS_FIT = Alignment("scale_shift", "least_squares", space=Representation.DISPARITY)
_INPUT = InputResize(384, "lower_bound", interpolation="bilinear")  # not antialiased, as OpenCV's
_PAPER = "Romanov et al., Towards General Purpose Geometry-Preserving Single-View Depth Estimation, arXiv 2009.12419"
_CODE = "released code (SamsungLabs/geometry-preserving-de)"
_METRICS: dict[str, Formula] = {
    "delta1_error": DeltaError(1.25).formula,
    "abs_rel": AbsRel().formula,
    "log10": Log10().formula,
}

# One row per model: NYU and TUM delta > 1.25 [%], ETH3D and Sintel AbsRel, DIW WHDR [%].
_Figures = dict[str, tuple[float, float, float, float, float]]
_UTS_FIGURES: _Figures = {  # tables 3 and 4
    "Li & Snavely 2018": (34.39, 33.11, 0.276, 0.490, 24.55),
    "Mannequin Challenge": (23.42, 22.39, 0.249, 0.431, 26.52),
    "Tiefenrausch": (32.8, 35.4, 0.314, 0.497, 25.54),
    "MN-LRN": (14.64, 15.13, 0.191, 0.360, 15.02),
    "Lite0-LRN": (14.15, 14.41, 0.177, 0.354, 14.59),
    "B0-LRN": (13.84, 15.95, 0.168, 0.330, 13.15),
    "B1-LRN": (12.80, 15.03, 0.179, 0.315, 12.71),
    "B2-LRN": (13.04, 15.36, 0.168, 0.304, 13.06),
    "B3-LRN": (12.35, 14.38, 0.176, 0.343, 12.95),
    "B4-LRN": (11.92, 13.55, 0.164, 0.346, 12.81),
    "B5-LRN": (10.64, 13.05, 0.154, 0.328, 12.56),
    "MN-LRN, UTS data only": (15.38, 17.78, 0.193, 0.432, 21.49),
    "Lite0-LRN, UTS data only": (14.15, 16.99, 0.191, 0.428, 19.70),
}
_UTSS_FIGURES: _Figures = {  # table 5
    "MiDaS v2": (9.55, 14.29, 0.167, 0.327, 12.46),
    "MN-LRN": (10.97, 14.22, 0.177, 0.292, 15.02),
    "B5-LRN": (7.40, 9.86, 0.145, 0.253, 12.56),
}
# Table 2: MN-LRN trained and tested on NYU; delta > 1.25 [%], AbsRel [%], log10.
_TRAINED_ON_NYU = {
    "MN-LRN trained on NYU, L1 pairwise": (9.27, 9.16, 0.0388),
    "MN-LRN trained on NYU, L2 pairwise": (9.97, 9.47, 0.0402),
    "MN-LRN trained on NYU, L1 pointwise": (9.65, 9.36, 0.0397),
    "MN-LRN trained on NYU, L1 pointwise absolute": (10.36, 9.91, 0.0419),
    "MN-LRN trained on NYU, L2 pointwise absolute": (11.37, 10.43, 0.0446),
}


def _published(figures: _Figures, column: int, metric: str) -> dict[str, dict[str, float]]:
    unit = 1.0 if metric == "abs_rel" else 0.01
    return {model: {metric: row[column] * unit} for model, row in figures.items()}


def _dense(tests: str, figures: _Figures, table: str, **settings: Any) -> Iterator[Protocol]:
    """Make the four dense tests under one alignment."""
    shared: dict[str, Any] = {
        "accepts": kinds(Ambiguity.METRIC, Ambiguity.SCALE),
        "metrics": _METRICS,
        "input": _INPUT,
        "min_valid": 11,  # the code skips images with 10 valid pixels or fewer
        **settings,
    }

    def test(name: str, cap: float, column: int, metric: str, note: str, **more: Any) -> Protocol:
        caps: dict[str, Any] = {"max_depth": cap} if tests == "utss" else {}  # a UTS prediction is not capped: only labels are
        source = f"{_PAPER}, {table}: {note}"
        figures_of_test = {**_published(figures, column, metric), **more.pop("also", {})}
        return Protocol(
            f"gp2_{tests}_{name}", source, label_range=(0, cap), published=figures_of_test, **caps, **more, **shared
        )

    trained = {m: {"delta1_error": d / 100, "abs_rel": r / 100, "log10": x} for m, (d, r, x) in _TRAINED_ON_NYU.items()}
    also = trained if tests == "uts" else {}
    yield test(
        "nyu", 10.0, 0, "delta1_error", "raw depth of the 654 test images, holes not scored", shown=BORDER_NYU, also=also
    )
    yield test("tum", 10.0, 1, "delta1_error", "1,815 images as prepared by Li et al. 2019")
    yield test("eth3d", 72.0, 2, "abs_rel", f"depth rendered anew at 1/4 resolution by the {_CODE}; not MiDaS's ETH3D")
    yield test("sintel", 80.0, 3, "abs_rel", "1,064 frames of the final pass; cap as printed")
    count = "1,045 images, the number printed, have a label nearer than that"
    yield test("sintel_released", 72.0, 3, "abs_rel", f"cap of the {_CODE}; {count}")


GP2_PROTOCOLS: tuple[Protocol, ...] = (
    *_dense("uts", _UTS_FIGURES, "tables 2 to 4", alignment=UTS_FIT, output=LOG_RESIZE),
    *_dense("utss", _UTSS_FIGURES, "table 5", alignment=_UTSS_FIT, output=OutputResize(Representation.DISPARITY)),
    Protocol(
        name="gp2_diw",
        source=f"{_PAPER}, tables 3 and 5; 74,441 images, of two equal values the first is taken as closer ({_CODE})",
        accepts=kinds(Ambiguity.ORDINAL),
        metrics={"whdr": WHDR(representation=Representation.DISPARITY, tie=1).formula},
        space=Representation.DISPARITY,
        input=_INPUT,
        published={**_published(_UTSS_FIGURES, 4, "whdr"), **_published(_UTS_FIGURES, 4, "whdr")},
    ),
)
"""Every protocol of the paper: ``gp2_{uts,utss}_{nyu,tum,eth3d,sintel,sintel_released}`` and ``gp2_diw``."""
