"""Laws of KITTI's layout: frames by list, cameras from the calibration, and laser points where they were seen."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from depthkit.convert import kitti_raw
from depthkit.convert.kitti_raw import lidar_depth
from depthkit.errors import DepthKitError, GeometryError, LabelError, RecipeError
from depthkit.types import Ambiguity, LabelKind, Representation

DATE, DRIVE = "2011_09_26", "2011_09_26/2011_09_26_drive_0001_sync"
HEIGHT, WIDTH = 24, 64
K = np.array([[50.0, 0, 31.0], [0, 48.0, 11.5], [0, 0, 1]])
OFFSETS = {2: np.array([0.06, 0.0, 0.003]), 3: np.array([-0.47, 0.004, 0.002])}  # of camera 0 from these [m]
RECTIFY = Rotation.from_euler("xyz", [0.01, -0.005, 0.02]).as_matrix()
CAMERA_FROM_LIDAR = np.eye(4)
CAMERA_FROM_LIDAR[:3, :3] = Rotation.from_euler("x", 0.02).as_matrix() @ np.array([[0, -1, 0], [0, 0, -1], [1, 0, 0]])
CAMERA_FROM_LIDAR[:3, 3] = [-0.004, -0.08, -0.27]


def line(name, numbers):
    return f"{name}: " + " ".join(f"{number:.12e}" for number in np.ravel(numbers))


def projection(camera):
    return K @ np.hstack([np.eye(3), OFFSETS[camera][:, None]])


def points_of(depth, camera):
    """Laser points ``(N, 4)`` of a depth map, undoing the projection step by step."""
    points = []
    for row, column in zip(*np.nonzero(depth), strict=True):
        z = depth[row, column]
        seen = z * np.linalg.inv(K) @ [column + 1, row + 1, 1]  # KITTI counts pixels from 1
        rectified = seen - OFFSETS[camera]
        camera_0 = np.linalg.inv(RECTIFY) @ rectified
        points.append([*(np.linalg.inv(CAMERA_FROM_LIDAR) @ [*camera_0, 1])[:3], 0.5])
    return np.array(points, np.float32)


def a_depth(seed=0):
    """A depth map with a value in every third pixel [m]."""
    rng = np.random.default_rng(seed)
    depth = rng.uniform(2, 70, (HEIGHT, WIDTH))
    return np.where(rng.random(depth.shape) < 1 / 3, depth, 0)


@pytest.fixture
def root(tmp_path):
    """One drive of six frames; frame n is the grey level 10 n, from camera 3 10 n + 5."""
    root = tmp_path / "kitti"
    for camera, extra in ((2, 0), (3, 5)):
        folder = root / DRIVE / f"image_{camera:02d}/data"
        folder.mkdir(parents=True)
        for n in range(6):
            cv2.imwrite(str(folder / f"{n:010d}.png"), np.full((HEIGHT, WIDTH, 3), 10 * n + extra, np.uint8))
    scans = root / DRIVE / "velodyne_points/data"
    scans.mkdir(parents=True)
    for n in range(6):
        points_of(a_depth(n), 2).tofile(scans / f"{n:010d}.bin")
    rows = ["calib_time: 09-Jan-2012 13:57:47", "corner_dist: 9.95e-02", line("R_rect_00", RECTIFY)]
    for camera in (2, 3):
        rows += [line(f"S_rect_{camera:02d}", (WIDTH, HEIGHT)), line(f"P_rect_{camera:02d}", projection(camera))]
    (root / DATE / "calib_cam_to_cam.txt").write_text("\n".join(rows))
    rows = [line("R", CAMERA_FROM_LIDAR[:3, :3]), line("T", CAMERA_FROM_LIDAR[:3, 3])]
    (root / DATE / "calib_velo_to_cam.txt").write_text("calib_time: 15-Mar-2012\n" + "\n".join(rows))
    return root


def listed(root, *lines):
    file = root.parent / "files.txt"
    file.write_text("".join(f"{line}\n" for line in lines))
    return file


def all_frames(root, side="l"):
    return listed(root, *(f"{DRIVE} {n} {side}" for n in range(6)))


def grey(image):
    return int(image[0, 0, 0])


def test_lines_are_read_in_their_order_in_any_of_the_published_forms(root):
    depth = f"{Path(DRIVE).name}/proj_depth/groundtruth/image_02/0000000004.png"
    of_files = (f"{DRIVE}/image_02/data/0000000004.png {depth} 721.5", f"/{DRIVE}/image_03/data/0000000001.png None 721.5")
    file = listed(root, f"{DRIVE} 3 r", f"{DRIVE} 0000000001 l", f"{DRIVE}/ 2 l", "", *of_files)
    samples = list(kitti_raw.kitti_raw(root, file))
    assert [grey(s.image) for s in samples] == [35, 10, 20, 40, 15]
    assert samples[0].key == "2011_09_26_drive_0001_sync/image_03/0000000003"
    for s in samples:
        assert np.allclose(s.intrinsics, K)
        assert s.ambiguity == Ambiguity.UNLABELLED


def test_a_missing_neighbour_is_counted_and_named(root):
    (root / DRIVE / "image_02/data/0000000004.png").unlink()
    frames = kitti_raw.kitti_raw(root, all_frames(root), views="video")
    assert [(grey(s.frames["prev"]), grey(s.image), grey(s.frames["next"])) for s in frames] == [(0, 10, 20), (10, 20, 30)]
    name = "2011_09_26_drive_0001_sync/image_02/000000000"
    assert dict(frames.rejects) == {
        f"{DRIVE} 4 l": f"{DRIVE}/image_02/data has no image of this number",
        f"{name}0": "there is no frame 1 before it",
        f"{name}3": "there is no frame 1 behind it",
        f"{name}5": "there is no frame 1 before it",
    }
    assert [grey(s.image) for s in kitti_raw.kitti_raw(root, all_frames(root, "r"), views="video", spacing=2)] == [25, 35]


@pytest.mark.parametrize(("side", "camera", "other"), [("l", 2, 3), ("r", 3, 2)])
def test_the_partner_is_where_its_projection_says(root, side, camera, other):
    s = kitti_raw.kitti_raw(root, all_frames(root, side), views="video_stereo")[1]
    assert (grey(s.image), grey(s.frames["stereo"])) == (20 + 5 * (camera == 3), 20 + 5 * (other == 3))
    assert tuple(s.frames) == ("stereo", "prev", "next")
    assert 0.52 < s.stereo_baseline < 0.55
    point = np.array([1.0, -0.5, 8.0, 1])  # in rectified camera 0
    here, there = (projection(c) @ point for c in (camera, other))
    seen = np.append(np.linalg.inv(K) @ here, 1)
    assert np.allclose(K @ (s.frames_from_camera["stereo"] @ seen)[:3], there)
    assert (s.frames_from_camera["stereo"][0, 3] < 0) == (camera == 2)


def test_a_missing_partner_is_counted(root):
    (root / DRIVE / "image_03/data/0000000002.png").unlink()
    frames = kitti_raw.kitti_raw(root, all_frames(root), views="stereo")
    assert len(frames) == 5
    assert frames.rejects == ((f"{DRIVE} 2 l", f"{DRIVE}/image_03/data has no image of this number"),)
    shutil.rmtree(root / DRIVE / "image_03")
    with pytest.raises(
        LabelError, match=r"with views stereo and label none under .*; got none, the first, .*image_03/data has no"
    ):
        kitti_raw.kitti_raw(root, all_frames(root), views="stereo")


def test_laser_points_come_back_where_and_as_far_as_they_were(root):
    frames = kitti_raw.kitti_raw(root, all_frames(root), label="velodyne")
    assert frames.kind == LabelKind(Ambiguity.METRIC, Representation.DEPTH)
    for n, s in enumerate(frames):
        assert np.array_equal(s.valid, a_depth(n) > 0)
        assert np.allclose(s.label, a_depth(n), rtol=1e-5)
        assert s.label.dtype == np.float32


def test_the_eigen_protocol_counts_from_the_scanner(root):
    s = kitti_raw.kitti_raw(root, all_frames(root), label="velodyne_forward")[0]
    expected = np.zeros((HEIGHT, WIDTH))
    expected[a_depth() > 0] = points_of(a_depth(), 2)[:, 0]
    assert np.allclose(s.label, expected, rtol=1e-5)
    assert 0 < np.median((s.label - a_depth())[s.valid]) < 1


def test_the_nearest_point_of_a_pixel_counts_in_any_order():
    far, near = np.zeros((2, HEIGHT, WIDTH))
    far[5, 7], near[5, 7] = 40, 10
    both = np.concatenate([points_of(far, 2), points_of(near, 2)])
    whole = projection(2) @ np.block([[RECTIFY, np.zeros((3, 1))], [np.zeros((1, 3)), 1]]) @ CAMERA_FROM_LIDAR
    for points in (both, both[::-1]):
        assert np.allclose(lidar_depth(points, whole, (HEIGHT, WIDTH)), near, rtol=1e-5)


def test_points_behind_the_scanner_or_the_camera_or_beside_the_picture_are_left_out():
    image_from_lidar = projection(2) @ CAMERA_FROM_LIDAR
    behind, between, beside = (-5.0, 0.1, 0.0), (0.1, 0.001, 0.0), (5.0, 50.0, 0.0)
    assert not lidar_depth(np.array([behind, between, beside]), image_from_lidar, (HEIGHT, WIDTH)).any()


def test_frames_without_or_with_damaged_points_are_named(root):
    scans = root / DRIVE / "velodyne_points/data"
    (scans / "0000000001.bin").unlink()
    (scans / "0000000002.bin").write_bytes(b"x" * 50)
    frames = kitti_raw.kitti_raw(root, all_frames(root), label="velodyne")
    assert frames.rejects == ((f"{DRIVE} 1 l", f"{DRIVE}/image_02/data has no laser points of this number"),)
    with pytest.raises(LabelError, match=r"0000000002.bin: expected points of four float32 each; got 50 bytes"):
        frames[1]


@pytest.mark.parametrize("top", [DATE, "train", "val"])
def test_annotated_depth_is_found_beside_the_drive_and_as_its_archive_unpacks(root, top):
    folder = root / top / "2011_09_26_drive_0001_sync/proj_depth/groundtruth/image_02"
    folder.mkdir(parents=True)
    for n in (2, 3):
        cv2.imwrite(str(folder / f"{n:010d}.png"), (a_depth(n) * 256).astype(np.uint16))
    frames = kitti_raw.kitti_raw(root, all_frames(root), label="annotated")
    assert len(frames.rejects) == 4
    assert frames.rejects[0].reason == f"{DRIVE}/image_02/data has no annotated depth of this number"
    for n, s in zip((2, 3), frames, strict=True):
        assert np.array_equal(s.valid, a_depth(n) > 0)
        assert np.allclose(s.label, a_depth(n), atol=1 / 256)


def test_the_benchmark_test_images_have_cameras_of_their_own_and_no_neighbours(root):
    shutil.copytree(root / DRIVE / "image_02/data", root / "image")
    (root / "intrinsics").mkdir()
    for n in range(6):
        np.savetxt(root / f"intrinsics/{n:010d}.txt", [np.ravel(K + np.diag([n, n, 0]))])
    file = listed(root, "image 3", "image 5")
    assert [(s.key, s.intrinsics[0, 0]) for s in kitti_raw.kitti_raw(root, file)] == [
        ("image/0000000003", 53),
        ("image/0000000005", 55),
    ]
    assert len(kitti_raw.kitti_raw(root, file, views="video")) == 0
    with pytest.raises(LabelError, match="image of camera 3 has no image of this number"):
        kitti_raw.kitti_raw(root, file, views="stereo")
    (root / "intrinsics/0000000005.txt").unlink()
    with pytest.raises(GeometryError, match=r"expected 9 numbers in .*0000000005.txt; it does not read"):
        kitti_raw.kitti_raw(root, file)


def test_odometry_sequences_have_poses_of_their_own_camera(root):
    sequence = root / "sequences/09"
    for camera in (2, 3):
        shutil.copytree(root / DRIVE / f"image_{camera:02d}/data", sequence / f"image_{camera}")
        for file in (sequence / f"image_{camera}").iterdir():
            file.rename(file.with_stem(file.stem[4:]))
    to_rectified = np.block([[RECTIFY, np.zeros((3, 1))], [np.zeros((1, 3)), 1]]) @ CAMERA_FROM_LIDAR
    rows = [line("P2", projection(2)), line("P3", projection(3)), line("Tr", to_rectified[:3])]
    (sequence / "calib.txt").write_text("\n".join(rows))
    shutil.copytree(root / DRIVE / "velodyne_points/data", sequence / "velodyne")
    turns = [Rotation.from_euler("y", 0.05 * n).as_matrix() for n in range(6)]
    (root / "poses").mkdir()
    np.savetxt(root / "poses/09.txt", [np.hstack([turn, [[0.1 * n], [0], [n]]]).ravel() for n, turn in enumerate(turns)])
    frames = kitti_raw.kitti_raw(root, listed(root, "9 1 l", "9 2 r"), views="video_stereo", label="velodyne")
    assert [s.key for s in frames] == ["09/image_2/000001", "09/image_3/000002"]
    left, right = frames
    assert np.allclose(left.label, a_depth(1), rtol=1e-5)
    point = np.array([0.3, 0.2, 9.0])  # in the world, that is in camera 0 at frame 0
    for s, n, camera in ((left, 1, 2), (right, 2, 3)):
        here, behind = (turns[k].T @ (point - [0.1 * k, 0, k]) + OFFSETS[camera] for k in (n, n + 1))
        assert np.allclose(s.world_from_camera @ [*here, 1], [*point, 1])
        assert np.allclose(s.frames_from_camera["next"] @ [*here, 1], [*behind, 1])


def driven(root):
    """A drive to the north-east that turns, pitches and rolls: its files, and its IMU's places and rotations by the way."""
    lidar_from_imu = np.eye(4)
    lidar_from_imu[:3, :3] = Rotation.from_euler("xyz", [0.01, -0.02, 0.015]).as_matrix()
    lidar_from_imu[:3, 3] = [-0.81, 0.32, -0.8]
    rows = [line("R", lidar_from_imu[:3, :3]), line("T", lidar_from_imu[:3, 3])]
    (root / DATE / "calib_imu_to_velo.txt").write_text("calib_time: 25-May-2012\n" + "\n".join(rows))
    folder = root / DRIVE / "oxts/data"
    folder.mkdir(parents=True)
    places, turns = [], []
    for n in range(6):
        latitude, longitude, angles = 49 + 8e-6 * n, 8.4 + 5e-6 * n, (0.01 * n, -0.02 * n, 0.8 + 0.03 * n)
        (folder / f"{n:010d}.txt").write_text(" ".join(map(repr, (latitude, longitude, 116 + 0.1 * n, *angles, 1.5, 2.5, 4))))
        east, north = np.radians(5e-6 * n) * np.cos(np.radians(49)), np.radians(8e-6 * n)
        places.append([6378137.0 * east, 6378137.0 * north, 0.1 * n])
        turns.append(Rotation.from_euler("ZYX", angles[::-1]).as_matrix())
    return lidar_from_imu, np.array(places), turns


