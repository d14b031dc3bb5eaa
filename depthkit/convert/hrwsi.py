"""HRWSI (Xian et al. 2020): relative disparity of stereo photos from the web, in high resolution.

Under the root lie ``train`` and ``val``, each with ``imgs/NAME.jpg``, ``gts/NAME.png`` and ``valid_masks/NAME.png``.
"""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from depthkit.convert.records.dataset import Dataset
from depthkit.convert.records.files import read_bytes, read_grey
from depthkit.convert.records.record import Annotation, Record, Records, check_folder, paired, wrong_layout
from depthkit.errors import LabelError, ShapeError
from depthkit.shards.images import decode_pixels
from depthkit.types import Ambiguity, LabelKind, Representation


def hrwsi(root: str | Path, split: str) -> Records:
    """Read the images of a split, by name. Disparity is in 0 to 1 of the picture's range; closer is larger.

    Args:
        root: folder of ``train`` and ``val``.
        split: one of them.

    Raises:
        DepthKitError: the folder is not laid out like this.
    """
    root = Path(root)
    check_folder(root, "HRWSI's train and val")
    if not (root / split / "imgs").is_dir():
        raise wrong_layout(f"{split}/imgs, {split}/gts and {split}/valid_masks", root)
    found, rejects = paired(root, f"{split}/imgs", f"{split}/gts", "{}.png".format, f"hrwsi/{split}")
    masks = [f"{split}/valid_masks/{Path(frame.label or '').name}" for frame in found]
    frames = tuple(replace(frame, parts={"valid": mask}) for frame, mask in zip(found, masks, strict=True))
    return Records(root, frames, _KIND, tuple(rejects), _read_disparity)


def _read_disparity(root: Path, frame: Record, size: tuple[int, int]) -> Annotation:
    assert frame.label
    file = root / frame.label
    codes, mask = (
        decode_pixels(read_bytes(file), cv2.IMREAD_UNCHANGED, str(file), LabelError),
        read_grey(root / frame.parts["valid"]),
    )
    if codes.ndim != 2 or codes.dtype.kind != "u":
        raise LabelError(f"{file}: expected a grey picture; got {codes.dtype} {codes.shape}. Get it again.")
    if mask.shape != codes.shape:
        raise ShapeError(f"{root / frame.parts['valid']}: expected {codes.shape} pixels as its label; got {mask.shape}.")
    return Annotation(codes / np.iinfo(codes.dtype).max, mask > 0)


_KIND = LabelKind(Ambiguity.SHIFT_SCALE, Representation.DISPARITY)
DATASETS = (
    Dataset(
        name="hrwsi",
        read=hrwsi,
        layout="train|val/ with imgs/, gts/ and valid_masks/",
        kind=_KIND,
        unit="relative disparity, 0 to 1 of the grey range",
        invalid="0 in valid_masks",
        sky="not marked; as labelled",
        camera="unknown",
        source="Xian et al. 2020",
        licence="research only, as its page states",
        published={"train": 20378, "val": 400},
        splits="the authors'",
        test="tests/convert/test_hrwsi.py",
    ),
)
