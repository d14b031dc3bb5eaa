"""Laws of BlendedMVS's layout: the last row of a PFM file comes first, cameras by image, the authors' projects apart."""

import cv2
import numpy as np
import pytest

from depthkit.convert import blendedmvs
from depthkit.errors import DepthKitError, GeometryError, LabelError
from depthkit.types import Ambiguity, LabelKind, Representation

TRAIN, VAL = "58eaf1513353456af3a1682a", "5b7a3890fc8fcf6781e2593a"
DEPTH = np.random.default_rng(0).uniform(1, 9, (24, 32)).astype(np.float32)
DEPTH[:3] = 0


def pfm(depth, order="<"):
    """The file's bytes: rows from the bottom to the top, the sign of the scale says in which order bytes are."""
    rows = np.flipud(depth).astype(f"{order}f4").tobytes()
    return f"Pf\n{depth.shape[1]} {depth.shape[0]}\n{-1.0 if order == '<' else 1.0:.6f}\n".encode() + rows


def write_project(root, project, images=2):
    place = root / project
    for folder in ("blended_images", "cams", "rendered_depth_maps"):
        (place / folder).mkdir(parents=True)
    for n in range(images):
        for suffix in ("", "_masked"):
            file = place / f"blended_images/{n:08d}{suffix}.jpg"
            cv2.imwrite(str(file), np.full((24, 32, 3), 80, np.uint8))
        (place / f"rendered_depth_maps/{n:08d}.pfm").write_bytes(pfm(DEPTH, "<>"[n % 2]))
        extrinsic = "extrinsic\n1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n\n"
        intrinsic = f"intrinsic\n{30 + n} 0 15.25\n0 31 11.5\n0 0 1\n\n1.0 0.05 128 9.0\n"
        (place / f"cams/{n:08d}_cam.txt").write_text(extrinsic + intrinsic)
    (place / "cams/pair.txt").write_text("0\n")


@pytest.fixture
def root(tmp_path):
    for project in (TRAIN, VAL):
        write_project(tmp_path, project)
    return tmp_path


@pytest.mark.parametrize("position", [0, 1])
def test_depth_is_what_the_file_holds_in_either_order_of_bytes_and_holes_are_invalid(root, position):
    sample = blendedmvs.blendedmvs(root, "train")[position]
    assert sample.kind == LabelKind(Ambiguity.SCALE, Representation.DEPTH)
    np.testing.assert_array_equal(sample.label, DEPTH)
    np.testing.assert_array_equal(sample.valid, DEPTH > 0)
    np.testing.assert_array_equal(sample.intrinsics, [[30 + position, 0, 15.25], [0, 31, 11.5], [0, 0, 1]])
    assert sample.world_from_camera is None  # in a unit that is no metre


def test_projects_of_the_authors_list_are_for_validation_and_masked_images_are_not_read(root):
    assert [s.key for s in blendedmvs.blendedmvs(root, "val")] == [f"{VAL}/00000000", f"{VAL}/00000001"]
    assert {s.key.split("/")[0] for s in blendedmvs.blendedmvs(root, "train")} == {TRAIN}


def test_a_file_cut_short_a_missing_one_and_a_garbled_camera_are_named(root):
    place = root / TRAIN
    (place / "rendered_depth_maps/00000000.pfm").write_bytes(pfm(DEPTH)[:-5])
    (place / "cams/00000001_cam.txt").write_text("extrinsic 1 0 0")
    frames = blendedmvs.blendedmvs(root, "train")
    with pytest.raises(LabelError, match=r"00000000.pfm: expected 32 x 24 x 1 float32; got 3067 bytes. It is cut short"):
        frames[0]
    with pytest.raises(GeometryError, match=r"00000001_cam.txt: expected intrinsic and 9 numbers"):
        frames[1]
    (place / "cams/00000001_cam.txt").unlink()
    with pytest.raises(DepthKitError, match=r"expected file .*00000001_cam.txt; No such file"):
        frames[1]
