"""Laws of the batch sizes."""

import math

import numpy as np
import pytest

from depthkit.data.stream.rows import Fall, evaluation_rows, training_rows
from depthkit.errors import ShardError


def table(rows):
    return np.array([[rows.of(rank).at(step) for rank in range(rows.world)] for step in range(rows.steps)], dtype=int)


@pytest.mark.parametrize(
    ("samples", "world", "batch_size"), [(10, 1, 4), (10, 3, 4), (7, 3, 2), (2, 3, 4), (0, 2, 4), (12, 2, 3)]
)
def test_evaluation_has_equal_steps_and_every_sample_once(samples, world, batch_size):
    rows = evaluation_rows(samples, world=world, batch_size=batch_size)
    assert table(rows).sum() == rows.total == samples
    assert table(rows).max(initial=0) <= batch_size
    assert rows.steps == math.ceil(math.ceil(samples / world) / batch_size)


def test_training_batches_without_a_dropped_tail_are_as_equal_as_integers_allow():
    rows = training_rows(41, world=2, batch_size=4, drop_last=False)
    assert table(rows).sum() == rows.total == 41
    assert table(rows).max() <= 4
    assert np.ptp(table(rows)) <= 1
    assert [rows.step(step) for step in range(rows.steps)] == table(rows).sum(1).tolist()


@pytest.mark.parametrize("fall", [Fall(5, 4, 2, 0), Fall(0, 4, 3, 3), Fall(20, 4, 1, 0), Fall(7, 3, 2, 2)])
@pytest.mark.parametrize(("first", "stride"), [(0, 1), (1, 3), (2, 2), (9, 4)])
def test_sums_of_rows_need_no_table(fall, first, stride):
    for steps in range(8):
        places = [first + i * stride for i in range(steps)]
        assert fall.total(first, stride, steps) == sum(map(fall.at, places))
        counted = sum(fall.at(place) for i, place in enumerate(places) if i % 3 == 2)
        assert int(np.sum(fall.total(first, stride, steps, lambda n: np.array([n // 3])))) == counted


def test_steps_are_a_multiple_of_the_accumulated_batches():
    assert training_rows(100, world=2, batch_size=5, drop_last=True, accumulate=4).steps == 8


def test_too_little_data_names_what_is_needed():
    with pytest.raises(ShardError, match=r"at least 16 samples per epoch for 2 rank.s. x batch_size 8.* got 10"):
        training_rows(10, world=2, batch_size=8, drop_last=True)
