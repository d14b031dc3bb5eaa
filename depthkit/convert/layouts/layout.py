"""What a folder of images and depth holds, and which files of it belong together."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from depthkit.convert.layouts.depth_files import SUFFIXES, Coding, is_measured
from depthkit.convert.records.files import names_in, read_bytes
from depthkit.errors import DepthKitError, GeometryError, LabelError
from depthkit.images import is_image_name, opened
from depthkit.types import Ambiguity

_IMAGE, _DEPTH = "rgb|colou?rs?|images?|img|frame|photo", "depths?|depth_?maps?|disp|disparity"
_OTHER = re.compile(r"(^|[._\-])(masks?|normals?|conf|confidence|seg|semantics?|instances?|pose)($|[._\-\d])", re.IGNORECASE)
_IS_DEPTH = re.compile(rf"(^|[._\-])({_DEPTH})($|[._\-\d])", re.IGNORECASE)
_ROLE = re.compile(rf"(?:^|(?<=[._\-]))(?:{_IMAGE}|{_DEPTH})(?=$|[._\-\d])[._\-]?", re.IGNORECASE)
IMAGE_FOLDERS = ("rgb", "color", "colour", "images", "image")
DEPTH_FOLDERS = ("depth", "depths", "depth_map", "depth_maps")


@dataclass(frozen=True)
class Layout:
    """What was found in a folder; files are relative to it, and everything goes by the image's stem.

    Attributes:
        images: their files, in the order of the numbers in their names.
        labels: files of depth.
        cameras: fx, fy, cx, cy, width, height and what else is known of each.
        poses: ``world_from_camera`` ``(4, 4)`` [m].
        name: of the layout, for messages; empty for the plain folder.
        unit: metres per integer of the depth files; None where the layout does not say, and the user has to.
        floats: whether floating-point numbers are in that unit, too; they are metres otherwise.
        coding: of depth in 8-bit PNGs.
        ambiguity: of the depth.
        shrink: whether images larger than their depth are shrunk to it.
        notes: what the user should know.
    """

    images: Mapping[str, str]
    labels: Mapping[str, str] = field(default_factory=dict)
    cameras: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    poses: Mapping[str, np.ndarray] = field(default_factory=dict)
    name: str = ""
    unit: float | None = 0.001
    floats: bool = False
    coding: Coding = Coding.AUTO
    ambiguity: Ambiguity = Ambiguity.METRIC
    shrink: bool = False
    notes: Sequence[str] = ()


def in_order(stem: str) -> list[tuple[str, int]]:
    """Cut a name into words and numbers, so that f2 comes before f10."""
    words = re.split(r"(\d+)", stem, flags=re.ASCII)
    return [(text, int(number or 0)) for text, number in zip(words[::2], [*words[1::2], "0"], strict=True)]


def core(stem: str) -> str:
    """Return a stem without the words that tell a photo from its depth.

    >>> [core(s) for s in ("frame-000001.color", "frame-000001.depth", "rgb_7", "7_depth", "depth7", "7-rgb")]
    ['000001', '000001', '7', '7', '7', '7']
    """
    return _ROLE.sub("", stem).strip("._-")


def images_in(root: Path, name: str = "") -> dict[str, str]:
    """List the images of a folder by stem, in the order of the numbers in their names, relative to the root.

    Raises:
        LabelError: a picture of 16-bit grey lies among them: that is no photo.
    """
    found = _listed(root, name, [file for file in names_in(root / name) if is_image_name(file)])
    for file in found.values():
        if is_grey16(root / file):
            raise LabelError(
                f"expected photos in {(root / name)}; {Path(file).name} is of 16-bit grey, as depth is. Put depth into "
                "a folder named depth, with the stems of its images, or save photos with 8 bits."
            )
    return found


def side_by_side(root: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Tell photos and depth apart that lie in one folder; both by the photo's stem, the depth as far as it belongs to one."""
    names = [name for name in names_in(root) if not name.startswith(".") and (root / name).is_file()]
    depth = [n for n in names if Path(n).suffix.lower() in SUFFIXES and (is_measured(n) or is_grey16(root / n))]
    depth = [name for name in depth if not _OTHER.search(Path(name).stem)]
    photos = [name for name in names if is_image_name(name) and name not in depth]
    cores = Counter(core(Path(name).stem) for name in photos)
    named = {name for name in photos if _IS_DEPTH.search(Path(name).stem) and cores[core(Path(name).stem)] > 1}
    if depth or named:  # beside depth, masks and normals are no photos either
        photos = [name for name in photos if name not in named and not _OTHER.search(Path(name).stem)]
    images = _listed(root, "", photos)
    return images, _paired(root, images, [*depth, *named]) if depth or named else {}


