"""IRS (Wang et al. 2021): rendered indoor stereo pairs with disparity.

Under the root lie ``Home``, ``Office``, ``Restaurant`` and ``Store`` with ``l_N.png``, ``r_N.png`` and ``d_N.exr`` [px] below,
and the authors' ``lists/IRSDataset_TRAIN.list`` and ``_TEST.list``: ``left right disparity normals`` in each line.
"""

from functools import partial
from pathlib import Path

import numpy as np

from depthkit.convert.records.dataset import Dataset
from depthkit.convert.records.files import read_bytes, read_exr
from depthkit.convert.records.record import Annotation, Record, Records, camera_matrix, check_folder, key_of, wrong_layout
from depthkit.errors import DepthKitError
from depthkit.shards import Reject
from depthkit.types import Ambiguity, LabelKind, Representation

SIZE = (540, 960)
FOCAL = 480.0
LISTS = {"train": "IRSDataset_TRAIN.list", "test": "IRSDataset_TEST.list"}


def irs(root: str | Path, split: str, *, split_file: str | Path | None = None, baseline: float | None = None) -> Records:
    """Read the left images of a split, in the order of the authors' list.

    The authors do not state the distance of the cameras, so disparity is known up to scale, in pixels; give it, and
    disparity is metric.

    Args:
        root: folder of the scenes.
        split: ``train`` or ``test``.
        split_file: the authors' list, if it is not in ``lists``.
        baseline: distance of the cameras [m].

    Raises:
        DepthKitError: the folder is not laid out like this, or OpenEXR is not installed.
    """
    root = Path(root)
    own = [f"lists/{LISTS[split]}"] if split_file is None else []
    check_folder(root, f"IRS's Home, Office, Restaurant, Store and lists/{LISTS[split]}", *own)
    file = root / "lists" / LISTS[split] if split_file is None else Path(split_file)
    lines = [line.split() for line in read_bytes(file).decode("utf-8", "replace").splitlines() if line.strip()]
    if not lines or any(len(line) < 3 for line in lines):
        raise DepthKitError(f"expected lines 'left right disparity normals' in {file}; got others, or none. Get it again.")
    camera = camera_matrix((FOCAL, FOCAL, (SIZE[1] - 1) / 2, (SIZE[0] - 1) / 2), "IRS")
    found: list[Record] = []
    rejects: list[Reject] = []
    for left, _, disparity, *_ in lines:
        key = key_of(*Path(left).with_suffix("").parts)
        missing = [name for name in (left, disparity) if not (root / name).is_file()]
        if missing:
            rejects.append(Reject(key, f"there is no {missing[0]}"))
        else:
            found.append(Record(key, left, disparity, intrinsics=camera, size=SIZE, stereo_baseline=baseline))
    if not found:
        raise wrong_layout(lines[0][0], root)
    kind = _KIND if baseline is None else LabelKind(Ambiguity.METRIC, Representation.DISPARITY)
    reader = partial(_read_disparity, scale=1.0 if baseline is None else 1 / (FOCAL * baseline))
    return Records(root, tuple(found), kind, tuple(rejects), reader)


def _read_disparity(root: Path, frame: Record, size: tuple[int, int], scale: float) -> Annotation:
    assert frame.label
    disparity = read_exr(root / frame.label)
    return Annotation(disparity * scale, np.isfinite(disparity) & (disparity > 0))


_KIND = LabelKind(Ambiguity.SCALE, Representation.DISPARITY)
DATASETS = (
    Dataset(
        name="irs",
        read=irs,
        layout="Home, Office, Restaurant, Store and lists/",
        kind=_KIND,
        unit="disparity in pixels of a rig with parallel cameras, f = 480; metric with its baseline",
        invalid="0, NaN",
        sky="not marked",
        camera="f = 480, the middle of 960 x 540 pixels",
        source="Wang et al. 2021",
        licence="research only, as its page states",
        published={"train": None, "test": None},
        total=103_316,
        splits="the authors' lists",
        test="tests/convert/test_irs.py",
    ),
)
