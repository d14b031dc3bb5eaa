"""iBims-1 (Koch et al. 2018): a hundred rooms, scanned by a laser and photographed.

The root is ``ibims1_core_raw``, or the folder that holds it, with ``rgb/NAME.png``, ``depth/NAME.png`` (16 bit, 65535 is
50 m), ``mask_invalid/NAME.png`` and ``mask_transp/NAME.png`` (above 0 where depth is measured, and where nothing is
transparent), and ``calib/NAME.txt`` with fx, fy, cx, cy.
"""

from dataclasses import replace
from pathlib import Path

from depthkit.convert.records.cameras import read_camera
from depthkit.convert.records.dataset import Dataset
from depthkit.convert.records.files import read_grey, read_png16
from depthkit.convert.records.record import Annotation, Record, Records, check_folder, paired, wrong_layout
from depthkit.errors import ShapeError
from depthkit.shards.images import ImageFormat
from depthkit.types import Ambiguity, LabelKind, Representation

SCALE = 50 / 65535
"""Metres per integer of a depth PNG."""
_MASKS = ("mask_invalid", "mask_transp")


def ibims(root: str | Path, split: str = "test") -> Records:
    """Read all images; transparent things and what the laser did not reach have no label.

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
    return Annotation(codes * SCALE, valid)


def _described(root: Path, frame: Record) -> Record:
    stem = Path(frame.image).stem
    parts = {name: f"{name}/{stem}.png" for name in _MASKS}
    return replace(frame, parts=parts, intrinsics=read_camera(root / f"calib/{stem}.txt"))


_KIND = LabelKind(Ambiguity.METRIC, Representation.DEPTH)

DATASETS = (
    Dataset(
        name="ibims",
        read=ibims,
        layout="ibims1_core_raw/ with rgb/, depth/, mask_invalid/, mask_transp/, calib/",
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
