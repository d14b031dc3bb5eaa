"""Laws of TUM-style sequences: what was taken at the same time belongs together, in metres."""

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from depthkit.convert import tum
from depthkit.errors import DepthKitError, GeometryError, LabelError


@pytest.fixture
def root(tmp_path):
    """Images at 0.0, 0.1, ... s; depth 8 ms later, that of image 3 50 ms later; poses every 10 ms, turning and moving."""
    root = tmp_path / "rgbd_dataset_freiburg2_desk"
    (root / "rgb").mkdir(parents=True)
    (root / "depth").mkdir()
    lists = {"rgb": ["# color images"], "depth": ["# depth maps"], "groundtruth": ["# timestamp tx ty tz qx qy qz qw"]}
    for n in range(6):
        time, later = 100 + 0.1 * n, 100 + 0.1 * n + (0.05 if n == 3 else 0.008)
        cv2.imwrite(str(root / f"rgb/{time:.6f}.png"), np.full((480, 640, 3), n, np.uint8))
        cv2.imwrite(str(root / f"depth/{later:.6f}.png"), np.full((480, 640), 5000 * n, np.uint16) + np.uint16(2500))
        lists["rgb"].append(f"{time:.6f} rgb/{time:.6f}.png")
        lists["depth"].append(f"{later:.6f} depth/{later:.6f}.png")
    for n in range(45):  # the ground truth ends before the last image
        x, y, z, w = rotation(n).as_quat()
        lists["groundtruth"].append(f"{100.003 + 0.01 * n:.4f} {0.01 * n} 0 1 {x} {y} {z} {w}")
    for name, lines in lists.items():
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return root


def rotation(n):
    return Rotation.from_euler("xyz", [0.02 * n, -0.01 * n, 0.3])


def test_images_depth_and_poses_of_one_time_come_together_in_metres(root):
    samples = list(tum.tum(root))
    assert [s.key for s in samples] == [
        f"rgbd_dataset_freiburg2_desk/{100 + 0.1 * n:.6f}".replace(".", "_") for n in (0, 1, 2, 4, 5)
    ]
    for n, s in zip((0, 1, 2, 4, 5), samples, strict=True):
        assert (s.image == n).all()
        assert s.valid.all()
        assert np.allclose(s.label, n + 0.5)
        assert s.intrinsics[0].tolist() == [520.9, 0, 325.1]
        if n == 5:
            assert s.world_from_camera is None
        else:
            assert np.allclose(s.world_from_camera[:3, :3], rotation(10 * n).as_matrix())
            assert np.allclose(s.world_from_camera[:3, 3], [0.1 * n, 0, 1])
    assert [reject.reason for reject in tum.tum(root).rejects] == ["there is no depth map within 0.02 s"]


def test_a_wider_tolerance_pairs_what_is_further_apart(root):
    assert len(tum.tum(root, tolerance=0.06)) == 6
    with pytest.raises(LabelError, match=r"expected depth maps within 0.001 s .*got none. Raise tolerance"):
        tum.tum(root, tolerance=0.001)


def test_association_takes_the_closest_pairs_first_and_nothing_twice():
    rng = np.random.default_rng(0)
    a, b = np.sort(rng.uniform(0, 3, 80)), np.sort(rng.uniform(0, 3, 60))
    pairs = tum.associate(a, b, 0.02)
    assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)
    assert all(abs(a[i] - b[j]) <= 0.02 for i, j in pairs)
    difference = np.abs(a[:, None] - b[None])
    expected, blocked = [], difference > 0.02
    while not blocked.all():  # the definition, written out
        i, j = np.unravel_index(np.where(blocked, np.inf, difference).argmin(), blocked.shape)
        expected.append((int(i), int(j)))
        blocked[i], blocked[:, j] = True, True
    assert pairs == sorted(expected)


def test_splits_and_neighbours_follow_the_order_of_time(root):
    assert [len(tum.tum(root, split, holdout=0.2)) for split in ("train", "test")] == [4, 1]
    frames = tum.tum(root, views="video")
    assert [(s.frames["prev"][0, 0, 0], s.image[0, 0, 0], s.frames["next"][0, 0, 0]) for s in frames] == [
        (0, 1, 2),
        (1, 2, 3),
        (3, 4, 5),
    ]
    assert [reject.reason for reject in frames.rejects] == [
        "there is no depth map within 0.02 s",
        "there is no frame 1 before it",
        "there is no frame 1 behind it",
    ]
    with pytest.raises(LabelError, match="no second camera"):
        tum.tum(root, views="stereo")


def test_intrinsics_are_given_or_told_by_the_name_and_never_guessed(root):
    assert tum.tum(root, intrinsics=(1, 2, 3, 4))[0].intrinsics.tolist() == [[1, 0, 3], [0, 2, 4], [0, 0, 1]]
    other = root.rename(root.parent / "my_room")
    with pytest.raises(GeometryError, match=r"Give intrinsics=\(fx, fy, cx, cy\) in pixels"):
        tum.tum(other)


def test_poses_are_optional(root):
    (root / "groundtruth.txt").unlink()
    assert tum.tum(root)[0].world_from_camera is None


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("rgb.txt", None, r"expected file .*rgb.txt; No such file.*TUM-style"),
        ("depth.txt", "# nothing\n", "expected lines of a time stamp and 1 words in .*depth.txt"),
        ("depth.txt", "soon depth/1.png\n", "expected lines of a time stamp and 1 words in .*depth.txt; got could not convert"),
        ("rgb.txt", "100.0\n", "a line has fewer"),
        ("groundtruth.txt", "100.0 1 2 3\n", "a time stamp and 7 words in .*groundtruth.txt"),
        ("groundtruth.txt", "100.0 1 2 3 a b c d\n", "expected 'time tx ty tz qx qy qz qw' in .*groundtruth.txt"),
    ],
)
def test_a_garbled_list_is_named(root, name, content, says):
    (root / name).unlink() if content is None else (root / name).write_text(content)
    with pytest.raises(DepthKitError, match=says):
        tum.tum(root)
