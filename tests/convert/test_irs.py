"""Laws of IRS's layout: disparity of EXR files, up to scale unless the baseline is given, the authors' lists."""

import pickle

import cv2
import numpy as np
import pytest

from depthkit.convert import irs
from depthkit.errors import DepthKitError
from depthkit.types import Ambiguity, LabelKind, Representation

openexr = pytest.importorskip("OpenEXR", reason="OpenEXR is not installed")
DISPARITY = np.linspace(0.5, 90, 540 * 960, dtype=np.float32).reshape(540, 960)
DISPARITY[0, :3] = 0, np.nan, -1


def write_pair(root, place, number):
    (root / place).mkdir(parents=True, exist_ok=True)
    for side in "lr":
        cv2.imwrite(str(root / place / f"{side}_{number}.png"), np.full((540, 960, 3), 40, np.uint8))
    header = {"compression": openexr.ZIP_COMPRESSION, "type": openexr.scanlineimage}
    with openexr.File(header, {"G": DISPARITY}) as file:
        file.write(str(root / place / f"d_{number}.exr"))
    return " ".join(f"{place}/{side}_{number}.{'exr' if side in ('d', 'n') else 'png'}" for side in ("l", "r", "d", "n"))


@pytest.fixture
def root(tmp_path):
    lines = {"TRAIN": [write_pair(tmp_path, "Home/ArchVizInterior03Data", 1)], "TEST": [write_pair(tmp_path, "Store/A", 7)]}
    lines["TEST"].append("Store/A/l_8.png Store/A/r_8.png Store/A/d_8.exr Store/A/n_8.exr")
    (tmp_path / "lists").mkdir()
    for name, rows in lines.items():
        (tmp_path / f"lists/IRSDataset_{name}.list").write_text("\n".join(rows) + "\n")
    return tmp_path


def test_disparity_is_in_pixels_up_to_scale_and_in_one_per_metre_with_the_baseline(root):
    sample = irs.irs(root, "train")[0]
    assert (sample.key, sample.kind[0]) == ("Home/ArchVizInterior03Data/l_1", Ambiguity.SCALE)
    np.testing.assert_allclose(sample.label[1:], DISPARITY[1:], rtol=1e-6)
    np.testing.assert_array_equal(sample.valid[0, :4], [False, False, False, True])
    metric = irs.irs(root, "train", baseline=0.1)[0]
    assert metric.kind == LabelKind(Ambiguity.METRIC, Representation.DISPARITY)
    np.testing.assert_allclose(1 / metric.label[1:], 480 * 0.1 / DISPARITY[1:], rtol=1e-5)  # z = f b / d
    assert metric.stereo_baseline == 0.1


def test_lists_divide_the_scenes_and_what_lacks_is_counted(root):
    frames = irs.irs(root, "test")
    assert [s.key for s in frames] == ["Store/A/l_7"]
    assert frames.rejects == (("Store/A/l_8", "there is no Store/A/l_8.png"),)


def test_a_broken_file_and_a_garbled_list_are_named(root):
    (root / "Store/A/d_7.exr").write_bytes(b"v/1\x01 broken")
    with pytest.raises(DepthKitError, match=r"d_7.exr: expected an OpenEXR file; it does not read"):
        irs.irs(root, "test")[0]
    (root / "lists/IRSDataset_TEST.list").write_text("Store/A/l_7.png\n")
    with pytest.raises(DepthKitError, match=r"expected lines 'left right disparity normals' in .*TEST.list"):
        irs.irs(root, "test")


def test_what_travels_to_workers_reads_the_same(root):
    frames = irs.irs(root, "train")
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(frames))[0].label, frames[0].label)
