"""Image files with what is known about them, read when they are asked for."""

import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, TypeVar, overload

import numpy as np

from depthkit.convert.records.files import names_in, read_bytes, read_png16
from depthkit.errors import DepthKitError, GeometryError, LabelError, RecipeError, ShapeError
from depthkit.images import SUFFIXES, is_image_name, read_image
from depthkit.shards.images import is_turned
from depthkit.shards.records import Reject
from depthkit.types import Ambiguity, LabelKind, Representation, Sample

UNLABELLED = LabelKind(Ambiguity.UNLABELLED, Representation.DEPTH)
T = TypeVar("T")
_SATURATED = 65535  # cameras and converters mean "no value" or "too far" by it


@dataclass(frozen=True)
class Record:
    """One image file and what belongs to it; file names are relative to the sequence's root.

    Attributes:
        key: name of the sample.
        image: file.
        label: file of the label; None if there is none.
        scale: label units per integer of that file.
        shift: label at the integer 0.
        parts: further files that the label is made of, such as masks, by what they are.
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
    parts: Mapping[str, str] = field(default_factory=dict)
    intrinsics: np.ndarray | None = None
    size: tuple[int, int] | None = None
    world_from_camera: np.ndarray | None = None
    stereo_baseline: float | None = None
    views: Mapping[str, str] = field(default_factory=dict)
    views_from_camera: Mapping[str, np.ndarray] = field(default_factory=dict)


class Annotation(NamedTuple):
    """A dense label as read.

    Attributes:
        value: float, ``(H, W)``; arbitrary where not valid.
        valid: bool, ``(H, W)``.
        sky: bool, ``(H, W)``, where it is known; a subset of valid.
        intrinsics: ``(3, 3)`` [px] if they come with the label and the record has none.
        edges: bool, ``(H, W)``, where the label jumps, if the dataset says so.
    """

    value: np.ndarray
    valid: np.ndarray
    sky: np.ndarray | None = None
    intrinsics: np.ndarray | None = None
    edges: np.ndarray | None = None


def read_codes(root: Path, record: Record, size: tuple[int, int]) -> Annotation:
    """Read the label of a record from a 16-bit PNG, in which 0 and 65535 mean "no value"."""
    assert record.label
    codes = read_png16(root / record.label)
    return Annotation(codes * record.scale + record.shift, (codes > 0) & (codes < _SATURATED))


def read_picture(root: Path, name: str) -> np.ndarray:
    """Read an image file upright, uint8 RGB ``(H, W, 3)``."""
    return read_image(read_bytes(root / name), what=str(root / name), error=DepthKitError)


@dataclass(frozen=True)
class Records(Sequence[Sample]):
    """A sequence of samples, each read from its files when it is indexed.

    Indexing raises a ``DepthKitError`` that names the file if it is missing, damaged, or of another size than its image.

    Attributes:
        root: folder.
        records: what to read.
        kind: of every label.
        rejects: images that are left out, and why: nothing belongs to them, they have no neighbour, nothing moves.
        reader: from root, record and the image's (height, width) to the label. A function of a module, so that it travels to
            worker processes, like ``picture``.
        picture: from root and file name to uint8 RGB ``(H, W, 3)``.
        notes: what the user should know of how the folder was read.
    """

    root: Path
    records: tuple[Record, ...]
    kind: LabelKind = UNLABELLED
    rejects: tuple[Reject, ...] = ()
    reader: Callable[[Path, Record, tuple[int, int]], Annotation] = read_codes
    picture: Callable[[Path, str], np.ndarray] = read_picture
    notes: tuple[str, ...] = ()

    @property
    def unaltered(self) -> bool:
        """Return whether pictures are what their files hold, upright."""
        return self.picture is read_picture

    def __len__(self) -> int:
        return len(self.records)

    def key(self, position: int) -> str:
        """Return the key of a sample, without reading it."""
        return self.records[position].key

    @overload
    def __getitem__(self, position: int) -> Sample: ...
    @overload
    def __getitem__(self, position: slice) -> "Records": ...
    def __getitem__(self, position: int | slice) -> "Sample | Records":
        if isinstance(position, slice):
            return replace(self, records=self.records[position])
        record = self.records[position]
        self._check_upright(record)
        image = self.image(record.image)
        size = image.shape[0], image.shape[1]
        self._check_camera(record, size)
        views = {name: self.image(file) for name, file in record.views.items()}
        for name, view in views.items():
            if view.shape != image.shape:
                raise ShapeError(
                    f"{self.root / record.views[name]}: expected the size of {record.image}, {image.shape[:2]} "
                    f"(height, width); got {view.shape[:2]}. Save all frames of a video, and both images of a pair, alike."
                )
        found = self._label(record, size) if record.label else None
        label, valid, sky, intrinsics, edges = found or (None, None, None, None, None)
        return Sample(
            key=record.key,
            image=image,
            label=label,
            valid=valid,
            ambiguity=self.kind.ambiguity,
            representation=self.kind.representation,
            sky=sky if sky is not None and sky.any() else None,
            edges=edges,
            intrinsics=record.intrinsics if record.intrinsics is not None else intrinsics,
            world_from_camera=record.world_from_camera,
            stereo_baseline=record.stereo_baseline,
            frames=views,
            frames_from_camera=record.views_from_camera,
            source={"image": record.image, **({"label": record.label} if record.label else {}), **record.parts, **record.views},
        )

    def __iter__(self) -> Iterator[Sample]:
        return (self[position] for position in range(len(self)))

    def _check_upright(self, record: Record) -> None:
        """Refuse a photo that EXIF turns where something belongs to its pixels, which nobody would turn."""
        files = [file for file in (record.image, *record.views.values()) if is_image_name(file)]
        bound = record.label or record.views or record.intrinsics is not None or record.world_from_camera is not None
        for file in files if bound else ():
            if is_turned(read_bytes(self.root / file)):
                raise ShapeError(
                    f"{self.root / file}: expected a photo as its label and camera see it; its EXIF orientation turns it. "
                    "Turn its pixels, or remove the tag if they are right."
                )

    def _check_camera(self, record: Record, size: tuple[int, int]) -> None:
        if record.size and record.size != size:
            raise GeometryError(
                f"{self.root / record.image}: expected the size of its intrinsics, {record.size} (height, width); "
                f"got {size}. Give intrinsics of this image."
            )
        if record.intrinsics is not None and not record.size:
            x, y = record.intrinsics[:2, 2]
            if not (0 <= x <= size[1] and 0 <= y <= size[0]):
                raise GeometryError(
                    f"{self.root / record.image}: expected a principal point inside of the {size[1]} x {size[0]} pixels; "
                    f"got cx {x:g}, cy {y:g}. Give intrinsics of images of this size: they scale with it."
                )

    def image(self, name: str) -> np.ndarray:
        """Return a picture by its file name, uint8 RGB ``(H, W, 3)``."""
        return self.picture(self.root, name)

    def _label(self, record: Record, size: tuple[int, int]) -> Annotation:
        label = self.reader(self.root, record, size)
        if label.value.shape != size:
            raise ShapeError(
                f"{self.root / (record.label or '')}: expected the size of {record.image}, {size}; got {label.value.shape}. "
                "Resize the image to its label."
            )
        return label._replace(value=label.value.astype(np.float32))


def paired(
    root: Path, images: str, labels: str, name: Callable[[str], str | None], key: str
) -> tuple[list[Record], list[Reject]]:
    """Pair the pictures of a folder with labels of the same stem in another folder; also return those left alone.

    Args:
        root: to which the folders are relative.
        images: folder of the pictures; if there is none, there are no frames.
        labels: folder of the labels.
        name: from a picture's name without its ending to its label's name; None if it is no sample.
        key: what keys start with.
    """
    there, found, alone = set(names_in(root / labels)), [], []
    for file in names_in(root / images):
        stem, ending = os.path.splitext(file)
        label = name(stem) if ending.lower() in SUFFIXES else None
        if label is None:
            continue
        record = Record(key_of(key, stem), f"{images}/{file}", f"{labels}/{label}")
        if label in there:
            found.append(record)
        else:
            alone.append(Reject(record.key, f"there is no {record.label}"))
    return found, alone


def held_out(name: str, share: float) -> bool:
    """Decide by its CRC-32, so always alike, whether this name is for validation where nobody has published a split.

    >>> sum(held_out(f"scene {n}", 0.1) for n in range(1000))
    118
    """
    return zlib.crc32(name.encode()) < share * 2**32


def part(count: int, split: str | None, holdout: float) -> slice:
    """Return which of ``count`` frames belong to a split: the last ``holdout`` of them are the test, the others train.

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