def test_a_drives_gps_and_imu_say_where_its_cameras_were(root):
    lidar_from_imu, places, turns = driven(root)
    frames = kitti_raw.kitti_raw(root, listed(root, f"{DRIVE} 1 l", f"{DRIVE} 3 r"), views="video")
    point = np.array([12.0, 9.0, 1.0])  # east, north, up of where the drive began
    for s, n, camera in ((frames[0], 1, 2), (frames[1], 3, 3)):
        here, behind = (
            (RECTIFY @ (CAMERA_FROM_LIDAR @ lidar_from_imu @ [*(turns[k].T @ (point - places[k])), 1])[:3]) + OFFSETS[camera]
            for k in (n, n + 1)
        )
        assert np.allclose(s.world_from_camera @ [*here, 1], [*point, 1], atol=1e-5)
        assert np.allclose(s.frames_from_camera["next"] @ [*here, 1], [*behind, 1], atol=1e-5)


def test_without_its_calibration_or_its_file_a_frame_has_no_place_and_garbled_ones_are_named(root):
    driven(root)
    (root / DRIVE / "oxts/data/0000000002.txt").unlink()
    frames = kitti_raw.kitti_raw(root, all_frames(root))
    assert [s.world_from_camera is None for s in frames] == [n == 2 for n in range(6)]
    (root / DRIVE / "oxts/data/0000000004.txt").write_text("49.0 8.4 nan 0 0 0")
    with pytest.raises(GeometryError, match=r"expected latitude, .* and yaw in .*0000000004.txt"):
        kitti_raw.kitti_raw(root, all_frames(root))
    (root / DATE / "calib_imu_to_velo.txt").unlink()
    assert all(s.world_from_camera is None for s in kitti_raw.kitti_raw(root, all_frames(root)))


