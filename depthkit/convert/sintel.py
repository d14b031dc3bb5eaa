"""Sintel (Butler et al. 2012): scenes of an animated film with their depth.

Under the root, or under ``training`` of it, lie, as the archives of images and of depth unpack,

- ``final/SCENE/frame_NNNN.png`` (and ``clean``),
- ``depth/SCENE/frame_NNNN.dpt``: a tag, width, height, and depth as float32, and
- ``camdata_left/SCENE/frame_NNNN.cam``: a tag, and intrinsics and camera from world as float64.
"""

from dataclasses import replace
from enum import StrEnum
from pathlib import Path

import numpy as np

from depthkit.checks import check_choice
from depthkit.convert.records.dataset import Dataset
from depthkit.convert.records.files import names_in, read_bytes
from depthkit.convert.records.record import (
    Annotation,
    Record,
    Records,
    camera_matrix,
    check_folder,
    paired,
    wrong_layout,
)
from depthkit.errors import GeometryError, LabelError
from depthkit.shards import Reject
from depthkit.shards.images import ImageFormat
from depthkit.types import Ambiguity, LabelKind, Representation

TAG = 202021.25
"""First float32 of every file of the authors' formats."""
_LARGEST = 2**28  # pixels; a header that promises more is garbled


class Pass(StrEnum):
    """How the film was rendered."""

    FINAL = "final"
    """With blur, fog and grain: what networks are tested on."""
    CLEAN = "clean"


def sintel(root: str | Path, split: str = "test", *, rendering: Pass | str = Pass.FINAL) -> Records:
    """Read all images with depth, by scene: those that the authors publish for training, and others test on.

    Args:
        root: folder with ``training``, or that folder.
        split: ``test``; there is no other.
        rendering: ``final`` or ``clean``.

    Raises:
        DepthKitError: the folder is not laid out like this.
        GeometryError: a camera's file is garbled.
    """
    root, rendering = Path(root), check_choice("rendering", rendering, Pass)
    check_folder(root, "Sintel's training/final and training/depth")
    base = "training/" if (root / "training").is_dir() else ""
    scenes = names_in(root / f"{base}depth")
    found: list[Record] = []
    rejects: list[Reject] = []
    for scene in scenes:
        images, labels = (f"{base}{what}/{scene}" for what in (rendering, "depth"))
        here, alone = paired(root, images, labels, "{}.dpt".format, scene)
        found += [_with_camera(root, frame, f"{base}camdata_left/{scene}/{Path(frame.image).stem}.cam") for frame in here]
        rejects += alone
    if not found:
        raise wrong_layout(f"training/{rendering}/SCENE/frame_0001.png and training/depth/SCENE/frame_0001.dpt", root)
    return Records(root, tuple(found), _KIND, tuple(rejects), read_depth)


def read_depth(root: Path, frame: Record, size: tuple[int, int]) -> Annotation:
    """Read the label of a record, a .dpt file; values that are not finite and above 0 are not valid."""
    assert frame.label
    depth = read_dpt(root / frame.label)
    return Annotation(depth, np.isfinite(depth) & (depth > 0))


def read_dpt(file: Path) -> np.ndarray:
    """Read a .dpt file, float32 ``(H, W)``.

    Raises:
        LabelError: it is something else.
    """
    data = read_bytes(file)
    header = np.frombuffer(data[:12], "<f4", 1) if len(data) >= 12 else np.zeros(1)
    width, height = np.frombuffer(data[4:12], "<i4") if len(data) >= 12 else (0, 0)
    if header[0] != TAG or min(width, height) <= 0 or int(width) * int(height) > _LARGEST:
        raise LabelError(f"{file}: expected a .dpt file, which begins with {TAG}; got {data[:12]!r}. Get it again.")
    if len(data) != 12 + 4 * int(width) * int(height):
        raise LabelError(f"{file}: expected {width} x {height} float32; got {len(data) - 12} bytes. It is cut short.")
    return np.frombuffer(data, "<f4", offset=12).reshape(height, width).astype(np.float32)


def _with_camera(root: Path, frame: Record, name: str) -> Record:
    """Give the record its camera, if the archive of cameras is there."""
    file = root / name
    if not file.is_file():
        return frame
    data = read_bytes(file)
    if len(data) != 4 + 8 * 21 or np.frombuffer(data, "<f4", 1)[0] != TAG:
        raise GeometryError(f"{file}: expected {TAG} and 21 float64; got {len(data)} bytes. Get it again.")
    numbers = np.frombuffer(data, "<f8", offset=4)
    matrix, camera_from_world = numbers[:9].reshape(3, 3), np.eye(4)
    camera_from_world[:3] = numbers[9:].reshape(3, 4)
    return replace(
        frame,
        intrinsics=camera_matrix([matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]], str(file)),
        world_from_camera=np.linalg.inv(camera_from_world),
    )


_KIND = LabelKind(Ambiguity.METRIC, Representation.DEPTH)

DATASETS = (
    Dataset(
        name="sintel",
        read=sintel,
        layout="training/ with final/SCENE/, depth/SCENE/ and camdata_left/SCENE/",
        kind=_KIND,
        unit="depth in the film's unit, taken as metres, float32",
        invalid="not finite, or 0; nothing else is marked",
        sky="a far backdrop with a depth of its own; protocols cut it off at 72 or 80 m",
        camera="camdata_left (cx 511.5 of 1024 columns: pixel centres at integers), camera from world",
        source="Butler et al. 2012; MiDaS for the count of the final pass",
        licence="CC BY 3.0, Blender Foundation",
        published={"test": 1064},
        splits="the 23 scenes that are published with depth, all for testing",
        test="tests/convert/test_sintel.py",
        image_format=ImageFormat.PNG,
    ),
)
