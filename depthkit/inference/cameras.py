"""The camera of an image file: as given, as ``intrinsics.json`` beside it says, or by the focal length of its EXIF."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags
from torch import Tensor

from depthkit.convert.layouts.plain import camera_beside
from depthkit.convert.records.record import camera_matrix
from depthkit.errors import GeometryError
from depthkit.geometry import intrinsics_from_field_of_view, scale_intrinsics
from depthkit.images import opened

Intrinsics = np.ndarray | Tensor | Sequence[float]
"""A matrix ``(3, 3)``, or fx, fy, cx, cy [px]."""
_DIAGONAL = 43.27
"""Diagonal [mm] of a frame of 35 mm film, by which cameras state equivalent focal lengths."""
_ASPECT = 0.01  # relative difference of two sides' scales that rounding explains


@dataclass(frozen=True)
class Cameras:
    """Where to look for intrinsics, the first that is known: given; an angle; a file beside the image; EXIF.

    Attributes:
        intrinsics: fx, fy, cx, cy [px] of every image.
        fov: from the left to the right border of every image [degrees].
        whole: images are no crops, so that intrinsics given for another size show by their principal point.

    Raises:
        GeometryError: both are given, or they are none.

    Example:
        >>> float(Cameras(fov=90.0).of(None, (60, 100))[0, 0].round(3))
        50.0
    """

    intrinsics: tuple[float, float, float, float] | None = None
    fov: float | None = None
    whole: bool = True

    def __post_init__(self) -> None:
        if self.intrinsics is not None:
            if self.fov is not None:
                raise GeometryError("expected intrinsics or a field of view; got both. Leave one out.")
            camera_matrix(self.intrinsics, "intrinsics")
        if self.fov is not None:
            intrinsics_from_field_of_view((1, 1), self.fov)

    def of(self, file: str | Path | None, size: tuple[int, int]) -> np.ndarray | None:
        """Find the intrinsics of an image, float64 ``(3, 3)`` [px]; None if nothing is known.

        Args:
            file: of the image; None for a frame of a film or an image in memory.
            size: (height, width) [px].

        Raises:
            GeometryError: the intrinsics are of an image of another size, or the file beside is damaged.
        """
        if self.intrinsics is not None:
            camera = camera_matrix(self.intrinsics, "intrinsics")
            return check_whole(camera, size, "intrinsics") if self.whole else camera
        if self.fov is not None:
            return intrinsics_from_field_of_view(size, self.fov)
        if file is None:
            return None
        found = _beside(Path(file), size)
        return _of_exif(Path(file), size) if found is None else found


def four_numbers(intrinsics: Intrinsics) -> tuple[float, float, float, float]:
    """Return fx, fy, cx, cy [px] of intrinsics in any form.

    Raises:
        GeometryError: they are neither four numbers nor a matrix.
    """
    x = np.asarray(intrinsics, np.float64)
    if x.shape == (3, 3):
        x = x[[0, 1, 0, 1], [0, 1, 2, 2]]
    if x.shape != (4,):
        raise GeometryError(f"expected intrinsics as fx, fy, cx, cy or a matrix (3, 3); got shape {x.shape}. Give pixels.")
    fx, fy, cx, cy = x.tolist()
    return fx, fy, cx, cy


UNKNOWN = Cameras()
"""Looks beside images, and knows nothing else."""


def check_whole(camera: np.ndarray, size: tuple[int, int], what: str) -> np.ndarray:
    """Check that intrinsics are of a whole image of this size: the principal point lies in the middle third.

    Raises:
        GeometryError: they are not.
    """
    height, width = size
    x, y = camera[0, 2] / width, camera[1, 2] / height
    if not (1 / 3 < x < 2 / 3 and 1 / 3 < y < 2 / 3):
        raise GeometryError(
            f"{what}: expected a principal point near the middle of {height}x{width} pixels; got cx {camera[0, 2]:g}, "
            f"cy {camera[1, 2]:g}, as of an image of another size. Scale fx, cx by the width and fy, cy by the height."
        )
    return camera


def _beside(file: Path, size: tuple[int, int]) -> np.ndarray | None:
    """Read ``intrinsics.json`` beside an image or above its folder, for the size that it states."""
    for folder in (file.parent, file.parent.parent):
        where = folder / "intrinsics.json"
        if not where.is_file():
            continue
        camera, of = camera_beside(folder, file.stem)
        if camera is None:
            return None
        if of is None or of == size:
            return camera if of else check_whole(camera, size, str(where))
        y, x = size[0] / of[0], size[1] / of[1]
        if abs(x / y - 1) > _ASPECT:
            raise GeometryError(
                f"{file}: expected the size of its intrinsics in {where}, {of[0]}x{of[1]}, or that scaled; "
                f"got {size[0]}x{size[1]}, which is a crop or another camera's. Give --intrinsics of this image."
            )
        return scale_intrinsics(camera, x, y)
    return None


def _of_exif(file: Path, size: tuple[int, int]) -> np.ndarray | None:
    """Take the 35 mm equivalent focal length that a camera has written; None if there is none."""
    try:
        with opened(file, str(file), max_pixels=None) as image:
            focal = image.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.FocalLengthIn35mmFilm)
            focal = float(focal or 0)
    except (OSError, ValueError, TypeError, SyntaxError):
        return None  # reading the image tells what is wrong with it
    if not 0 < focal < 10_000:
        return None
    height, width = size
    pixels = focal / _DIAGONAL * float(np.hypot(height, width))
    return np.array([[pixels, 0, (width - 1) / 2], [0, pixels, (height - 1) / 2], [0, 0, 1]])
