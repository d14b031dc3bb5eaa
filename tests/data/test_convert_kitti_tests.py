"""Laws of KITTI's published tests: which label each reads, and the files of the depth benchmark."""

import cv2
import numpy as np
import pytest

from depthkit.data.convert import kitti_tests
from depthkit.errors import DepthKitError
from depthkit.types import Ambiguity

DRIVE = "2011_09_26/2011_09_26_drive_0002_sync"
SIZE = (24, 64)
K = "50 0 32 0 0 50 12 0 0 0 1 0"


@pytest.fixture
def root(tmp_path):
    for folder in ("image_02/data", "velodyne_points/data"):
        (tmp_path / DRIVE / folder).mkdir(parents=True)
    truth = tmp_path / "train/2011_09_26_drive_0002_sync/proj_depth/groundtruth/image_02"
    truth.mkdir(parents=True)
    for n in (5, 69):
        cv2.imwrite(str(tmp_path / DRIVE / f"image_02/data/{n:010d}.png"), np.full((*SIZE, 3), n, np.uint8))
        points = np.array([[10, 0, 0, 0.5], [20, -2, 0, 0.5]], np.float32)
        points.tofile(tmp_path / DRIVE / f"velodyne_points/data/{n:010d}.bin")
    codes = np.zeros(SIZE, np.uint16)
    codes[15, 20] = 7.5 * 256
    cv2.imwrite(str(truth / f"{69:010d}.png"), codes)
    (tmp_path / "2011_09_26/calib_cam_to_cam.txt").write_text(f"R_rect_00: 1 0 0 0 1 0 0 0 1\nP_rect_02: {K}\n")
    (tmp_path / "2011_09_26/calib_velo_to_cam.txt").write_text("R: 0 -1 0 0 0 -1 1 0 0\nT: 0 0 -0.27\n")
    (tmp_path / "list.txt").write_text(f"{DRIVE} 5 l\n{DRIVE} 69 l\n")
    return tmp_path


def test_eigens_labels_are_how_far_ahead_of_the_scanner_points_are(root):
    frames = kitti_tests.eigen(root, split_file=root / "list.txt")
    sample = frames[0]
    assert len(frames) == 2
    assert sample.valid.sum() == 2
    assert sample.label[11, 31] == 10  # not 9.73, which is how far from the camera
    assert sample.label[11, round(32 + 50 * 2 / 19.73) - 1] == 20


def test_the_improved_labels_are_those_there_are(root):
    frames = kitti_tests.improved(root, split_file=root / "list.txt")
    assert [frames.key(i) for i in range(len(frames))] == ["2011_09_26_drive_0002_sync/image_02/0000000069"]
    assert frames[0].label[15, 20] == 7.5
    assert frames[0].valid.sum() == 1
    assert [name for name, _ in frames.rejects] == [f"{DRIVE} 5 l"]


def test_odometry_has_poses_and_depth_only_where_scans_are(tmp_path):
    sequence = tmp_path / "sequences/09"
    (sequence / "image_2").mkdir(parents=True)
    (tmp_path / "poses").mkdir()
    for n in (0, 1):
        cv2.imwrite(str(sequence / f"image_2/{n:06d}.png"), np.full((*SIZE, 3), n, np.uint8))
    (sequence / "calib.txt").write_text(f"P2: {K}\nTr: 0 -1 0 0 0 0 -1 0 1 0 0 -0.27\n")
    (tmp_path / "poses/09.txt").write_text("1 0 0 0 0 1 0 0 0 0 1 0\n1 0 0 0 0 1 0 0 0 0 1 1.5\n")
    (tmp_path / "test_files_09.txt").write_text("9 0 l\n9 1 l\n")
    frames = kitti_tests.odometry(tmp_path, split_file=tmp_path / "test_files_09.txt")
    assert frames[1].world_from_camera[2, 3] == 1.5
    assert frames[1].ambiguity == Ambiguity.UNLABELLED
    (sequence / "velodyne").mkdir()
    for n in (0, 1):
        np.array([[10, 0, 0, 0.5]], np.float32).tofile(sequence / f"velodyne/{n:06d}.bin")
    sample = kitti_tests.odometry(tmp_path, split_file=tmp_path / "test_files_09.txt")[0]
    assert sample.label[11, 31] == pytest.approx(9.73)


def test_the_benchmarks_files_belong_together_by_drive_frame_and_camera(tmp_path):
    val, test = (tmp_path / f"depth_selection/{name}" for name in ("val_selection_cropped", "test_depth_prediction_anonymous"))
    for folder in (val / "image", val / "groundtruth_depth", val / "intrinsics", test / "image", test / "intrinsics"):
        folder.mkdir(parents=True)
    codes = np.zeros(SIZE, np.uint16)
    codes[3, 4] = 256
    stem = "2011_09_26_drive_0002_sync_{}_0000000005_image_02"
    for name in (stem, stem.replace("05_image_02", "08_image_03")):
        cv2.imwrite(str(val / f"image/{name.format('image')}.png"), np.full((*SIZE, 3), 9, np.uint8))
        (val / f"intrinsics/{name.format('image')}.txt").write_text("721.5 0 31.5 0 721.5 12 0 0 1")
    cv2.imwrite(str(val / f"groundtruth_depth/{stem.format('groundtruth_depth')}.png"), codes)
    cv2.imwrite(str(test / "image/0000000000.png"), np.full((*SIZE, 3), 9, np.uint8))
    (test / "intrinsics/0000000000.txt").write_text("721.5 0 31.5 0 721.5 12 0 0 1")
    frames = kitti_tests.benchmark(tmp_path)
    assert [frames.key(i) for i in range(len(frames))] == [stem.format("image")]
    assert frames[0].label[3, 4] == 1
    assert frames[0].intrinsics[0, 0] == 721.5
    assert "groundtruth_depth_0000000008_image_03.png" in frames.rejects[0].reason
    unlabelled = kitti_tests.benchmark(tmp_path / "depth_selection", "test")[0]
    assert (unlabelled.ambiguity, unlabelled.label) == (Ambiguity.UNLABELLED, None)


def test_another_layout_is_named(root, tmp_path):
    with pytest.raises(DepthKitError, match=r"expected val_selection_cropped/image/NAME.png and groundtruth_depth/ under"):
        kitti_tests.benchmark(root)
    with pytest.raises(DepthKitError, match=r"expected a list of frames at .*none.txt"):
        kitti_tests.eigen(root, split_file=tmp_path / "none.txt")
