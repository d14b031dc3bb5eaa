"""Laws of the plain folder: what belongs together by name is read in the stated units, and what does not fit is named."""

import json

import cv2
import numpy as np
import pytest

from depthkit.convert import folder
from depthkit.convert.records.record import part
from depthkit.errors import DepthKitError, GeometryError, LabelError, ShapeError
from depthkit.types import Ambiguity, LabelKind, Representation, Views

CAMERA = {"fx": 30.0, "fy": 31.0, "cx": 15.5, "cy": 11.5, "width": 32, "height": 24}
METRIC_DEPTH = LabelKind(Ambiguity.METRIC, Representation.DEPTH)


def store(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), array)


@pytest.fixture
def root(tmp_path):
    """Ten frames; frame n shows the grey level n and lies at n + 1 metres; the camera moves 0.1 m per frame along x."""
    root = tmp_path / "my seq.1"
    for n in range(10):
        store(root / "rgb" / f"{n:06d}.png", np.full((24, 32, 3), n, np.uint8))
        depth = np.full((24, 32), 1000 * (n + 1), np.uint16)
        depth[0], depth[1] = 0, 65535
        store(root / "depth" / f"{n:06d}.png", depth)
    (root / "intrinsics.json").write_text(json.dumps(CAMERA))
    rows = [[1, 0, 0, 0.1 * n, 0, 1, 0, 0, 0, 0, 1, 0] for n in range(10)]
    np.savetxt(root / "poses.txt", rows, header="camera-to-world")
    return root


def change(root, **changes):
    (root / "intrinsics.json").write_text(json.dumps({**CAMERA, **changes}))


def test_millimetres_become_metres_and_codes_without_a_value_are_invalid(root):
    samples = list(folder.folder(root))
    assert [s.key for s in samples] == [f"my_seq_1/{n:06d}" for n in range(10)]
    for n, s in enumerate(samples):
        assert (s.image == n).all()
        assert s.kind == METRIC_DEPTH
        assert s.label.dtype == np.float32
        assert np.allclose(s.label[s.valid], n + 1)
        assert not s.valid[:2].any()
        assert s.valid[2:].all()
        assert s.intrinsics.tolist() == [[30, 0, 15.5], [0, 31, 11.5], [0, 0, 1]]
        assert np.allclose(s.world_from_camera[:3, 3], [0.1 * n, 0, 0])


def test_depth_of_another_folder_and_scale_is_read(root):
    (root / "depth").rename(root / "depth256")
    (s, *_) = folder.folder(root, depth_folder="depth256", depth_scale=1 / 256, ambiguity="scale")
    assert np.allclose(s.label[s.valid], 1000 / 256)
    assert s.ambiguity == Ambiguity.SCALE


def test_train_and_test_are_the_begin_and_the_end_and_nothing_is_in_both(root):
    train, test = folder.folder(root, "train", holdout=0.3), folder.folder(root, "test", holdout=0.3)
    assert [f.key for f in (*train.records, *test.records)] == [f.key for f in folder.folder(root).records]
    assert len(test) == 3
    assert [s.key[-1] for s in folder.folder(root, first=2, stop=5)] == ["2", "3", "4"]
    with pytest.raises(LabelError, match=r"expected split None \(all frames\), 'train' or 'test'.*got 'val'"):
        folder.folder(root, "val")
    with pytest.raises(LabelError, match="0 <= holdout < 1"):
        part(10, "train", 1.5)


def test_neighbours_come_with_the_motion_between_them(root):
    frames = folder.folder(root, views="video")
    assert len(frames) == 8
    s = frames[3]
    assert (s.image == 4).all()
    assert (s.frames["prev"] == 3).all()
    assert (s.frames["next"] == 5).all()
    assert np.allclose(s.frames_from_camera["prev"][:3, 3], [0.1, 0, 0])
    assert np.allclose(s.frames_from_camera["next"] @ [0, 0, 1, 1], [-0.1, 0, 1, 1])


def test_poses_of_unknown_scale_are_not_passed_on_as_metres(root):
    change(root, pose_scale="arbitrary")
    assert folder.folder(root)[0].world_from_camera is None


