"""The five zero-shot sets of Ke et al. 2024 (Marigold), on which affine-invariant diffusion models are compared.

Their code fits scale and shift per image by least squares and clips to the set's range. It offers two spaces to fit in: depth,
``least_square``, for models that predict depth like Marigold, and disparity, ``least_square_disparity``, for models like MiDaS
and Depth Anything. The latter leaves pixels whose prediction is not positive out of the fit, though not out of the score;
``..._disparity_all`` fits them, too. All are here, and without a fit, for models that predict metres such as MetricGold.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from depthkit.alignment import Alignment
from depthkit.evaluation.crops import EIGEN_KITTI_IN_KB, EIGEN_NYU, FULL, KB_CROP, Crop
from depthkit.evaluation.protocol import Protocol, kinds
from depthkit.metrics import IRMSE, RMSE, AbsRel, DeltaAccuracy, Formula, Log10, RMSELog, SILog, SqRel
from depthkit.resize import InputResize, OutputResize
from depthkit.types import Ambiguity, Representation

_PAPER = "Ke et al., Repurposing Diffusion-Based Image Generators for Monocular Depth Estimation, CVPR 2024"
_FIGURES = (
    "figures: Martin Garcia et al., Fine-Tuning Image-Conditional Diffusion Models is Easier than You Think, WACV 2025, "
    "tables 1 and 5, by the same code"
)
_METRICS: dict[str, Formula] = {
    "abs_rel": AbsRel().formula,
    "sq_rel": SqRel().formula,
    "rmse": RMSE().formula,
    "rmse_log": RMSELog().formula,
    "log10": Log10().formula,
    "delta1": DeltaAccuracy(1.25).formula,
    "delta2": DeltaAccuracy(1.25**2).formula,
    "delta3": DeltaAccuracy(1.25**3).formula,
    "i_rmse": IRMSE(unit="1/m").formula,
    "silog": SILog().formula,
}
_IN_DEPTH = Alignment("scale_shift", "least_squares", space=Representation.DEPTH)
_IN_DISPARITY = Alignment("scale_shift", "least_squares", space=Representation.DISPARITY, positive=True)
_NATIVE = InputResize(rule="native", multiple=8, interpolation="bilinear", antialias=True)
_FARTHEST = 1000.0  # [m] of an inverted prediction: the code's floor of an aligned disparity is 0.001 1/m


def _long_side(pixels: int) -> InputResize:
    return InputResize(pixels, "upper_bound", multiple=8, interpolation="bilinear", antialias=True)


# Images, range of depth [m], what is scored, what is shown, and the size at which the released scripts run the network.
_SETS: Mapping[str, tuple[str, tuple[float, float], Crop, Crop, InputResize]] = {
    "nyu": ("654 test images, filled depth", (1e-3, 10.0), EIGEN_NYU, FULL, _NATIVE),
    "kitti": ("652 of Eigen's test images, improved labels", (1e-5, 80.0), EIGEN_KITTI_IN_KB, KB_CROP, _NATIVE),
    "eth3d": ("454 images of 4032x6048", (1e-5, torch.inf), FULL, FULL, _long_side(756)),
    "scannet": ("800 images drawn from the validation scenes", (1e-3, 10.0), FULL, FULL, _NATIVE),
    "diode": ("325 indoor and 446 outdoor validation images", (0.6, 350.0), FULL, FULL, _long_side(640)),
}
# AbsRel and delta 1, both in per cent as printed, in the order of _SETS.
_Figures = Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]]
_LEAST_SQUARE: _Figures = {
    "Marigold, 50 steps, ensemble of 10": ((5.5, 9.9, 6.5, 6.4, 30.8), (96.4, 91.6, 96.0, 95.1, 77.3)),
    "Marigold, 50 steps": ((6.0, 10.5, 7.1, 6.9, 31.0), (95.9, 90.4, 95.1, 94.5, 77.2)),
    "Marigold LCM, 4 steps, ensemble of 5": ((6.2, 9.9, 6.9, 7.0, 30.9), (95.6, 91.7, 95.5, 94.5, 77.6)),
    "Marigold LCM, 1 step": ((6.5, 10.7, 7.5, 7.6, 31.5), (95.4, 89.9, 94.5, 93.8, 76.3)),
    "Marigold, 1 step, trailing": ((5.7, 10.8, 6.9, 6.6, 31.1), (96.2, 89.6, 95.5, 95.2, 76.8)),
    "Marigold + E2E fine-tuning": ((5.2, 9.6, 6.2, 5.8, 30.2), (96.6, 91.9, 95.9, 96.2, 77.9)),
    "Stable Diffusion + E2E fine-tuning": ((5.4, 9.6, 6.4, 5.8, 30.3), (96.5, 92.1, 95.9, 96.5, 77.6)),
    "GeoWizard (reproduced)": ((5.7, 14.4, 7.5, 6.1, 31.4), (96.2, 82.0, 94.3, 95.8, 77.1)),
    "DepthFM (reproduced)": ((6.9, 11.4, 6.5, 8.1, 25.0), (95.4, 88.1, 96.2, 92.5, 78.3)),
    "MiDaS (fit not stated)": ((11.1, 23.6, 18.4, 12.1, 33.2), (88.5, 63.0, 75.2, 84.6, 71.5)),
    "LeReS (fit not stated)": ((9.0, 14.9, 17.1, 9.1, 27.1), (91.6, 78.4, 77.7, 91.7, 76.6)),
    "Omnidata v1 (fit not stated)": ((7.4, 14.9, 16.6, 7.5, 33.9), (94.5, 83.5, 77.8, 93.6, 74.2)),
    "HDN (fit not stated)": ((6.9, 11.5, 12.1, 8.0, 24.6), (94.8, 86.7, 83.3, 93.9, 78.0)),
    "DPT (fit not stated)": ((9.8, 10.0, 7.8, 8.2, 18.2), (90.3, 90.1, 94.6, 93.4, 75.8)),
}


def _tests() -> Iterator[Protocol]:
    for column, (name, (images, (near, far), crop, shown, size)) in enumerate(_SETS.items()):
        shared: dict[str, Any] = {
            "metrics": _METRICS,
            "min_depth": near,
            "label_range": (near, far),
            "crop": crop,
            "shown": shown,
            "input": size,
            "min_valid": 1,
        }
        anything = kinds(Ambiguity.METRIC, Ambiguity.SCALE)
        source = f"{_PAPER}: {images}"
        yield Protocol(
            f"marigold_{name}",
            f"{source}; alignment least_square; {_FIGURES}",
            anything,
            alignment=_IN_DEPTH,
            max_depth=far,
            output=OutputResize(Representation.DEPTH),
            published=_column(column),
            **shared,
        )
        in_disparity = Protocol(
            f"marigold_{name}_disparity",
            f"{source}; alignment least_square_disparity, without figures",
            anything,
            alignment=_IN_DISPARITY,
            max_depth=min(far, _FARTHEST),
            output=OutputResize(Representation.DISPARITY),
            **shared,
        )
        yield in_disparity
        yield replace(
            in_disparity,
            name=f"marigold_{name}_disparity_all",
            source=f"{source}; depthkit: as least_square_disparity, but fitted over all pixels, without figures",
            alignment=replace(_IN_DISPARITY, positive=False),
        )
        yield Protocol(
            f"marigold_{name}_metric",
            f"{source}; depthkit: the same pixels and ranges in metres as predicted, without a fit",
            kinds(Ambiguity.METRIC),
            max_depth=far,
            **shared,
        )


def _column(column: int) -> dict[str, dict[str, float]]:
    return {
        model: {"abs_rel": errors[column] / 100, "delta1": shares[column] / 100}
        for model, (errors, shares) in _LEAST_SQUARE.items()
    }


MARIGOLD_PROTOCOLS: tuple[Protocol, ...] = tuple(_tests())
"""``marigold_{nyu,kitti,eth3d,scannet,diode}[_disparity|_disparity_all|_metric]``."""
