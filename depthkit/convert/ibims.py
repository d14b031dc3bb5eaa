"""iBims-1 (Koch et al. 2018): a hundred rooms, scanned by a laser and photographed.

The root is ``ibims1_core_raw``, or the folder that holds it, with ``rgb/NAME.png``, ``depth/NAME.png`` (16 bit, 65535 is
50 m), ``mask_invalid/NAME.png`` and ``mask_transp/NAME.png`` (above 0 where depth is measured, and where nothing is
transparent), and ``calib/NAME.txt`` with fx, fy, cx, cy. The edges of depth, which were marked by hand, are ``edges/NAME.png``
(above 0), or the field ``edges`` of ``ibims1_core_mat/NAME.mat`` beside the folder.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from depthkit.convert.records.cameras import read_camera
from depthkit.convert.records.dataset import Dataset
from depthkit.convert.records.files import read_grey, read_png16
from depthkit.convert.records.matlab import read_mat
from depthkit.convert.records.record import Annotation, Record, Records, check_folder, paired, wrong_layout
from depthkit.errors import ShapeError
from depthkit.shards.images import ImageFormat
from depthkit.types import Ambiguity, LabelKind, Representation

SCALE = 50 / 65535
"""Metres per integer of a depth PNG."""
_MASKS = ("mask_invalid", "mask_transp")
_MAT = "ibims1_core_mat"


def ibims(root: str | Path, split: str = "test") -> Records:
    """Read all images, with the edges of depth where they are there; what is transparent or was not reached has no label.

    Args:
        root: ``ibims1_core_raw``, or the folder that holds it.
        split: ``test``; there is no other.

    Raises:
        DepthKitError: the folder is not laid out like this.
        GeometryError: a camera's file is garbled.
    """
    root = Path(root)
    check_folder(root, "iBims-1's ibims1_core_raw")
    root = root / "ibims1_core_raw" if (root / "ibims1_core_raw").is_dir() else root
    found, rejects = paired(root, "rgb", "depth", "{}.png".format, "ibims")
    if not found:
        raise wrong_layout("rgb/NAME.png and depth/NAME.png", root)
    return Records(root, tuple(_described(root, frame) for frame in found), _KIND, tuple(rejects), read_depth)


def read_depth(root: Path, frame: Record, size: tuple[int, int]) -> Annotation:
    """Read the depth of a record, valid where both masks say so."""
    assert frame.label
    codes = read_png16(root / frame.label)
    valid = codes > 0
    for name in _MASKS:
        mask = read_grey(root / frame.parts[name])
        if mask.shape != codes.shape:
            raise ShapeError(f"{root / frame.parts[name]}: expected the size of the depth, {codes.shape}; got {mask.shape}.")
        valid &= mask > 0
    return Annotation(codes * SCALE, valid, edges=_edges(root, frame, codes.shape))


def _edges(root: Path, frame: Record, size: tuple[int, ...]) -> np.ndarray | None:
    if (file := frame.parts.get("edges")) is None:
        return None
    path = root / file
    found = read_grey(path) if path.suffix == ".png" else read_mat(path, "data")["edges"][0, 0]
    if found.shape != size:
        raise ShapeError(f"{path}: expected edges of the size of the depth, {size}; got {found.shape}.")
    return found > 0


def _described(root: Path, frame: Record) -> Record:
    stem = Path(frame.image).stem
    parts = {name: f"{name}/{stem}.png" for name in _MASKS}
    edges = next((file for file in (f"edges/{stem}.png", f"../{_MAT}/{stem}.mat") if (root / file).is_file()), None)
    parts |= {"edges": edges} if edges else {}
    return replace(frame, parts=parts, intrinsics=read_camera(root / f"calib/{stem}.txt"))


_KIND = LabelKind(Ambiguity.METRIC, Representation.DEPTH)

DATASETS = (
    Dataset(
        name="ibims",
        read=ibims,
        layout="ibims1_core_raw/ with rgb/, depth/, mask_invalid/, mask_transp/, calib/; edges/ or ibims1_core_mat/ beside",
        kind=_KIND,
        unit="depth in 50/65535 m",
        invalid="0, what mask_invalid marks, and transparent things",
        sky="indoors",
        camera="calib/, one per image, as it is",
        source="Koch et al. 2018",
        licence="CC BY-NC-SA 4.0",
        published={"test": 100},
        splits="all for testing",
        test="tests/convert/test_ibims.py",
        image_format=ImageFormat.PNG,
    ),
)
