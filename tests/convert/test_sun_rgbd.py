"""Laws of SUN RGB-D's layout: rotated bits, 8 m, the authors' split by the paths of their machine."""

import cv2
import numpy as np
import pytest

from depthkit.convert import sun_rgbd
from depthkit.errors import DepthKitError

savemat = pytest.importorskip("scipy.io", reason="SciPy is not installed").savemat
MILLIMETRES = np.arange(40 * 60, dtype=np.uint16).reshape(40, 60) * 5


def rotated(millimetres):
    """As the authors store it: three bits to the left, and those that fall out come in again on the right."""
    wide = millimetres.astype(np.uint32) << 3
    return ((wide & 0xFFFF) | (wide >> 16)).astype(np.uint16)


def cell(paths):
    array = np.empty((1, len(paths)), object)
    array[0, :] = paths
    return array


@pytest.fixture
def root(tmp_path):
    folders = ["SUNRGBD/kv2/kinect2data/000002_2014-05-26", "SUNRGBD/kv1/NYUdata/NYU0001", "SUNRGBD/xtion/sun3ddata/a b/c"]
    for folder in folders[:2]:
        for part in ("image", "depth_bfx", "depth"):
            (tmp_path / folder / part).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / folder / "image/x.jpg"), np.full((40, 60, 3), 50, np.uint8))
        cv2.imwrite(str(tmp_path / folder / "depth_bfx/y.png"), rotated(MILLIMETRES))
        cv2.imwrite(str(tmp_path / folder / "depth/z.png"), rotated(MILLIMETRES // 2))
        (tmp_path / folder / "intrinsics.txt").write_text("529.5 0 30 0 529.5 20 0 0 1\n")
    split = tmp_path / "SUNRGBDtoolbox/traintestSUNRGBD"
    split.mkdir(parents=True)
    there = [f"/n/fs/sun3d/data/{folder}/" for folder in folders]
    savemat(split / "allsplit.mat", {"alltest": cell([there[0], there[2]]), "alltrain": cell([there[1]])})
    return tmp_path


def test_depth_is_in_millimetres_once_its_bits_are_rotated_back(root):
    sample = sun_rgbd.sun_rgbd(root)[0]
    assert np.allclose(sample.label, MILLIMETRES / 1000)
    assert np.array_equal(sample.valid, (MILLIMETRES > 0) & (MILLIMETRES <= 8000))
    assert np.allclose(sun_rgbd.sun_rgbd(root, depth="depth")[0].label, MILLIMETRES // 2 / 1000)
    assert np.allclose(sample.intrinsics, [[529.5, 0, 30], [0, 529.5, 20], [0, 0, 1]])


def test_the_split_is_the_authors_and_what_lacks_is_counted(root):
    test, train = (sun_rgbd.sun_rgbd(root, split) for split in ("test", "train"))
    assert [test.key(0), train.key(0)] == ["kv2/kinect2data/000002_2014-05-26", "kv1/NYUdata/NYU0001"]
    assert test.rejects == (("SUNRGBD/xtion/sun3ddata/a b/c", "there is no image in it"),)


def test_three_lines_of_a_matrix_are_a_matrix_and_another_layout_is_named(root, tmp_path):
    (root / "SUNRGBD/kv1/NYUdata/NYU0001/intrinsics.txt").write_text("520 0 30\n0 521 20\n0 0 1\n")
    assert sun_rgbd.sun_rgbd(root, "train")[0].intrinsics[1, 1] == 521
    with pytest.raises(DepthKitError, match=r"expected depth to be one of depth_bfx, depth; got 'bfx'"):
        sun_rgbd.sun_rgbd(root, depth="bfx")
    (tmp_path / "other/SUNRGBD").mkdir(parents=True)
    with pytest.raises(DepthKitError, match=r"expected SUNRGBD/ and SUNRGBDtoolbox/.*allsplit.mat under .*; found SUNRGBD/"):
        sun_rgbd.sun_rgbd(tmp_path / "other")
