"""The tests of Godard et al. 2019 (Monodepth2) on KITTI and Make3D.

Video alone leaves the scale open: models "M" are aligned by the ratio of medians, per image or once for the set. Stereo
fixes it: models "S" and "MS" are scored in metres as predicted. The released code multiplies those by 5.4, which is no
alignment but a unit: its stereo baseline of 0.54 m is called 0.1, and a model trained on metres needs no factor.

Of M's squared relative error the paper prints .919 in table 12 (pose networks) and .903 in its other tables of the same test.
The six other figures of the row are the same in all, so that it is one network, scored once: .903 is kept.
"""

from collections.abc import Iterator
from typing import Any

from depthkit.alignment import Alignment
from depthkit.evaluation.crops import CENTRE_MAKE3D, GARG, KB_CROP
from depthkit.evaluation.protocol import Protocol, kinds
from depthkit.metrics import IRMSE, RMSE, AbsRel, DeltaAccuracy, Formula, RMSELog, RMSELog10, SILog, SqRel
from depthkit.resize import InputResize, OutputResize
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
_EIGEN = f"{_PAPER}, tables 1, 2, 6 and 10 to 12; 697 images of Eigen et al., labels from the raw scans"
_IMPROVED = f"{_PAPER}, tables 7 and 8; 652 of these images with the labels of Uhrig et al. 2017"
_MAKE3D = f"{_PAPER}, table 3; 134 images cropped to 2:1 (C1), labels of 55x305"
_BENCH = (
    f"{_PAPER}, table 9; 500 images of KITTI's depth benchmark, whose labels only its server has; M with one scale, the median "
    "of 1,000 training images (`depthkit calibrate`)"
)
_METRES = "metres as predicted; the code's factor of 5.4 is the unit of its stereo baseline"

