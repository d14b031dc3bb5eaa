"""Laws of the plan: arithmetic only, no file is read."""

import pickle
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from depthkit.data.stream.mixing import EqualParts, LabelledUnlabelled, Mixture, OneDatasetPerBatch, Proportional, Weighted
from depthkit.data.stream.plan import Plan, check_samples
from depthkit.data.stream.rows import training_rows
from depthkit.errors import ShardError

COUNTS = ((4, 3, 5, 4, 2, 6), (7, 7, 1, 3, 2, 9))
MIXINGS = [EqualParts(), Proportional(), Weighted([1, 3.3]), LabelledUnlabelled(), OneDatasetPerBatch([2, 1])]


def plan(
    counts=COUNTS, world=1, workers=1, batch_size=3, mixing=None, drop_last=False, continuing=False, epoch_size=None, **options
):
    sizes = tuple(sum(c) for c in counts)
    rows = training_rows(sum(sizes), world=world, batch_size=batch_size, drop_last=drop_last, epoch_size=epoch_size)
    mixture = Mixture(mixing or Proportional(), sizes, tuple(d != 1 for d in range(len(sizes))))
    return Plan(rows, mixture, counts, workers=workers, continuing=continuing, **options)


def lanes(plan):
    return [plan.lane(rank, worker) for rank in range(plan.world) for worker in range(plan.workers)]


def positions(plan, epoch, d):
    """What all workers of all ranks read of a dataset, as positions in S_d."""
    return [p for lane in lanes(plan) for p in range(*lane.range(epoch, d))]


def samples(plan, epoch, d):
    """The same as (shard, index)."""
    spans = [span for lane in lanes(plan) for span in plan.spans(d, *lane.range(epoch, d))]
    return [(span.shard, i) for span in spans for i in range(span.first, span.stop)]


LAYOUTS = [(1, 1), (1, 2), (2, 1), (2, 3), (3, 2), (4, 5)]


@pytest.mark.parametrize(("world", "workers"), LAYOUTS)
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


@pytest.mark.parametrize(("world", "workers"), [*LAYOUTS, (1, 40)])
@pytest.mark.parametrize("mixing", MIXINGS, ids=lambda mixing: type(mixing).__name__)
@pytest.mark.parametrize("drop_last", [True, False])
def test_batches_fill_the_rows_of_their_step_and_lanes_tile_the_epoch(world, workers, mixing, drop_last):
    p, at = plan(world=world, workers=workers, batch_size=4, mixing=mixing, drop_last=drop_last), np.zeros(2, int)
    for lane in lanes(p):
        np.testing.assert_array_equal(lane.position(0), at)
        for done, step in enumerate(range(lane.worker, p.steps, workers)):
            batch = lane.position(done + 1) - lane.position(done)
            assert batch.min() >= 0
            assert batch.sum() == p.rows.of(lane.rank).at(step)
            at = at + batch
        np.testing.assert_array_equal(lane.stop, at)
    np.testing.assert_array_equal(p.demand, at)
    assert p.demand.sum() == p.rows.total


def test_a_batch_of_one_dataset_is_so_on_all_ranks():
    p = plan(world=3, workers=2, batch_size=4, mixing=OneDatasetPerBatch([2, 1]), epoch_size=200)
    for step in range(p.steps):
        batches = [pairwise_difference(p.lane(rank, step % 2), step // 2) for rank in range(3)]
        assert {int(np.flatnonzero(batch).item()) for batch in batches} == {int(batches[0].argmax())}


def pairwise_difference(lane, done):
    return lane.position(done + 1) - lane.position(done)


def test_order_depends_on_seed_and_pass_and_on_nothing_else():
    order = [samples(plan(seed=s), e, 0) for s, e in ((0, 0), (0, 0), (1, 0), (0, 1))]
    assert order[0] == order[1]
    assert order[0] != order[2]
    assert order[0] != order[3]


def test_windows_are_permutations_that_tile_the_range():
    p = plan(window=4)
    for start, stop in ((0, 0), (0, 3), (5, 22)):
        windows = list(p.windows(0, start, stop, start))
        covered = [first + i for first, order in windows for i in sorted(order)]
        assert covered == list(range(start, stop))
        assert np.ptp([len(order) for _, order in windows] or [0]) <= 1
        for begin in range(start, stop):
            rest = list(p.windows(0, start, stop, begin))
            assert rest[0][0] <= begin < rest[0][0] + len(rest[0][1])
            assert str(rest) == str(windows[-len(rest) :])


def test_spans_of_a_range_are_those_of_its_parts():
    p = plan()
    whole = [(s.shard, i) for s in p.spans(1, 0, 70) for i in range(s.first, s.stop)]
    for start, stop in ((0, 1), (28, 30), (29, 60), (69, 70)):
        assert [(s.shard, i) for s in p.spans(1, start, stop) for i in range(s.first, s.stop)] == whole[start:stop]


def test_an_epoch_of_any_length_takes_the_same_memory_and_is_as_quick_to_ask():
    short, long = (plan(continuing=True, epoch_size=size, world=8, workers=8, drop_last=True) for size in (10**4, 10**12))
    assert abs(len(pickle.dumps(long)) - len(pickle.dumps(short))) < 100
    lane = long.lane(7, 7)
    last = lane.position(lane.steps) - lane.position(lane.steps - 1)
    assert last.sum() == 3
    assert next(long.windows(0, *lane.range(3, 0), lane.range(3, 0)[1] - 1))[0] < lane.range(3, 0)[1]


@pytest.mark.parametrize("mixing", MIXINGS, ids=lambda mixing: type(mixing).__name__)
def test_another_layout_reads_the_same_of_every_dataset(mixing):
    p = plan(mixing=mixing, drop_last=True, world=2, workers=2, batch_size=2)
    for world, workers in ((1, 1), (4, 3)):
        other = p.dealt(world, workers)
        assert (other.world, other.workers, other.steps, other.digest) == (world, workers, p.steps, p.digest)
        np.testing.assert_array_equal(other.demand, p.demand)


def test_what_is_read_has_a_digest():
    digests = [p.digest for p in (plan(), plan(batch_size=4), plan(mixing=Weighted([1, 2])), plan(mixing=EqualParts()))]
    assert len(set(digests)) == 4
    assert all(a != b for a, b in pairwise(digests))


def test_a_dataset_without_samples_is_named():
    check_samples(["a", "b"], [(1,), (0, 5)])
    with pytest.raises(ShardError, match="in dataset 'a'; its index lists none"):
        check_samples(["a"], [()])
