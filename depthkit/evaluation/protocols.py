"""The protocols by name. To add a benchmark, add an entry."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from depthkit.errors import RecipeError
from depthkit.evaluation.protocol import Protocol, kinds
from depthkit.evaluation.protocols_depth_anything import DEPTH_ANYTHING_PROTOCOLS
from depthkit.evaluation.protocols_gp2 import GP2_PROTOCOLS, LOG_RESIZE, UTS_FIT
from depthkit.evaluation.protocols_monodepth2 import MEDIAN_FIT, MONODEPTH2_PROTOCOLS
from depthkit.evaluation.resize import InputResize, OutputResize
from depthkit.metrics import RMSE, WHDR, AbsRel, Alignment, DeltaAccuracy, DeltaError, Formula, Log10, RMSELog, SILog, SqRel
from depthkit.types import Ambiguity, Representation

_DENSE = kinds(Ambiguity.METRIC, Ambiguity.SCALE)
_METRIC = kinds(Ambiguity.METRIC)
_DISPARITY_FIT = Alignment("scale_shift", "least_squares", space=Representation.DISPARITY)

_USUAL: Mapping[str, Formula] = MappingProxyType(
    {
        "abs_rel": AbsRel().formula,
        "rmse": RMSE().formula,
        "rmse_log": RMSELog().formula,
        "silog": SILog().formula,
        "delta1": DeltaAccuracy(1.25).formula,
        "delta2": DeltaAccuracy(1.25**2).formula,
        "delta3": DeltaAccuracy(1.25**3).formula,
    }
)

# Ranftl et al. 2022, tables 6 and 10, and the release notes of v2.1 to v3.1 (section "Accuracy"), in the paper's order:
# DIW WHDR [%], ETH3D AbsRel, Sintel AbsRel, and KITTI, NYU, TUM delta > 1.25 [%]. KITTI and NYU are not zero-shot for v3.1.
_MIDAS_FIGURES = {
    "MiDaS v2 (MIX 5, Pareto)": (12.46, 0.129, 0.327, 23.90, 9.55, 14.29),
    "MiDaS v2 (MIX 5, ResNet-50)": (12.48, 0.155, 0.330, 21.81, 15.73, 17.00),
    "MiDaS v2.1 large 384": (12.95, 0.1155, 0.3285, 16.08, 8.71, 12.51),
    "MiDaS v2.1 small 256": (13.44, 0.1344, 0.3370, 29.27, 13.43, 14.53),
    "MiDaS v3.0 DPT-L 384": (10.82, 0.0888, 0.2697, 8.46, 8.32, 9.97),
    "MiDaS v3.0 DPT-H 384": (11.06, 0.0934, 0.2741, 11.56, 8.69, 10.89),
    "MiDaS v3.1 BEiT-L-512 at 384": (12.45, 0.0681, 0.2176, 6.28, 2.16, 6.13),
}


def _midas(name: str, column: int, metric: str, formula: Formula, **settings: Any) -> Protocol:
    """One of MiDaS's six zero-shot tests: fit in disparity, floor it at 1 / cap, invert, score in depth (section 6)."""
    unit = 1.0 if metric == "abs_rel" else 0.01
    return Protocol(
        name=f"midas_{name}",
        source="Ranftl et al., Towards Robust Monocular Depth Estimation, TPAMI 44(3) 2022, section 6",
        metrics={metric: formula},
        published={model: {metric: figures[column] * unit} for model, figures in _MIDAS_FIGURES.items()},
        **{"accepts": _DENSE, "alignment": _DISPARITY_FIT, **settings},
    )


def _on_scenes(name: str, rule: str, **settings: Any) -> tuple[Protocol, Protocol]:
    """Tests of our own: on images of the size that a network was trained at, and on any image for small networks."""
    scored = f"{rule}, sky and all beyond 80 m not scored"
    common: dict[str, Any] = {"metrics": _USUAL, "label_range": (0.0, 80.0), **settings}
    small = InputResize((192 * 256) ** 0.5, rule="area", antialias=True)
    return (
        Protocol(
            name=f"synthetic_{name}",
            source=f"depthkit: unseen scenes, {scored}",
            input=InputResize(rule="native"),
            **common,
        ),
        Protocol(
            name=f"small_{name}",
            source=f"depthkit: any image shown with the pixels of 192x256, {scored}",
            input=small,
            **common,
        ),
    )


def _by_name(*protocols: Protocol) -> Mapping[str, Protocol]:
    return MappingProxyType({protocol.name: protocol for protocol in protocols})


PROTOCOLS: Mapping[str, Protocol] = _by_name(
    _midas(
        "diw",
        0,
        "whdr",
        WHDR(representation=Representation.DISPARITY).formula,
        accepts=kinds(Ambiguity.ORDINAL),
        alignment=None,
        space=Representation.DISPARITY,
    ),
    _midas("eth3d", 1, "abs_rel", AbsRel().formula, max_depth=72.0),
    _midas("sintel", 2, "abs_rel", AbsRel().formula, max_depth=72.0, label_range=(0.0, 72.0)),
    _midas("kitti", 3, "delta1_error", DeltaError(1.25).formula, max_depth=80.0, input=InputResize(384, "lower_bound")),
    _midas("nyu", 4, "delta1_error", DeltaError(1.25).formula, max_depth=10.0),
    _midas("tum", 5, "delta1_error", DeltaError(1.25).formula, max_depth=10.0),
    *GP2_PROTOCOLS,
    *MONODEPTH2_PROTOCOLS,
    *DEPTH_ANYTHING_PROTOCOLS,
    *_on_scenes(
        "affine", "scale and shift in disparity fitted per image", accepts=_DENSE, alignment=_DISPARITY_FIT, max_depth=80.0
    ),
    *_on_scenes(
        "scale",
        "one factor per image fitted as in GP2's UTS tests",
        accepts=_DENSE,
        metrics={**_USUAL, "log10": Log10().formula},
        alignment=UTS_FIT,
        output=LOG_RESIZE,
    ),
    *_on_scenes(
        "median",
        "ratio of medians per image as Monodepth2's",
        accepts=_DENSE,
        metrics={**_USUAL, "sq_rel": SqRel().formula},
        alignment=MEDIAN_FIT,
        min_depth=0.001,
        max_depth=80.0,
        output=OutputResize(Representation.DISPARITY),
    ),
    *_on_scenes("metric", "metres as predicted", accepts=_METRIC, min_depth=0.001, max_depth=80.0),
)


def find_protocol(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        RecipeError: there is none.
    """
    if name not in PROTOCOLS:
        raise RecipeError(f"unknown protocol {name!r}; expected one of {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]
