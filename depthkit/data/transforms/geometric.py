"""Geometric transforms of a sample: image, label, masks, further views, point pairs, intrinsics and poses move together.

Images are resized by area averaging where they shrink
and by a cubic where they grow; labels and masks take the nearest pixel, so no value is invented across an edge.
"""

import math
from collections.abc import Callable, Sequence

import cv2
import numpy as np

from depthkit.data.transforms.base import Transform
from depthkit.errors import GeometryError, RecipeError, ShapeError
from depthkit.geometry import crop_intrinsics, flip_intrinsics, flip_pose, scale_intrinsics
from depthkit.types import Sample


class Resize(Transform):
    """To a fixed size, or along one side with the aspect ratio kept.

    Args:
        size: (height, width) [px].
        keep_aspect: make the image as small as it can be while covering ``size`` (the shorter side fits).
        multiple_of: round the sides that ``keep_aspect`` decides to the nearest multiple.
    """

    def __init__(self, size: tuple[int, int], *, keep_aspect: bool = False, multiple_of: int = 1) -> None:
        self.size = _legal_size(size)
        self.keep_aspect, self.multiple_of = keep_aspect, multiple_of

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the resized sample."""
        height, width = self.size
        if self.keep_aspect:
            scale, step = max(height / sample.size[0], width / sample.size[1]), self.multiple_of
            height, width = (max(round(side * scale / step), 1) * step for side in sample.size)
        return resize(sample, height, width)


class RandomResizedCrop(Transform):
    """A random part of the image with the aspect ratio of ``size``, resized to it (MiDaS, section 5: crop and resize).

    Args:
        size: (height, width) [px] that comes out.
        scale: range of the crop's area as a fraction of the largest crop of that aspect ratio; (1, 1) crops as little
            as it can. The paper does not state its range.
    """

    def __init__(self, size: tuple[int, int], *, scale: tuple[float, float] = (0.5, 1.0)) -> None:
        self.size, self.scale = _legal_size(size), (float(scale[0]), float(scale[1]))
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise RecipeError(f"expected RandomResizedCrop scale (low, high) with 0 < low <= high <= 1; got {tuple(scale)}.")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the cropped and resized sample."""
        (height, width), (rows, columns) = self.size, sample.size
        largest = min(rows / height, columns / width)
        side = largest * rng.uniform(*self.scale) ** 0.5
        crop_rows, crop_columns = max(round(side * height), 1), max(round(side * width), 1)
        top, left = rng.integers(rows - crop_rows + 1), rng.integers(columns - crop_columns + 1)
        return resize(crop(sample, int(top), int(left), crop_rows, crop_columns), height, width)


