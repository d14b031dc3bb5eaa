"""Laws of the plan: arithmetic only, no file is read."""

import math
from collections import Counter

import numpy as np
import pytest

from depthkit.data.stream.mixing import EqualParts, Proportional
from depthkit.data.stream.plan import Plan, check_shards, evaluation_rows, training_rows
from depthkit.errors import ShardError

COUNTS = ((4, 3, 5, 4, 2, 6), (7, 7, 1, 3, 2, 9))


def plan(
    counts=COUNTS, world=1, workers=1, batch_size=3, mixing=None, drop_last=False, continuing=False, epoch_size=None, **options
):
    sizes = [sum(c) for c in counts]
    rows = training_rows(sum(sizes), world=world, batch_size=batch_size, drop_last=drop_last, epoch_size=epoch_size)
    composition = (mixing or Proportional()).composition(rows, sizes, [True] * len(sizes))
    return Plan(composition, counts, workers=workers, continuing=continuing, **options)


def positions(plan, epoch, d):
    """What all workers of all ranks read of a dataset, as positions in S_d."""
    ranges = [plan.range(epoch, d, rank, worker) for rank in range(plan.world) for worker in range(plan.workers)]
    return [p for start, stop in ranges for p in range(start, stop)]


def samples(plan, epoch, d):
    """The same as (shard, index)."""
    ranges = [plan.range(epoch, d, rank, worker) for rank in range(plan.world) for worker in range(plan.workers)]
    return [(s.shard, i) for start, stop in ranges for s in plan.spans(d, start, stop) for i in range(s.first, s.stop)]


@pytest.mark.parametrize(("world", "workers"), [(1, 1), (1, 2), (2, 1), (2, 3), (3, 2), (4, 5)])
@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_every_sample_is_read_exactly_once_per_epoch(world, workers, batch_size):
    p = plan(world=world, workers=workers, batch_size=batch_size)
    for epoch in range(3):
        for d, counts in enumerate(COUNTS):
            assert sorted(samples(p, epoch, d)) == [(s, i) for s, n in enumerate(counts) for i in range(n)]


def test_no_sample_comes_twice_before_every_one_came_once_over_the_whole_training():
    p = plan(mixing=EqualParts(), drop_last=True, continuing=True, epoch_size=40, world=2, workers=2)
    seen = Counter()
    for epoch in range(9):
        seen.update(samples(p, epoch, 0))
    assert len(seen) == sum(COUNTS[0])
    assert max(seen.values()) - min(seen.values()) <= 1


def test_epochs_of_given_size_continue_where_the_last_one_ended():
    p = plan(drop_last=True, continuing=True, epoch_size=40)
    assert positions(p, 1, 0)[0] == positions(p, 0, 0)[-1] + 1


def test_a_sample_comes_at_most_once_per_epoch_where_a_tail_is_dropped():
    p = plan(counts=(COUNTS[0],), batch_size=5, drop_last=True, world=2)
    for epoch in range(4):
        assert len(set(samples(p, epoch, 0))) == len(samples(p, epoch, 0)) == 20


@pytest.mark.parametrize("steps", range(8))
def test_a_worker_is_as_far_in_its_range_as_its_batches_say(steps):
    p = plan(world=2, workers=3, batch_size=4)
    for d in range(2):
        for rank in range(2):
            expected = [sum(p.composition[s, rank, d] for s in range(min(steps, p.steps)) if s % 3 == w) for w in range(3)]
            assert [p.consumed(d, rank, w, steps) for w in range(3)] == expected
            lengths = [np.diff(p.range(0, d, rank, w)).item() for w in range(3)]
            assert [p.consumed(d, rank, w, p.steps) for w in range(3)] == lengths


def test_order_depends_on_seed_and_pass_and_on_nothing_else():
    order = [samples(plan(seed=s), e, 0) for s, e in ((0, 0), (0, 0), (1, 0), (0, 1))]
    assert order[0] == order[1]
    assert order[0] != order[2]
    assert order[0] != order[3]


def test_windows_are_permutations_that_tile_the_range():
    p = plan(window=4)
    for start, stop in ((0, 0), (0, 3), (5, 22)):
        windows = list(p.windows(0, start, stop))
        covered = [first + i for first, order in windows for i in sorted(order)]
        assert covered == list(range(start, stop))
        assert np.ptp([len(order) for _, order in windows] or [0]) <= 1


@pytest.mark.parametrize(
    ("samples", "world", "batch_size"), [(10, 1, 4), (10, 3, 4), (7, 3, 2), (2, 3, 4), (0, 2, 4), (12, 2, 3)]
)
def test_evaluation_has_equal_steps_and_every_sample_once(samples, world, batch_size):
    rows = evaluation_rows(samples, world=world, batch_size=batch_size)
    assert rows.sum() == samples
    assert rows.max(initial=0) <= batch_size
    assert len(rows) == math.ceil(math.ceil(samples / world) / batch_size)


def test_training_batches_without_a_dropped_tail_are_as_equal_as_integers_allow():
    rows = training_rows(41, world=2, batch_size=4, drop_last=False)
    assert rows.sum() == 41
    assert rows.max() <= 4
    assert np.ptp(rows) <= 1


def test_steps_are_a_multiple_of_the_accumulated_batches():
    assert len(training_rows(100, world=2, batch_size=5, drop_last=True, accumulate=4)) == 8


def test_too_little_data_names_what_is_needed():
    with pytest.raises(ShardError, match=r"at least 16 samples per epoch for 2 rank.s. x batch_size 8.* got 10"):
        training_rows(10, world=2, batch_size=8, drop_last=True)
    with pytest.raises(
        ShardError,
        match=r"at least 12 shards in dataset 'b' for 4 rank.s. x 3 worker.s.; got 6.*num_workers.*fewer samples per shard",
    ):
        check_shards(["a", "b"], [(1,) * 12, (5,) * 6], world=4, workers=3)
    with pytest.raises(ShardError, match="index lists none"):
        check_shards(["a"], [()], world=1, workers=1)
