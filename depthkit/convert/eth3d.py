"""ETH3D's high-resolution multi-view scenes (Schöps et al. 2017): rooms and places scanned by a laser and photographed.

Under the root lie, as the archives ``SCENE_dslr_jpg`` and ``SCENE_dslr_depth`` unpack into one folder,

- ``SCENE/images/dslr_images/NAME.JPG``,
- ``SCENE/ground_truth_depth/dslr_images/NAME.JPG``, which is no picture but float32 row by row, of the image's size, and
- ``SCENE/dslr_calibration_jpg/cameras.txt`` and ``images.txt`` in COLMAP's format.

Romanov et al. 2020 (GP2) score on another rendering of the scans, dense and at a quarter of the resolution, which lies beside
their weights as ``eth3d.zip``: ``SCENE/images_out/dslr_images_undistorted/NAME.JPG`` and
``SCENE/depth/dslr_images_undistorted/NAME.png`` (16 bit, millimetres). Numbers on the two are not comparable.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from depthkit.convert.records.dataset import Dataset
from depthkit.convert.records.files import names_in, read_bytes, read_png16
from depthkit.convert.records.record import (
    Annotation,
    Record,
    Records,
    camera_matrix,
    check_folder,
    paired,
    read_codes,
    read_picture,
    wrong_layout,
)
from depthkit.convert.tum import pose_of
from depthkit.errors import GeometryError, LabelError
from depthkit.shards import DepthFormat, Reject
from depthkit.types import Ambiguity, LabelKind, Representation


def eth3d(root: str | Path, split: str = "test") -> Records:
    """Read the images with depth, by scene: those that the authors publish for training, and others test on.

    Images are those with the lens's distortion, for which the depth was made; of their camera only the linear part is kept.

    Args:
        root: folder of the scenes.
        split: ``test``; there is no other.

    Raises:
        DepthKitError: the folder is not laid out like this.
        GeometryError: a scene's cameras are garbled.
    """
    root = Path(root)
    check_folder(root, "ETH3D's scenes, such as courtyard/images/dslr_images,")
    found: list[Record] = []
    rejects: list[Reject] = []
    for scene in names_in(root):
        images, labels = (f"{scene}/{what}/dslr_images" for what in ("images", "ground_truth_depth"))
        there = {Path(name).stem: name for name in names_in(root / labels)}
        here, alone = paired(root, images, labels, partial(_label_name, there), scene)
        cameras = _cameras(root / scene / "dslr_calibration_jpg")
        found += [_placed(frame, cameras.get(Path(frame.image).name)) for frame in here]
        rejects += alone
    if not found:
        raise wrong_layout("SCENE/images/dslr_images/ and SCENE/ground_truth_depth/dslr_images/", root)
    return Records(root, tuple(found), _KIND, tuple(rejects), read_depth)


def eth3d_gp2(root: str | Path, split: str = "test") -> Records:
    """Read the images of GP2's rendering, by scene, at the size of their depth.

    Args:
        root: folder of the scenes of ``eth3d.zip``.
        split: ``test``; there is no other.

    Raises:
        DepthKitError: the folder is not laid out like this.
    """
    root = Path(root)
    check_folder(root, "the scenes of GP2's eth3d.zip, such as courtyard/images_out,")
    found: list[Record] = []
    rejects: list[Reject] = []
    for scene in names_in(root):
        images, labels = f"{scene}/{_GP2_IMAGES}/dslr_images_undistorted", f"{scene}/{_GP2_DEPTH}/dslr_images_undistorted"
        here, alone = paired(root, images, labels, "{}.png".format, scene)
        found, rejects = found + [replace(frame, scale=0.001) for frame in here], rejects + alone
    if not found:
        raise wrong_layout("SCENE/images_out/dslr_images_undistorted/ and SCENE/depth/dslr_images_undistorted/", root)
    return Records(root, tuple(found), _KIND, tuple(rejects), read_codes, _read_small)


def _read_small(root: Path, name: str) -> np.ndarray:
    """Read a picture at the size of its depth, which is a quarter of the camera's."""
    image = read_picture(root, name)
    label = Path(name.replace(f"/{_GP2_IMAGES}/", f"/{_GP2_DEPTH}/", 1)).with_suffix(".png")
    height, width = read_png16(root / label).shape
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))


