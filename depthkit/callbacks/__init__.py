"""Lightning callbacks: pictures during training, speed, and a checkpoint when the machine is taken away."""

from depthkit.callbacks.images import DepthImages, ReprojectionImages
from depthkit.callbacks.running import SaveOnTermination, Throughput

__all__ = ["DepthImages", "ReprojectionImages", "SaveOnTermination", "Throughput"]
