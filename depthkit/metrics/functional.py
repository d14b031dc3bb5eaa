"""The metrics as functions: maps in, one number per image out, ``(B,)``."""

from depthkit.metrics.boundaries.boundary_f1 import boundary_f1
from depthkit.metrics.boundaries.depth_boundary_error import depth_boundary_error
from depthkit.metrics.delta import delta_accuracy, delta_error
from depthkit.metrics.inverse import imae, irmse
from depthkit.metrics.linear import abs_rel, mae, rmse, sq_rel
from depthkit.metrics.logarithmic import log10, log_mae, rmse_log, rmse_log10, silog
from depthkit.metrics.ordinal import whdr
from depthkit.metrics.planes import planarity_error, plane_orientation_error
from depthkit.metrics.point_cloud import point_cloud_fscore
from depthkit.metrics.temporal import flow_warped_error, temporal_alignment_error
from depthkit.metrics.trajectory import trajectory_error
from depthkit.metrics.uncertainty.calibration import calibration_curve, calibration_error
from depthkit.metrics.uncertainty.sparsification import ause, sparsification_curve

__all__ = [
    "abs_rel",
    "ause",
    "boundary_f1",
    "calibration_curve",
    "calibration_error",
    "delta_accuracy",
    "delta_error",
    "depth_boundary_error",
    "flow_warped_error",
    "imae",
    "irmse",
    "log10",
    "log_mae",
    "mae",
    "planarity_error",
    "plane_orientation_error",
    "point_cloud_fscore",
    "rmse",
    "rmse_log",
    "rmse_log10",
    "silog",
    "sparsification_curve",
    "sq_rel",
    "temporal_alignment_error",
    "trajectory_error",
    "whdr",
]
