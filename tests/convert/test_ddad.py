"""Laws of DDAD's layout: scenes by split, laser points through two poses into the camera, the nearest in each pixel."""

import json

import cv2
import numpy as np
import pytest

from depthkit.convert import ddad
from depthkit.errors import DepthKitError, GeometryError, LabelError

SIZE = (40, 60)
FACING = {"qw": 0.5, "qx": -0.5, "qy": 0.5, "qz": -0.5}  # z of the camera looks along x of the world, x to its right, -y
POINTS = np.array(  # x ahead, y left, z up, and how bright
    [
        [10, 0, 0, 0.5],
        [10, -1, 0, 0.5],
        [20, 0, 0, 0.5],
        [-5, 0, 0, 0.5],
        [10, 0, 1, 0.5],
        [10, 500, 0, 0.5],
        [np.nan, 0, 0, 0],
    ],
    np.float32,
)


def pose(x=0.0, y=0.0, z=0.0, rotation=None):
    return {"translation": {"x": x, "y": y, "z": z}, "rotation": rotation or {"qw": 1.0}}


def write_scene(root, number, count=2):
    folder = root / f"{number:06d}"
    for part in ("rgb/CAMERA_01", "point_cloud/LIDAR", "calibration"):
        (folder / part).mkdir(parents=True)
    samples, data = [], []
    for n in range(count):
        files = f"rgb/CAMERA_01/{n}.png", f"point_cloud/LIDAR/{n}.npz"
        cv2.imwrite(str(folder / files[0]), np.full((*SIZE, 3), 60, np.uint8))
        np.savez_compressed(folder / files[1], data=POINTS)
        image = {"image": {"filename": files[0], "pose": pose(x=100.0, z=2.0, rotation=FACING)}}
        cloud = {"point_cloud": {"filename": files[1], "pose": pose(x=99.0, z=2.0)}}  # a metre behind the camera
        data.append({"key": f"c{n}", "id": {"name": "CAMERA_01"}, "datum": image})
        data.append({"key": f"l{n}", "id": {"name": "LIDAR"}, "datum": cloud})
        samples.append({"id": {"index": str(n)}, "datum_keys": [f"c{n}", f"l{n}"], "calibration_key": "k"})
    lens = {"fx": 50.0, "fy": 50.0, "cx": 30.0, "cy": 20.0, "skew": 0}
    (folder / "calibration/k.json").write_text(json.dumps({"names": ["LIDAR", "CAMERA_01"], "intrinsics": [{}, lens]}))
    (folder / "scene_ab.json").write_text(json.dumps({"name": "s", "samples": samples, "data": data}))
    return f"{number:06d}/scene_ab.json"


@pytest.fixture
def root(tmp_path):
    base = tmp_path / "ddad_train_val"
    base.mkdir()
    scenes = [write_scene(base, number) for number in (0, 150)]
    splits = {"0": {"filenames": scenes[:1]}, "1": {"filenames": [scenes[1], "000151/scene_cd.json"]}}
    (base / "ddad.json").write_text(json.dumps({"metadata": {}, "scene_splits": splits}))
    return tmp_path


def test_points_are_in_the_pixels_that_the_pinhole_says(root):
    sample = ddad.ddad(root)[0]
    # a point at x m of the laser is at x - 1 m before the camera
    assert sample.label[20, 30] == pytest.approx(9)  # straight ahead; that at 19 m behind it is hidden
    assert sample.label[20, round(30 + 50 * 1 / 9)] == pytest.approx(9)  # a metre to the right
    assert sample.label[round(20 - 50 * 1 / 9), 30] == pytest.approx(9)  # a metre up
    assert sample.valid.sum() == 3
    assert np.array_equal(sample.intrinsics, [[50, 0, 30], [0, 50, 20], [0, 0, 1]])
    assert np.allclose(sample.world_from_camera[:3, 3], [100, 0, 2])
    assert np.allclose(sample.world_from_camera[:3, 2], [1, 0, 0])


