"""Laws of DIML's layout: millimetres, rooms in folders, two resolutions."""

import cv2
import numpy as np
import pytest

from depthkit.convert import diml_indoor
from depthkit.errors import DepthKitError, RecipeError
from depthkit.types import Ambiguity, LabelKind, Representation

CODES = np.arange(18 * 32, dtype=np.uint16).reshape(18, 32) * 100
CODES[17, 31] = 65535


def write_image(root, split, resolution, room, name, codes=CODES):
    place = root / split / resolution / room
    for folder in ("color", "depth_filled"):
        (place / folder).mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(place / f"color/{name}_c.png"), np.full((*codes.shape, 3), 70, np.uint8))
    cv2.imwrite(str(place / f"depth_filled/{name}_depth_filled.png"), codes)


@pytest.fixture
def root(tmp_path):
    for split, room in (("train", "12. Livingroom"), ("train", "01. Warehouse"), ("test", "16. Billiard Hall")):
        write_image(tmp_path, split, "HR", room, "in_01_160217_123138")
        write_image(tmp_path, split, "LR", room, "in_01_160217_123138", CODES[::2, ::2])
    return tmp_path


def test_depth_is_the_integer_in_millimetres(root):
    sample = diml_indoor.diml_indoor(root, "train")[0]
    assert sample.kind == LabelKind(Ambiguity.METRIC, Representation.DEPTH)
    assert sample.key == "01__Warehouse/in_01_160217_123138_c"
    np.testing.assert_allclose(sample.label, CODES / 1000, rtol=1e-6)
    np.testing.assert_array_equal(sample.valid, (CODES > 0) & (CODES < 65535))


def test_rooms_belong_to_one_side_in_either_resolution(root):
    assert len(diml_indoor.diml_indoor(root, "train")) == 2
    assert [s.size for s in diml_indoor.diml_indoor(root, "test", resolution="LR")] == [(9, 16)]
    with pytest.raises(RecipeError, match="expected resolution among HR, LR; got 4K"):
        diml_indoor.diml_indoor(root, "test", resolution="4K")


def test_another_way_of_packing_is_refused(tmp_path):
    (tmp_path / "Store/col").mkdir(parents=True)
    with pytest.raises(DepthKitError, match=r"expected train/HR/ROOM/color and depth_filled under .*; found Store/"):
        diml_indoor.diml_indoor(tmp_path, "train")
