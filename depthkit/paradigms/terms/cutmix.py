"""CutMix: paste a rectangle of one image into another (Yun et al. 2019), one of the strong augmentations of Depth Anything."""

import math

import torch
from torch import Tensor

from depthkit.devices import sent
from depthkit.errors import RecipeError

_TRIES = 100


class CutMix:
    """A sampler of masks of rectangles in which another image is pasted.

    Args:
        probability: of an image to be mixed.
        area: least and greatest share of the image that is replaced.
        aspect: least height / width of the rectangle; the greatest is its inverse.

    Raises:
        RecipeError: an argument is out of its range.
    """

    def __init__(self, probability: float = 0.5, *, area: tuple[float, float] = (0.02, 0.4), aspect: float = 0.3) -> None:
        if not 0 <= probability <= 1 or not 0 < area[0] <= area[1] < 1 or not 0 < aspect <= 1:
            raise RecipeError(
                "expected probability in [0, 1], area as 0 < least <= greatest < 1 and aspect in (0, 1]; "
                f"got {probability}, {tuple(area)} and {aspect}."
            )
        self.probability, self.area, self.aspect = probability, area, aspect

    def masks(self, count: int, size: tuple[int, int], device: torch.device | str = "cpu") -> Tensor:
        """Draw masks where ``count`` images of ``size`` (height, width) are kept, bool ``(count, 1, H, W)``, on ``device``.

        The mask of an image that is not mixed is True everywhere. Draws come from torch's global generator of the CPU.
        """
        height, width = size
        boxes = torch.zeros(count, 4, dtype=torch.int64)  # first and last row, first and last column; none has the last first
        for row in (torch.rand(count) < self.probability).nonzero()[:, 0].tolist():
            first, start, high, wide = self._box(height, width)
            boxes[row] = torch.tensor([first, first + high, start, start + wide])
        top, bottom, left, right = sent(boxes, torch.device(device)).view(count, 4, 1, 1, 1).unbind(1)
        rows, columns = torch.arange(height, device=device)[:, None], torch.arange(width, device=device)
        return ~((rows >= top) & (rows < bottom) & (columns >= left) & (columns < right))

    def _box(self, height: int, width: int) -> tuple[int, int, int, int]:
        for _ in range(_TRIES):
            share, aspect, top, left = torch.rand(4).tolist()
            area = height * width * (self.area[0] + share * (self.area[1] - self.area[0]))
            ratio = math.exp(math.log(self.aspect) * (2 * aspect - 1))
            high, wide = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < high <= height and 0 < wide <= width:
                return int(top * (height - high + 1)), int(left * (width - wide + 1)), high, wide
        raise RecipeError(
            f"expected a rectangle of {self.area} of the area that fits an image of {height}x{width}; found none in {_TRIES} "
            "draws. Use larger images or another area."
        )
