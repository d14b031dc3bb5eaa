"""A row of a batch holds what its sample holds, and marks as missing what it lacks."""

import numpy as np
import pytest
import torch

from depthkit.data.stream.collate import Pixels, collate
from depthkit.shards.codec import decode_stored, encode_sample
from depthkit.types import Ambiguity, Sample


def test_point_pairs_lie_in_their_samples_row_and_the_rest_is_marked():
    image = np.zeros((4, 6, 3), np.uint8)
    few, many = np.array([[0, 1, 2, 3, 1]], np.int32), np.array([[1, 1, 3, 5, -1], [0, 0, 0, 1, 0]], np.int32)
    batch = collate([Sample("none", image), Sample("few", image, pairs=few), Sample("many", image, pairs=many)], [0, 0, 0])
    missing = [-1] * 5
    assert batch.pairs.tolist() == [[missing, missing], [few[0].tolist(), missing], many.tolist()]


def test_intrinsics_lie_in_their_samples_row():
    image, k = np.zeros((4, 6, 3), np.uint8), np.array([[5.0, 0, 3], [0, 6, 2], [0, 0, 1]])
    batch = collate([Sample("a", image), Sample("b", image, intrinsics=k)], [0, 0])
    assert batch.intrinsics[0].isnan().all()
    assert torch.equal(batch.intrinsics[1], torch.from_numpy(k).float())


@pytest.mark.parametrize("far", [False, True])
@pytest.mark.parametrize("sky", [False, True])
def test_a_label_in_codes_is_read_into_its_row_as_it_is_read_alone(far, sky):
    rng = np.random.default_rng(0)
    depth = rng.uniform(1, 9, (4, 6)).astype(np.float32)
    valid = rng.random((4, 6)) < 0.7
    valid[0, :2] = True
    depth[0, 0] = np.inf if far else 3
    marked = np.zeros((4, 6), bool)
    marked[0, 1] = sky
    sample = Sample("a", np.zeros((4, 6, 3), np.uint8), depth, valid, Ambiguity.METRIC, sky=marked if sky else None)
    stored = decode_stored("a", encode_sample(sample), where="here")
    assert stored.coded is not None
    dirty = Pixels(*(torch.ones_like(part) for part in Pixels.blank(2, 4, 6)))
    whole = collate([stored.read(), sample], [0, 0])
    coded = collate([stored.sample, sample], [0, 0], coded=[stored.coded, None], buffer=dirty)
    for name in ("target", "valid", "sky"):
        assert torch.equal(getattr(coded, name), getattr(whole, name)), name
