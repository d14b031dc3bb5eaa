"""Laws of Virtual KITTI 2's layout: centimetres, a sky at infinity, cameras and poses by frame, scenes apart."""

import pickle

import cv2
import numpy as np
import pytest

from depthkit.convert import virtual_kitti
from depthkit.convert.virtual_kitti import BENCHMARK, SIZE
from depthkit.errors import DepthKitError, GeometryError, RecipeError
from depthkit.shards import ShardIndex, decode_sample, write_shards
from depthkit.shards.reading import read_shard
from depthkit.types import Ambiguity, LabelKind, Representation

K = (725.0087, 725.0087, 620.5, 187.0)
SMALL = (25.0, 25.0, 14.5, 9.5)


def pose(frame, camera):
    """From world to camera: the camera drives along z, camera 1 stands a baseline to the right."""
    matrix = np.eye(4)
    matrix[:3, 3] = [-0.532725 * camera, 0, -2.0 * frame]
    return matrix


def write_variation(root, scene, variation, frames=2, size=(20, 30), camera_facts=SMALL):
    place = root / scene / variation
    codes = np.arange(size[0] * size[1], dtype=np.uint16).reshape(size) + 1
    codes[0] = 65535
    intrinsic, extrinsic = ["frame cameraID K[0,0] K[1,1] K[0,2] K[1,2]"], ["frame cameraID r1,1 r1,2 r1,3 t1 and so on"]
    for camera in (0, 1):
        for what in ("rgb", "depth"):
            (place / f"frames/{what}/Camera_{camera}").mkdir(parents=True)
        for n in range(frames):
            image = np.full((*size, 3), 40 * n + camera, np.uint8)
            cv2.imwrite(str(place / f"frames/rgb/Camera_{camera}/rgb_{n:05d}.jpg"), image)
            cv2.imwrite(str(place / f"frames/depth/Camera_{camera}/depth_{n:05d}.png"), codes)
            intrinsic.append(" ".join(map(str, (n, camera, *camera_facts))))
            extrinsic.append(" ".join(map(str, (n, camera, *pose(n, camera).ravel()))))
    (place / "intrinsic.txt").write_text("\n".join(intrinsic) + "\n")
    (place / "extrinsic.txt").write_text("\n".join(extrinsic) + "\n")
    return codes


@pytest.fixture
def root(tmp_path):
    for scene in ("Scene01", "Scene02", "Scene06"):
        for variation in ("clone", "fog", "15-deg-left"):
            write_variation(tmp_path, scene, variation)
    return tmp_path


def test_depth_is_the_integer_in_centimetres_and_the_farthest_is_sky_at_infinity(root):
    sample = virtual_kitti.virtual_kitti(root, "train")[0]
    codes = np.arange(600).reshape(20, 30) + 1
    assert sample.kind == LabelKind(Ambiguity.METRIC, Representation.DEPTH)
    np.testing.assert_allclose(sample.label[1:], codes[1:] / 100, rtol=1e-6)
    assert np.isinf(sample.label[0]).all()
    np.testing.assert_array_equal(sample.sky, np.arange(20)[:, None] * np.ones(30) == 0)
    assert sample.valid.all()


def test_cameras_and_poses_are_those_of_the_texts(root):
    found = {sample.key: sample for sample in virtual_kitti.virtual_kitti(root, "val")}
    sample = found["Scene01/clone/1/rgb_00001"]
    np.testing.assert_allclose(sample.intrinsics, [[25, 0, 14.5], [0, 25, 9.5], [0, 0, 1]])
    np.testing.assert_allclose(sample.world_from_camera @ pose(1, 1), np.eye(4), atol=1e-9)
    assert abs(int(sample.image.mean()) - 41) <= 1


