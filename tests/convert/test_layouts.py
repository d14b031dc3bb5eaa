"""Folders as other people's tools leave them are read with their labels, cameras and poses, or refused in one sentence."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from depthkit.cli.main import main
from depthkit.convert import folder
from depthkit.errors import DepthKitError
from depthkit.shards import ShardIndex, decode_sample
from depthkit.shards.reading import read_shard
from depthkit.types import Ambiguity
from tests.convert.folders_of_tools import (
    CODES,
    MATRIX,
    METRES,
    POSE,
    K,
    arkit_scenes,
    azure,
    bop,
    carla,
    colmap,
    colmap_binary,
    depth,
    instant_ngp,
    nerfstudio,
    numbers,
    photo,
    polycam,
    realsense,
    record3d,
    replica,
    scannet,
    scannet_by_its_own_tool,
    seven_scenes,
    tartanair_v2,
    text,
)

WITHOUT_CAMERA = (seven_scenes, scannet_by_its_own_tool, carla)
WITHOUT_POSE = (colmap, colmap_binary, arkit_scenes, realsense, azure, carla)
LAYOUTS = (
    seven_scenes, scannet, scannet_by_its_own_tool, nerfstudio, instant_ngp, colmap, colmap_binary, record3d, arkit_scenes,
    polycam, realsense, azure, carla, tartanair_v2, bop, replica,
)  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_known_layout_is_read_with_its_unit_camera_and_pose(layout, tmp_path):
    root, options = tmp_path / "seq", {}
    layout(root)
    if layout is realsense:
        options = {"depth_scale": 0.001}
    if layout is carla:
        options = {"depth_coding": "carla"}
    samples = folder.folder(root, **options)
    assert not samples.rejects
    for s in samples:
        there = (slice(12), slice(16))
        assert s.ambiguity == (Ambiguity.SCALE if layout in (colmap, colmap_binary) else Ambiguity.METRIC)
        assert np.allclose(s.label[there][s.valid[there]], METRES[METRES > 0], atol=0.006 if layout is instant_ngp else 1e-4)
        assert s.valid[there].sum() == (METRES > 0).sum()
        if layout not in WITHOUT_CAMERA and layout is not tartanair_v2:
            assert np.allclose(s.intrinsics, MATRIX)
        if layout not in WITHOUT_POSE and layout is not tartanair_v2:
            assert np.allclose(s.world_from_camera, POSE)
        assert (s.intrinsics is None) == (layout in WITHOUT_CAMERA)
        assert (s.world_from_camera is None) == (layout in WITHOUT_POSE)


PAIRS = {
    "the stem": ("rgb/a.png", "depth/a.png"),
    "words before": ("rgb/rgb_0001.png", "depth/depth_0001.png"),
    "words behind": ("x/0001-color.png", "x/0001-depth.png"),
    "capitals": ("rgb/a.png", "Depth/a.png"),
    "a photo beside its depth": ("x/a.jpg", "x/a.png"),
    "numbers glued to words": ("x/frame0001.jpg", "x/depth0001.png"),
    "npy": ("rgb/a.png", "depth/a.npy"),
    "npz": ("rgb/a.png", "depth/a.npz"),
    "tiff": ("color/a.png", "depth/a.tiff"),
    "a tiff beside its photo": ("x/a.jpg", "x/a.tif"),
    "exr": ("images/a.png", "depths/a.exr"),
}


@pytest.mark.parametrize(("image", "label"), PAIRS.values(), ids=PAIRS.keys())
def test_depth_of_any_name_and_ending_belongs_to_its_image(image, label, tmp_path):
    numbers_of = CODES if label.endswith("png") else METRES
    for n in range(2):
        photo(tmp_path, image.replace("a.", f"a{n}.").replace("01", f"0{n}"))
        depth(tmp_path, label.replace("a.", f"a{n}.").replace("01", f"0{n}"), numbers_of)
    root = tmp_path / "x" if (tmp_path / "x").is_dir() else tmp_path
    samples = folder.folder(root)
    assert len(samples) == 2
    for s in samples:
        assert np.allclose(s.label[s.valid], METRES[METRES > 0], atol=1e-6)


def test_the_command_stores_what_the_source_says_and_tells_its_range(tmp_path, capsys):
    nerfstudio(tmp_path / "seq")
    main(["shards", "write", "folder", str(tmp_path / "seq"), str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert "read as transforms.json" in printed
    assert "whether depth is along the axis" in printed
    assert re.search(r"5, 50 and 95 % of metric depth: [\d.]+, [\d.]+, [\d.]+ m", printed)
    assert "WARNING" not in printed
    (shard, *_) = ShardIndex.load(tmp_path / "out").split("train").shards
    (raw, *_) = read_shard(str(tmp_path / "out" / shard.name), 0, 1, total=shard.samples)
    stored = decode_sample(raw.key, raw.members, where="it")
    assert np.abs(stored.label - METRES)[METRES > 0].max() <= 0.0005 + 1e-6


@pytest.mark.parametrize(("scale", "warned"), [(0.1, True), (0.00001, True), (0.001, False)])
def test_metres_that_no_camera_sees_are_warned_of(scale, warned, tmp_path, capsys):
    photo(tmp_path, "seq/rgb/a.png")
    depth(tmp_path, "seq/depth/a.png")
    main(["shards", "write", "folder", str(tmp_path / "seq"), str(tmp_path / "out"), "--depth_scale", str(scale)])
    assert ("WARNING: expected labels from 0.05 to 200 m" in capsys.readouterr().out) == warned
    main(["shards", "info", str(tmp_path / "out")])
    assert ("WARNING: expected labels from 0.05 to 200 m" in capsys.readouterr().out) == warned


def picture_of_depth(root):
    photo(root, "rgb/a.png")
    photo(root, "depth/a.png")


def grey16_photos(root):
    depth(root, "rgb/a.png")


def two_depths(root):
    photo(root, "rgb/a.png")
    depth(root, "depth/a.png")
    depth(root, "depth/a.npy", METRES)


def two_folders(root):
    photo(root, "rgb/a.png")
    depth(root, "depth/a.png")
    depth(root, "Depth/a.png")


def twins(root):
    photo(root, "rgb/a.png")
    photo(root, "rgb/a.jpg")


def turned(root):
    photo(root, "rgb/a.jpg")
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.open(root / "rgb/a.jpg").save(root / "rgb/a.jpg", exif=exif)
    depth(root, "depth/a.png")


def changed(layout, name, **facts):
    def build(root):
        layout(root)
        text(root, name, {**json.loads((root / name).read_text()), **facts})

    return build


def with_file(layout, name, content=""):
    def build(root):
        layout(root)
        text(root, name, content)

    return build


def kept(root):
    photo(root, "rgb/a.png")
    depth(root, "depth/a.png")


REFUSED = {
    "tum": (
        with_file(with_file(kept, "rgb.txt"), "depth.txt"),
        "found the dataset tum. Run `depthkit shards write tum ROOT OUT`",
    ),
    "kitti": (lambda root: depth(root, "val/d_sync/proj_depth/groundtruth/image_02/5.png"), "found the dataset kitti_depth"),
    "colourised": (picture_of_depth, "a picture of depth. Save its numbers, or .*--depth_coding carla"),
    "grey16": (grey16_photos, "a.png is of 16-bit grey, as depth is. Put depth into a folder named depth"),
    "two depths": (two_depths, "expected one file of depth for rgb/a.png .*; got depth/a.npy and depth/a.png. Move one away"),
    "two folders": (two_folders, "got Depth and depth. Move one away"),
    "twins": (twins, "with stems of their own; got rgb/a.jpg and rgb/a.png"),
    "turned": (turned, "its EXIF orientation turns it. Turn its pixels"),
    "realsense": (realsense, "expected the unit of depth.* Give --depth_scale: 0.001 for a RealSense D400"),
    "realsense by rows": (
        changed(realsense, "camera_intrinsic.json", intrinsic_matrix=MATRIX.ravel().tolist()),
        "Transpose them",
    ),
    "viewer": (lambda root: (photo(root, "a_Color.png"), text(root, "a_Depth.raw", "x")), "snapshot of RealSense's viewer"),
    "lens": (changed(nerfstudio, "transforms.json", k1=0.1), "got OPENCV with {'k1': 0.1}. Undistort the images first"),
    "fisheye": (changed(nerfstudio, "transforms.json", camera_model="OPENCV_FISHEYE"), "got OPENCV_FISHEYE"),
    "colmap lens": (with_file(colmap, "sparse/cameras.txt", "1 OPENCV 16 12 20 21 8 6 0.1 0 0 0"), "image_undistorter"),
    "colmap model": (with_file(colmap, "sparse/cameras.txt", "1 FOV 16 12 20 21 8 6 1"), "got FOV"),
    "transposed": (with_file(kept, "K.txt", numbers(MATRIX.T)), r"expected a matrix row by row.*Transpose it"),
    "normalised": (with_file(kept, "K.txt", "0.5 0.5 0.5 0.5"), "look like fractions of the image's size"),
    "r3d": (with_file(kept, "x.r3d"), "a capture of Record3D, whose depth is packed. Export it as EXR"),
    "sequences": (lambda root: seven_scenes(root / "seq-01"), "several sequences of 7-Scenes. Give one"),
    "pose": (with_file(seven_scenes, "frame-000000.pose.txt", numbers(POSE.T)), "Correct or transpose it"),
    "middlebury": (lambda root: (photo(root, "im0.png"), text(root, "disp0.pfm", "Pf")), "a pair of Middlebury"),
    "a jpeg": (
        lambda root: (photo(root, "rgb/a.png"), photo(root, "depth/a.jpg")),
        "expected depth without losses; got a JPEG",
    ),
}


@pytest.mark.parametrize(("build", "says"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_read_truly_is_one_sentence_that_says_what_to_do(build, says, tmp_path):
    build(tmp_path / "seq")
    with pytest.raises(DepthKitError, match=says) as error:
        list(folder.folder(tmp_path / "seq"))
    assert "\n" not in str(error.value)


def test_frames_that_were_lost_have_no_pose_and_a_photo_alone_may_be_turned(tmp_path):
    scannet(tmp_path / "a")
    text(tmp_path / "a", "pose/2.txt", numbers(np.full((4, 4), -np.inf)))
    poses = {s.key: s.world_from_camera for s in folder.folder(tmp_path / "a")}
    assert [poses[f"a/{n}"] is None for n in (0, 2, 10)] == [False, True, False]
    turned(tmp_path / "b")
    (tmp_path / "b/depth/a.png").unlink()
    assert len(list(folder.folder(tmp_path / "b"))) == 1


def test_distances_from_the_camera_become_depth(tmp_path):
    photo(tmp_path, "rgb/a.png")
    depth(tmp_path, "depth/a.npy", METRES)
    (s,) = folder.folder(tmp_path, intrinsics=K, ray=True)
    y, x = 3, 4
    assert np.isclose(s.label[y, x], METRES[y, x] / np.sqrt(1 + ((x - 7.5) / 20) ** 2 + ((y - 5.5) / 21) ** 2))
    with pytest.raises(DepthKitError, match="give --intrinsics"):
        list(folder.folder(tmp_path, ray=True))


def test_files_that_nobody_reads_are_named(tmp_path):
    kept(tmp_path)
    text(tmp_path, "camera.yaml", "fx: 3")
    assert folder.folder(tmp_path).notes == ("not read: camera.yaml",)


def test_the_sky_of_carla_is_at_infinity(tmp_path):
    photo(tmp_path, "rgb/a.png")
    depth(tmp_path, "depth/a.png", np.full((12, 16, 3), 255, np.uint8))
    (s,) = folder.folder(tmp_path, depth_coding="carla")
    assert s.sky.all()
    assert np.isinf(s.label).all()
