"""Rooms and streets drawn by ray casting, with everything known about every pixel, and nothing to download."""

from depthkit.synthetic.dataset import SceneKind, SyntheticScenes
from depthkit.synthetic.render import SyntheticView, render
from depthkit.synthetic.scene import Scene

__all__ = ["Scene", "SceneKind", "SyntheticScenes", "SyntheticView", "render"]