def test_images_without_a_label_are_left_out_by_name(root):
    (root / "depth" / "000004.png").unlink()
    frames = folder.folder(root)
    assert len(frames) == 9
    assert frames.rejects == (("my_seq_1/000004", "it has no label"),)


def test_images_alone_are_an_unlabelled_pool(root):
    for name in ("depth", "poses.txt", "intrinsics.json"):
        (root / name).rename(root.parent / name)
    (s, *_) = folder.folder(root)
    assert s.ambiguity == Ambiguity.UNLABELLED
    assert s.label is s.valid is s.intrinsics is s.world_from_camera is None
    assert folder.folder(root, label="none")[0].label is None


def with_disparity(root, pixels=5.0, **camera):
    (root / "depth").rename(root.parent / "depth")
    for n in range(10):
        store(root / "disparity" / f"{n:06d}.png", np.full((24, 32), pixels * 256, np.uint16))
        store(root / "right" / f"{n:06d}.png", np.full((24, 32, 3), 100 + n, np.uint8))
    change(root, **camera)


def test_disparity_of_a_known_rig_is_one_over_metres(root):
    with_disparity(root, baseline_m=0.2, doffs=1.0)
    s = folder.folder(root, views=Views.STEREO)[3]
    assert s.kind == LabelKind(Ambiguity.METRIC, Representation.DISPARITY)
    assert np.allclose(1 / s.label, 30.0 * 0.2 / (5.0 + 1.0))
    assert s.stereo_baseline == 0.2
    assert (s.frames["stereo"] == 103).all()
    assert np.allclose(s.frames_from_camera["stereo"] @ [0.2, 0, 1, 1], [0, 0, 1, 1])


@pytest.mark.parametrize("camera", [{}, {"baseline_m": 0.2, "metric": False}])
def test_disparity_of_an_unknown_rig_is_known_up_to_scale_and_shift(root, camera):
    with_disparity(root, **camera)
    s = folder.folder(root)[0]
    assert s.kind == LabelKind(Ambiguity.SHIFT_SCALE, Representation.DISPARITY)
    assert np.allclose(s.label, 5.0)


def test_metric_disparity_without_a_baseline_is_an_error(root):
    with_disparity(root)
    with pytest.raises(GeometryError, match=r"expected fx and baseline_m in intrinsics.json.*Add it"):
        folder.folder(root, ambiguity=Ambiguity.METRIC)


@pytest.mark.parametrize(
    ("facts", "focal"),
    [
        ({"K": [[40, 0, 1], [0, 41, 2], [0, 0, 1]]}, 40),
        ({"P_rect_02": [[50, 0, 1, 9], [0, 51, 2, 9], [0, 0, 1, 9]]}, 50),
        ({"per_frame": {f"{n:06d}": {**CAMERA, "fx": 60 + n} for n in range(10)}}, 60),
        ({"per_frame": {"000003": CAMERA}}, None),
        ({}, None),
    ],
)
def test_intrinsics_are_read_in_any_of_their_forms(root, facts, focal):
    (root / "intrinsics.json").write_text(json.dumps(facts))
    intrinsics = folder.folder(root)[0].intrinsics
    assert (None if intrinsics is None else intrinsics[0, 0]) == focal


