"""TUM RGB-D's sequences with moving people, as Li et al. (2019, Mannequin Challenge) prepared them for testing.

Under the root lie HDF5 files, at any depth, one per image: ``gt/img_1``, RGB in [0, 1], ``(H, W, 3)``, and ``gt/gt_depth``,
metres, ``(H, W)``, 0 where there is none. MiDaS and GP2 are tested on these, not on the sequences as they were recorded.
"""

from pathlib import Path

import numpy as np

from depthkit.convert.records.dataset import Dataset
from depthkit.convert.records.files import read_h5
from depthkit.convert.records.record import Annotation, Record, Records, check_folder, key_of, wrong_layout
from depthkit.errors import LabelError, ShapeError
from depthkit.shards.images import ImageFormat
from depthkit.shards.label import DepthFormat
from depthkit.types import Ambiguity, LabelKind, Representation


def tum_people(root: str | Path, split: str = "test") -> Records:
    """Read all images, by the names of their files.

    Args:
        root: folder of the files.
        split: ``test``; there is no other.

    Raises:
        DepthKitError: the folder holds no such files.
    """
    root = Path(root)
    check_folder(root, "HDF5 files of TUM RGB-D")
    files = sorted(file.relative_to(root).as_posix() for file in root.rglob("*.h5"))
    if not files:
        raise wrong_layout("NAME.h5", root)
    found = tuple(Record(key_of(file.removesuffix(".h5").removesuffix(".jpg")), file, file) for file in files)
    return Records(root, found, _KIND, reader=read_depth, picture=read_image)


def read_image(root: Path, name: str) -> np.ndarray:
    """Read the image of a file, uint8 RGB ``(H, W, 3)``."""
    image = read_h5(root / name, "gt/img_1")
    if image.ndim != 3 or image.shape[2] != 3:
        raise ShapeError(f"{root / name}: expected gt/img_1 of shape (H, W, 3); got {image.shape}. Check the layout.")
    return np.rint(np.clip(image.astype(np.float64), 0, 1) * 255).astype(np.uint8)


def read_depth(root: Path, frame: Record, size: tuple[int, int]) -> Annotation:
    """Read the depth of a file, valid where it is above 0."""
    assert frame.label
    depth = read_h5(root / frame.label, "gt/gt_depth")
    if depth.ndim != 2:
        raise LabelError(f"{root / frame.label}: expected gt/gt_depth of shape (H, W); got {depth.shape}. Check the layout.")
    return Annotation(depth, np.isfinite(depth) & (depth > 1e-8))


_KIND = LabelKind(Ambiguity.METRIC, Representation.DEPTH)

DATASETS = (
    Dataset(
        name="tum_people",
        read=tum_people,
        layout="NAME.h5 with gt/img_1 and gt/gt_depth",
        kind=_KIND,
        unit="depth in metres, float32",
        invalid="0",
        sky="indoors",
        camera="not among what is published in these files",
        source="Sturm et al. 2012, as prepared by Li et al. 2019; MiDaS for the count",
        licence="CC BY 4.0",
        published={"test": 1815},
        splits="all for testing",
        test="tests/convert/test_tum_people.py",
        image_format=ImageFormat.PNG,
        depth_format=DepthFormat.PNG_LINEAR16,
    ),
)