def test_drives_that_are_not_there_are_counted_unless_none_is(root):
    other = "2011_09_28/2011_09_28_drive_0002_sync"
    frames = kitti_raw.kitti_raw(root, listed(root, f"{DRIVE} 1 l", f"{other} 7 r"))
    assert len(frames) == 1
    assert frames.rejects == ((f"{other} 7 r", f"there is no {other}/image_03/data"),)
    with pytest.raises(
        DepthKitError, match=rf"expected {other}/image_03/data or another drive of files.txt under .*kitti; found 2011_09_26/\."
    ):
        kitti_raw.kitti_raw(root, listed(root, f"{other} 7 r"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "expected lines 'folder frame side' in .*files.txt; it is empty"),
        (f"{DRIVE} 1", "expected lines 'folder frame side' in .*such as 2011_09_26"),
        (f"{DRIVE} one l", "a line does not read"),
        (f"{DRIVE} 1 left", "a line does not read"),
    ],
)
def test_lists_that_do_not_read_are_refused(root, text, says):
    with pytest.raises(DepthKitError, match=says):
        kitti_raw.kitti_raw(root, listed(root, text))


def test_what_is_no_folder_or_no_list_is_named(root):
    archive = root.parent / "2011_09_26_drive_0001_sync.zip"
    archive.write_bytes(b"PK")
    with pytest.raises(DepthKitError, match=r"expected a folder with KITTI's dates.*found an archive. Unpack it first"):
        kitti_raw.kitti_raw(archive, all_frames(root))
    with pytest.raises(DepthKitError, match=r"at .*nowhere; found nothing. Check the path"):
        kitti_raw.kitti_raw(root.parent / "nowhere", all_frames(root))
    with pytest.raises(DepthKitError, match=r"expected a list of frames at .*no.txt; No such file"):
        kitti_raw.kitti_raw(root, root / "no.txt")
    for option, says in (
        ("label", "expected label to be one of none, velodyne"),
        ("views", "expected views to be one of single"),
    ):
        with pytest.raises(RecipeError, match=says):
            kitti_raw.kitti_raw(root, all_frames(root), **{option: "depths"})
    with pytest.raises(RecipeError, match="got views stereo"):
        kitti_raw.kitti_raw(root, all_frames(root), views="stereo", spacing=2)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("P_rect_02: 5", "P_rect_02: nan 5"), "expected 12 finite numbers for P_rect_02 in .*calib_cam_to_cam.txt; got nan"),
        (("P_rect_02: 5", "P_rect_02: -5"), "expected finite fx, fy, cx, cy with fx and fy above 0"),
        (("P_rect_02", "P_rect_05"), "expected 12 finite numbers for P_rect_02 in .*; got none"),
    ],
)
def test_a_garbled_calibration_is_named(root, change, says):
    file = root / DATE / "calib_cam_to_cam.txt"
    file.write_text(file.read_text().replace(*change))
    with pytest.raises(GeometryError, match=says):
        kitti_raw.kitti_raw(root, all_frames(root))


def test_a_calibration_that_is_missing_or_of_another_size_is_named(root):
    file = root / DATE / "calib_cam_to_cam.txt"
    text = file.read_text()
    file.write_text(text.replace(line("S_rect_02", (WIDTH, HEIGHT)), line("S_rect_02", (1242, 375))))
    with pytest.raises(GeometryError, match=r"0000000000.png: expected the size of its intrinsics, \(375, 1242\)"):
        kitti_raw.kitti_raw(root, all_frames(root))[0]
    file.unlink()
    with pytest.raises(GeometryError, match=r"expected KITTI's calibration in .*Unpack the calibration beside the drives"):
        kitti_raw.kitti_raw(root, all_frames(root))
