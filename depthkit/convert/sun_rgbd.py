"""SUN RGB-D (Song et al. 2015): rooms seen by four kinds of depth camera.

Under the root lie ``SUNRGBD``, with a folder per image at any depth that holds ``image/NAME.jpg``, ``depth_bfx/NAME.png``
(16 bit, holes filled; ``depth`` without), ``intrinsics.txt``, and ``SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat`` with the
folders of ``alltrain`` and ``alltest`` as they were on the authors' machine: from ``SUNRGBD/`` on, they are the root's.
Depth is rotated by three bits, in millimetres; the authors cut it off at 8 m.
"""

from enum import StrEnum
from pathlib import Path

import numpy as np

from depthkit.checks import check_choice
from depthkit.convert.records.cameras import read_camera
from depthkit.convert.records.dataset import Dataset
from depthkit.convert.records.files import names_in, read_png16
from depthkit.convert.records.matlab import read_mat
from depthkit.convert.records.record import (
    Annotation,
    Record,
    Records,
    check_folder,
    key_of,
    wrong_layout,
)
from depthkit.images import is_image_name
from depthkit.shards import Reject
from depthkit.shards.label import DepthFormat
from depthkit.types import Ambiguity, LabelKind, Representation

FARTHEST = 8.0
"""Depth [m] beyond which the authors trust no camera."""
_LIST = "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat"


class Depth(StrEnum):
    """Which depth to read."""

    REFINED = "depth_bfx"
    """Of several frames, with holes filled."""
    RAW = "depth"


def sun_rgbd(root: str | Path, split: str = "test", *, depth: Depth | str = Depth.REFINED) -> Records:
    """Read the images of a split, in the order of the authors' list.

    Args:
        root: folder of ``SUNRGBD`` and ``SUNRGBDtoolbox``.
        split: ``train`` or ``test``.
        depth: ``depth_bfx`` or ``depth``.

    Raises:
        DepthKitError: the folder is not laid out like this.
        GeometryError: a camera's file is garbled.
    """
    root, depth = Path(root), check_choice("depth", depth, Depth)
    check_folder(root, f"SUNRGBD and {_LIST}")
    if not (root / _LIST).is_file() or not (root / "SUNRGBD").is_dir():
        raise wrong_layout(f"SUNRGBD/ and {_LIST}", root)
    found: list[Record] = []
    rejects: list[Reject] = []
    for folder in _folders(root, f"all{split}"):
        pictures, labels = names_in(root / folder / "image"), names_in(root / folder / depth)
        images = [name for name in pictures if is_image_name(name)]
        if not images or not labels:
            rejects.append(Reject(folder, f"there is no {'image' if not images else depth} in it"))
            continue
        camera = read_camera(root / folder / "intrinsics.txt")
        image, label = f"{folder}/image/{images[0]}", f"{folder}/{depth}/{labels[0]}"
        found.append(Record(key_of(folder.removeprefix("SUNRGBD/"))[-79:].strip("/"), image, label, intrinsics=camera))
    if not found:
        raise wrong_layout(f"the folders of all{split} in {_LIST}, with image/ and {depth}/,", root / "SUNRGBD")
    return Records(root, tuple(found), _KIND, tuple(rejects), read_depth)


def read_depth(root: Path, frame: Record, size: tuple[int, int]) -> Annotation:
    """Read the depth of a record, valid above 0 and up to 8 m."""
    assert frame.label
    codes = read_png16(root / frame.label)
    depth = ((codes >> 3) | (codes << 13)) / 1000
    return Annotation(depth, (depth > 0) & (depth <= FARTHEST))


def _folders(root: Path, name: str) -> list[str]:
    """List the folders of a split, relative to the root."""
    listed = [str(np.asarray(entry).ravel()[0]) for entry in np.asarray(read_mat(root / _LIST, name)).ravel()]
    return [f"SUNRGBD/{path.partition('SUNRGBD/')[2]}".rstrip("/") for path in listed]


_KIND = LabelKind(Ambiguity.METRIC, Representation.DEPTH)

DATASETS = (
    Dataset(
        name="sun_rgbd",
        read=sun_rgbd,
        layout=f"SUNRGBD/ and {_LIST}",
        kind=_KIND,
        unit="depth in millimetres, its bits rotated by three",
        invalid="0, and beyond 8 m",
        sky="indoors",
        camera="intrinsics.txt, one per image, as it is",
        source="Song et al. 2015",
        licence="research use",
        published={"train": 5285, "test": 5050},
        splits="the authors' allsplit.mat, by building",
        test="tests/convert/test_sun_rgbd.py",
        depth_format=DepthFormat.PNG_LINEAR16,
    ),
)