# Figures in the order of the metrics, None where the paper has none; "+ flip" is FlipAverage. Table 1, then 2, 6, 10, 11, 12.
_Figures = dict[str, tuple[float | None, ...]]
_M: _Figures = {
    "M": (0.115, 0.903, 4.863, 0.193, 0.877, 0.959, 0.981),
    "M without ImageNet": (0.132, 1.044, 5.142, 0.210, 0.845, 0.948, 0.977),
    "Zhou et al. 2017": (0.183, 1.595, 6.709, 0.270, 0.734, 0.902, 0.959),
    "Yang et al. 2018": (0.182, 1.481, 6.501, 0.267, 0.725, 0.906, 0.963),
    "Mahjourian et al. 2018": (0.163, 1.240, 6.220, 0.250, 0.762, 0.916, 0.968),
    "GeoNet": (0.149, 1.060, 5.567, 0.226, 0.796, 0.935, 0.975),
    "DDVO": (0.151, 1.257, 5.583, 0.228, 0.810, 0.936, 0.974),
    "DF-Net": (0.150, 1.124, 5.507, 0.223, 0.806, 0.933, 0.973),
    "LEGO": (0.162, 1.352, 6.276, 0.252),
    "Ranjan et al. 2019": (0.148, 1.149, 5.464, 0.226, 0.815, 0.935, 0.973),
    "EPC++ M": (0.141, 1.029, 5.350, 0.216, 0.816, 0.941, 0.976),
    "Struct2depth M": (0.141, 1.026, 5.291, 0.215, 0.816, 0.945, 0.979),
    "M + flip": (0.112, 0.851, 4.754, 0.190, 0.881, 0.960, 0.981),
    "M without ImageNet + flip": (0.129, 1.003, 5.072, 0.207, 0.848, 0.949, 0.978),
    "M, baseline": (0.140, 1.610, 5.512, 0.223, 0.852, 0.946, 0.973),
    "M, baseline + minimum reprojection": (0.122, 1.081, 5.116, 0.199, 0.866, 0.957, 0.980),
    "M, baseline + automask": (0.124, 0.936, 5.010, 0.206, 0.858, 0.952, 0.977),
    "M, baseline + full-resolution scales": (0.124, 1.170, 5.249, 0.203, 0.865, 0.953, 0.978),
    "M without minimum reprojection": (0.117, 0.878, 4.846, 0.196, 0.870, 0.957, 0.980),
    "M without automask": (0.120, 1.097, 5.074, 0.197, 0.872, 0.956, 0.979),
    "M without full-resolution scales": (0.117, 0.866, 4.864, 0.196, 0.871, 0.957, 0.981),
    "M without SSIM": (0.118, 0.853, 4.824, 0.198, 0.868, 0.956, 0.980),
    "M with a predicted mask": (0.123, 1.177, 5.210, 0.200, 0.869, 0.955, 0.978),
    "M, full Eigen split": (0.116, 0.918, 4.872, 0.193, 0.874, 0.959, 0.981),
    "M, ResNet-50": (0.110, 0.831, 4.642, 0.187, 0.883, 0.962, 0.982),
    "M, shared pose encoder": (0.125, 0.986, 5.070, 0.201, 0.857, 0.954, 0.979),
    "M, PoseCNN": (0.138, 1.122, 5.308, 0.209, 0.840, 0.950, 0.978),
    "M without ImageNet, baseline": (0.150, 1.585, 5.671, 0.234, 0.827, 0.938, 0.971),
    "M without ImageNet or automask": (0.138, 1.197, 5.369, 0.215, 0.842, 0.945, 0.975),
    "M without ImageNet or minimum reprojection": (0.133, 1.021, 5.219, 0.214, 0.841, 0.945, 0.976),
    "M without ImageNet or full-resolution scales": (0.131, 1.030, 5.206, 0.210, 0.846, 0.948, 0.978),
    "M, full Eigen split, baseline": (0.146, 1.876, 5.666, 0.230, 0.848, 0.945, 0.972),
    "M without ImageNet, ResNet-50": (0.131, 1.023, 5.064, 0.206, 0.849, 0.951, 0.979),
    "M, PoseCNN, 3 frames": (0.148, 1.211, 5.595, 0.219, 0.815, 0.942, 0.976),
    "M, shared pose encoder, 3 frames": (0.123, 1.031, 5.052, 0.199, 0.863, 0.954, 0.979),
    "M, own pose encoder, 3 frames": (0.115, 0.902, 4.847, 0.193, 0.877, 0.960, 0.981),
    "M without ImageNet, PoseCNN": (0.147, 1.164, 5.445, 0.221, 0.818, 0.940, 0.974),
    "M without ImageNet, PoseCNN, 3 frames": (0.147, 1.117, 5.403, 0.222, 0.815, 0.940, 0.976),
    "M without ImageNet, shared pose encoder": (0.149, 1.153, 5.567, 0.229, 0.807, 0.934, 0.972),
    "M without ImageNet, shared pose encoder, 3 frames": (0.145, 1.159, 5.482, 0.224, 0.818, 0.937, 0.973),
    "M without ImageNet, own pose encoder, 3 frames": (0.132, 1.017, 5.169, 0.211, 0.842, 0.947, 0.977),
}
_STEREO: _Figures = {
    "S": (0.109, 0.873, 4.960, 0.209, 0.864, 0.948, 0.975),
    "S without ImageNet": (0.130, 1.144, 5.485, 0.232, 0.831, 0.932, 0.968),
    "MS": (0.106, 0.818, 4.750, 0.196, 0.874, 0.957, 0.979),
    "MS without ImageNet": (0.127, 1.031, 5.266, 0.221, 0.836, 0.943, 0.974),
    "Garg et al. 2016": (0.152, 1.226, 5.849, 0.246, 0.784, 0.921, 0.967),
    "Monodepth, ResNet-50": (0.133, 1.142, 5.533, 0.230, 0.830, 0.936, 0.970),
    "StrAT": (0.128, 1.019, 5.403, 0.227, 0.827, 0.935, 0.971),
    "3Net, ResNet-50": (0.129, 0.996, 5.281, 0.223, 0.831, 0.939, 0.974),
    "3Net, VGG": (0.119, 1.201, 5.888, 0.208, 0.844, 0.941, 0.978),
    "UnDeepVO": (0.183, 1.730, 6.57, 0.268),
    "EPC++ MS": (0.128, 0.935, 5.011, 0.209, 0.831, 0.945, 0.979),
    "Eigen, trained on depth": (0.203, 1.548, 6.307, 0.282, 0.702, 0.890, 0.890),
    "Liu, trained on depth": (0.201, 1.584, 6.471, 0.273, 0.680, 0.898, 0.967),
    "Klodt, with depth and video": (0.166, 1.490, 5.998, None, 0.778, 0.919, 0.966),
    "AdaDepth, with depth": (0.167, 1.257, 5.578, 0.237, 0.771, 0.922, 0.971),
    "Kuznietsov, with depth and stereo": (0.113, 0.741, 4.621, 0.189, 0.862, 0.960, 0.986),
    "DVSO, with depth and stereo": (0.097, 0.734, 4.442, 0.187, 0.888, 0.958, 0.980),
    "SVSM FT, with depth and stereo": (0.094, 0.626, 4.252, 0.177, 0.891, 0.965, 0.984),
    "Guo, with depth and stereo": (0.096, 0.641, 4.095, 0.168, 0.892, 0.967, 0.986),
    "DORN, trained on depth": (0.072, 0.307, 2.727, 0.120, 0.932, 0.984, 0.994),
    "Zhan, with depth, video and stereo": (0.135, 1.132, 5.585, 0.229, 0.820, 0.933, 0.971),
    "S + flip": (0.108, 0.842, 4.891, 0.207, 0.866, 0.949, 0.976),
    "S without ImageNet + flip": (0.128, 1.089, 5.385, 0.229, 0.832, 0.934, 0.969),
    "MS + flip": (0.104, 0.786, 4.687, 0.194, 0.876, 0.958, 0.980),
    "MS without ImageNet + flip": (0.125, 1.000, 5.205, 0.218, 0.837, 0.944, 0.974),
}
_M_LARGE: _Figures = {
    "M": (0.115, 0.882, 4.701, 0.190, 0.879, 0.961, 0.982),
    "M + flip": (0.112, 0.838, 4.607, 0.187, 0.883, 0.962, 0.982),
}
_STEREO_LARGE: _Figures = {
    "S": (0.107, 0.849, 4.764, 0.201, 0.874, 0.953, 0.977),
    "S + flip": (0.105, 0.822, 4.692, 0.199, 0.876, 0.954, 0.977),
    "MS": (0.106, 0.806, 4.630, 0.193, 0.876, 0.958, 0.980),
    "MS + flip": (0.104, 0.775, 4.562, 0.191, 0.878, 0.959, 0.981),
    "SuperDepth + flip (1024x382)": (0.112, 0.875, 4.958, 0.207, 0.852, 0.947, 0.977),
}
_M_SMALL: _Figures = {"M": (0.128, 1.087, 5.171, 0.204, 0.855, 0.953, 0.978)}
_STEREO_SMALL: _Figures = {
    "S": (0.118, 0.971, 5.231, 0.218, 0.848, 0.943, 0.973),
    "MS": (0.118, 0.935, 5.119, 0.210, 0.852, 0.949, 0.976),
}
_M_IMPROVED: _Figures = {  # table 7, as are the stereo models below
    "M": (0.090, 0.545, 3.942, 0.137, 0.914, 0.983, 0.995),
    "M without ImageNet": (0.112, 0.715, 4.502, 0.167, 0.876, 0.967, 0.990),
    "Zhou et al. 2017": (0.176, 1.532, 6.129, 0.244, 0.758, 0.921, 0.971),
    "Mahjourian et al. 2018": (0.134, 0.983, 5.501, 0.203, 0.827, 0.944, 0.981),
    "GeoNet": (0.132, 0.994, 5.240, 0.193, 0.833, 0.953, 0.985),
    "DDVO": (0.126, 0.866, 4.932, 0.185, 0.851, 0.958, 0.986),
    "Ranjan et al. 2019": (0.123, 0.881, 4.834, 0.181, 0.860, 0.959, 0.985),
    "EPC++ M": (0.120, 0.789, 4.755, 0.177, 0.856, 0.961, 0.987),
}
_STEREO_IMPROVED: _Figures = {
    "S": (0.085, 0.537, 3.868, 0.139, 0.912, 0.979, 0.993),
    "S without ImageNet": (0.110, 0.849, 4.580, 0.173, 0.875, 0.962, 0.986),
    "MS": (0.080, 0.466, 3.681, 0.127, 0.926, 0.985, 0.995),
    "MS without ImageNet": (0.107, 0.720, 4.345, 0.161, 0.890, 0.971, 0.989),
    "Monodepth": (0.109, 0.811, 4.568, 0.166, 0.877, 0.967, 0.988),
    "3Net, VGG": (0.119, 0.920, 4.824, 0.182, 0.856, 0.957, 0.985),
    "3Net, ResNet-50": (0.102, 0.675, 4.293, 0.159, 0.881, 0.969, 0.991),
    "SuperDepth + flip": (0.090, 0.542, 3.967, 0.144, 0.901, 0.976, 0.993),
    "EPC++ MS": (0.123, 0.754, 4.453, 0.172, 0.863, 0.964, 0.989),
    "Zhan, with depth, video and stereo": (0.130, 1.520, 5.184, 0.205, 0.859, 0.955, 0.981),
}
_M_ONE_SCALE: _Figures = {  # table 8
    "M": (0.109, 0.623, 4.136, 0.154, 0.873, 0.977, 0.994),
    "Zhou et al. 2017": (0.258, 2.338, 7.040, 0.309, 0.601, 0.853, 0.940),
    "Mahjourian et al. 2018": (0.221, 1.663, 6.220, 0.265, 0.665, 0.892, 0.962),
    "GeoNet": (0.202, 1.521, 5.829, 0.244, 0.707, 0.913, 0.970),
    "Ranjan et al. 2019": (0.188, 1.298, 5.467, 0.232, 0.724, 0.927, 0.974),
    "EPC++ M": (0.153, 0.998, 5.080, 0.204, 0.805, 0.945, 0.982),
    "DDVO": (0.147, 1.014, 5.183, 0.204, 0.808, 0.946, 0.983),
}
_M_MAKE3D: _Figures = {  # table 3
    "M": (0.322, 3.589, 7.417, 0.163),
    "Zhou et al. 2017": (0.383, 5.321, 10.470, 0.478),
    "DDVO": (0.387, 4.720, 8.090, 0.204),
}
_METRIC_MAKE3D: _Figures = {
    "MS": (0.374, 3.792, 8.238, 0.201),
    "Monodepth": (0.544, 10.94, 11.760, 0.193),
    "Karsch et al. 2014": (0.428, 5.079, 8.389, 0.149),
    "Liu et al. 2014": (0.475, 6.562, 10.05, 0.165),
    "Laina et al. 2016": (0.204, 1.840, 5.683, 0.084),
}
_BENCHMARK: dict[str, tuple[float, ...]] = {  # table 9, in the order of the server
    "M": (15.57, 4.52, 12.98, 16.70),
    "MS": (15.07, 4.16, 11.64, 15.27),
    "MS, ResNet-50": (14.41, 3.67, 11.22, 14.73),
    "Monodepth": (22.02, 20.58, 17.79, 21.84),
    "DORN, trained on depth": (11.77, 2.23, 8.78, 12.98),
    "DABC, trained on depth": (14.49, 4.08, 12.72, 15.53),
    "APMoE, trained on depth": (14.74, 3.88, 11.74, 15.63),
    "CSWS, trained on depth": (14.85, 3.48, 11.84, 16.38),
    "DHGRL, trained on depth": (15.47, 4.04, 12.52, 15.72),
}
_SERVER: dict[str, Formula] = {
    "silog": SILog().formula,
    "sq_rel_percent": SqRel(variant="kitti").formula,
    "abs_rel": AbsRel().formula,
    "i_rmse": IRMSE(unit="1/km").formula,
}


