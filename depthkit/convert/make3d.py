"""Make3D (Saxena et al. 2009): outdoor photographs with a coarse grid of laser distances.

Under the root lie, as the archives unpack, ``Test134/img-NAME.jpg`` and ``Gridlaserdata/depth_sph_corr-NAME.mat``, or
``Train400Img`` and ``Train400Depth``. A .mat file holds ``Position3DGrid``, 55 x 305 x 4, whose last channel is the distance.
"""

from pathlib import Path

import numpy as np

from depthkit.convert.records.dataset import Dataset
from depthkit.convert.records.files import names_in
from depthkit.convert.records.matlab import read_mat
from depthkit.convert.records.record import Annotation, Record, Records, check_folder, paired, wrong_layout
from depthkit.errors import LabelError
from depthkit.shards import Reject
from depthkit.types import Ambiguity, LabelKind, Representation

GRID = (55, 305)
"""Rows and columns of the laser's grid, which spans the image."""
BEYOND = 80.0
"""Distance [m] from which on the laser, which reaches 81 m, saw nothing."""
_FOLDERS = {
    "test": (("Test134", "Test134Img"), ("Gridlaserdata", "Test134Depth")),
    "train": (("Train400Img",), ("Train400Depth",)),
}


def make3d(root: str | Path, split: str = "test") -> Records:
    """Read the images of a split. Each distance of the grid labels the pixel in the middle of its cell, and no other.

    So a label has the size of its image; where it is scored by the nearest prediction, nothing differs from a grid.

    Args:
        root: folder of the unpacked archives.
        split: ``test`` or ``train``.

    Raises:
        DepthKitError: the folder is not laid out like this.
    """
    root = Path(root)
    check_folder(root, " and ".join(names[0] for names in _FOLDERS[split]))
    images, labels = (next((n for n in names if (root / n).is_dir()), names[0]) for names in _FOLDERS[split])
    found: list[Record] = []
    rejects: list[Reject] = []
    if names_in(root / images):
        found, rejects = paired(root, images, labels, _label_name, "make3d")
    if not found:
        raise wrong_layout(f"{images}/img-NAME.jpg and {labels}/depth_sph_corr-NAME.mat", root)
    return Records(root, tuple(found), _KIND, tuple(rejects), read_grid)


def read_grid(root: Path, frame: Record, size: tuple[int, int]) -> Annotation:
    """Read the distances of a record at the middle of their cells."""
    assert frame.label
    grid = np.asarray(read_mat(root / frame.label, "Position3DGrid"))
    if grid.ndim != 3 or grid.shape[2] < 4 or grid.shape[0] > size[0] or grid.shape[1] > size[1]:
        raise LabelError(
            f"{root / frame.label}: expected Position3DGrid of {GRID[0]} x {GRID[1]} x 4; got {grid.shape}. Check the layout."
        )
    rows, columns = (((np.arange(n) + 0.5) * side / n).astype(int) for n, side in zip(grid.shape[:2], size, strict=True))
    distance, label, valid = grid[:, :, 3], np.zeros(size, np.float32), np.zeros(size, bool)
    label[np.ix_(rows, columns)] = distance
    valid[np.ix_(rows, columns)] = np.isfinite(distance) & (distance > 0) & (distance < BEYOND)
    return Annotation(label, valid)


def _label_name(stem: str) -> str:
    return f"depth_sph_corr-{stem.removeprefix('img-')}.mat"


_KIND = LabelKind(Ambiguity.METRIC, Representation.DEPTH)

DATASETS = (
    Dataset(
        name="make3d",
        read=make3d,
        layout="Test134/ and Gridlaserdata/, or Train400Img/ and Train400Depth/",
        kind=_KIND,
        unit="metres along the ray, which the field scores as depth; 55 x 305 of them in an image of 2272 x 1704",
        invalid="all other pixels, 0, and 80 m and more",
        sky="beyond the laser's reach: no label",
        camera="not published",
        source="Saxena et al. 2009",
        licence="research use",
        published={"test": 134, "train": 400},
        splits="the authors'",
        test="tests/convert/test_make3d.py",
    ),
)
