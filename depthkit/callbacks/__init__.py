"""Lightning callbacks: pictures during training, speed, and a checkpoint when the machine is taken away."""

from depthkit.callbacks.cluster import SaveOnTermination, Throughput
from depthkit.callbacks.images import DepthImages, ReprojectionImages

__all__ = ["DepthImages", "ReprojectionImages", "SaveOnTermination", "Throughput"]
