"""Laws of how a label's PNG is compressed: nothing that is read depends on it, and it is no larger than need be."""

import cv2
import numpy as np
import pytest

from depthkit.shards.label import DepthFormat, decode_label, encode_label
from depthkit.synthetic import SyntheticScenes


@pytest.fixture(scope="module")
def label():
    sample = SyntheticScenes(1, size=(96, 128), kind="room")[0]
    return sample.label, sample.valid, sample.kind


@pytest.mark.parametrize("depth_format", [DepthFormat.PNG_LOG16, DepthFormat.PNG_LINEAR16])
@pytest.mark.parametrize("level", [0, 1, 9])
@pytest.mark.parametrize("strategy", ["DEFAULT", "RLE", "FILTERED"])
def test_a_png_compressed_in_any_way_reads_the_same(label, depth_format, level, strategy):
    name, data, facts = encode_label(*label, depth_format)[:3]
    codes = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    options = [cv2.IMWRITE_PNG_COMPRESSION, level, cv2.IMWRITE_PNG_STRATEGY, getattr(cv2, f"IMWRITE_PNG_STRATEGY_{strategy}")]
    other = cv2.imencode(".png", codes, options)[1].tobytes()
    assert other != data
    new, old = (decode_label(name, stored, facts, label[2], "here") for stored in (data, other))
    assert np.array_equal(new.value, old.value)
    assert np.array_equal(new.valid, old.valid)


def test_rendered_depth_takes_fewer_bytes_than_as_runs(label):
    data = encode_label(*label, DepthFormat.PNG_LOG16)[1]
    codes = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert len(data) < 0.8 * len(cv2.imencode(".png", codes)[1])