def test_each_file_that_does_not_fit_is_named_and_the_others_are_read(root):
    store(root / "depth" / "000001.png", np.ones((12, 16), np.uint16))
    store(root / "depth" / "000002.png", np.ones((24, 32), np.uint8))
    image = root / "rgb" / "000003.png"
    image.write_bytes(image.read_bytes()[:60])
    (root / "depth" / "000004.png").write_bytes(b"not a picture")
    store(root / "rgb" / "000005.png", np.zeros((20, 32, 3), np.uint8))
    frames = folder.folder(root)
    (root / "depth" / "000006.png").unlink()
    for n, error, says in [
        (1, ShapeError, r"depth/000001.png: expected the size of rgb/000001.png, \(24, 32\); got \(12, 16\)"),
        (2, LabelError, r"depth/000002.png: expected depth of 16 bits or floating point; got 8 bits"),
        (3, DepthKitError, r"rgb/000003.png; it cannot be decoded .*truncated"),
        (4, LabelError, r"depth/000004.png: expected a whole .*no image"),
        (5, GeometryError, r"rgb/000005.png: expected the size of its intrinsics, \(24, 32\)"),
        (6, DepthKitError, r"expected file .*depth/000006.png; No such file"),
    ]:
        with pytest.raises(error, match=says):
            frames[n]
    assert frames[7].key.endswith("7")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("intrinsics.json", "{", "intrinsics.json to be JSON with fx, fy, cx, cy"),
        ("intrinsics.json", "[1]", "intrinsics.json to be JSON with fx, fy, cx, cy"),
        ("intrinsics.json", '{"fx": 1}', "expected numbers fx, fy, cx, cy in"),
        ("intrinsics.json", '{"K": [[1, 2], [3, 4]]}', "expected numbers fx, fy, cx, cy in"),
        ("poses.txt", "1 2 3\n", r"a line of 12 finite numbers in .*poses.txt for each of the 10 images; got \(1, 3\)"),
        ("poses.txt", "1 2 x\n", "expected 12 numbers per line in .*poses.txt"),
        ("poses.txt", "1 0 0 0 0 1 0 0 0 0 1 nan\n" * 10, "12 finite numbers"),
    ],
)
def test_a_garbled_description_is_named(root, name, content, says):
    (root / name).write_text(content)
    with pytest.raises(GeometryError, match=says):
        folder.folder(root)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"label": "disparity"}, "with a disparity label and views single; got none"),
        ({"views": "stereo"}, "with a depth label and views stereo; got none"),
        ({"label": "depths"}, "expected label to be one of auto, depth, disparity, none; got 'depths'"),
        ({"views": "both"}, "expected views to be one of single"),
        ({"ambiguity": "affine"}, "expected ambiguity to be one of metric"),
        ({"first": 99}, "got none"),
    ],
)
def test_what_is_asked_for_and_not_there_is_an_error(root, options, says):
    with pytest.raises(DepthKitError, match=says):
        folder.folder(root, **options)


def test_a_folder_without_images_is_named(tmp_path):
    with pytest.raises(DepthKitError, match=r"expected images, or rgb/ with images, under .*; found nothing. Give the"):
        folder.folder(tmp_path)


def test_a_folder_of_nothing_but_images_is_enough(root, tmp_path):
    (root / "rgb").rename(tmp_path / "drive")
    s = folder.folder(tmp_path / "drive", views="video", intrinsics=(30, 31, 15.5, 11.5))[4]
    assert [int(x[0, 0, 0]) for x in (s.frames["prev"], s.image, s.frames["next"])] == [4, 5, 6]
    assert s.intrinsics.tolist() == [[30, 0, 15.5], [0, 31, 11.5], [0, 0, 1]]
    assert s.ambiguity == Ambiguity.UNLABELLED


def test_given_intrinsics_go_before_those_of_the_file_and_leave_the_rig_as_it_is(root):
    with_disparity(root, baseline_m=0.2, width=99)
    s = folder.folder(root, intrinsics=(60, 61, 15.5, 11.5), views="stereo")[0]
    assert s.intrinsics[0, 0] == 60
    assert s.stereo_baseline == 0.2
    assert np.allclose(1 / s.label, 60 * 0.2 / 5.0)


@pytest.mark.parametrize("names", [range(7, 17), range(0, 100, 10)])
def test_frames_are_in_the_order_of_their_numbers(root, names):
    old = sorted((root / "rgb").iterdir())
    for n, file in zip(names, old, strict=True):
        file.rename(file.with_stem(f"f{n}"))
    frames = folder.folder(root, label="none", views="video", spacing=2, every=3)
    assert [(s.frames["prev"][0, 0, 0], s.image[0, 0, 0], s.frames["next"][0, 0, 0]) for s in frames] == [(1, 3, 5), (4, 6, 8)]
    assert [reject.reason for reject in frames.rejects] == ["there is no frame 2 before it", "there is no frame 2 behind it"]


