"""What tools of reconstruction leave behind: nerfstudio's and instant-ngp's transforms.json, and COLMAP's models."""

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from depthkit.convert.layouts.captures import FROM_GL
from depthkit.convert.layouts.layout import (
    DEPTH_FOLDERS,
    IMAGE_FOLDERS,
    Layout,
    images_in,
    in_order,
    labels_in,
    one_folder,
    pose_in,
    read_json,
    size_of,
)
from depthkit.convert.records.files import read_bytes
from depthkit.convert.tum import pose_of
from depthkit.errors import DepthKitError, GeometryError
from depthkit.images import SUFFIXES
from depthkit.types import Ambiguity

_LENS = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")
_MODELS = {  # number, name, how many focal lengths, names of the distortion's numbers
    0: ("SIMPLE_PINHOLE", 1, 0),
    1: ("PINHOLE", 2, 0),
    2: ("SIMPLE_RADIAL", 1, 1),
    3: ("RADIAL", 1, 2),
    4: ("OPENCV", 2, 4),
}


def nerfstudio(root: Path) -> Layout | None:
    """Read ``transforms.json`` and the images and depth that it names."""
    file = root / "transforms.json"
    if not file.is_file():
        return None
    facts = read_json(file)
    frames = facts.get("frames")
    if not isinstance(frames, list) or not all(isinstance(frame, dict) and "file_path" in frame for frame in frames):
        raise GeometryError(f"{file}: expected frames with a file_path each; got {str(frames)[:40]}. Export it again.")
    images: dict[str, str] = {}
    labels: dict[str, str] = {}
    cameras: dict[str, Any] = {}
    poses: dict[str, np.ndarray] = {}
    for frame in sorted(frames, key=lambda frame: in_order(str(frame["file_path"]))):
        name = _file(root, str(frame["file_path"]))
        stem = Path(name).stem
        if stem in images:
            raise GeometryError(f"{file}: expected images with stems of their own; got {images[stem]} and {name}. Rename one.")
        images[stem] = name
        depth = frame.get("depth_file_path", frame.get("depth_path"))
        if depth is not None:
            labels[stem] = str(Path(str(depth)))
        cameras[stem] = _camera({**frame, **facts}, root / name, file)
        pose = pose_in(frame.get("transform_matrix"), str(file)) if depth is not None else None
        if pose is not None:
            poses[stem] = pose @ FROM_GL
    unit = facts.get("depth_unit_scale_factor", facts.get("integer_depth_scale", 0.001))
    if not isinstance(unit, int | float) or unit <= 0:
        raise GeometryError(f"{file}: expected metres per integer as depth_unit_scale_factor; got {unit!r}. Correct it.")
    note = (
        "transforms.json does not say whether depth is along the axis, as it is read, or from the camera: then give --ray true"
    )
    return Layout(images, labels, cameras, poses, "transforms.json", float(unit), floats=True, notes=(note,) if labels else ())


def colmap(root: Path) -> Layout | None:
    """Read the images of a model of COLMAP with their cameras, and its depth, whose scale is arbitrary, if there is any."""
    model = next((p for p in _places(root) if any((p / f"cameras.{ending}").is_file() for ending in ("bin", "txt"))), None)
    folder = one_folder(root, IMAGE_FOLDERS)
    if model is None or folder is None:
        return None
    lenses, used = _model(model)
    images = images_in(root, folder)
    cameras = {stem: lenses[used[Path(name).name][0]] for stem, name in images.items() if Path(name).name in used}
    if not cameras:
        raise GeometryError(f"{model}: expected the images of {root / folder}; got others, such as {next(iter(used), 'none')}.")
    images = {stem: images[stem] for stem in cameras}
    maps, own = root / "stereo" / "depth_maps", one_folder(root, DEPTH_FOLDERS)
    if own is not None:
        note = "poses of COLMAP are of another scale than metres, and left out"
        return Layout(images, labels_in(root, own, images), cameras, name="COLMAP", shrink=True, notes=(note,))
    labels = {stem: str((maps / f"{Path(name).name}.geometric.bin").relative_to(root)) for stem, name in images.items()}
    labels = {stem: label for stem, label in labels.items() if (root / label).is_file()}
    return Layout(images, labels, cameras, name="COLMAP", ambiguity=Ambiguity.SCALE)


def _places(root: Path) -> Iterator[Path]:
    yield from (root / "sparse", root / "sparse" / "0", root / "colmap" / "sparse" / "0", root / "colmap", root)


def _file(root: Path, name: str) -> str:
    """Return the name of an image that is named with or without its ending."""
    names = [name, *(f"{name}{ending}" for ending in SUFFIXES)]
    found = next((str(Path(there)) for there in names if (root / there).is_file()), None)
    if found is None:
        raise DepthKitError(f"expected an image at {root / name}, which transforms.json names; there is none. Restore it.")
    return found