def read_depth(root: Path, frame: Record, size: tuple[int, int]) -> Annotation:
    """Read the depth of a record: float32 of the image's size, infinity where the scan has nothing."""
    assert frame.label
    data = read_bytes(root / frame.label)
    if len(data) != 4 * size[0] * size[1]:
        raise LabelError(
            f"{root / frame.label}: expected {size[1]} x {size[0]} float32, one per pixel; got {len(data)} bytes. "
            "Take the depth of the distorted images."
        )
    depth = np.frombuffer(data, "<f4").reshape(size)
    return Annotation(depth, np.isfinite(depth) & (depth > 0))


def _label_name(there: Mapping[str, str], stem: str) -> str:
    return there.get(stem, f"{stem}.JPG")


class _View(NamedTuple):
    """Camera of an image: intrinsics, the size they are for, camera from world."""

    intrinsics: np.ndarray
    size: tuple[int, int]
    camera_from_world: np.ndarray


def _placed(frame: Record, view: _View | None) -> Record:
    if view is None:
        return frame
    return replace(frame, intrinsics=view.intrinsics, size=view.size, world_from_camera=np.linalg.inv(view.camera_from_world))


def _cameras(folder: Path) -> dict[str, _View]:
    """Read the cameras by image name; return none if they were not unpacked."""
    files = folder / "cameras.txt", folder / "images.txt"
    if not all(file.is_file() for file in files):
        return {}
    cameras, images = ([line.split() for line in _lines(file)] for file in files)
    try:
        lenses = {words[0]: ((int(words[3]), int(words[2])), [float(word) for word in words[4:8]]) for words in cameras}
        found = {}
        for words in images:
            if len(words) == 10 and "." in words[9]:  # between them stand lines of points
                w, x, y, z, *shift = (float(word) for word in words[1:8])
                size, (fx, fy, cx, cy) = lenses[words[8]]
                lens = (fx, fy, cx - 0.5, cy - 0.5)  # COLMAP's first centre is at 0.5
                found[Path(words[9]).name] = (lens, size, pose_of(np.array([*shift, x, y, z, w])))
    except (ValueError, IndexError, KeyError) as error:
        raise GeometryError(
            f"{folder}: expected cameras.txt and images.txt in COLMAP's format; got {error!r}. Get them again."
        ) from error
    return {name: _View(camera_matrix(lens, str(files[0])), size, pose) for name, (lens, size, pose) in found.items()}


def _lines(file: Path) -> list[str]:
    lines = read_bytes(file).decode("utf-8", "replace").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


_KIND = LabelKind(Ambiguity.METRIC, Representation.DEPTH)
_GP2_IMAGES, _GP2_DEPTH = "images_out", "depth"

DATASETS = (
    Dataset(
        name="eth3d",
        read=eth3d,
        layout="SCENE/ with images/dslr_images/, ground_truth_depth/dslr_images/, dslr_calibration_jpg/",
        kind=_KIND,
        unit="depth along the axis in metres, float32",
        invalid="infinity: the scan has nothing there",
        sky="without depth",
        camera="cameras.txt without the lens's distortion, moved by half a pixel from COLMAP's count; images.txt",
        source="Schöps et al. 2017; MiDaS and Marigold for the count",
        licence="CC BY-NC-SA 4.0",
        published={"test": 454},
        splits="the 13 scenes that are published with depth, all for testing",
        test="tests/convert/test_eth3d.py",
    ),
    Dataset(
        name="eth3d_gp2",
        read=eth3d_gp2,
        layout="SCENE/ with images_out/dslr_images_undistorted/ and depth/dslr_images_undistorted/",
        kind=_KIND,
        unit="depth along the axis in millimetres, rendered from the cleaned scans",
        invalid="0",
        sky="without depth",
        camera="not in the archive",
        source="Romanov et al. 2020, eth3d.zip beside their weights; ETH3D for the scenes and their count",
        licence="CC BY-NC-SA 4.0, ETH3D's",
        published={"test": 454},
        splits="the 13 scenes that are published with depth, all for testing",
        test="tests/convert/test_eth3d.py",
        depth_format=DepthFormat.PNG_LINEAR16,
    ),
)
