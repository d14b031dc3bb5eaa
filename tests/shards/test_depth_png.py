"""Laws of depth as PNG: any reader reads it, what others wrote reads the same, and no damage passes."""

import io
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from depthkit.errors import ShardError
from depthkit.shards import images
from depthkit.shards.images import decode_codes, encode_codes, swapped

RANDOM = np.random.default_rng(0)
SLOPE = (3000 + 7 * np.arange(41)[:, None] + 3 * np.arange(29)).astype(np.uint16)
SPARSE = np.where(RANDOM.random((41, 29)) < 0.05, SLOPE, 0).astype(np.uint16)
NOISE = RANDOM.integers(0, 65536, (41, 29), dtype=np.uint16)
CODES = {"slope": SLOPE, "sparse": SPARSE, "noise": NOISE, "row": NOISE[:1], "column": NOISE[:, :1], "pixel": NOISE[:1, :1]}


def filters(data: bytes) -> set[int]:
    """Of all rows."""
    width, start = int.from_bytes(data[16:20], "big"), data.index(b"IDAT") + 4
    return set(zlib.decompressobj().decompress(data[start:])[:: 2 * width + 1])


@pytest.mark.parametrize("codes", CODES.values(), ids=CODES)
@pytest.mark.parametrize("inflation", [images.inflation, zlib], ids=["as installed", "zlib"])
def test_opencv_pillow_and_the_own_reader_read_the_same(codes, inflation, monkeypatch):
    monkeypatch.setattr(images, "inflation", inflation)
    data = encode_codes(codes)
    assert np.array_equal(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED), codes)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), codes)
    assert np.array_equal(images._decode_one_filter(data), swapped(codes))


def test_dense_depth_has_differences_from_the_row_above_and_sparse_depth_none():
    assert filters(encode_codes(SLOPE)) == {2}
    assert filters(encode_codes(SPARSE)) == {0}


@pytest.mark.parametrize("codes", CODES.values(), ids=CODES)
def test_other_writers_files_read_the_same(codes):
    for options in ([], [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_DEFAULT]):
        assert np.array_equal(decode_codes(cv2.imencode(".png", codes, options)[1].tobytes(), "here"), swapped(codes))
    stream = io.BytesIO()
    Image.fromarray(codes).save(stream, "png")
    assert np.array_equal(decode_codes(stream.getvalue(), "here"), swapped(codes))


@pytest.mark.parametrize("codes", [np.zeros((3, 4), np.uint8), np.zeros((3, 4, 3), np.uint16)], ids=["8 bits", "colour"])
def test_other_pictures_are_refused(codes):
    with pytest.raises(ShardError, match="expected a 16-bit PNG with one channel; got"):
        decode_codes(cv2.imencode(".png", codes)[1].tobytes(), "here")


def test_no_damage_passes():
    data = bytearray(encode_codes(SLOPE))
    start, stop = data.index(b"IDAT") + 4, len(data) - 16  # the content of the picture
    for at in {*range(start, stop, 7), stop - 1}:
        data[at] ^= 0x10
        with pytest.raises(ShardError, match="damaged inside"):
            decode_codes(bytes(data), "here")
        data[at] ^= 0x10
    for end in (10, 40, start + 5, len(data) - 1):
        with pytest.raises(ShardError, match="expected a whole JPEG, PNG or WebP file"):
            decode_codes(bytes(data[:end]), "here")
