"""Metrics of predicted depth: ``torchmetrics`` classes, and functions in ``depthkit.metrics.functional``.

Depth in metres in, argument order ``preds, target, valid``; every class takes ``reduction="image"|"pixel"`` and, for depth
maps, ``alignment=``. To add a metric, subclass ``PixelMean`` (what to average) and ``DepthMetric`` (its name).
"""

from depthkit.alignment import Alignment
from depthkit.metrics import functional
from depthkit.metrics.boundaries.boundary_f1 import BoundaryF1
from depthkit.metrics.boundaries.depth_boundary_error import DepthBoundaryError
from depthkit.metrics.collection import depth_metrics
from depthkit.metrics.delta import DeltaAccuracy, DeltaError
from depthkit.metrics.formula import Formula, PixelMean, RootPixelMean
from depthkit.metrics.inverse import IMAE, IRMSE
from depthkit.metrics.linear import MAE, RMSE, AbsRel, SqRel
from depthkit.metrics.logarithmic import Log10, LogMAE, RMSELog, RMSELog10, SILog
from depthkit.metrics.metric import DepthMetric, FormulaMetric, Reduction
from depthkit.metrics.ordinal import WHDR
from depthkit.metrics.planes import PlanarityError, PlaneOrientationError
from depthkit.metrics.point_cloud import PointCloudFScore
from depthkit.metrics.temporal import FlowWarpedError, TemporalAlignmentError
from depthkit.metrics.trajectory import TrajectoryError
from depthkit.metrics.uncertainty.calibration import CalibrationCurve, CalibrationError
from depthkit.metrics.uncertainty.sparsification import AUSE, SparsificationCurve

__all__ = [
    "AUSE",
    "IMAE",
    "IRMSE",
    "MAE",
    "RMSE",
    "WHDR",
    "AbsRel",
    "Alignment",
    "BoundaryF1",
    "CalibrationCurve",
    "CalibrationError",
    "DeltaAccuracy",
    "DeltaError",
    "DepthBoundaryError",
    "DepthMetric",
    "FlowWarpedError",
    "Formula",
    "FormulaMetric",
    "Log10",
    "LogMAE",
    "PixelMean",
    "PlanarityError",
    "PlaneOrientationError",
    "PointCloudFScore",
    "RMSELog",
    "RMSELog10",
    "Reduction",
    "RootPixelMean",
    "SILog",
    "SparsificationCurve",
    "SqRel",
    "TemporalAlignmentError",
    "TrajectoryError",
    "depth_metrics",
    "functional",
]
