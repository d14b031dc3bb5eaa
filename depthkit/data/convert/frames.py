"""Image files with what is known about them, read when they are asked for."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import overload

import cv2
import numpy as np

from depthkit.data.shards.images import decode_image, decode_pixels
from depthkit.errors import DepthKitError, GeometryError, LabelError, ShapeError
from depthkit.types import Ambiguity, LabelKind, Representation, Sample

UNLABELLED = LabelKind(Ambiguity.UNLABELLED, Representation.DEPTH)
_SATURATED = 65535  # cameras and converters mean "no value" or "too far" by it


@dataclass(frozen=True)
class Frame:
    """One image file and what belongs to it; file names are relative to the sequence's root.

    Attributes:
        key: name of the sample.
        image: file.
        label: 16-bit PNG, 0 and 65535 where there is no value; None if there is none.
        scale: label units per integer of that file.
        shift: label at the integer 0.
        intrinsics: ``(3, 3)`` [px].
        size: (height, width) that the intrinsics are for.
        world_from_camera: ``(4, 4)`` [m].
        stereo_baseline: [m].
        views: files of further views.
        views_from_camera: poses ``(4, 4)`` [m] of such views.
    """

    key: str
    image: str
    label: str | None = None
    scale: float = 1.0
    shift: float = 0.0
    intrinsics: np.ndarray | None = None
    size: tuple[int, int] | None = None
    world_from_camera: np.ndarray | None = None
    stereo_baseline: float | None = None
    views: Mapping[str, str] = field(default_factory=dict)
    views_from_camera: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Frames(Sequence[Sample]):
    """A sequence of samples, each read from its files when it is indexed.

    Indexing raises a ``DepthKitError`` that names the file if it is missing, damaged, or of another size than its image.

    Attributes:
        root: folder.
        frames: what to read.
        kind: of every label.
        unpaired: images that are left out because nothing belongs to them, by name.
    """

    root: Path
    frames: tuple[Frame, ...]
    kind: LabelKind = UNLABELLED
    unpaired: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.frames)

    def key(self, position: int) -> str:
        """The key of a sample, without reading it."""
        return self.frames[position].key

    @overload
    def __getitem__(self, position: int) -> Sample: ...
    @overload
    def __getitem__(self, position: slice) -> "Frames": ...
    def __getitem__(self, position: int | slice) -> "Sample | Frames":
        if isinstance(position, slice):
            return replace(self, frames=self.frames[position])
        frame = self.frames[position]
        image = self._image(frame.image)
        if frame.size and frame.size != image.shape[:2]:
            raise GeometryError(
                f"{self.root / frame.image}: expected the size of its intrinsics, {frame.size} (height, width); "
                f"got {image.shape[:2]}. Give intrinsics of this image."
            )
        label, valid = self._label(frame, image.shape[:2]) if frame.label else (None, None)
        return Sample(
            key=frame.key,
            image=image,
            label=label,
            valid=valid,
            ambiguity=self.kind.ambiguity,
            representation=self.kind.representation,
            intrinsics=frame.intrinsics,
            world_from_camera=frame.world_from_camera,
            stereo_baseline=frame.stereo_baseline,
            frames={name: self._image(file) for name, file in frame.views.items()},
            frames_from_camera=frame.views_from_camera,
            source={"image": frame.image, **({"label": frame.label} if frame.label else {}), **frame.views},
        )

    def __iter__(self) -> Iterator[Sample]:
        return (self[position] for position in range(len(self)))

    def _image(self, name: str) -> np.ndarray:
        return decode_image(self._read(name), str(self.root / name), DepthKitError, upright=True)

    def _read(self, name: str) -> bytes:
        try:
            return (self.root / name).read_bytes()
        except OSError as error:
            raise DepthKitError(
                f"expected file {self.root / name}; {error.strerror}. Restore it or leave the frame out."
            ) from error

    def _label(self, frame: Frame, size: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        assert frame.label
        what = str(self.root / frame.label)
        codes = decode_pixels(self._read(frame.label), cv2.IMREAD_UNCHANGED, what, LabelError)
        if codes.dtype != np.uint16 or codes.ndim != 2:
            raise LabelError(
                f"{what}: expected a 16-bit PNG with one channel; got {codes.dtype} {codes.shape}. Convert it first."
            )
        if codes.shape != size:
            raise ShapeError(
                f"{what}: expected the size of {frame.image}, {size}; got {codes.shape}. Resize the image to its label."
            )
        return (codes * frame.scale + frame.shift).astype(np.float32), (codes > 0) & (codes < _SATURATED)


def with_neighbours(frames: Sequence[Frame]) -> tuple[Frame, ...]:
    """The frames that have one before and one behind them, with these as views ``prev`` and ``next``."""
    return tuple(
        _with_views(frame, {"prev": before, "next": behind})
        for before, frame, behind in zip(frames, frames[1:], frames[2:], strict=False)
    )


def _with_views(frame: Frame, others: Mapping[str, Frame]) -> Frame:
    world, poses = frame.world_from_camera, dict(frame.views_from_camera)
    if world is not None:
        known = {name: other.world_from_camera for name, other in others.items()}
        poses |= {name: np.linalg.inv(pose) @ world for name, pose in known.items() if pose is not None}
    return replace(
        frame, views={**frame.views, **{name: other.image for name, other in others.items()}}, views_from_camera=poses
    )


def part(count: int, split: str | None, holdout: float) -> slice:
    """Which of ``count`` frames belong to a split: the last ``holdout`` of them are the test, the others the training frames.

    Neighbouring frames show nearly the same, so a split by chance would test on what was trained on.

    Raises:
        LabelError: another split, or nothing to hold out.

    >>> part(10, "test", 0.2)
    slice(8, 10, None)
    """
    first = count - round(count * holdout)
    parts = {None: slice(0, count), "train": slice(0, first), "test": slice(first, count)}
    if split not in parts or not 0 <= holdout < 1:
        raise LabelError(
            f"expected split None (all frames), 'train' or 'test', and 0 <= holdout < 1; got {split!r} and {holdout}. "
            "Choose one of these, or slice the sequence yourself."
        )
    return parts[split]


def key_of(*names: str) -> str:
    """A sample's key from file names, which may hold dots and blanks."""
    return "/".join("".join(c if c.isalnum() or c in "-_" else "_" for c in name) for name in names)
