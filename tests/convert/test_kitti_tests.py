"""Laws of KITTI's published tests: which label each reads, and the files of the depth benchmark."""

import json
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest

from depthkit.convert import kitti_tests
from depthkit.errors import DepthKitError
from depthkit.evaluation import PROTOCOLS, InputResize, evaluate
from depthkit.shards import ShardIndex, decode_sample, verify, write_shards
from depthkit.shards.reading import read_shard
from depthkit.types import Ambiguity, Representation

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
    frames = kitti_tests.kitti_eigen(root, split_file=root / "list.txt")
    sample = frames[0]
    assert len(frames) == 2
    assert sample.valid.sum() == 2
    assert sample.label[11, 31] == 10  # not 9.73, which is how far from the camera
    assert sample.label[11, round(32 + 50 * 2 / 19.73) - 1] == 20


def test_the_improved_labels_are_those_there_are(root):
    frames = kitti_tests.kitti_improved(root, split_file=root / "list.txt")
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
    frames = kitti_tests.kitti_odometry(tmp_path, split_file=tmp_path / "test_files_09.txt")
    assert frames[1].world_from_camera[2, 3] == 1.5
    assert frames[1].ambiguity == Ambiguity.UNLABELLED
    (sequence / "velodyne").mkdir()
    for n in (0, 1):
        np.array([[10, 0, 0, 0.5]], np.float32).tofile(sequence / f"velodyne/{n:06d}.bin")
    sample = kitti_tests.kitti_odometry(tmp_path, split_file=tmp_path / "test_files_09.txt")[0]
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
    frames = kitti_tests.kitti_benchmark(tmp_path)
    assert [frames.key(i) for i in range(len(frames))] == [stem.format("image")]
    assert frames[0].label[3, 4] == 1
    assert frames[0].intrinsics[0, 0] == 721.5
    assert "groundtruth_depth_0000000008_image_03.png" in frames.rejects[0].reason
    unlabelled = kitti_tests.kitti_benchmark(tmp_path / "depth_selection", "test")[0]
    assert (unlabelled.ambiguity, unlabelled.label) == (Ambiguity.UNLABELLED, None)


def test_another_layout_is_named(root, tmp_path):
    with pytest.raises(DepthKitError, match=r"expected val_selection_cropped/image/NAME.png and groundtruth_depth/ under"):
        kitti_tests.kitti_benchmark(root)
    with pytest.raises(DepthKitError, match=r"expected a list of frames at .*none.txt"):
        kitti_tests.kitti_eigen(root, split_file=tmp_path / "none.txt")


@pytest.fixture
def drive(real, tmp_path):
    """Three frames of a real drive as KITTI's archives unpack, its depth as annotated depth, and a list of them."""
    source = real("kitti_raw_drive")
    facts = json.loads((source / "intrinsics.json").read_text())
    images, truth = tmp_path / DRIVE / "image_02/data", tmp_path / "val" / f"{DRIVE[11:]}/proj_depth/groundtruth/image_02"
    for folder in (images, truth):
        folder.mkdir(parents=True)
    names = [f"{n:06d}" for n in range(0, 78, 26)]
    for name in names:
        shutil.copy(source / f"rgb/{name}.jpg", images / f"0000{name}.jpg")
        shutil.copy(source / f"depth_kitti256/{name}.png", truth / f"0000{name}.png")
    lines = [f"P_rect_02: {' '.join(map(str, np.ravel(facts['P_rect_02'])))}", "S_rect_02: 1242 375"]
    (tmp_path / "2011_09_26/calib_cam_to_cam.txt").write_text("\n".join(lines))
    (tmp_path / "list.txt").write_text("".join(f"{DRIVE} {int(name)} l\n" for name in names))
    return tmp_path, source, names


