"""Lightning callbacks: pictures and a report of training, speed, memory, frozen parts and adapters, a way out at a kill."""

from depthkit.callbacks.adapters import Adapters
from depthkit.callbacks.cluster import SaveOnTermination, Throughput
from depthkit.callbacks.frozen import Frozen
from depthkit.callbacks.images import DepthImages, ReprojectionImages
from depthkit.callbacks.report import RunReport
from depthkit.callbacks.savings import Compiled, RecomputedActivations

__all__ = [
    "Adapters",
    "Compiled",
    "DepthImages",
    "Frozen",
    "RecomputedActivations",
    "ReprojectionImages",
    "RunReport",
    "SaveOnTermination",
    "Throughput",
]
