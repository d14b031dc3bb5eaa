"""Laws of the sky that a network finds for a dataset."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from depthkit.convert.records.sky import WithSky
from depthkit.types import Ambiguity, Representation, Sample


def upper_half(picture):
    return np.arange(picture.shape[0])[:, None] < np.full(picture.shape[1], picture.shape[0] // 2)


class Source(list):
    rejects, root, unaltered = ("left out",), Path("somewhere"), True

    def key(self, position):
        return self[position].key


def sample(**options):
    """Labels above the middle in the left columns only, below it everywhere; what is not valid is not a number."""
    valid = np.ones((4, 6), bool)
    valid[:2, 2:] = False
    label = np.where(valid, np.arange(24, dtype=np.float32).reshape(4, 6) + 1, np.nan).astype(np.float32)
    return Sample(key="a", image=np.zeros((4, 6, 3), np.uint8), **{"label": label, "valid": valid, **options})


@pytest.mark.parametrize(
    ("ambiguity", "representation", "farthest"),
    [
        (Ambiguity.METRIC, Representation.DEPTH, np.inf),
        (Ambiguity.SCALE, Representation.DEPTH, np.inf),
        (Ambiguity.SCALE, Representation.DISPARITY, 0.0),
        (Ambiguity.SHIFT_SCALE, Representation.DISPARITY, 1.0),
    ],
)
def test_sky_without_a_label_is_as_far_as_can_be_and_labels_stay(ambiguity, representation, farthest):
    before = sample(ambiguity=ambiguity, representation=representation)
    after = WithSky(Source([before]), upper_half)[0]
    new = ~before.valid
    assert after.valid.all()
    assert after.label.dtype == np.float32
    np.testing.assert_array_equal(after.sky, new)
    np.testing.assert_array_equal(after.label[new], farthest)
    np.testing.assert_array_equal(after.label[~new], before.label[~new])


def test_what_is_known_of_the_sky_stays_known():
    marked = np.zeros((4, 6), bool)
    marked[3] = True
    after = WithSky(Source([sample(ambiguity=Ambiguity.METRIC, sky=marked)]), upper_half)[0]
    np.testing.assert_array_equal(after.sky, marked | ~sample().valid)


@pytest.mark.parametrize("options", [{"label": None, "valid": None}, {"valid": np.zeros((4, 6), bool)}])
def test_an_image_without_a_label_stays_one(options):
    before = sample(**options)
    assert WithSky(Source([before]), upper_half)[0] is before


def test_an_image_without_sky_is_left_alone():
    before = sample(ambiguity=Ambiguity.METRIC)
    assert WithSky(Source([before]), lambda picture: np.zeros(picture.shape[:2], bool))[0] is before


def test_it_is_its_source_in_everything_else():
    source = Source([sample(), sample()])
    seen = pickle.loads(pickle.dumps(WithSky(source, upper_half)))
    assert (len(seen), seen.rejects, seen.root, seen.unaltered, seen.key(1)) == (2, ("left out",), Path("somewhere"), True, "a")
    assert len(WithSky([1, 2, 3], upper_half)[1:]) == 2
    with pytest.raises(AttributeError):
        _ = seen.unknown
