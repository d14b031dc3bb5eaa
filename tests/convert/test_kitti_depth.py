"""Laws of KITTI's annotated depth: 1/256 m, both colour cameras, the authors' drives apart."""

import cv2
import numpy as np
import pytest

from depthkit.convert import kitti_depth
from depthkit.errors import DepthKitError, GeometryError
from depthkit.types import Ambiguity, LabelKind, Representation

CODES = np.zeros((24, 64), np.uint16)
CODES[10:, ::3] = np.arange(14 * 22).reshape(14, 22) * 60 + 500


def write_drive(root, split, drive, numbers=(5, 6)):
    date = root / drive[:10]
    for camera in (2, 3):
        images, labels = date / drive / f"image_{camera:02d}/data", root / split / drive
        labels = labels / f"proj_depth/groundtruth/image_{camera:02d}"
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for n in range(8):
            cv2.imwrite(str(images / f"{n:010d}.png"), np.full((24, 64, 3), 10 * n + camera, np.uint8))
        for n in numbers:  # the first and last five images of a drive have none
            cv2.imwrite(str(labels / f"{n:010d}.png"), CODES)
    rows = [f"P_rect_{camera:02d}: 50 0 31 {-camera} 0 48 11.5 0 0 0 1 0" for camera in (2, 3)]
    (date / "calib_cam_to_cam.txt").write_text("\n".join([*rows, "R_rect_00: 1 0 0 0 1 0 0 0 1"]))


@pytest.fixture
def root(tmp_path):
    write_drive(tmp_path, "train", "2011_09_26_drive_0001_sync")
    write_drive(tmp_path, "val", "2011_09_28_drive_0002_sync")
    return tmp_path


def test_depth_is_the_integer_in_256ths_of_a_metre_of_the_image_of_its_camera_and_number(root):
    sample = kitti_depth.kitti_depth(root, "train")[3]
    assert sample.kind == LabelKind(Ambiguity.METRIC, Representation.DEPTH)
    assert sample.key == "2011_09_26_drive_0001_sync/image_03/0000000006"
    np.testing.assert_allclose(sample.label, CODES / 256, rtol=1e-6)
    np.testing.assert_array_equal(sample.valid, CODES > 0)
    assert (sample.image == 63).all()
    np.testing.assert_array_equal(sample.intrinsics, [[50, 0, 31], [0, 48, 11.5], [0, 0, 1]])


def test_drives_are_on_the_side_that_their_authors_say(root):
    assert len(kitti_depth.kitti_depth(root, "train")) == 4
    assert {s.key.split("/")[0] for s in kitti_depth.kitti_depth(root, "val")} == {"2011_09_28_drive_0002_sync"}
    assert set(kitti_depth.kitti_depth(root, "val", views="video")[0].frames) == {"prev", "next"}


def test_raw_images_that_are_not_there_and_a_missing_calibration_are_named(root):
    drive = root / "2011_09_26/2011_09_26_drive_0001_sync/image_02/data"
    (drive / "0000000005.png").unlink()
    assert kitti_depth.kitti_depth(root, "train").rejects[0].reason.endswith("has no image of this number")
    (root / "2011_09_26/calib_cam_to_cam.txt").unlink()
    with pytest.raises(GeometryError, match=r"expected KITTI's calibration in .*calib_cam_to_cam.txt"):
        kitti_depth.kitti_depth(root, "train")
    (root / "train").rename(root / "training")
    with pytest.raises(DepthKitError, match=r"expected train/2011_09_26_drive_0001_sync/proj_depth/.* under .*; found 2011_09"):
        kitti_depth.kitti_depth(root, "train")
