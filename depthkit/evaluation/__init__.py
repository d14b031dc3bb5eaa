"""Score predictions under named, cited protocols, and draw them.

``evaluate(predict, samples, PROTOCOLS["midas_kitti"])`` serves any callable on an image; ``ProtocolMetrics`` is the same code
in a ``validation_step``. To add a benchmark, add a file to ``evaluation.protocols`` and its entry to the registry there.
"""

from depthkit.evaluation.baselines import RowBaseline, best_row_baseline
from depthkit.evaluation.compare import PairedReport, compare_reports
from depthkit.evaluation.crops import (
    BORDER_NYU,
    CENTRE_MAKE3D,
    EIGEN_KITTI,
    EIGEN_KITTI_IN_KB,
    EIGEN_NYU,
    EIGEN_NYU_ON_ANY,
    EIGEN_NYU_ON_HYPERSIM,
    FULL,
    GARG,
    GARG_IN_KB,
    KB_CROP,
    Crop,
)
from depthkit.evaluation.evaluate import evaluate
from depthkit.evaluation.odometry.trajectory import (
    ODOMETRY_PROTOCOLS,
    OdometryProtocol,
    OdometryReport,
    evaluate_odometry,
    find_odometry_protocol,
)
from depthkit.evaluation.protocol import Comparison, Protocol, kinds
from depthkit.evaluation.protocols.registry import PROTOCOLS, find_protocol
from depthkit.evaluation.protocols.tables import TABLES, find_table
from depthkit.evaluation.render import batch_strip, colourise, picture_strip
from depthkit.evaluation.report import Report, table_of
from depthkit.evaluation.roundtrip import RoundTrip, vae_roundtrip
from depthkit.evaluation.scores import ProtocolMetrics
from depthkit.resize import InputResize, OutputResize

__all__ = [
    "BORDER_NYU",
    "CENTRE_MAKE3D",
    "EIGEN_KITTI",
    "EIGEN_KITTI_IN_KB",
    "EIGEN_NYU",
    "EIGEN_NYU_ON_ANY",
    "EIGEN_NYU_ON_HYPERSIM",
    "FULL",
    "GARG",
    "GARG_IN_KB",
    "KB_CROP",
    "ODOMETRY_PROTOCOLS",
    "PROTOCOLS",
    "TABLES",
    "Comparison",
    "Crop",
    "InputResize",
    "OdometryProtocol",
    "OdometryReport",
    "OutputResize",
    "PairedReport",
    "Protocol",
    "ProtocolMetrics",
    "Report",
    "RoundTrip",
    "RowBaseline",
    "batch_strip",
    "best_row_baseline",
    "colourise",
    "compare_reports",
    "evaluate",
    "evaluate_odometry",
    "find_odometry_protocol",
    "find_protocol",
    "find_table",
    "kinds",
    "picture_strip",
    "table_of",
    "vae_roundtrip",
]