def _camera(facts: Mapping[str, Any], image: Path, file: Path) -> dict[str, Any]:
    """Return facts of a frame's camera, whose pixels transforms.json counts from their corners."""
    distorted = {name: facts[name] for name in _LENS if facts.get(name)}
    model = facts.get("camera_model", "PINHOLE")
    if distorted or "FISHEYE" in str(model):
        raise GeometryError(
            f"{file}: expected a pinhole camera; got {model} with {distorted or 'fisheye'}. Undistort the images first."
        )
    width, height = facts.get("w"), facts.get("h")
    if width is None or height is None:
        width, height = size_of(image)
    try:
        fx = float(facts["fl_x"]) if "fl_x" in facts else 0.5 * width / np.tan(0.5 * float(facts["camera_angle_x"]))
        fy = float(facts.get("fl_y", fx))
        cx, cy = float(facts.get("cx", width / 2)), float(facts.get("cy", height / 2))
    except (KeyError, TypeError, ValueError) as error:
        raise GeometryError(f"{file}: expected numbers fl_x (or camera_angle_x), cx, cy; got {error!r}. Correct it.") from error
    return {"fx": fx, "fy": fy, "cx": cx - 0.5, "cy": cy - 0.5, "width": width, "height": height}


def _model(folder: Path) -> tuple[dict[int, dict[str, Any]], dict[str, tuple[int, np.ndarray]]]:
    """Read cameras by number, and by image name its camera's number and its pose."""
    binary = (folder / "cameras.bin").is_file()
    ending = "bin" if binary else "txt"
    files = folder / f"cameras.{ending}", folder / f"images.{ending}"
    cameras, images = (read_bytes(file) for file in files)
    try:
        lenses = dict(_cameras_of_bytes(cameras) if binary else _cameras_of_text(cameras))
        used = dict(_images_of_bytes(images) if binary else _images_of_text(images))
        return {number: _pinhole(*lens, files[0]) for number, lens in lenses.items()}, used
    except (ValueError, IndexError, KeyError, struct.error, UnicodeDecodeError, MemoryError, OverflowError) as error:
        raise GeometryError(f"{folder}: expected a model of COLMAP; it does not read ({error!r}). Get it again.") from error


def _pinhole(model: str, width: int, height: int, numbers: list[float], file: Path) -> dict[str, Any]:
    """Return facts of a camera without distortion, whose pixels COLMAP counts from their corners."""
    known = {name: (focal, lens) for name, focal, lens in _MODELS.values()}
    focal, lens = known.get(model, (0, 1))
    distorted = numbers[focal + 2 :] if model in known else numbers
    if model not in known or any(distorted):
        raise GeometryError(
            f"{file}: expected a pinhole camera; got {model} with {distorted}. Undistort the images first: "
            "`colmap image_undistorter`."
        )
    if len(numbers) != focal + 2 + lens:
        raise GeometryError(f"{file}: expected {focal + 2 + lens} numbers of {model}; got {len(numbers)}. Get it again.")
    fx, fy, cx, cy = numbers[0], numbers[focal - 1], numbers[focal], numbers[focal + 1]
    return {"fx": fx, "fy": fy, "cx": cx - 0.5, "cy": cy - 0.5, "width": width, "height": height}


def _lines(data: bytes) -> list[str]:
    return [line for line in data.decode("utf-8").splitlines() if not line.startswith("#")]


def _cameras_of_text(data: bytes) -> Iterator[tuple[int, tuple[str, int, int, list[float]]]]:
    for line in _lines(data):
        if line.strip():
            number, model, width, height, *rest = line.split()
            yield int(number), (model, int(width), int(height), [float(word) for word in rest])


def _images_of_text(data: bytes) -> Iterator[tuple[str, tuple[int, np.ndarray]]]:
    for line in _lines(data):
        words = line.split(maxsplit=9)
        if len(words) == 10 and "." in words[9] and not words[9].replace(".", "").replace(" ", "").isdigit():  # not of points
            yield Path(words[9]).name, (int(words[8]), _pose([float(word) for word in words[1:8]]))


def _cameras_of_bytes(data: bytes) -> Iterator[tuple[int, tuple[str, int, int, list[float]]]]:
    (count,), place = struct.unpack_from("<Q", data), 8
    for _ in range(count):
        number, code, width, height = struct.unpack_from("<iiQQ", data, place)
        model, focal, lens = _MODELS[code]
        yield number, (model, width, height, list(struct.unpack_from(f"<{focal + 2 + lens}d", data, place + 24)))
        place += 24 + 8 * (focal + 2 + lens)


def _images_of_bytes(data: bytes) -> Iterator[tuple[str, tuple[int, np.ndarray]]]:
    (count,), place = struct.unpack_from("<Q", data), 8
    for _ in range(count):
        numbers = struct.unpack_from("<I7dI", data, place)
        end = data.index(b"\0", place + 64)
        yield Path(data[place + 64 : end].decode()).name, (numbers[8], _pose(list(numbers[1:8])))
        (points,) = struct.unpack_from("<Q", data, end + 1)
        place = end + 9 + 24 * points


def _pose(numbers: list[float]) -> np.ndarray:
    w, x, y, z, *shift = numbers
    return pose_of(np.array([*shift, x, y, z, w]))
