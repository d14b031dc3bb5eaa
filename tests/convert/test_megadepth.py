"""Laws of MegaDepth's layout: depth up to scale without outliers, ordinal masks left out, scenes apart."""

import cv2
import numpy as np
import pytest

from depthkit.convert import megadepth
from depthkit.errors import LabelError
from depthkit.shards import write_shards
from depthkit.types import Ambiguity, LabelKind, Representation

h5py = pytest.importorskip("h5py", reason="h5py is not installed")


def write_image(place, name, depth):
    for folder in ("imgs", "depths"):
        (place / folder).mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(place / f"imgs/{name}.jpg"), np.full((*depth.shape, 3), 90, np.uint8))
    with h5py.File(place / f"depths/{name}.h5", "w") as content:
        content.create_dataset("depth", data=depth.astype(np.float32))


@pytest.fixture
def root(tmp_path):
    depth = np.zeros((25, 40))
    depth[:20] = np.random.default_rng(0).permutation(np.arange(1, 801)).reshape(20, 40) / 100
    for scene in range(40):
        write_image(tmp_path / f"MegaDepth_v1/{scene:04d}/dense0", "1_o", depth)
    write_image(tmp_path / "MegaDepth_v1/0000/dense1", "mask.2", np.where(depth > 3, -1.0, -2.0))
    return tmp_path


def test_depth_is_what_the_file_holds_without_its_lowest_and_highest_percentiles(root):
    sample = megadepth.megadepth(root, "train", holdout=0)[0]
    assert sample.kind == LabelKind(Ambiguity.SCALE, Representation.DEPTH)
    values = np.sort(sample.label[sample.valid])
    np.testing.assert_allclose(values, np.arange(9, 785) / 100, rtol=1e-6)  # 1 % of 800 below, 2 % above
    assert not sample.valid[20:].any()


def test_an_ordinal_mask_is_left_out_and_counted(root, tmp_path):
    frames = megadepth.megadepth(root, "train", holdout=0)
    with pytest.raises(LabelError, match=r"mask.2.h5: expected depth; got an ordinal mask"):
        frames[[frame.key for frame in frames.records].index("0000/dense1/mask_2")]
    report = write_shards(frames, tmp_path / "out", split="train", dataset="megadepth")
    assert (report.samples, [reject.name for reject in report.rejects]) == (40, ["0000/dense1/mask_2"])


def test_every_scene_is_on_one_side_and_always_the_same(root):
    train, val = (
        {megadepth.megadepth(root, split, holdout=0.3).key(i).split("/")[0] for i in range(len(frames))}
        for split, frames in ((s, megadepth.megadepth(root, s, holdout=0.3)) for s in ("train", "val"))
    )
    assert not train & val
    assert len(train | val) == 40
    assert 4 <= len(val) <= 20
