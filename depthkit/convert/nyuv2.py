"""NYU Depth V2, labelled (Silberman et al. 2012): 1,449 images of rooms by a Kinect, in one MATLAB file.

Under the root lie ``nyu_depth_v2_labeled.mat`` (version 7.3, so HDF5: ``images``, ``depths``, ``rawDepths``, their axes in
MATLAB's order) and ``splits.mat`` (``trainNdxs``, ``testNdxs``, counted from 1) of Eigen et al. and everybody since.
"""

from enum import StrEnum
from functools import partial
from pathlib import Path

import numpy as np

from depthkit.checks import check_choice
from depthkit.convert.records.dataset import Dataset
from depthkit.convert.records.files import read_h5, read_h5_words
from depthkit.convert.records.matlab import read_mat
from depthkit.convert.records.record import Annotation, Record, Records, camera_matrix, check_folder, key_of
from depthkit.errors import LabelError
from depthkit.shards.images import ImageFormat
from depthkit.types import Ambiguity, LabelKind, Representation

FILE, SPLITS = "nyu_depth_v2_labeled.mat", "splits.mat"
SIZE = (480, 640)
CAMERA = (518.85790117450188, 519.46961112127485, 325.58244941119034, 253.73616633400465)
"""fx, fy, cx, cy [px] of the colour camera by the authors' toolbox, whose own functions count pixels from 1, though the tool
that calibrated it counts from 0, as everybody does who uses the numbers."""


class Depth(StrEnum):
    """Which depth to read."""

    FILLED = "filled"
    """``depths``: with the holes filled in by colour."""
    RAW = "raw"
    """``rawDepths``: as measured, with holes."""


def nyuv2(root: str | Path, split: str, *, depth: Depth | str = Depth.FILLED) -> Records:
    """Read the labelled images of a split, in the order of the file.

    Args:
        root: folder of the two files.
        split: ``train`` (795) or ``test`` (654, of other scenes).
        depth: which depth to read.

    Raises:
        DepthKitError: a file is missing or is another, or h5py or SciPy is not installed.
    """
    root, depth = Path(root), check_choice("depth", depth, Depth)
    check_folder(root, f"{FILE} and {SPLITS}", FILE, SPLITS)
    numbers = np.sort(np.asarray(read_mat(root / SPLITS, f"{split}Ndxs"), np.int64).ravel())
    camera = camera_matrix(CAMERA, "NYU Depth V2")
    found = tuple(
        Record(key_of("nyu", f"{n:05d}"), f"{FILE}#{n}", f"{FILE}#{n}", intrinsics=camera, size=SIZE) for n in numbers
    )
    name = {Depth.FILLED: "depths", Depth.RAW: "rawDepths"}[depth]
    return Records(root, found, _KIND, (), partial(_read_depth, name=name), _picture)


def tested_rooms(root: str | Path) -> frozenset[str]:
    """Return the rooms of the labelled test images, by the names of their recordings without the part's letter.

    Args:
        root: folder of the two files.

    Raises:
        DepthKitError: a file is missing or is another, or h5py or SciPy is not installed.
    """
    root = Path(root)
    check_folder(root, f"{FILE} and {SPLITS}", FILE, SPLITS)
    scenes = read_h5_words(root / FILE, "scenes")
    numbers = np.asarray(read_mat(root / SPLITS, "testNdxs"), np.int64).ravel()
    return frozenset(room(scenes[number - 1]) for number in numbers)


def room(scene: str) -> str:
    """Return a recording's name without the letter of its part.

    >>> room("living_room_0001b")
    'living_room_0001'
    """
    return scene.rstrip("abcdefghijklmnopqrstuvwxyz")


def _read(root: Path, file: str, name: str) -> np.ndarray:
    """Read one image's part of a data set, in the usual order of axes: MATLAB's is the reverse."""
    file, _, number = file.rpartition("#")
    return read_h5(root / file, name, int(number) - 1).T


def _picture(root: Path, name: str) -> np.ndarray:
    image = _read(root, name, "images")
    if image.dtype != np.uint8 or image.shape[2:] != (3,):
        raise LabelError(f"{root / name}: expected images of three colours, 8 bits; got {image.dtype} {image.shape}.")
    return np.ascontiguousarray(image)


def _read_depth(root: Path, frame: Record, size: tuple[int, int], name: str) -> Annotation:
    assert frame.label
    depth = _read(root, frame.label, name)
    return Annotation(depth, np.isfinite(depth) & (depth > 0))


_KIND = LabelKind(Ambiguity.METRIC, Representation.DEPTH)
DATASETS = (
    Dataset(
        name="nyuv2",
        read=nyuv2,
        layout=f"{FILE} and {SPLITS}",
        kind=_KIND,
        unit="depth along the axis in metres, seen from the colour camera",
        invalid="0; holes of rawDepths",
        sky="indoors",
        camera="the toolbox's colour camera",
        source="Silberman et al. 2012; division of splits.mat",
        licence="research only; the authors state none",
        published={"train": 795, "test": 654},
        splits="the authors' by scene",
        test="tests/convert/test_nyuv2.py",
        image_format=ImageFormat.PNG,
    ),
)
