"""Laws of ScanNet's layout: a list says which frames, images are shrunk to their depth, unknown poses are none."""

import cv2
import numpy as np
import pytest

from depthkit.convert import scannet
from depthkit.errors import DepthKitError, LabelError

K = np.array([[577.87, 0, 319.5, 0], [0, 577.87, 239.5, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


@pytest.fixture
def root(tmp_path):
    scene = tmp_path / "scene0011_00"
    for folder in ("color", "depth", "pose", "intrinsic"):
        (scene / folder).mkdir(parents=True)
    codes = np.full((480, 640), 1500, np.uint16)
    codes[0] = 0
    for n in (0, 100):
        image = np.zeros((968, 1296, 3), np.uint8)
        image[:, 648:] = 200
        cv2.imwrite(str(scene / f"color/{n:06d}.jpg"), image)
        cv2.imwrite(str(scene / f"depth/{n:06d}.png"), codes + n)
    np.savetxt(scene / "intrinsic/intrinsic_depth.txt", K)
    np.savetxt(scene / "pose/000000.txt", np.eye(4) + 0.0)
    np.savetxt(scene / "pose/000100.txt", np.full((4, 4), -np.inf))
    names = [f"scene0011_00/color/{n:06d}.jpg scene0011_00/depth/{n:06d}.png" for n in (100, 0, 200)]
    (tmp_path / "list.txt").write_text("\n".join(names) + "\n")
    return tmp_path


def test_depth_is_in_millimetres_and_the_image_of_its_size(root):
    frames = scannet.scannet(root, split_file=root / "list.txt")
    sample = frames[1]
    assert [frames.key(i) for i in range(2)] == ["scene0011_00/000100", "scene0011_00/000000"]  # in the order of the list
    assert sample.size == sample.label.shape == (480, 640)
    assert np.allclose(sample.label[1:], 1.5)
    assert not sample.valid[0].any()
    assert sample.valid[1:].all()
    assert sample.image[:, :300].mean() < 5
    assert sample.image[:, 340:].mean() > 190
    assert np.array_equal(sample.intrinsics, K[:3, :3])


def test_a_pose_that_was_not_found_is_none(root):
    unknown, known = scannet.scannet(root, split_file=root / "list.txt")
    assert unknown.world_from_camera is None
    assert np.array_equal(known.world_from_camera, np.eye(4))


def test_what_is_listed_and_not_there_is_counted_and_a_garbled_list_is_named(root):
    frames = scannet.scannet(root, split_file=root / "list.txt")
    assert frames.rejects == (("scene0011_00/color/000200.jpg", "there is no scene0011_00/color/000200.jpg"),)
    (root / "list.txt").write_text("scene0011_00\n")
    with pytest.raises(LabelError, match=r"list.txt: expected lines 'sceneNNNN_NN/color/FRAME.jpg .*'; got 'scene0011_00'"):
        scannet.scannet(root, split_file=root / "list.txt")
    (root / "list.txt").write_text("scene0000_00/color/0.jpg scene0000_00/depth/0.png\n")
    with pytest.raises(DepthKitError, match=r"expected scene0000_00/color/0.jpg or another image of list.txt under"):
        scannet.scannet(root, split_file=root / "list.txt")