def test_no_scene_is_on_both_sides_and_turned_cameras_are_read_only_when_asked_for(root):
    train, val = ([s.key for s in virtual_kitti.virtual_kitti(root, split)] for split in ("train", "val"))
    assert {key.split("/")[0] for key in train} == {"Scene02", "Scene06"}
    assert {key.split("/")[0] for key in val} == {"Scene01"}
    assert (len(train), len(val)) == (2 * 2 * 2 * 2, 2 * 2 * 2)
    turned = virtual_kitti.virtual_kitti(root, "val", variations=("15-deg-left",))
    assert {s.key.split("/")[1] for s in turned} == {"15-deg-left"}
    with pytest.raises(RecipeError, match=r"expected variations among clone, .*; got snow"):
        virtual_kitti.virtual_kitti(root, "val", variations=("snow",))


def test_the_benchmarks_crop_moves_the_principal_point_with_the_pixels(tmp_path):
    codes = (np.arange(SIZE[0] * SIZE[1]) % 60000 + 1).astype(np.uint16).reshape(SIZE)
    write_variation(tmp_path, "Scene01", "clone", frames=1, size=SIZE, camera_facts=K)
    cv2.imwrite(str(tmp_path / "Scene01/clone/frames/depth/Camera_0/depth_00000.png"), codes)
    sample = virtual_kitti.virtual_kitti(tmp_path, "val", benchmark_crop=True)[0]
    assert sample.size == sample.label.shape == BENCHMARK
    np.testing.assert_allclose(sample.label, codes[375 - 352 :, 13 : 13 + 1216] / 100, rtol=1e-6)
    np.testing.assert_allclose(sample.intrinsics[:2, 2], [K[2] - 13, K[3] - 23])


def test_what_lacks_is_counted_and_what_is_broken_is_named(root):
    place = root / "Scene01/clone/frames/depth/Camera_0"
    (place / "depth_00000.png").unlink()
    (place / "depth_00001.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    frames = virtual_kitti.virtual_kitti(root, "val")
    assert ("Scene01/clone/0/rgb_00000", "there is no Scene01/clone/frames/depth/Camera_0/depth_00000.png") in frames.rejects
    with pytest.raises(DepthKitError, match=r"depth_00001.png: expected a whole"):
        frames[0]
    (root / "Scene01/fog/intrinsic.txt").write_text("frame cameraID\n0 0 25 25 14 9\n0 1 25 25 14 9\n")
    with pytest.raises(GeometryError, match=r"frame 1 of camera 0 in intrinsic.txt and extrinsic.txt of .*fog; it is missing"):
        virtual_kitti.virtual_kitti(root, "val")


def test_another_folder_and_an_archive_are_named(tmp_path):
    (tmp_path / "rgb").mkdir()
    with pytest.raises(DepthKitError, match=r"expected Scene01/clone/frames/rgb/Camera_0 under .*; found rgb/"):
        virtual_kitti.virtual_kitti(tmp_path, "val")
    (tmp_path / "vkitti_2.0.3_rgb.tar").write_bytes(b"x")
    with pytest.raises(DepthKitError, match=r"found an archive. Unpack it first"):
        virtual_kitti.virtual_kitti(tmp_path / "vkitti_2.0.3_rgb.tar", "val")


def test_the_sky_and_the_cameras_are_the_same_out_of_shards(root, tmp_path):
    frames = pickle.loads(pickle.dumps(virtual_kitti.virtual_kitti(root, "val", variations=("clone",))))  # as workers get them
    write_shards(frames, tmp_path / "out", split="val", dataset="virtual_kitti", originals=root)
    shard = ShardIndex.load(tmp_path / "out").split("val").shards[0]
    for raw, sample in zip(read_shard(str(tmp_path / "out" / shard.name), 0, 4, total=4), frames, strict=True):
        stored = decode_sample(raw.key, raw.members, where="here")
        assert raw.members["image.jpg"] == (root / sample.source["image"]).read_bytes()
        np.testing.assert_array_equal(stored.sky, sample.sky)
        np.testing.assert_allclose(stored.label[1:], sample.label[1:], rtol=1.3e-4)
        np.testing.assert_allclose(stored.world_from_camera, sample.world_from_camera)
