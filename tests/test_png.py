"""Laws of files as they are written: PNG of any size that other programs read, with its texts."""

from io import BytesIO

import cv2
import numpy as np
import pytest
from PIL import Image

from depthkit.images import PREDICTION_KEY, is_prediction
from depthkit.writing import png_bytes


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 1), (48, 64)])
@pytest.mark.parametrize(("dtype", "colours"), [(np.uint8, (3,)), (np.uint8, ()), (np.uint16, ())])
def test_pillow_and_opencv_read_what_was_given(size, dtype, colours):
    picture = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (*size, *colours), endpoint=True).astype(dtype)
    for given in (
        picture,
        np.asfortranarray(picture),
        picture[::-1, ::-1][::-1, ::-1],
        picture.astype(picture.dtype.newbyteorder()),
    ):
        data = png_bytes(given)
        assert np.array_equal(np.asarray(Image.open(BytesIO(data))), picture)
        read = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(read[..., ::-1] if colours else read, picture)


def test_texts_are_beside_the_picture_and_mark_predictions(tmp_path):
    file = tmp_path / "x.png"
    file.write_bytes(png_bytes(np.zeros((2, 3), np.uint16), {PREDICTION_KEY: '{"step": 1}', "other": "x"}))
    with Image.open(file) as image:
        assert image.text == {PREDICTION_KEY: '{"step": 1}', "other": "x"}
    assert is_prediction(file)
    file.write_bytes(png_bytes(np.zeros((2, 3), np.uint16)))
    assert not is_prediction(file)


def test_a_smooth_map_is_not_much_larger_than_pillow_writes_it():
    rows, columns = np.mgrid[:240, :320]
    codes = (30000 + 20000 * np.sin(rows / 40) * np.cos(columns / 60)).astype(np.uint16)
    file = BytesIO()
    Image.fromarray(codes).save(file, format="png")
    assert len(png_bytes(codes)) < 1.2 * len(file.getvalue())
