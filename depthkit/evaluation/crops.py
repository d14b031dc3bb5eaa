"""Which part of an image a benchmark scores, named by the author who chose it.

The field writes "eigen crop" for three different rectangles; a name here is one rectangle, with its numbers and source.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

import torch
from torch import Tensor

from depthkit.checks import check_choice
from depthkit.errors import ShapeError


class Rounding(StrEnum):
    """How a fraction of a size becomes a pixel."""

    DOWN = "down"
    NEAREST = "nearest"


@dataclass(frozen=True)
class Crop:
    """A rectangle: first row (included), last row (excluded), first column, last column.

    Attributes:
        name: how reports call it.
        source: where the numbers come from.
        rows: first and last row; [px] if ``size`` is given, else fractions of the height.
        columns: the same for columns.
        size: (height, width) [px] of the image size the pixel numbers are meant for; None for fractions.
        rounding: of fractions of a size to a pixel: ``"down"`` or to the ``"nearest"``.
        window: (height, width) [px] of the part at the bottom, in the middle of the columns, that the fractions are of; None:
            the whole image.
        anywhere: take the pixel numbers in images of any size, without what lies outside of them; else other sizes are refused.
    """

    name: str
    source: str
    rows: tuple[float, float]
    columns: tuple[float, float]
    size: tuple[int, int] | None = None
    rounding: Rounding | str = Rounding.DOWN
    window: tuple[int, int] | None = None
    anywhere: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "rounding", check_choice("rounding", self.rounding, Rounding))

    def box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """First and last row, first and last column [px] in an image of this size; the last ones are excluded.

        Raises:
            ShapeError: the crop is in pixels of another image size, or its window is larger than the image.

        Example:
            >>> GARG.box(375, 1242), EIGEN_NYU.box(480, 640)
            ((153, 371, 44, 1197), (45, 471, 41, 601))
        """
        if self.window is not None:
            down, across = height - self.window[0], width - self.window[1]
            if min(down, across) < 0:
                raise ShapeError(
                    f"expected a label of at least {self.window[0]}x{self.window[1]} (height x width) for the crop "
                    f"{self.name!r}; got {height}x{width}. Evaluate at the benchmark's own label size, or choose another crop."
                )
            top, bottom, left, right = replace(self, window=None).box(*self.window)
            return top + down, bottom + down, left + across // 2, right + across // 2
        if self.size is None:
            whole = int if self.rounding == Rounding.DOWN else round
            edges = [*(whole(f * height) for f in self.rows), *(whole(f * width) for f in self.columns)]
        elif self.anywhere or self.size == (height, width):
            edges = [int(min(edge, side)) for edges, side in ((self.rows, height), (self.columns, width)) for edge in edges]
        else:
            raise ShapeError(
                f"expected a label of {self.size[0]}x{self.size[1]} (height x width) for the crop {self.name!r}, which is in "
                f"pixels; got {height}x{width}. Evaluate at the benchmark's own label size, or choose another crop."
            )
        return edges[0], edges[1], edges[2], edges[3]

    def mask(self, height: int, width: int, *, device: torch.device | str = "cpu") -> Tensor:
        """Mark the inside of the rectangle, bool ``(H, W)``."""
        top, bottom, left, right = self.box(height, width)
        inside = torch.zeros(height, width, dtype=torch.bool, device=device)
        inside[top:bottom, left:right] = True
        return inside


FULL = Crop("none", "the whole image", (0.0, 1.0), (0.0, 1.0))
GARG = Crop("garg", "Garg et al. 2016; KITTI", (0.40810811, 0.99189189), (0.03594771, 0.96405229))
EIGEN_KITTI = Crop("eigen_kitti", "Eigen et al. 2014; KITTI", (0.3324324, 0.91351351), (0.0359477, 0.96405229))
EIGEN_NYU = Crop("eigen_nyu", "Eigen et al. 2014; NYUv2 at 480x640", (45, 471), (41, 601), (480, 640))
CENTRE_MAKE3D = Crop(
    "centre_make3d",
    "central 852 of 2272 rows, 2:1, and rows 17 to 38 of the 55 labelled",
    (0.3125, 0.6875),
    (0.0, 1.0),
    rounding="nearest",
)
BORDER_NYU = Crop(
    "border_nyu", "Romanov et al. 2020: NYUv2 at 480x640 without its white frame of 8 px", (8, 472), (8, 632), (480, 640)
)
KB_CROP = Crop("kb", "KITTI's depth benchmark", (0.0, 1.0), (0.0, 1.0), window=(352, 1216))
GARG_IN_KB = Crop(
    "garg_in_kb", "Garg et al. 2016, within the crop of KITTI's depth benchmark", GARG.rows, GARG.columns, window=(352, 1216)
)
EIGEN_KITTI_IN_KB = Crop(
    "eigen_kitti_in_kb",
    "Eigen et al. 2014, within the crop of KITTI's depth benchmark",
    EIGEN_KITTI.rows,
    EIGEN_KITTI.columns,
    window=(352, 1216),
)
EIGEN_NYU_ON_ANY = Crop(
    "eigen_nyu_on_any",
    "Bhat et al. 2023, released code: NYUv2's pixels on labels of any size",
    EIGEN_NYU.rows,
    EIGEN_NYU.columns,
    EIGEN_NYU.size,
    anywhere=True,
)
EIGEN_NYU_ON_HYPERSIM = Crop(
    "eigen_nyu_on_hypersim",
    "Bhat et al. 2023, released code: NYUv2's pixels on Hypersim at 768x1024",
    EIGEN_NYU.rows,
    EIGEN_NYU.columns,
    (768, 1024),
)