def test_across_a_gap_there_are_no_neighbours_but_an_unlabelled_frame_is_one(root):
    (root / "poses.txt").unlink()
    (root / "rgb/000003.png").unlink()
    (root / "depth/000007.png").unlink()
    frames = folder.folder(root, views="video")
    assert [frame.key[-1] for frame in frames.records] == ["1", "5", "6", "8"]
    assert frames.records[2].views["next"] == "rgb/000007.png"
    assert sorted(reject.name[-1] for reject in frames.rejects) == ["0", "2", "4", "7", "9"]


def test_a_neighbour_of_another_size_is_named(root):
    store(root / "rgb" / "000005.png", np.zeros((20, 32, 3), np.uint8))
    frames = folder.folder(root, views="video")
    for position in (3, 5):
        with pytest.raises(ShapeError, match=r"rgb/000005.png: expected the size of rgb/00000\d.png, \(24, 32\)"):
            frames[position]


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"fx": float("nan")}, "intrinsics.json: expected finite fx, fy, cx, cy .*got nan"),
        ({"fy": 0}, "with fx and fy above 0; got 30.0, 0.0"),
        ({"fx": 0.58, "fy": 1.92, "cx": 0.5, "cy": 0.5}, "look like fractions of the image's size"),
    ],
)
def test_intrinsics_that_cannot_be_are_named(root, facts, says):
    change(root, **facts)
    with pytest.raises(GeometryError, match=says):
        folder.folder(root)


def test_intrinsics_of_another_size_are_refused(root):
    frames = folder.folder(root, intrinsics=(300, 310, 155, 115))
    with pytest.raises(GeometryError, match=r"000000.png: expected a principal point inside of the 32 x 24 pixels; got cx 155"):
        frames[0]


def test_an_archive_is_to_be_unpacked(tmp_path):
    (tmp_path / "drive.zip").write_bytes(b"PK")
    with pytest.raises(DepthKitError, match=r"expected a folder with images, or rgb/ at .*drive.zip; found an archive. Unpack"):
        folder.folder(tmp_path / "drive.zip")
    (tmp_path / "frames").mkdir()
    with pytest.raises(DepthKitError, match=r"under .*; found drive.zip, frames/. Give the folder that holds it"):
        folder.folder(tmp_path)


@pytest.mark.parametrize("renamed", ["depth/{}.raw", "depth/x_{}.png", "Depth/x{}.npy"])
def test_depth_files_that_belong_to_no_image_are_an_error(root, renamed):
    files = sorted((root / "depth").iterdir())
    for file in files:
        target = root / renamed.format(file.stem)
        target.parent.mkdir(exist_ok=True)
        file.rename(target)
    with pytest.raises(LabelError, match=r"10 files in .* belong to no image"):
        folder.folder(root)
    assert len(folder.folder(root, label="none")) == 10


@pytest.mark.parametrize("said", [5000, 1 / 5000])
def test_the_depth_scale_of_the_file_is_used_unless_one_is_given(root, said):
    change(root, depth_scale=said)
    first = folder.folder(root)[0]
    assert np.allclose(first.label[first.valid], 0.2)
    first = folder.folder(root, depth_scale=0.001)[0]
    assert np.allclose(first.label[first.valid], 1.0)


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"depth_unit_m": 0.001}, "got depth_unit_m"),
        ({"k1": 0.1}, "Undistort"),
        ({"distortion": [0, 0.2]}, "Undistort"),
        ({"model": "OPENCV"}, "got model"),
        ({"depth_scale": 0}, "greater than 0"),
    ],
)
def test_facts_that_would_be_ignored_are_refused_by_name(root, facts, says):
    change(root, **facts)
    with pytest.raises(GeometryError, match=says):
        folder.folder(root)


def test_a_lens_without_distortion_is_a_pinhole(root):
    change(root, k1=0, p2=0.0, model="PINHOLE")
    assert len(folder.folder(root)) == 10


def test_a_transposed_matrix_is_refused(root):
    (root / "intrinsics.json").write_text(json.dumps({"K": [[60, 0, 0], [0, 60, 0], [31.5, 23.5, 1]]}))
    with pytest.raises(GeometryError, match="Transpose"):
        folder.folder(root)
