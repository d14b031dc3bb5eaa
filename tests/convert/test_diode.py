"""Laws of DIODE's layout: metres with a channel of their own, a mask that decides, indoors and outdoor apart."""

import cv2
import numpy as np
import pytest

from depthkit.convert import diode
from depthkit.errors import DepthKitError, LabelError, ShapeError


def write_scan(root, place, scene, scan, stems, split="val"):
    folder = root / split / place / f"scene_{scene:05d}" / f"scan_{scan:05d}"
    folder.mkdir(parents=True)
    depth = np.linspace(0.5, 80, 768 * 1024, dtype=np.float32).reshape(768, 1024, 1)
    mask = np.zeros((768, 1024))
    mask[:, :512] = 1.0
    for stem in stems:
        name = f"{scene:05d}_{scan:05d}_{place}_{stem}"
        cv2.imwrite(str(folder / f"{name}.png"), np.full((768, 1024, 3), 90, np.uint8))
        np.save(folder / f"{name}_depth.npy", depth)
        np.save(folder / f"{name}_depth_mask.npy", mask)
    return depth[..., 0]


@pytest.fixture
def root(tmp_path):
    write_scan(tmp_path, "indoors", 21, 189, ("200_010", "240_030"))
    write_scan(tmp_path, "outdoor", 22, 193, ("000_010",))
    return tmp_path


def test_depth_is_valid_where_the_mask_is_1(root):
    frames = diode.diode(root)
    sample = frames[0]
    assert frames.key(0) == "indoors/scene_00021/scan_00189/00021_00189_indoors_200_010"
    assert np.array_equal(sample.label, np.linspace(0.5, 80, 768 * 1024, dtype=np.float32).reshape(768, 1024))
    assert np.array_equal(sample.valid, np.broadcast_to(np.arange(1024) < 512, (768, 1024)))
    assert np.allclose(sample.intrinsics, [[886.81, 0, 511.5], [0, 927.06, 383.5], [0, 0, 1]])


def test_indoors_and_outdoor_are_one_dataset_or_two(root):
    keys = [frames.key(i).split("/")[0] for frames in (diode.diode(root),) for i in range(len(frames))]
    assert keys == ["indoors", "indoors", "outdoor"]
    assert (len(diode.diode_indoor(root)), len(diode.diode_outdoor(root))) == (2, 1)
    assert len(diode.diode_indoor(root / "val")) == 2  # the folder of the split will do


def test_what_lacks_a_mask_is_counted_and_another_layout_is_named(root):
    folder = root / "val/indoors/scene_00021/scan_00189"
    (folder / "00021_00189_indoors_200_010_depth_mask.npy").unlink()
    frames = diode.diode(root)
    assert len(frames) == 2
    assert frames.rejects[0].reason.endswith("00021_00189_indoors_200_010_depth_mask.npy")
    with pytest.raises(DepthKitError, match=r"expected train/indoors/scene_00000/scan_00000/NAME.png .* under .*; found val/"):
        diode.diode(root, "train")


def test_broken_arrays_are_named_and_nothing_in_them_is_executed(root):
    file = root / "val/indoors/scene_00021/scan_00189/00021_00189_indoors_200_010_depth.npy"
    np.save(file, np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(LabelError, match=r"200_010_depth.npy: expected a plain .npy file"):
        diode.diode(root)[0]
    np.save(file, np.zeros((4, 4), np.float32))
    with pytest.raises(ShapeError, match=r"depth_mask.npy: expected the size of the depth, \(4, 4\)"):
        diode.diode(root)[0]
