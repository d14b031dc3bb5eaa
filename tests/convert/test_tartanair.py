"""Laws of TartanAir's layout: metres, a sky at infinity, cameras that look along x of a frame with z down."""

import pickle

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from depthkit.convert import tartanair
from depthkit.errors import DepthKitError, GeometryError
from depthkit.types import Ambiguity, LabelKind, Representation

DEPTH = np.linspace(0.5, 200, 480 * 640, dtype=np.float32).reshape(480, 640)
DEPTH[0], DEPTH[1, :5] = 10000, (0, np.nan, -1, np.inf, 5001)
TURN = Rotation.from_euler("z", 90, degrees=True)  # to the right: from north to east


def write_flight(place, frames=2):
    (place / "image_left").mkdir(parents=True)
    (place / "depth_left").mkdir()
    for n in range(frames):
        cv2.imwrite(str(place / f"image_left/{n:06d}_left.png"), np.full((480, 640, 3), 50 + n, np.uint8))
        np.save(place / f"depth_left/{n:06d}_left_depth.npy", DEPTH)
    poses = [[3.0 * n, 1.0, -2.0, *TURN.as_quat()] for n in range(frames)]
    np.savetxt(place / "pose_left.txt", poses)


@pytest.fixture
def root(tmp_path):
    write_flight(tmp_path / "office/Easy/P001")
    write_flight(tmp_path / "carwelding/carwelding/Hard/P000", frames=1)  # as some archives unpack
    return tmp_path


def test_depth_is_in_metres_and_what_is_kilometres_away_is_sky(root):
    sample = tartanair.tartanair(root, "train")[1]
    assert sample.kind == LabelKind(Ambiguity.METRIC, Representation.DEPTH)
    assert sample.key == "office/Easy/P001/000001_left"
    np.testing.assert_array_equal(sample.label[2:], DEPTH[2:])
    assert np.isinf(sample.label[0]).all()
    assert sample.sky[0].all()
    assert not sample.sky[2:].any()
    np.testing.assert_array_equal(sample.valid[1, :6], [False, False, False, True, True, True])


def test_a_camera_turned_east_sees_north_on_its_left(root):
    sample = tartanair.tartanair(root, "train")[1]
    np.testing.assert_allclose(sample.world_from_camera[:3, 3], [3, 1, -2])
    forward, right, down = (sample.world_from_camera[:3, :3] @ axis for axis in np.eye(3)[[2, 0, 1]])
    np.testing.assert_allclose([forward, right, down], [[0, 1, 0], [-1, 0, 0], [0, 0, 1]], atol=1e-6)
    np.testing.assert_array_equal(sample.intrinsics, [[320, 0, 319.5], [0, 320, 239.5], [0, 0, 1]])


def test_environments_are_for_training_or_for_validation(root):
    assert [s.key for s in tartanair.tartanair(root, "val")] == ["carwelding/Hard/P000/000000_left"]
    assert {s.key.split("/")[0] for s in tartanair.tartanair(root, "train")} == {"office"}
    assert len(tartanair.tartanair(root, "train", validation=())) == 3


def test_missing_and_broken_files_are_named(root):
    flight = root / "office/Easy/P001"
    (flight / "depth_left/000000_left_depth.npy").unlink()
    (flight / "depth_left/000001_left_depth.npy").write_bytes(b"x")
    frames = tartanair.tartanair(root, "train")
    rejected = "there is no office/Easy/P001/depth_left/000000_left_depth.npy"
    assert frames.rejects == (("office/Easy/P001/000000_left", rejected),)
    with pytest.raises(DepthKitError, match=r"000001_left_depth.npy: expected a plain .npy file"):
        frames[0]
    (flight / "pose_left.txt").write_text("0 0 0 0 0 0 1\n")
    with pytest.raises(GeometryError, match=r"pose_left.txt: expected a line for each image up to 1; got 1"):
        tartanair.tartanair(root, "train")


def test_what_travels_to_workers_reads_the_same(root):
    frames = tartanair.tartanair(root, "train")
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(frames))[0].label, frames[0].label)
