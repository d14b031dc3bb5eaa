"""The tests of Godard et al. 2019 (Monodepth2) on KITTI and Make3D.

Video alone leaves the scale open: models "M" are aligned by the ratio of medians, per image or once for the set. Stereo
fixes it: models "S" and "MS" are scored in metres as predicted. The released code multiplies those by 5.4, which is no
alignment but a unit: its stereo baseline of 0.54 m is called 0.1, and a model trained on metres needs no factor.
"""

from collections.abc import Iterator
from typing import Any

from depthkit.evaluation.crops import CENTRE_MAKE3D, GARG
from depthkit.evaluation.protocol import Protocol, kinds
from depthkit.evaluation.resize import InputResize, OutputResize
from depthkit.metrics import RMSE, AbsRel, Alignment, DeltaAccuracy, Formula, RMSELog, RMSELog10, SqRel
from depthkit.types import Ambiguity, Representation

MEDIAN_FIT = Alignment("scale", "ratio_of_medians")
SEVEN_METRICS: dict[str, Formula] = {
    "abs_rel": AbsRel().formula,
    "sq_rel": SqRel().formula,
    "rmse": RMSE().formula,
    "rmse_log": RMSELog().formula,
    "delta1": DeltaAccuracy(1.25).formula,
    "delta2": DeltaAccuracy(1.25**2).formula,
    "delta3": DeltaAccuracy(1.25**3).formula,
}
_FOUR_METRICS: dict[str, Formula] = {
    **{name: SEVEN_METRICS[name] for name in ("abs_rel", "sq_rel", "rmse")},
    "rmse_log10": RMSELog10().formula,
}
_PAPER = "Godard et al., Digging Into Self-Supervised Monocular Depth Estimation, ICCV 2019"
_EIGEN = f"{_PAPER}; 697 images of Eigen et al., labels from the raw scans"
_IMPROVED = f"{_PAPER}; 652 of these images with the labels of Uhrig et al. 2017"
_MAKE3D = f"{_PAPER}; 134 images cropped to 2:1 (C1), labels of 55x305"
_METRES = "metres as predicted; the code's factor of 5.4 is the unit of its stereo baseline"

# Figures in the order of SEVEN_METRICS; "+ flip" is FlipAverage, of which the paper's text names three.
_Figures = dict[str, tuple[float, ...]]
_M: _Figures = {
    "M": (0.115, 0.903, 4.863, 0.193, 0.877, 0.959, 0.981),
    "M without ImageNet": (0.132, 1.044, 5.142, 0.210, 0.845, 0.948, 0.977),
    "M + flip": (0.112, 0.851, 4.754),
}
_STEREO: _Figures = {
    "S": (0.109, 0.873, 4.960, 0.209, 0.864, 0.948, 0.975),
    "S without ImageNet": (0.130, 1.144, 5.485, 0.232, 0.831, 0.932, 0.968),
    "S + flip": (0.108, 0.842, 4.891),
    "MS": (0.106, 0.818, 4.750, 0.196, 0.874, 0.957, 0.979),
    "MS without ImageNet": (0.127, 1.031, 5.266, 0.221, 0.836, 0.943, 0.974),
    "MS + flip": (0.104, 0.786, 4.687),
}
_M_LARGE: _Figures = {"M": (0.115, 0.882, 4.701, 0.190, 0.879, 0.961, 0.982)}
_STEREO_LARGE: _Figures = {
    "S": (0.107, 0.849, 4.764, 0.201, 0.874, 0.953, 0.977),
    "MS": (0.106, 0.806, 4.630, 0.193, 0.876, 0.958, 0.980),
}
_M_IMPROVED: _Figures = {"M": (0.090, 0.545, 3.942, 0.137, 0.914, 0.983, 0.995)}
_M_ONE_SCALE: _Figures = {"M": (0.109, 0.623, 4.136, 0.154, 0.873, 0.977, 0.994)}
_STEREO_IMPROVED: _Figures = {
    "S": (0.085, 0.537, 3.868, 0.139, 0.912, 0.979, 0.993),
    "MS": (0.080, 0.466, 3.681, 0.127, 0.926, 0.985, 0.995),
}
_M_MAKE3D: _Figures = {"M": (0.322, 3.589, 7.417, 0.163)}
_MS_MAKE3D: _Figures = {"MS": (0.374, 3.792, 8.238, 0.201)}


def _test(name: str, source: str, figures: _Figures, **settings: Any) -> Protocol:
    """One table. Disparities are resized and then inverted.

    The code stretches images by Lanczos, here it is antialiased bicubic. On Make3D the nearest pixel is that of the centre.
    """
    shared: dict[str, Any] = {
        "accepts": kinds(Ambiguity.METRIC),
        "metrics": SEVEN_METRICS,
        "min_depth": 1e-3,
        "max_depth": 80.0,
        "input": InputResize((192, 640), "stretch", antialias=True),
        "output": OutputResize(Representation.DISPARITY),
        "min_valid": 1,
    }
    settings = {**shared, **settings}
    published = {model: dict(zip(settings["metrics"], row, strict=False)) for model, row in figures.items()}
    return Protocol(f"monodepth2_{name}", source, published=published, **settings)


def _tests() -> Iterator[Protocol]:
    eigen: dict[str, Any] = {"label_range": (1e-3, 80.0), "crop": GARG}
    make3d: dict[str, Any] = {
        "metrics": _FOUR_METRICS,
        "label_range": (0.0, 70.0),
        "min_depth": 0.0,
        "max_depth": 70.0,
        "shown": CENTRE_MAKE3D,
        "output": OutputResize(Representation.DISPARITY, "nearest"),
        "coarse_labels": True,
    }
    for suffix, size, video, stereo in (
        ("", (192, 640), _M, _STEREO),
        ("_1024", (320, 1024), _M_LARGE, _STEREO_LARGE),
    ):
        resize = InputResize(size, "stretch", antialias=True)
        yield _test(f"eigen{suffix}", _EIGEN, video, alignment=MEDIAN_FIT, input=resize, **eigen)
        yield _test(f"eigen_metric{suffix}", f"{_EIGEN}; {_METRES}", stereo, input=resize, **eigen)
    yield _test("improved", _IMPROVED, _M_IMPROVED, alignment=MEDIAN_FIT)
    yield _test("improved_one_scale", f"{_IMPROVED}; one scale for all", _M_ONE_SCALE, alignment=MEDIAN_FIT, scale_of="set")
    yield _test("improved_metric", f"{_IMPROVED}; {_METRES}", _STEREO_IMPROVED)
    yield _test("make3d", _MAKE3D, _M_MAKE3D, alignment=MEDIAN_FIT, **make3d)
    yield _test("make3d_metric", f"{_MAKE3D}; {_METRES}", _MS_MAKE3D, **make3d)


MONODEPTH2_PROTOCOLS: tuple[Protocol, ...] = tuple(_tests())
"""``monodepth2_eigen[_metric][_1024]``, ``monodepth2_improved[_one_scale|_metric]``, ``monodepth2_make3d[_metric]``."""
