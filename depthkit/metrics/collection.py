"""The metrics that papers print side by side."""

from typing import Any, Protocol

from torchmetrics import Metric, MetricCollection

from depthkit.alignment import Alignment
from depthkit.metrics.delta import DeltaAccuracy
from depthkit.metrics.inverse import IRMSE
from depthkit.metrics.linear import MAE, RMSE, AbsRel, SqRel
from depthkit.metrics.logarithmic import Log10, RMSELog, SILog
from depthkit.metrics.metric import Reduction


class ScoringProtocol(Protocol):
    """What ``depth_metrics`` reads of an evaluation protocol."""

    @property
    def alignment(self) -> Alignment | None:
        """Fitted per image before scoring."""

    @property
    def reduction(self) -> Reduction | str:
        """``"image"`` or ``"pixel"``."""

    @property
    def min_depth(self) -> float:
        """Nearest depth of a prediction [m]; 0 does not cap."""

    @property
    def max_depth(self) -> float:
        """Farthest depth of a prediction [m]; infinity does not cap."""


def depth_metrics(protocol: ScoringProtocol | None = None, prefix: str = "") -> MetricCollection:
    """Make the customary metrics of depth, each in its most used variant, under one alignment and reduction.

    Args:
        protocol: says how to align, cap and reduce; None aligns and caps nothing and averages over images. The rest of an
            evaluation protocol (resizing, crop, range of labels) is the caller's, and belongs in ``preds`` and ``valid``.
        prefix: of the names, such as ``"val/"``.

    Returns:
        ``abs_rel sq_rel rmse rmse_log log10 silog irmse mae delta1 delta2 delta3``, where ``delta<k>`` is the accuracy at
        1.25^k; updated with ``(preds, target, valid)`` in depth [m]. BoundaryF1 is not among them: it needs dense labels.
    """
    settings: dict[str, Any] = {}
    if protocol is not None:
        settings = {"alignment": protocol.alignment, "reduction": protocol.reduction}
        settings["caps"] = (protocol.min_depth, protocol.max_depth)
    metrics: dict[str, Metric | MetricCollection] = {
        "abs_rel": AbsRel(**settings),
        "sq_rel": SqRel(**settings),
        "rmse": RMSE(**settings),
        "rmse_log": RMSELog(**settings),
        "log10": Log10(**settings),
        "silog": SILog(**settings),
        "irmse": IRMSE(**settings),
        "mae": MAE(**settings),
        "delta1": DeltaAccuracy(1.25, **settings),
        "delta2": DeltaAccuracy(1.25**2, **settings),
        "delta3": DeltaAccuracy(1.25**3, **settings),
    }
    return MetricCollection(metrics, prefix=prefix)