def test_scenes_are_divided_as_the_authors_divide_them(root):
    val, train = (ddad.ddad(root / "ddad_train_val", split) for split in ("val", "train"))
    assert [val.key(i) for i in range(2)] == ["000150/CAMERA_01/0", "000150/CAMERA_01/1"]
    assert [train.key(i) for i in range(2)] == ["000000/CAMERA_01/0", "000000/CAMERA_01/1"]
    assert val.rejects == (("000151/scene_cd.json", "there is no such scene"),)


def test_a_camera_that_is_not_there_and_a_garbled_scene_are_named(root):
    with pytest.raises(DepthKitError, match=r"expected 000150/scene_ab.json with rgb/CAMERA_09 and point_cloud/LIDAR, under"):
        ddad.ddad(root, camera="CAMERA_09")
    scene = root / "ddad_train_val/000150"
    (scene / "calibration/k.json").write_text(json.dumps({"names": ["LIDAR"], "intrinsics": [{}]}))
    with pytest.raises(GeometryError, match=r"k.json: expected intrinsics of CAMERA_01"):
        ddad.ddad(root)
    (scene / "scene_ab.json").write_text(json.dumps({"samples": [{"datum_keys": ["x"]}], "data": []}))
    with pytest.raises(GeometryError, match=r"scene_ab.json: expected samples and data in the DGP format"):
        ddad.ddad(root)
    (scene / "scene_ab.json").write_text("{")
    with pytest.raises(LabelError, match=r"scene_ab.json: expected JSON; it does not read"):
        ddad.ddad(root)


def test_a_cloud_that_is_none_is_named_and_nothing_in_it_is_executed(root):
    file = root / "ddad_train_val/000150/point_cloud/LIDAR/0.npz"
    np.savez(file, data=np.array([{"a": 1}], object))
    with pytest.raises(LabelError, match=r"0.npz: expected a .npz of points under 'data'"):
        ddad.ddad(root)[0]
    file.write_bytes(b"PK\x03\x04")
    with pytest.raises(LabelError, match=r"0.npz: expected a .npz of points under 'data'"):
        ddad.ddad(root)[0]
    with pytest.raises(DepthKitError, match=r"expected ddad.json under .*000000; found calibration/"):
        ddad.ddad(root / "ddad_train_val/000000")


def test_labels_as_dgp_projects_them_cut_off_coordinates_and_keep_the_last_point(root):
    """Law of the second projection, point by point: toward zero, whatever the depth, later points over earlier ones."""
    rng = np.random.default_rng(0)
    points = np.c_[rng.uniform(-6, 6, 400), rng.uniform(-5, 5, 400), rng.uniform(-2, 20, 400)]
    points = np.r_[points, [[-0.25, 0, 5], [0, -4.1, 10], [0, 0, 0]]]  # at column 27.5; half a pixel above row 0; in the lens
    matrix = np.array([[50.0, 0, 30], [0, 50, 20], [0, 0, 1]])
    expected = np.zeros(SIZE)
    for x, y, z in points:
        if z > 0:
            u, v = int(50 * x / z + 30), int(50 * y / z + 20)
            if 0 <= u < SIZE[1] and 0 <= v < SIZE[0]:
                expected[v, u] = z
    found = ddad.project(points, np.eye(4), matrix, SIZE, ddad.Projection.DGP)
    assert np.array_equal(found, expected.astype(np.float32))
    assert found[20, 27] == 5
    assert found[0, 30] == 10
    assert (found != ddad.project(points, np.eye(4), matrix, SIZE)).sum() > 50
    nearest, dgp = ddad.ddad(root)[0], ddad.ddad(root, projection="dgp")[0]
    assert (nearest.label[20, 30], dgp.label[20, 30]) == pytest.approx((9, 19))  # the later point, though it is behind
    assert dgp.label[20, int(50 / 9 + 30)] == pytest.approx(9)
    with pytest.raises(DepthKitError, match="expected projection to be one of nearest, dgp; got 'floor'"):
        ddad.ddad(root, projection="floor")
