"""Rooms and streets drawn by ray casting, with everything known about every pixel, and nothing to download."""

from depthkit.data.synthetic.dataset import SceneKind, SyntheticScenes
from depthkit.data.synthetic.render import SyntheticView, render
from depthkit.data.synthetic.scene import Scene

__all__ = ["Scene", "SceneKind", "SyntheticScenes", "SyntheticView", "render"]
