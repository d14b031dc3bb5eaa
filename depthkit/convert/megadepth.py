"""MegaDepth (Li and Snavely 2018): depth of internet photos by structure from motion, known up to scale.

Below the root, at any depth, lie ``SSSS/denseD/imgs/NAME.jpg`` and ``SSSS/denseD/depths/NAME.h5``. Under the same name in the
same kind of file the authors store ordinal masks of foreground and background, too: they have negative values.
"""

from pathlib import Path

import numpy as np

from depthkit.convert.records.dataset import Dataset
from depthkit.convert.records.files import folders_with, read_h5
from depthkit.convert.records.record import Annotation, Record, Records, check_folder, held_out, paired, wrong_layout
from depthkit.errors import LabelError
from depthkit.shards import Reject
from depthkit.types import Ambiguity, LabelKind, Representation

PERCENTILES = (1.0, 98.0)
"""What lies beyond these percentiles of an image's depth is an outlier of the reconstruction."""


def megadepth(root: str | Path, split: str, *, holdout: float = 0.03) -> Records:
    """Read the images of a split, by scene. An image whose file is an ordinal mask raises a ``LabelError``.

    Args:
        root: folder of the scenes.
        split: ``train`` or ``val``.
        holdout: share of the scenes that are for validation; see ``held_out``.

    Raises:
        DepthKitError: the folder is not laid out like this.
    """
    root = Path(root)
    check_folder(root, "MegaDepth's scenes, such as 0000/dense0,")
    places = folders_with(root, "imgs")
    if not places:
        raise wrong_layout("0000/dense0/imgs and depths, and other scenes,", root)
    found: list[Record] = []
    rejects: list[Reject] = []
    for place in places:
        scene, dense = ["", *place.split("/")][-2:]
        if held_out(scene, holdout) == (split == "val"):
            here, alone = paired(root, f"{place}/imgs", f"{place}/depths", "{}.h5".format, f"{scene}/{dense}")
            found += here
            rejects += alone
    return Records(root, tuple(found), _KIND, tuple(rejects), _read_depth)


def _read_depth(root: Path, frame: Record, size: tuple[int, int]) -> Annotation:
    assert frame.label
    depth = read_h5(root / frame.label, "depth")
    if depth.size and depth.min() < 0:
        raise LabelError(f"{root / frame.label}: expected depth; got an ordinal mask (a value below 0). Leave it out.")
    positive = depth[depth > 1e-8]
    if not positive.size:
        raise LabelError(f"{root / frame.label}: expected depth; nothing was reconstructed. Leave it out.")
    low, high = np.percentile(positive, PERCENTILES, overwrite_input=True)
    return Annotation(depth, (depth >= low) & (depth <= high))


_KIND = LabelKind(Ambiguity.SCALE, Representation.DEPTH)
DATASETS = (
    Dataset(
        name="megadepth",
        read=megadepth,
        layout="SSSS/denseD/ with imgs/ and depths/",
        kind=_KIND,
        unit="depth along the axis, in a unit of its own in every scene",
        invalid="0, and what lies beyond the 1st or 98th percentile of the image's depth",
        sky="0: invalid",
        camera="not in the archive of images and depth",
        source="Li and Snavely 2018; 130K as counted by Ranftl et al. 2022",
        licence="CC BY 4.0",
        published={"train": None, "val": None},
        total=130_000,
        splits="the authors' lists are pickles, which are not read; by scene, 3 % for validation",
        test="tests/convert/test_megadepth.py",
    ),
)