def labels_in(root: Path, name: str, images: Mapping[str, str]) -> dict[str, str]:
    """Find the depth of images in a folder, by the images' stems.

    Raises:
        LabelError: an image has two files that could be its depth.
    """
    names = [f for f in names_in(root / name) if Path(f).suffix.lower() in SUFFIXES and not f.startswith(".")]
    return _paired(root, images, [f"{name}/{file}" for file in names])


def one_folder(root: Path, names: Iterable[str]) -> str | None:
    """Find the one folder of these names, in small or capital letters, that is not empty.

    Raises:
        DepthKitError: there are several.
    """
    wanted = {name.lower() for name in names}
    found = [name for name in names_in(root) if name.lower() in wanted and names_in(root / name)]
    if len(found) > 1:
        raise DepthKitError(
            f"expected one folder of {', '.join(sorted(wanted))} in {root}; got {' and '.join(found)}. Move one away."
        )
    return found[0] if found else None


def size_of(file: Path) -> tuple[int, int]:
    """Read the (width, height) of an image from its header.

    Raises:
        DepthKitError: it is none.
    """
    try:
        with opened(file, str(file), error=DepthKitError) as image:
            return image.size
    except (OSError, SyntaxError, ValueError) as error:
        raise DepthKitError(f"expected an image at {file}; it does not read ({error}). Get it again.") from error


def pose_in(rows: Any, where: str) -> np.ndarray | None:
    """Return a pose ``(4, 4)``; None if it is not finite, as tracking that was lost is written.

    Raises:
        GeometryError: it is no rotation with a shift.
    """
    try:
        pose = np.array(rows, np.float64)
    except (ValueError, TypeError):
        pose = np.zeros(0)
    if pose.shape == (3, 4):
        pose = np.vstack([pose, [[0.0, 0, 0, 1]]])
    if pose.shape == (4, 4) and not np.isfinite(pose).all():
        return None
    turn = pose[:3, :3] if pose.shape == (4, 4) else np.zeros((3, 3))
    if not np.allclose(turn @ turn.T, np.eye(3), atol=1e-2) or not np.allclose(pose[3], (0, 0, 0, 1)):
        raise GeometryError(
            f"{where}: expected a pose of 4 x 4 numbers, row by row, with the last row 0 0 0 1; got {pose.tolist()}. "
            "Correct or transpose it."
        )
    return pose


def _listed(root: Path, name: str, files: Iterable[str]) -> dict[str, str]:
    """Put files in the order of their numbers, by stem, relative to the root; folders are left out."""
    found: dict[str, str] = {}
    for file in sorted(
        (file for file in files if not (root / name / file).is_dir()), key=lambda file: in_order(Path(file).stem)
    ):
        here = f"{name}/{file}" if name else file
        if found.setdefault(Path(file).stem, here) != here:
            raise LabelError(
                f"expected images of {root} with stems of their own; got {found[Path(file).stem]} and {here}. Move one away."
            )
    return found


def _paired(root: Path, images: Mapping[str, str], files: Iterable[str]) -> dict[str, str]:
    """Give each image the file of its stem, or else the only one whose stem is the same but for words such as rgb and depth."""
    exact, alike = defaultdict(list), defaultdict(list)
    for file in files:
        exact[Path(file).stem].append(file)
        alike[core(Path(file).stem)].append(file)
    cores = Counter(map(core, images))
    found = {}
    for stem in images:
        mine = exact.get(stem) or (alike.get(core(stem), []) if cores[core(stem)] == 1 else [])
        if len(mine) > 1:  # a picture of the depth beside it
            mine = [file for file in mine if is_measured(file) or is_grey16(root / file)] or mine
        if len(mine) > 1:
            raise LabelError(
                f"expected one file of depth for {images[stem]} of {root}; got {' and '.join(sorted(mine))}. Move one away."
            )
        if mine:
            found[stem] = mine[0]
    return found


def is_grey16(file: Path) -> bool:
    """Tell by its header whether a file is a PNG of 16-bit grey, or a TIFF of numbers."""
    if file.suffix.lower() not in (".png", ".tif", ".tiff"):
        return False
    try:
        if file.suffix.lower() != ".png":
            with opened(file, str(file), max_pixels=None) as image:
                return image.mode[:1] in "FI"
        with file.open("rb") as content:
            head = content.read(26)
    except (OSError, SyntaxError, ValueError):
        return False  # whoever reads it will tell
    return head[:8] == b"\x89PNG\r\n\x1a\n" and head[24:26] in (b"\x10\x00", b"\x10\x04")


def read_json(file: Path) -> dict[str, Any]:
    """Read an object of JSON.

    Raises:
        GeometryError: the file holds something else.
    """
    try:
        content = json.loads(read_bytes(file))
    except (ValueError, RecursionError) as error:
        raise GeometryError(f"expected {file} to be JSON; it does not read ({error}). Get it again.") from error
    if not isinstance(content, dict):
        raise GeometryError(f"expected {file} to hold an object of JSON; got {type(content).__name__}. Get it again.")
    return content
