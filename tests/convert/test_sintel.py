"""Laws of Sintel's layout: depth and cameras in the authors' formats, read as they were written byte by byte."""

import struct

import cv2
import numpy as np
import pytest

from depthkit.cli.shards_write import write
from depthkit.convert import sintel
from depthkit.errors import DepthKitError, GeometryError, LabelError
from depthkit.shards import ShardIndex, decode_sample
from depthkit.shards.reading import read_shard
from depthkit.types import Ambiguity, LabelKind, Representation

TAG = struct.pack("<f", 202021.25)
K = [[1120, 0, 15.5], [0, 1120, 11.5], [0, 0, 1]]
POSE = [[0, 1, 0, 0.5], [-1, 0, 0, 2.0], [0, 0, 1, -3.0]]


def write_scene(base, scene, frames=2, size=(24, 32), rendering="final"):
    for what in (rendering, "depth", "camdata_left"):
        (base / what / scene).mkdir(parents=True, exist_ok=True)
    for n in range(1, frames + 1):
        depth = (np.arange(size[0] * size[1]).reshape(size) * 0.25 + n).astype(np.float32)
        cv2.imwrite(str(base / f"{rendering}/{scene}/frame_{n:04d}.png"), np.full((*size, 3), 20 * n, np.uint8))
        header = TAG + struct.pack("<ii", size[1], size[0])
        (base / f"depth/{scene}/frame_{n:04d}.dpt").write_bytes(header + depth.astype("<f4").tobytes())
        numbers = [x for row in (*K, *POSE) for x in row]
        (base / f"camdata_left/{scene}/frame_{n:04d}.cam").write_bytes(TAG + struct.pack("<21d", *numbers))


@pytest.fixture
def root(tmp_path):
    for scene in ("alley_1", "bamboo_2"):
        write_scene(tmp_path / "training", scene)
    return tmp_path


def test_depth_is_that_of_the_file_row_by_row(root):
    frames = sintel.sintel(root)
    sample = frames[1]
    assert [frames.key(i) for i in range(4)] == [f"{s}/frame_000{n}" for s in ("alley_1", "bamboo_2") for n in (1, 2)]
    assert sample.kind == LabelKind(Ambiguity.METRIC, Representation.DEPTH)
    assert np.array_equal(sample.label, np.arange(24 * 32).reshape(24, 32) * 0.25 + 2)
    assert sample.valid.all()
    assert int(sample.image.mean()) == 40


def test_a_single_value_is_at_its_row_and_column(tmp_path):
    write_scene(tmp_path, "a", frames=1, size=(3, 5))
    (tmp_path / "camdata_left/a/frame_0001.cam").unlink()
    data = bytearray((tmp_path / "depth/a/frame_0001.dpt").read_bytes())
    data[12 + 4 * (1 * 5 + 3) : 12 + 4 * (1 * 5 + 4)] = struct.pack("<f", 77.5)
    data[12:16] = struct.pack("<f", float("nan"))
    (tmp_path / "depth/a/frame_0001.dpt").write_bytes(bytes(data))
    sample = sintel.sintel(tmp_path)[0]  # the folder of training alone will do
    assert sample.label[1, 3] == 77.5
    assert not sample.valid[0, 0]
    assert sample.valid.sum() == 14


def test_cameras_are_those_of_the_files_and_their_poses_from_world(root):
    sample = sintel.sintel(root)[0]
    assert sample.intrinsics.tolist() == K
    assert np.allclose(np.linalg.inv(sample.world_from_camera)[:3], POSE)
    (root / "training/camdata_left/alley_1/frame_0001.cam").unlink()
    assert sintel.sintel(root)[0].intrinsics is None
    (root / "training/camdata_left/alley_1/frame_0001.cam").write_bytes(b"x" * 172)
    with pytest.raises(GeometryError, match=r"frame_0001.cam: expected 202021.25 and 21 float64"):
        sintel.sintel(root)


def test_the_clean_pass_is_read_when_asked_for(root):
    write_scene(root / "training", "alley_1", rendering="clean")
    assert len(sintel.sintel(root, rendering="clean")) == 2
    with pytest.raises(DepthKitError, match=r"expected rendering to be one of final, clean; got 'albedo'"):
        sintel.sintel(root, rendering="albedo")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"PIEH" + bytes(40), "expected a .dpt file, which begins with 202021.25"),
        (TAG + struct.pack("<ii", 32, 24) + bytes(4), "expected 32 x 24 float32; got 4 bytes. It is cut short"),
        (TAG + struct.pack("<ii", -1, -1), "expected a .dpt file"),
        (TAG + struct.pack("<ii", 2**30, 2**30), "expected a .dpt file"),
        (b"", "expected a .dpt file"),
    ],
)
def test_a_file_of_another_kind_is_refused(root, data, message):
    (root / "training/depth/alley_1/frame_0001.dpt").write_bytes(data)
    with pytest.raises(LabelError, match=message):
        sintel.sintel(root)[0]


def test_another_folder_is_named_and_what_lacks_is_counted(root, tmp_path):
    (root / "training/depth/alley_1/frame_0002.dpt").unlink()
    assert sintel.sintel(root).rejects == (("alley_1/frame_0002", "there is no training/depth/alley_1/frame_0002.dpt"),)
    (tmp_path / "other/flow").mkdir(parents=True)
    with pytest.raises(DepthKitError, match=r"expected training/final/SCENE/frame_0001.png and .* under .*other; found flow/"):
        sintel.sintel(tmp_path / "other")


def test_shards_of_a_test_hold_the_pictures_as_they_are(tmp_path):
    write_scene(tmp_path, "a", frames=1)
    noise = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "final/a/frame_0001.png"), noise[..., ::-1])
    write("sintel", str(tmp_path), str(tmp_path / "out"), split="test")
    index = ShardIndex.load(tmp_path / "out")
    (shard,) = index.shards("test")
    (raw,) = read_shard(index.url(shard), 0, 1, total=1)
    sample = decode_sample(raw.key, raw.members, where=shard.name)
    assert np.array_equal(sample.image, noise)
    assert abs(sample.label / (np.arange(24 * 32).reshape(24, 32) * 0.25 + 1) - 1).max() < 2e-4
