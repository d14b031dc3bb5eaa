"""Laws of NYU Depth V2's videos: pictures with the depth nearest in time, seen from the colour camera."""

import cv2
import numpy as np
import pytest
from scipy.io import savemat
from scipy.spatial.transform import Rotation

from depthkit.convert import nyuv2_raw
from depthkit.convert.nyuv2_raw import project
from depthkit.errors import DepthKitError, LabelError
from depthkit.types import Ambiguity, LabelKind, Representation

SIZE = (480, 640)
K_DEPTH = np.array([[582.624481, 0, 313.044759], [0, 582.691033, 238.443896], [0, 0, 1]])
K_COLOUR = np.array([[518.857901, 0, 325.582449], [0, 519.469611, 253.736166], [0, 0, 1]])
BENT = np.array([-0.0998972366, 0.390653246, 0.00192905929, -0.00194220225, -0.510317251])
TURN = np.array([[0.99997799, -0.00503599, -0.00431966], [0.00505184, 0.99998052, 0.00366624], [0.00430112, -0.0036879, 1]])
SHIFT = np.array([-0.0250318751, 0.000293423129, -0.00066238747])


def code(depth):
    return np.rint(1092.5 - 351.3 / depth).astype(np.uint16)


def depth_of(codes):
    return 351.3 / (1092.5 - codes.astype(float))


def pgm(codes):
    return b"P5 640 480 65535\n" + codes.astype("<u2").tobytes()


def ppm(level):
    return b"P6 640 480 255\n" + np.full((*SIZE, 3), level, np.uint8).tobytes()


def wall_with_a_patch(row=120, column=470):
    codes = np.full(SIZE, code(4.0))
    codes[row - 12 : row + 13, column - 12 : column + 13] = code(1.5)
    return codes


@pytest.mark.parametrize(("row", "column"), [(120, 470), (240, 313), (380, 150)])
def test_a_point_is_where_an_independent_projection_sees_it(row, column):
    depth = project(wall_with_a_patch(row, column))
    near = (depth > 0) & (depth < 2)
    z = depth_of(code(1.5))
    ray = cv2.undistortPoints(np.array([[[column, row]]], float), K_DEPTH, BENT)[0, 0]
    turn = Rotation.from_matrix(TURN).as_rotvec()
    expected = cv2.projectPoints(np.array([[*ray * z, z]]), turn, SHIFT, K_COLOUR, None)[0][0, 0]
    np.testing.assert_allclose(np.argwhere(near).mean(0)[::-1], expected, atol=0.7)
    assert np.median(depth[near]) == pytest.approx(float((TURN @ [*ray * z, z] + SHIFT)[2]), rel=2e-3)
    assert np.median(depth[depth > 2]) == pytest.approx(depth_of(code(4.0)), rel=5e-3)


def test_nothing_noise_and_the_too_far_are_no_depth():
    codes = np.full(SIZE, 2047, np.uint16)
    codes[100], codes[200], codes[300] = 599, code(10.5), code(9.0)
    depth = project(codes)
    assert (depth > 0).sum() > 300
    np.testing.assert_allclose(depth[depth > 0], depth_of(code(9.0)), rtol=2e-2)


@pytest.fixture
def root(tmp_path):
    for scene in ("basement_0001a", "study_0008"):
        (tmp_path / scene).mkdir()
        for name, time in (("r", 10.00), ("r", 10.07), ("r", 12.0), ("d", 10.02), ("d", 10.06)):
            data = ppm(round(100 * min(time - 9, 2))) if name == "r" else pgm(wall_with_a_patch())
            (tmp_path / scene / f"{name}-{time:.6f}-{round(1e6 * time)}.{'ppm' if name == 'r' else 'pgm'}").write_bytes(data)
        (tmp_path / scene / "a-10.01-5.dump").write_bytes(b"acceleration")
    return tmp_path


def test_a_picture_has_the_depth_nearest_in_time_and_one_without_is_counted(root):
    frames = nyuv2_raw.nyuv2_raw(root, "train", labelled="all", holdout=0)
    assert len(frames) == 4
    assert [(f.image.split("-")[1], f.label.split("-")[1]) for f in frames.records[:2]] == [
        ("10.000000", "10.020000"),
        ("10.070000", "10.060000"),
    ]
    assert {reject.reason for reject in frames.rejects} == {"there is no depth within 0.05 s"}
    sample = frames[1]
    assert sample.kind == LabelKind(Ambiguity.METRIC, Representation.DEPTH)
    np.testing.assert_array_equal(sample.label, project(wall_with_a_patch()))
    assert int(np.median(sample.image)) == 107
    np.testing.assert_allclose(sample.intrinsics, K_COLOUR, rtol=1e-6)


def test_rooms_of_the_labelled_test_are_left_out_whatever_their_part(root, tmp_path):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    labelled = tmp_path / "labelled"
    labelled.mkdir()
    with h5py.File(labelled / "nyu_depth_v2_labeled.mat", "w") as file:  # a cell array is a row of references to its words
        words = ["study_0008", "basement_0001b"]
        for word in words:
            file[f"#refs#/{word}"] = np.frombuffer(word.encode(), np.uint8).astype(np.uint16)[:, None]
        file["scenes"] = np.array([[file[f"#refs#/{word}"].ref for word in words]], dtype=h5py.ref_dtype)
    savemat(labelled / "splits.mat", {"trainNdxs": np.array([[1]]), "testNdxs": np.array([[2]])})
    frames = nyuv2_raw.nyuv2_raw(root, "train", labelled=labelled, holdout=0)
    assert {key.split("/")[0] for key in map(frames.key, range(len(frames)))} == {"study_0008"}


def test_files_cut_short_are_named(root):
    for file in (root / "study_0008").glob("d-*"):
        file.write_bytes(pgm(wall_with_a_patch())[:-1])
    with pytest.raises(LabelError, match=r"study_0008/d-.*: expected \(480, 640\) values; got 614399 bytes. It is cut short"):
        nyuv2_raw.nyuv2_raw(root, "train", labelled="all", holdout=0)[2]


def test_the_synchronised_version_is_in_millimetres_by_its_list(tmp_path):
    scene = tmp_path / "sync/kitchen_0028b"
    scene.mkdir(parents=True)
    codes = np.arange(480 * 640, dtype=np.uint16).reshape(SIZE) % 9000
    cv2.imwrite(str(scene / "rgb_00045.jpg"), np.full((*SIZE, 3), 33, np.uint8))
    cv2.imwrite(str(scene / "sync_depth_00045.png"), codes)
    rows = [f"/kitchen_0028b/rgb_{n:05d}.jpg /kitchen_0028b/sync_depth_{n:05d}.png 518.8579\n" for n in (45, 46)]
    (tmp_path / "train.txt").write_text("".join(rows))
    frames = nyuv2_raw.nyuv2_sync(tmp_path / "sync", split_file=tmp_path / "train.txt")
    assert frames.rejects == (("kitchen_0028b/rgb_00046", "there is no kitchen_0028b/rgb_00046.jpg"),)
    np.testing.assert_allclose(frames[0].label, codes / 1000, rtol=1e-6)
    np.testing.assert_array_equal(frames[0].valid, codes > 0)
    (tmp_path / "train.txt").write_text("rgb depth\n")
    with pytest.raises(DepthKitError, match=r"expected lines 'picture depth focal_length' in .*train.txt"):
        nyuv2_raw.nyuv2_sync(tmp_path / "sync", split_file=tmp_path / "train.txt")