class CenterCrop(Transform):
    """The middle of the image.

    Args:
        size: (height, width) [px].
    """

    _from_top = 0.5
    """Share of the rows left out that lies above."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = _legal_size(size)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the cropped sample; ``ShapeError`` if it is smaller than the crop."""
        (rows, columns), (height, width) = sample.size, self.size
        return crop(sample, math.floor((rows - height) * self._from_top), (columns - width) // 2, height, width)


class BottomCrop(CenterCrop):
    """The bottom of the image, in the middle of its columns: 352 x 1216 is what KITTI's depth benchmark keeps.

    Args:
        size: (height, width) [px].
    """

    _from_top = 1.0


class HorizontalFlip(Transform):
    """The mirrored sample with probability ``p``."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = p

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the sample or its mirror image."""
        return flip(sample) if rng.random() < self.p else sample


class RandomRotation(Transform):
    """The camera rolled about its optical axis, by an angle uniform between plus and minus ``degrees`` (GP2, section 4).

    Args:
        degrees: largest angle.
    """

    def __init__(self, degrees: float = 5.0) -> None:
        if not 0 <= degrees <= 180:
            raise RecipeError(f"expected RandomRotation degrees between 0 and 180; got {degrees}.")
        self.degrees = degrees

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the rotated sample."""
        return rotate(sample, float(np.deg2rad(rng.uniform(-self.degrees, self.degrees))))


MOVES: tuple[type[Transform], ...] = (Resize, RandomResizedCrop, CenterCrop, BottomCrop, HorizontalFlip)
"""What moves pixels of a label without a look at their values, so that it may move the codes of a stored one."""


def resize(sample: Sample, height: int, width: int) -> Sample:
    """Return the sample in ``height`` x ``width`` pixels.

    Labels keep their values: depth does not change with the resolution, nor does disparity in 1/m.
    """
    rows, columns = sample.size
    if (rows, columns) == (height, width):
        return sample
    y, x = height / rows, width / columns
    smooth = cv2.INTER_AREA if y <= 1 and x <= 1 else cv2.INTER_CUBIC

    def pairs(points: np.ndarray) -> np.ndarray:
        moved = (points[:, :4] + 0.5) * [y, x, y, x] - 0.5
        inside = np.clip(np.rint(moved), 0, [height - 1, width - 1] * 2)
        return np.concatenate([inside, points[:, 4:]], 1).astype(np.int32)

    return _moved(
        sample,
        image=lambda image: cv2.resize(image, (width, height), interpolation=smooth),
        label=lambda label: _nearest(label, height, width),
        intrinsics=lambda k: scale_intrinsics(k, x, y),
        pairs=pairs,
    )


def crop(sample: Sample, top: int, left: int, height: int, width: int) -> Sample:
    """Return the part of the sample that begins at row ``top`` and column ``left``; pairs that are not wholly inside go.

    Raises:
        ShapeError: the part reaches beyond the image.
    """
    rows, columns = sample.size
    if not (0 <= top <= rows - height and 0 <= left <= columns - width):
        raise ShapeError(
            f"expected a crop inside the image of {rows} x {columns}; got {height} x {width} at ({top}, {left}). "
            "Resize the image first, or crop less."
        )

    def cut(array: np.ndarray) -> np.ndarray:
        return array[top : top + height, left : left + width]

    def pairs(points: np.ndarray) -> np.ndarray:
        moved = points - np.array([top, left, top, left, 0], dtype=points.dtype)
        return moved[((moved[:, :4] >= 0) & (moved[:, :4] < [height, width] * 2)).all(1)]

    return _moved(sample, image=cut, label=cut, intrinsics=lambda k: crop_intrinsics(k, left, top), pairs=pairs)


def flip(sample: Sample) -> Sample:
    """Return the sample mirrored left to right.

    The mirrored images are those of a mirrored world with mirrored camera axes, so poses ``T`` become ``M T M``,
    ``M = diag(-1, 1, 1, 1)``; a stereo partner that was on the right is on the left.

    Raises:
        GeometryError: the sample holds a stereo partner without its pose, whose side would be lost.
    """
    if "stereo" in sample.frames and "stereo" not in sample.frames_from_camera:
        raise GeometryError(
            f"sample {sample.key}: cannot mirror a stereo pair without frames_from_camera['stereo'], for its cameras change "
            "sides. Store the pose with the sample, or leave HorizontalFlip out."
        )
    width = sample.size[1]

    def mirrored(array: np.ndarray) -> np.ndarray:
        return cv2.flip(array.view(np.uint8), 1).view(bool) if array.dtype == bool else cv2.flip(array, 1)

    def pairs(points: np.ndarray) -> np.ndarray:
        moved = points.copy()
        moved[:, [1, 3]] = width - 1 - points[:, [1, 3]]
        return moved

    flipped = _moved(
        sample,
        image=lambda image: cv2.flip(image, 1),
        label=mirrored,
        intrinsics=lambda k: flip_intrinsics(k, width),
        pairs=pairs,
    )
    world = sample.world_from_camera
    return flipped.replace(
        world_from_camera=None if world is None else flip_pose(world),
        frames_from_camera={name: flip_pose(pose) for name, pose in sample.frames_from_camera.items()},
    )


def rotate(sample: Sample, angle: float) -> Sample:
    """Return the sample as its camera would see it, rolled about the optical axis; the image's middle stays where it is.

    Depth along the axis and the focal lengths do not change; the principal point and the poses do. What comes in at the
    corners has the colours of the mirrored border and no label; pairs of which a point leaves the image go.

    Args:
        sample: any; without intrinsics its pixels are taken as square and its principal point as the image's middle.
        angle: [rad], positive turns the picture clockwise.
    """
    (height, width), cosine, sine = sample.size, np.cos(angle), np.sin(angle)
    middle = np.array([(width - 1) / 2, (height - 1) / 2, 1])
    camera = np.array([[1, 0, middle[0]], [0, 1, middle[1]], [0, 0, 1]]) if sample.intrinsics is None else sample.intrinsics
    roll = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    new_from_old = camera @ roll @ np.linalg.inv(camera)  # pixels; affine, for the axis stays
    recentred = np.eye(3)
    recentred[:2, 2] = (middle - new_from_old @ middle)[:2]
    new_from_old = recentred @ new_from_old

    def moved(array: np.ndarray, how: int, border: int) -> np.ndarray:
        return cv2.warpAffine(array, new_from_old[:2], (width, height), flags=how, borderMode=border)

    def label(array: np.ndarray) -> np.ndarray:
        if array.dtype == bool:
            return label(array.view(np.uint8)).view(bool)
        return moved(array, cv2.INTER_NEAREST, cv2.BORDER_CONSTANT)

    def pairs(points: np.ndarray) -> np.ndarray:
        a, b = (np.rint(points[:, ends] @ new_from_old[:2, :2].T + new_from_old[:2, 2]) for ends in ([1, 0], [3, 2]))
        inside = ((np.concatenate([a, b], 1) >= 0) & (np.concatenate([a, b], 1) < [width, height] * 2)).all(1)
        return np.concatenate([a[:, ::-1], b[:, ::-1], points[:, 4:]], 1)[inside].astype(np.int32)

    turned = _moved(
        sample,
        image=lambda image: moved(image, cv2.INTER_LINEAR, cv2.BORDER_REFLECT_101),
        label=label,
        intrinsics=lambda k: recentred @ k,
        pairs=pairs,
    )
    camera_from_turned = np.eye(4)
    camera_from_turned[:3, :3] = roll.T
    world = sample.world_from_camera
    return turned.replace(
        world_from_camera=None if world is None else world @ camera_from_turned,
        frames_from_camera={n: camera_from_turned.T @ p @ camera_from_turned for n, p in sample.frames_from_camera.items()},
    )


Change = Callable[[np.ndarray], np.ndarray]


def _moved(sample: Sample, *, image: Change, label: Change, intrinsics: Change, pairs: Change) -> Sample:
    """Every part of the sample changed by the function for its sort."""
    for name, frame in sample.frames.items():
        if frame.shape[:2] != sample.size:
            raise ShapeError(
                f"sample {sample.key}: expected view '{name}' in the size of the image, {sample.size}; got {frame.shape[:2]}. "
                "Write all views of a sample in one size."
            )

    def maybe(change: Change, array: np.ndarray | None) -> np.ndarray | None:
        return None if array is None else change(array)

    return sample.replace(
        image=image(sample.image),
        frames={name: image(frame) for name, frame in sample.frames.items()},
        label=maybe(label, sample.label),
        valid=maybe(label, sample.valid),
        sky=maybe(label, sample.sky),
        intrinsics=maybe(intrinsics, sample.intrinsics),
        pairs=maybe(pairs, sample.pairs),
        edges=None,
    )


def _nearest(array: np.ndarray, height: int, width: int) -> np.ndarray:
    if array.dtype == bool:
        return _nearest(array.view(np.uint8), height, width).view(bool)
    return cv2.resize(array, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)


def _legal_size(size: Sequence[int]) -> tuple[int, int]:
    if len(size) != 2 or min(size) < 1:
        raise RecipeError(f"expected size as (height, width) in pixels; got {tuple(size)}.")
    return int(size[0]), int(size[1])
