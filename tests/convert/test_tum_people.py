"""Laws of the prepared TUM RGB-D sequences: image and depth in one file."""

import numpy as np
import pytest

h5py = pytest.importorskip("h5py", reason="h5py is not installed")

from depthkit.convert import tum_people  # noqa: E402
from depthkit.errors import DepthKitError, LabelError, ShapeError  # noqa: E402


def write(file, image, depth):
    file.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(file, "w") as content:
        content["gt/img_1"], content["gt/gt_depth"] = image, depth


@pytest.fixture
def root(tmp_path):
    image = np.linspace(0, 1, 12 * 16 * 3, dtype=np.float32).reshape(12, 16, 3)
    depth = np.linspace(0.5, 4, 12 * 16, dtype=np.float32).reshape(12, 16)
    depth[0] = 0
    for name in ("sitting_xyz/0001.jpg.h5", "walking_xyz/0002.jpg.h5"):
        write(tmp_path / name, image, depth)
    return tmp_path


def test_image_and_depth_are_those_of_the_file(root):
    frames = tum_people.tum_people(root)
    sample = frames[1]
    assert [frames.key(i) for i in range(2)] == ["sitting_xyz/0001", "walking_xyz/0002"]
    expected = np.linspace(0, 1, 12 * 16 * 3).reshape(12, 16, 3) * 255
    assert abs(sample.image - expected).max() <= 0.51
    assert np.allclose(sample.label[1:], np.linspace(0.5, 4, 12 * 16).reshape(12, 16)[1:])
    assert not sample.valid[0].any()
    assert sample.valid[1:].all()


def test_another_shape_another_content_and_another_folder_are_named(root, tmp_path):
    write(root / "sitting_xyz/0001.jpg.h5", np.zeros((3, 12, 16)), np.ones((12, 16)))
    with pytest.raises(ShapeError, match=r"0001.jpg.h5: expected gt/img_1 of shape \(H, W, 3\); got \(3, 12, 16\)"):
        tum_people.tum_people(root)[0]
    (root / "sitting_xyz/0001.jpg.h5").write_bytes(b"no HDF5")
    with pytest.raises(LabelError, match=r"0001.jpg.h5: expected an HDF5 file"):
        tum_people.tum_people(root)[0]
    (tmp_path / "other/rgb").mkdir(parents=True)
    with pytest.raises(DepthKitError, match=r"expected NAME.h5 under .*other; found rgb/"):
        tum_people.tum_people(tmp_path / "other")