def test_a_real_drive_is_converted_verified_and_scored_as_its_files_say(drive, tmp_path):
    root, source, names = drive
    frames, out = kitti_tests.kitti_improved(root, split_file=root / "list.txt"), tmp_path / "out"
    report = write_shards(frames, out, split="test", dataset="kitti_improved", originals=root, depth_format="png_linear16")
    assert (report.samples, report.rejects) == (len(names), ())
    assert verify(out).ok
    index = ShardIndex.load(out)
    stored = [
        decode_sample(raw.key, raw.members, where=shard.name)
        for shard in index.shards("test")
        for raw in read_shard(index.url(shard), 0, shard.samples, total=shard.samples)
    ]
    for name, sample in zip(names, stored, strict=True):
        codes = cv2.imread(str(source / f"depth_kitti256/{name}.png"), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(sample.valid, codes > 0)
        assert abs(sample.label - codes / 256)[sample.valid].max() < 0.002
        assert sample.intrinsics[0, 0] == pytest.approx(721.5377)
    street = np.repeat((np.maximum(np.arange(375) - 172.85, 60) / (721.5 * 1.65))[:, None], 1242, 1)  # 1.65 m below, flat
    protocol = replace(PROTOCOLS["monodepth2_improved"], input=InputResize(rule="native"))
    report = evaluate(lambda image: street, stored, protocol, representation=Representation.DISPARITY, progress=False)
    errors = []
    for name in names:
        truth = cv2.imread(str(source / f"depth_kitti256/{name}.png"), cv2.IMREAD_UNCHANGED) / 256
        p, g = 1 / street[truth > 0], truth[truth > 0]
        errors.append((abs(np.clip(p * np.median(g) / np.median(p), 1e-3, 80) - g) / g).mean())
    assert report.summary["abs_rel"] == pytest.approx(np.mean(errors), rel=1e-3)


def test_real_depth_as_laser_points_is_read_as_far_ahead_as_the_scanner_says(drive):
    root, source, names = drive
    text = json.loads((source / "intrinsics.json").read_text())
    facts = {name: np.array(text[name]) for name in ("P_rect_02", "R_rect_00", "Tr_velo_to_cam")}
    lidar, rectify, p = np.eye(4), np.eye(4), facts["P_rect_02"]
    lidar[:3], rectify[:3, :3] = facts["Tr_velo_to_cam"], facts["R_rect_00"]
    depth = cv2.imread(str(source / f"depth_kitti256/{names[0]}.png"), cv2.IMREAD_UNCHANGED) / 256
    rows, columns = np.nonzero(depth[:, 1:-1])
    z = depth[rows, columns + 1]  # along the axis of camera 2, which KITTI's fourth column moves along, too
    seen = np.stack([columns + 2, rows + 1, np.ones_like(rows)]) * z - p[:, 3:]
    rectified = np.linalg.inv(p[:, :3]) @ seen
    points = (np.linalg.inv(rectify @ lidar) @ np.vstack([rectified, np.ones_like(z)]))[:3].T
    scans = root / DRIVE / "velodyne_points/data"
    scans.mkdir(parents=True)
    np.hstack([points, np.ones((len(points), 1))]).astype(np.float32).tofile(scans / f"0000{names[0]}.bin")
    rows_of = lambda name, x: f"{name}: {' '.join(map(str, np.ravel(x)))}\n"  # noqa: E731
    calibration = root / "2011_09_26/calib_cam_to_cam.txt"
    calibration.write_text(calibration.read_text() + "\n" + rows_of("R_rect_00", rectify[:3, :3]))
    (root / "2011_09_26/calib_velo_to_cam.txt").write_text(rows_of("R", lidar[:3, :3]) + rows_of("T", lidar[:3, 3]))
    (root / "list.txt").write_text(f"{DRIVE} {int(names[0])} l\n")
    sample = kitti_tests.kitti_eigen(root, split_file=root / "list.txt")[0]
    assert sample.valid.sum() > 0.99 * len(z)
    shared = sample.valid & (depth > 0)
    assert shared.sum() > 0.99 * len(z)
    ahead = (sample.label - depth)[shared]
    assert np.median(ahead) == pytest.approx(0.27, abs=0.1)  # the scanner stands behind the camera


def test_a_real_odometry_sequence_has_the_poses_of_its_file(real, tmp_path):
    source = real("kitti_odom_gray_a")
    facts = json.loads((source / "intrinsics.json").read_text())
    images = tmp_path / "sequences/09/image_2"
    images.mkdir(parents=True)
    (tmp_path / "poses").mkdir()
    for file in sorted((source / "rgb").iterdir()):
        (images / f"{int(file.stem):06d}{file.suffix}").symlink_to(file)
    poses = np.loadtxt(source / "poses.txt")
    np.savetxt(tmp_path / "poses/09.txt", poses)
    (images.parent / "calib.txt").write_text(f"P2: {facts['fx']} 0 {facts['cx']} 0 0 {facts['fy']} {facts['cy']} 0 0 0 1 0\n")
    (tmp_path / "list.txt").write_text("".join(f"9 {n} l\n" for n in range(1, len(poses) - 1, 12)))
    frames = kitti_tests.kitti_odometry(tmp_path, split_file=tmp_path / "list.txt", views="video")
    assert len(frames) == len(range(1, len(poses) - 1, 12))
    for position, sample in enumerate(frames):
        n = 1 + 12 * position
        assert np.allclose(sample.world_from_camera[:3].ravel(), poses[n])
        assert sample.frames_from_camera["next"][2, 3] < 0  # what lies ahead comes nearer
        assert sample.size == (facts["height"], facts["width"])