def _test(name: str, source: str, figures: _Figures, **settings: Any) -> Protocol:
    """One table. Disparities are resized and then inverted.

    On Make3D the nearest pixel is that of the centre.
    """
    shared: dict[str, Any] = {
        "accepts": kinds(Ambiguity.METRIC),
        "metrics": SEVEN_METRICS,
        "min_depth": 1e-3,
        "max_depth": 80.0,
        "input": InputResize((192, 640), "stretch", interpolation="lanczos"),
        "output": OutputResize(Representation.DISPARITY),
        "min_valid": 1,
    }
    settings = {**shared, **settings}
    published = {
        model: {metric: x for metric, x in zip(settings["metrics"], row, strict=False) if x is not None}
        for model, row in figures.items()
    }
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
        ("_416", (128, 416), _M_SMALL, _STEREO_SMALL),
    ):
        resize = InputResize(size, "stretch", interpolation="lanczos")
        yield _test(f"eigen{suffix}", _EIGEN, video, alignment=MEDIAN_FIT, input=resize, **eigen)
        yield _test(f"eigen_metric{suffix}", f"{_EIGEN}; {_METRES}", stereo, input=resize, **eigen)
    yield _test("improved", _IMPROVED, _M_IMPROVED, alignment=MEDIAN_FIT)
    yield _test("improved_one_scale", f"{_IMPROVED}; one scale for all", _M_ONE_SCALE, alignment=MEDIAN_FIT, scale_of="set")
    yield _test("improved_metric", f"{_IMPROVED}; {_METRES}", _STEREO_IMPROVED)
    yield _test("make3d", _MAKE3D, _M_MAKE3D, alignment=MEDIAN_FIT, **make3d)
    yield _test("make3d_metric", f"{_MAKE3D}; {_METRES}", _METRIC_MAKE3D, **make3d)
    benchmark: _Figures = {model: (a, b, c / 100, d) for model, (a, b, c, d) in _BENCHMARK.items()}
    yield _test("benchmark", f"{_BENCH}; {_METRES}", benchmark, metrics=_SERVER, min_depth=0.0, shown=KB_CROP)


MONODEPTH2_PROTOCOLS: tuple[Protocol, ...] = tuple(_tests())
"""``monodepth2_eigen[_metric][_1024|_416]``, ``monodepth2_improved[_one_scale|_metric]``, ``monodepth2_make3d[_metric]``,
``monodepth2_benchmark``."""