def every_nth(items: Sequence[T], n: int) -> Sequence[T]:
    """Return the first item and each n-th after it.

    Raises:
        RecipeError: n is below 1.
    """
    if n < 1:
        raise RecipeError(f"expected every to be 1 (all images) or more; got {n}.")
    return items[::n]


def camera_matrix(numbers: Sequence[float], where: str) -> np.ndarray:
    """Return intrinsics ``(3, 3)`` [px] from fx, fy, cx, cy.

    Args:
        numbers: the four.
        where: who says so, for the message.

    Raises:
        GeometryError: they are no intrinsics in pixels.
    """
    if len(numbers) != 4 or not np.isfinite(numbers).all() or min(numbers[:2]) <= 0:
        raise GeometryError(
            f"{where}: expected finite fx, fy, cx, cy with fx and fy above 0; got {', '.join(map(str, numbers))}. Correct them."
        )
    if max(numbers) < 4:
        raise GeometryError(
            f"{where}: expected fx, fy, cx, cy in pixels; {', '.join(map(str, numbers))} look like fractions of the image's "
            "size. Multiply fx and cx by its width, fy and cy by its height."
        )
    fx, fy, cx, cy = map(float, numbers)
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])


def check_folder(root: Path, content: str, *names: str) -> None:
    """Check that there is a folder, and in it the files without which it is another dataset's.

    Args:
        root: what should be one.
        content: what it should hold, for the message.
        names: of files without which it is another.

    Raises:
        DepthKitError: there is something else, or nothing, or a file is not in it.
    """
    if not root.is_dir():
        packed = root.suffix.lower() in (".zip", ".tar", ".gz", ".tgz", ".7z", ".bag")
        found = "an archive" if packed and root.exists() else "a file" if root.exists() else "nothing"
        remedy = "Unpack it first." if found == "an archive" else "Check the path."
        raise DepthKitError(f"expected a folder with {content} at {root}; found {found}. {remedy}")
    for name in names:
        if not (root / name).exists():
            raise wrong_layout(name, root)


def wrong_layout(expected: str, root: Path) -> DepthKitError:
    """Make the error of a folder that does not hold what it should, with what it holds."""
    names = sorted(entry.name + "/" * entry.is_dir() for entry in root.iterdir())
    found = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    return DepthKitError(f"expected {expected} under {root}; found {found or 'nothing'}. Give the folder that holds it.")


def key_of(*names: str) -> str:
    """Make a sample's key from file names, which may hold dots and blanks."""
    return "/".join("".join(c if c.isalnum() or c in "-_/" else "_" for c in name) for name in names)
