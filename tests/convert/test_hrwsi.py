"""Laws of HRWSI's layout: relative disparity in 0 to 1, valid where the mask says so."""

import cv2
import numpy as np
import pytest

from depthkit.convert import hrwsi
from depthkit.errors import DepthKitError, ShapeError
from depthkit.types import Ambiguity, LabelKind, Representation

CODES = np.arange(20 * 12, dtype=np.uint8).reshape(20, 12)


def write_image(root, split, name, codes=CODES, mask=None):
    for folder in ("imgs", "gts", "valid_masks"):
        (root / split / folder).mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(root / split / f"imgs/{name}.jpg"), np.full((20, 12, 3), 60, np.uint8))
    cv2.imwrite(str(root / split / f"gts/{name}.png"), codes)
    mask = np.where(np.arange(20)[:, None] < 5, 0, 255) * np.ones((20, 12)) if mask is None else mask
    cv2.imwrite(str(root / split / f"valid_masks/{name}.png"), mask.astype(np.uint8))


@pytest.fixture
def root(tmp_path):
    for split, names in (("train", ("a b.1", "c")), ("val", ("d",))):
        for name in names:
            write_image(tmp_path, split, name)
    return tmp_path


def test_disparity_is_the_share_of_the_grey_range_where_the_mask_is_not_black(root):
    sample = hrwsi.hrwsi(root, "train")[0]
    assert (sample.key, sample.kind) == ("hrwsi/train/a_b_1", LabelKind(Ambiguity.SHIFT_SCALE, Representation.DISPARITY))
    np.testing.assert_allclose(sample.label, CODES / 255, rtol=1e-6)
    np.testing.assert_array_equal(sample.valid, (np.arange(20)[:, None] >= 5) & np.ones(12, bool))
    assert sample.intrinsics is None


def test_sixteen_bits_are_read_as_such(root):
    write_image(root, "val", "d", codes=CODES.astype(np.uint16) * 257)
    np.testing.assert_allclose(hrwsi.hrwsi(root, "val")[0].label, CODES / 255, rtol=1e-6)


def test_splits_are_the_authors_folders_and_what_lacks_is_counted(root):
    (root / "train/gts/c.png").unlink()
    frames = hrwsi.hrwsi(root, "train")
    assert ([s.key for s in frames], len(hrwsi.hrwsi(root, "val"))) == (["hrwsi/train/a_b_1"], 1)
    assert frames.rejects == (("hrwsi/train/c", "there is no train/gts/c.png"),)


def test_a_mask_of_another_size_and_a_missing_one_are_named(root):
    write_image(root, "val", "d", mask=np.ones((3, 3)))
    with pytest.raises(ShapeError, match=r"valid_masks/d.png: expected \(20, 12\) pixels as its label; got \(3, 3\)"):
        hrwsi.hrwsi(root, "val")[0]
    (root / "val/valid_masks/d.png").unlink()
    with pytest.raises(DepthKitError, match=r"expected file .*valid_masks/d.png; No such file"):
        hrwsi.hrwsi(root, "val")[0]
