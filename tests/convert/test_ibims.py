"""Laws of iBims-1's layout: 50 m in 16 bits, and two masks that must agree."""

import cv2
import numpy as np
import pytest
import scipy.io as scipy_io

from depthkit.convert import ibims
from depthkit.errors import DepthKitError, GeometryError, ShapeError


@pytest.fixture
def root(tmp_path):
    base = tmp_path / "ibims1_core_raw"
    for folder in ("rgb", "depth", "mask_invalid", "mask_transp", "calib"):
        (base / folder).mkdir(parents=True)
    codes = (np.arange(480 * 640) % 65536).astype(np.uint16).reshape(480, 640)
    measured, opaque = (np.full((480, 640), 255, np.uint8) for _ in range(2))
    measured[:, :10], opaque[:20] = 0, 0
    for name in ("corridor_01", "office_02"):
        cv2.imwrite(str(base / f"rgb/{name}.png"), np.full((480, 640, 3), 77, np.uint8))
        cv2.imwrite(str(base / f"depth/{name}.png"), codes)
        cv2.imwrite(str(base / f"mask_invalid/{name}.png"), measured)
        cv2.imwrite(str(base / f"mask_transp/{name}.png"), opaque)
        (base / f"calib/{name}.txt").write_text("550.39,548.55,355.44,240.26\n")
    return tmp_path


def test_the_largest_integer_is_50_m_and_both_masks_count(root):
    sample = ibims.ibims(root)[0]
    codes = (np.arange(480 * 640) % 65536).reshape(480, 640)
    assert np.allclose(sample.label, codes * 50 / 65535)
    rows, columns = np.indices(codes.shape)
    assert np.array_equal(sample.valid, (codes > 0) & (columns >= 10) & (rows >= 20))
    assert sample.label.max() == pytest.approx(50)


def test_each_image_has_its_own_camera(root):
    (root / "ibims1_core_raw/calib/office_02.txt").write_text("500 501 320 240")
    first, second = ibims.ibims(root / "ibims1_core_raw")  # the inner folder will do
    assert np.allclose(first.intrinsics, [[550.39, 0, 355.44], [0, 548.55, 240.26], [0, 0, 1]])
    assert np.allclose(second.intrinsics, [[500, 0, 320], [0, 501, 240], [0, 0, 1]])
    (root / "ibims1_core_raw/calib/office_02.txt").write_text("fx 500")
    with pytest.raises(GeometryError, match=r"office_02.txt: expected fx, fy, cx, cy or a matrix"):
        ibims.ibims(root)


def test_marked_edges_come_from_pictures_or_from_the_matlab_files(root):
    assert ibims.ibims(root)[0].edges is None
    marked = np.zeros((480, 640), np.uint8)
    marked[100:200, 300] = 1
    (root / "ibims1_core_mat").mkdir()
    for name in ("corridor_01", "office_02"):
        scipy_io.savemat(root / f"ibims1_core_mat/{name}.mat", {"data": {"edges": marked, "depth": np.ones((480, 640))}})
    (root / "ibims1_core_raw/edges").mkdir()
    cv2.imwrite(str(root / "ibims1_core_raw/edges/office_02.png"), 255 * marked.T[:480, :480].copy())
    samples = ibims.ibims(root)
    assert np.array_equal(samples[0].edges, marked > 0)
    with pytest.raises(ShapeError, match=r"office_02.png: expected edges of the size of the depth"):
        samples[1]
    cv2.imwrite(str(root / "ibims1_core_raw/edges/office_02.png"), 255 * np.roll(marked, 7, 1))
    assert np.array_equal(samples[1].edges, np.roll(marked, 7, 1) > 0)


def test_another_layout_is_named(root, tmp_path):
    (root / "ibims1_core_raw/mask_transp/corridor_01.png").unlink()
    with pytest.raises(DepthKitError, match=r"expected file .*mask_transp/corridor_01.png; No such file"):
        ibims.ibims(root)[0]
    (tmp_path / "mats/ibims1_core_mat").mkdir(parents=True)
    with pytest.raises(DepthKitError, match=r"expected rgb/NAME.png and depth/NAME.png under .*mats; found ibims1_core_mat/"):
        ibims.ibims(tmp_path / "mats")
