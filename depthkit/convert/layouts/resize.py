"""Images larger than their depth, shrunk to it with their cameras."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from depthkit.convert.layouts.depth_files import Coding, read_depth
from depthkit.convert.layouts.layout import size_of
from depthkit.convert.layouts.plain import pinhole
from depthkit.convert.records.record import Record
from depthkit.errors import DepthKitError

_SHAPE = 0.01  # how far width : height of an image and its depth may be apart; ScanNet's are 0.4 %


@dataclass(frozen=True)
class Resize:
    """Shrink images, (height, width), and what their cameras' facts are for, to the size of their depth."""

    size: tuple[int, int] | None = None
    image: tuple[int, int] = (1, 1)

    @classmethod
    def of(cls, root: Path, shrink: bool, images: Mapping[str, str], labels: Mapping[str, str], coding: Coding) -> "Resize":
        """Compare the first image and depth that read."""
        for stem in [stem for stem in images if stem in labels] if shrink else []:
            try:
                width, height = size_of(root / images[stem])
                size = read_depth(root, Record(stem, images[stem], labels[stem]), (height, width), coding=coding).value.shape
            except DepthKitError:
                continue  # it will be left out by name
            alike = abs(width * size[0] / (height * size[1]) - 1) < _SHAPE
            return cls((size[0], size[1]), (height, width)) if alike and size[0] < height else cls()
        return cls()

    def camera(self, facts: Mapping[str, Any], where: str) -> Mapping[str, Any]:
        """Scale a camera's facts from the size that they are for."""
        numbers = pinhole(facts, where) if self.size else None
        if self.size is None or numbers is None:
            return facts
        fx, fy, cx, cy = numbers
        y, x = self.size[0] / (facts.get("height") or self.image[0]), self.size[1] / (facts.get("width") or self.image[1])
        camera = {"fx": fx * x, "fy": fy * y, "cx": (cx + 0.5) * x - 0.5, "cy": (cy + 0.5) * y - 0.5}
        return {**facts, **camera, "width": self.size[1], "height": self.size[0]}
