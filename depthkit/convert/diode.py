"""DIODE (Vasiljevic et al. 2019): rooms and streets scanned by a laser from one spot each.

Under the root, or under ``val`` (``train``) of it, lie ``indoors`` and ``outdoor`` with
``scene_NNNNN/scan_NNNNN/NAME.png``, ``NAME_depth.npy`` (float32, metres) and ``NAME_depth_mask.npy`` (1 where there is depth).
"""

from pathlib import Path
from typing import Any

import numpy as np

from depthkit.convert.records.dataset import Dataset
from depthkit.convert.records.files import names_in, read_npy
from depthkit.convert.records.record import Annotation, Record, Records, camera_matrix, check_folder, key_of, wrong_layout
from depthkit.errors import ShapeError
from depthkit.shards import Reject
from depthkit.shards.images import ImageFormat
from depthkit.types import Ambiguity, LabelKind, Representation

SIZE = (768, 1024)
CAMERA = (886.81, 927.06, 512.0, 384.0)
"""fx, fy, cx, cy [px] of the authors' tools; the centre of 1024 x 768 pixels counted from their corners."""
_PLACES = ("indoors", "outdoor")


def diode(root: str | Path, split: str = "val") -> Records:
    """Read the images of a split, indoors first.

    Args:
        root: folder with ``val`` or ``train``, or that folder.
        split: ``val`` or ``train``.

    Raises:
        DepthKitError: the folder is not laid out like this.
    """
    return _frames(Path(root), split, _PLACES)


def diode_indoor(root: str | Path, split: str = "val") -> Records:
    """Read the images of a split that were taken indoors; arguments and errors as ``diode``."""
    return _frames(Path(root), split, _PLACES[:1])


def diode_outdoor(root: str | Path, split: str = "val") -> Records:
    """Read the images of a split that were taken outdoors; arguments and errors as ``diode``."""
    return _frames(Path(root), split, _PLACES[1:])


def _frames(root: Path, split: str, places: tuple[str, ...]) -> Records:
    check_folder(root, f"DIODE's {split}/indoors and {split}/outdoor")
    base = f"{split}/" if (root / split).is_dir() else ""
    camera = camera_matrix((*CAMERA[:2], CAMERA[2] - 0.5, CAMERA[3] - 0.5), "DIODE")
    found: list[Record] = []
    rejects: list[Reject] = []
    for place in places:
        for scene in names_in(root / f"{base}{place}"):
            for scan in names_in(root / f"{base}{place}/{scene}"):
                folder = f"{base}{place}/{scene}/{scan}"
                names = set(names_in(root / folder))
                for stem in sorted(name.removesuffix(".png") for name in names if name.endswith(".png")):
                    files = f"{stem}_depth.npy", f"{stem}_depth_mask.npy"
                    key = key_of(place, scene, scan, stem)
                    if missing := [file for file in files if file not in names]:
                        rejects.append(Reject(key, f"there is no {folder}/{missing[0]}"))
                        continue
                    label, mask = (f"{folder}/{file}" for file in files)
                    frame = Record(key, f"{folder}/{stem}.png", label, parts={"mask": mask}, intrinsics=camera, size=SIZE)
                    found.append(frame)
    if not found:
        raise wrong_layout(f"{split}/{places[0]}/scene_00000/scan_00000/NAME.png with its _depth.npy and _depth_mask.npy", root)
    return Records(root, tuple(found), _KIND, tuple(rejects), read_depth)


def read_depth(root: Path, frame: Record, size: tuple[int, int]) -> Annotation:
    """Read the depth of a record, valid where its mask is 1 and it is above 0."""
    assert frame.label
    depth, mask = read_npy(root / frame.label), read_npy(root / frame.parts["mask"])
    if mask.shape != depth.shape:
        raise ShapeError(f"{root / frame.parts['mask']}: expected the size of the depth, {depth.shape}; got {mask.shape}.")
    return Annotation(depth, (mask == 1) & np.isfinite(depth) & (depth > 0))


_KIND = LabelKind(Ambiguity.METRIC, Representation.DEPTH)
_FACTS: dict[str, Any] = {
    "kind": _KIND,
    "unit": "depth in metres, float32",
    "invalid": "where the mask is not 1",
    "sky": "without depth",
    "camera": "one for all (886.81, 927.06, 512, 384 with pixels counted from their corners; moved by half a pixel)",
    "source": "Vasiljevic et al. 2019; Marigold's split for the counts of val",
    "licence": "MIT",
    "splits": "the authors', by scene",
    "test": "tests/convert/test_diode.py",
    "image_format": ImageFormat.PNG,
}
DATASETS = (
    Dataset(
        name="diode",
        read=diode,
        layout="val/ (or train/) with indoors/ and outdoor/ of scene_NNNNN/scan_NNNNN/",
        published={"train": 25458, "val": 771},
        **_FACTS,
    ),
    Dataset(
        name="diode_indoor",
        read=diode_indoor,
        layout="val/indoors/ of scene_NNNNN/scan_NNNNN/",
        published={"train": 8574, "val": 325},
        **_FACTS,
    ),
    Dataset(
        name="diode_outdoor",
        read=diode_outdoor,
        layout="val/outdoor/ of scene_NNNNN/scan_NNNNN/",
        published={"train": 16884, "val": 446},
        **_FACTS,
    ),
)
