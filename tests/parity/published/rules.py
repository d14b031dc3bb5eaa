"""What the authors' scripts do to an image file before a network and to its map afterwards, written again from their code."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
Network = Callable[[Tensor], Tensor]
Reference = Callable[[Path], Tensor]
Side = int | tuple[int, int] | None


class Written(NamedTuple):
    """What is compared: an official file or folder, the map of an image file, and the network in it if it can be in float64."""

    path: Path
    reference: Reference
    network: nn.Module | None = None


class Called(nn.Module):
    """A network of some parts, called by a function."""

    def __init__(self, function: Network, *parts: nn.Module) -> None:
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(parts)

    def forward(self, image: Tensor) -> Tensor:
        return self.function(image)


def floating() -> type:
    """NumPy's name of torch's default type: float64 where both sides are compared without rounding."""
    return {torch.float32: np.float32, torch.float64: np.float64}[torch.get_default_dtype()]


def read(file: Path) -> np.ndarray:
    return np.asarray(Image.open(file).convert("RGB"))


def tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image.transpose(2, 0, 1)[None].astype(floating()))


def normalised(image: Tensor, statistics: tuple) -> Tensor:
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in statistics)
    return (image - mean) / std


def size_of(height: int, width: int, net: tuple[int, int], method: str, multiple: int) -> tuple[int, int]:
    """The sizes of MiDaS' transform, which DPT, Depth Anything and ZoeDepth took over: (height, width)."""
    scale_height, scale_width = net[0] / height, net[1] / width
    if method == "lower_bound":
        scale_height = scale_width = max(scale_height, scale_width)
    elif method == "upper_bound":
        scale_height = scale_width = min(scale_height, scale_width)
    elif method == "minimal":
        closer = scale_width if abs(1 - scale_width) < abs(1 - scale_height) else scale_height
        scale_height = scale_width = closer
    sides = []
    for length, bound in ((scale_height * height, net[0]), (scale_width * width, net[1])):
        side = int(np.round(length / multiple) * multiple)
        if method == "upper_bound" and side > bound:
            side = int(np.floor(length / multiple) * multiple)
        if method == "lower_bound" and side < bound:
            side = int(np.ceil(length / multiple) * multiple)
        sides.append(side)
    return sides[0], sides[1]


def midas(network: Network, net: int, method: str, statistics: tuple, multiple: int = 32) -> Reference:
    """``run.py`` of MiDaS: OpenCV's cubic resize of floats, the map back by bicubic interpolation."""

    def run(file: Path) -> Tensor:
        image = read(file) / 255.0
        height, width = size_of(*image.shape[:2], (net, net), method, multiple)
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
        found = network(normalised(tensor(small), statistics))
        return F.interpolate(found, image.shape[:2], mode="bicubic", align_corners=False)[0, 0]

    return run


def depth_anything(network: Network, net: int, multiple: int, statistics: tuple, *, align_corners: bool) -> Reference:
    """``run.py`` of version 1, ``infer_image`` of version 2."""

    def run(file: Path) -> Tensor:
        image = read(file) / 255.0
        height, width = size_of(*image.shape[:2], (net, net), "lower_bound", multiple)
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
        found = network(normalised(tensor(small), statistics))
        return F.interpolate(found, image.shape[:2], mode="bilinear", align_corners=align_corners)[0, 0]

    return run


def depth_anything_metric(network: Network, size: tuple[int, int], statistics: tuple = IMAGENET) -> Reference:
    """``evaluate.py`` of version 1's metric networks: stretched, corners aligned, averaged with the mirrored image."""

    def run(file: Path) -> Tensor:
        image = tensor(read(file)) / 255

        def once(x: Tensor) -> Tensor:
            small = F.interpolate(x, size, mode="bilinear", align_corners=True)
            return network(normalised(small, statistics))

        found = 0.5 * (once(image) + once(image.flip(3)).flip(3))
        return F.interpolate(found, image.shape[2:], mode="bilinear", align_corners=True)[0, 0]

    return run


def zoedepth(network: Network, net: tuple[int, int]) -> Reference:
    """``infer`` of ZoeDepth: reflected borders, and averaged with the mirrored image."""

    def padded(x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        rows, columns = int(np.sqrt(height / 2) * 3), int(np.sqrt(width / 2) * 3)
        x = F.pad(x, (columns, columns, rows, rows), mode="reflect")
        small = F.interpolate(x, size_of(*x.shape[2:], net, "minimal", 32), mode="bilinear", align_corners=True)
        full = F.interpolate(network(normalised(small, HALF)), x.shape[2:], mode="bicubic", align_corners=False)
        return full[:, :, rows:-rows, columns:-columns]

    def run(file: Path) -> Tensor:
        image = tensor(read(file)) / 255
        return ((padded(image) + padded(image.flip(3)).flip(3)) / 2)[0, 0]

    return run


def monodepth2(sigmoid: Network, size: tuple[int, int], *, metres: bool) -> Reference:
    """``test_simple.py`` of Monodepth2: Pillow's Lanczos on 8 bits; disparity from 1 / 100 to 1 / 0.1, metric after 5.4."""

    def run(file: Path) -> Tensor:
        image = Image.open(file).convert("RGB")
        small = tensor(np.asarray(image.resize(size[::-1], Image.Resampling.LANCZOS))) / 255
        full = F.interpolate(sigmoid(small), image.size[::-1], mode="bilinear", align_corners=False)[0, 0]
        disparity = 1 / 100 + (1 / 0.1 - 1 / 100) * full
        return disparity / 5.4 if metres else disparity

    return run


def gp2(network: Network, net: int) -> Reference:
    """The test of GP2: the shorter side 384, OpenCV's bilinear resize of the normalised image."""

    def run(file: Path) -> Tensor:
        image = ((read(file) / 255.0 - IMAGENET[0]) / IMAGENET[1]).astype(floating())
        scale = net / min(image.shape[:2])
        height, width = (round(length * scale / 32) * 32 for length in image.shape[:2])
        found = network(tensor(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)))
        return F.interpolate(found, image.shape[:2], mode="bilinear", align_corners=False)[0, 0]

    return run
