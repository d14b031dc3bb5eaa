"""A row of a batch holds what its sample holds, and marks as missing what it lacks."""

import numpy as np
import torch

from depthkit.data.stream.collate import collate
from depthkit.types import Sample


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
