"""Transforms of one sample before batching: where its pixels lie, what colours they have, what its label says.

A file per sort of change; ``base`` says what a transform is.
"""

from depthkit.data.transforms.base import Compose, Transform
from depthkit.data.transforms.geometric import (
    BottomCrop,
    CenterCrop,
    HorizontalFlip,
    RandomResizedCrop,
    RandomRotation,
    Resize,
    crop,
    flip,
    resize,
    rotate,
)
from depthkit.data.transforms.photometric import Photometric
from depthkit.data.transforms.weaken_labels import WeakenLabel, WithoutLabel

__all__ = [
    "BottomCrop",
    "CenterCrop",
    "Compose",
    "HorizontalFlip",
    "Photometric",
    "RandomResizedCrop",
    "RandomRotation",
    "Resize",
    "Transform",
    "WeakenLabel",
    "WithoutLabel",
    "crop",
    "flip",
    "resize",
    "rotate",
]
