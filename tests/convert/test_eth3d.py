"""Laws of ETH3D's layout: depth without a header under a picture's name, cameras in COLMAP's files."""

import cv2
import numpy as np
import pytest

from depthkit.convert import eth3d
from depthkit.errors import DepthKitError, GeometryError, LabelError

SIZE = (32, 48)
CAMERAS = """# Camera list with one line of data per camera:
#   CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]
0 THIN_PRISM_FISHEYE 48 32 27.5 27.25 24.5 16.75 -0.2 0.1 0 0 0 0 0 0
"""
IMAGES = """# Image list with two lines of data per image:
1 0.7071067811865476 0 0 0.7071067811865476 1.0 2.0 3.0 0 dslr_images/DSC_0219.JPG
10.5 20.5 -1 11.5 21.5 7
2 1 0 0 0 0.0 0.0 5.0 0 dslr_images/DSC_0220.JPG

"""


@pytest.fixture
def root(tmp_path):
    for scene in ("office", "relief"):
        for folder in ("images/dslr_images", "ground_truth_depth/dslr_images", "dslr_calibration_jpg"):
            (tmp_path / scene / folder).mkdir(parents=True)
        for n in (219, 220):
            cv2.imwrite(str(tmp_path / scene / f"images/dslr_images/DSC_0{n}.JPG"), np.full((*SIZE, 3), 80, np.uint8))
            depth = np.linspace(1, 70, SIZE[0] * SIZE[1], dtype="<f4").reshape(SIZE)
            depth[:, 0] = np.inf
            (tmp_path / scene / f"ground_truth_depth/dslr_images/DSC_0{n}.JPG").write_bytes(depth.tobytes())
        (tmp_path / scene / "dslr_calibration_jpg/cameras.txt").write_text(CAMERAS)
        (tmp_path / scene / "dslr_calibration_jpg/images.txt").write_text(IMAGES)
    return tmp_path


def test_depth_is_row_by_row_and_infinity_is_no_label(root):
    frames = eth3d.eth3d(root)
    sample = frames[0]
    assert [frames.key(i) for i in range(4)] == [f"{s}/DSC_0{n}" for s in ("office", "relief") for n in (219, 220)]
    expected = np.linspace(1, 70, SIZE[0] * SIZE[1], dtype=np.float32).reshape(SIZE)
    assert np.array_equal(sample.label[:, 1:], expected[:, 1:])
    assert not sample.valid[:, 0].any()
    assert sample.valid[:, 1:].all()


def test_cameras_are_colmaps_with_pixel_centres_at_integers(root):
    first, second = eth3d.eth3d(root)[0], eth3d.eth3d(root)[1]
    assert np.allclose(first.intrinsics, [[27.5, 0, 24], [0, 27.25, 16.25], [0, 0, 1]])
    quarter = np.array([[0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]])  # about z, from world to camera
    assert np.allclose(np.linalg.inv(first.world_from_camera), quarter)
    assert np.allclose(second.world_from_camera[:3, 3], [0, 0, -5])


def test_without_calibration_there_is_no_camera_and_a_garbled_one_is_named(root):
    (root / "office/dslr_calibration_jpg/images.txt").unlink()
    assert eth3d.eth3d(root)[0].intrinsics is None
    (root / "relief/dslr_calibration_jpg/cameras.txt").write_text("0 PINHOLE 48\n")
    with pytest.raises(GeometryError, match=r"relief/dslr_calibration_jpg: expected cameras.txt and images.txt in COLMAP's"):
        eth3d.eth3d(root)


def test_depth_of_another_size_and_another_layout_are_named(root, tmp_path):
    file = root / "office/ground_truth_depth/dslr_images/DSC_0219.JPG"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(LabelError, match=r"DSC_0219.JPG: expected 48 x 32 float32, one per pixel; got 6140 bytes"):
        eth3d.eth3d(root)[0]
    file.unlink()
    assert eth3d.eth3d(root).rejects[0].name == "office/DSC_0219"
    (tmp_path / "other/multi_view_training_dslr_jpg").mkdir(parents=True)
    with pytest.raises(DepthKitError, match=r"expected SCENE/images/dslr_images/ and .* under .*; found multi_view_training"):
        eth3d.eth3d(tmp_path / "other")


def test_gp2s_rendering_is_in_millimetres_at_the_size_of_its_depth(tmp_path):
    codes = (np.arange(8 * 12).reshape(8, 12) * 680).astype(np.uint16)
    picture = np.repeat(np.kron(np.arange(96, dtype=np.uint8).reshape(8, 12), np.ones((4, 4), np.uint8))[..., None], 3, 2)
    for folder in ("images_out", "depth"):
        (tmp_path / "office" / folder / "dslr_images_undistorted").mkdir(parents=True)
    for name, image in (("DSC_1", picture), ("DSC_2", picture[::4, ::4]), ("DSC_3", picture)):
        quality = [cv2.IMWRITE_JPEG_QUALITY, 100]
        cv2.imwrite(str(tmp_path / f"office/images_out/dslr_images_undistorted/{name}.JPG"), image, quality)
        if name != "DSC_3":
            cv2.imwrite(str(tmp_path / f"office/depth/dslr_images_undistorted/{name}.png"), codes)
    found = eth3d.eth3d_gp2(tmp_path)
    assert [found.key(i) for i in range(len(found))] == ["office/DSC_1", "office/DSC_2"]
    assert [reject.name for reject in found.rejects] == ["office/DSC_3"]
    for sample in found:
        assert sample.size == (8, 12)
        assert np.allclose(sample.label, codes / 1000)
        assert np.array_equal(sample.valid, codes > 0)
        assert np.abs(sample.image[..., 1].astype(int) - picture[::4, ::4, 1]).max() <= 3
    with pytest.raises(DepthKitError, match=r"expected SCENE/images_out/dslr_images_undistorted/ and SCENE/depth/"):
        eth3d.eth3d_gp2(tmp_path / "office")
