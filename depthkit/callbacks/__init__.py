"""Lightning callbacks: pictures during training, predictions written to files."""

from depthkit.callbacks.images import DepthImages, ReprojectionImages

__all__ = ["DepthImages", "ReprojectionImages"]
