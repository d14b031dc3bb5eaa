"""Laws of ReDWeb's layout: closer is darker in the file and larger in the label, 255 is no value."""

import cv2
import numpy as np
import pytest

from depthkit.convert import redweb
from depthkit.shards import write_shards
from depthkit.types import Ambiguity, LabelKind, Representation

CODES = np.arange(256, dtype=np.uint8).reshape(16, 16)


@pytest.fixture
def root(tmp_path):
    for folder in ("Imgs", "RDs"):
        (tmp_path / folder).mkdir()
    for n in range(60):
        cv2.imwrite(str(tmp_path / f"Imgs/photo{n}.jpg"), np.full((16, 16, 3), n, np.uint8))
        cv2.imwrite(str(tmp_path / f"RDs/photo{n}.png"), CODES)
    return tmp_path


def test_disparity_falls_with_the_stored_value_and_white_is_invalid(root):
    sample = redweb.redweb(root, "train")[0]
    assert sample.kind == LabelKind(Ambiguity.SHIFT_SCALE, Representation.DISPARITY)
    np.testing.assert_allclose(sample.label.ravel(), (255 - np.arange(256)) / 255, atol=1e-7)
    np.testing.assert_array_equal(sample.valid.ravel(), np.arange(256) < 255)


def test_every_image_is_on_one_side(root):
    train, val = ({s.key for s in redweb.redweb(root, split)} for split in ("train", "val"))
    assert not train & val
    assert (len(train | val), 1 <= len(val) <= 15) == (60, True)
    assert len(redweb.redweb(root, "train", holdout=0)) == 60


def test_what_lacks_or_is_broken_is_counted_and_the_others_are_written(root, tmp_path):
    (root / "RDs/photo1.png").unlink()
    (root / "RDs/photo2.png").write_bytes(b"no picture")
    report = write_shards(redweb.redweb(root, "train", holdout=0), tmp_path / "out", split="train", dataset="redweb")
    assert report.samples == 58
    assert [reject.name for reject in report.rejects] == ["redweb/photo1", "redweb/photo2"]
