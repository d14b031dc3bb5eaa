"""Laws of the mixing objects."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from depthkit.data.stream.mixing import (
    EqualParts,
    LabelledUnlabelled,
    Mixing,
    OneDatasetPerBatch,
    Proportional,
    Weighted,
    apportion,
    checked_composition,
)
from depthkit.errors import RecipeError

SIZES = [500, 40, 3]
ROWS = np.full((30, 2), 7)


@pytest.mark.parametrize(
    "mixing", [EqualParts(), Proportional(), Weighted([1, 2, 3.5]), OneDatasetPerBatch(), LabelledUnlabelled()]
)
def test_every_batch_is_filled_exactly(mixing):
    composition = mixing.composition(ROWS, SIZES, [True, False, True])
    assert composition.shape == (30, 2, 3)
    assert (composition >= 0).all()
    np.testing.assert_array_equal(composition.sum(-1), ROWS)


def test_equal_parts_differ_by_at_most_one_in_every_batch_and_over_all_batches():
    composition = EqualParts().composition(ROWS, SIZES, [True] * 3)
    assert np.ptp(composition, axis=-1).max() <= 1
    running = composition.reshape(-1, 3).cumsum(0)
    assert np.ptp(running, axis=-1).max() <= 1


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.05, 10), min_size=1, max_size=6), st.integers(1, 9))
def test_running_frequencies_follow_the_weights(weights, batch_size):
    rows = np.full(200, batch_size)
    share = np.array(weights) / sum(weights)
    counts = apportion(rows, np.array(weights)).cumsum(0)
    drawn = rows.cumsum()[:, None]
    assert (np.abs(counts - drawn * share) < np.maximum(2, 3 * np.sqrt(drawn * share * (1 - share)))).all()


def test_two_datasets_are_never_more_than_one_sample_from_their_share():
    counts = apportion(np.full(500, 5), np.array([1.0, np.pi])).cumsum(0)
    assert np.abs(counts[:, 0] - np.arange(5, 2501, 5) / (1 + np.pi)).max() <= 1


def test_proportional_reads_every_sample_once_where_the_epoch_has_room_for_all():
    rows = np.array([[91, 91], [91, 90], [90, 90]])
    np.testing.assert_array_equal(Proportional().composition(rows, SIZES, [True] * 3).sum((0, 1)), SIZES)


def test_labelled_and_unlabelled_keep_their_ratio_in_every_batch_and_share_it_by_size():
    composition = LabelledUnlabelled(1, 2).composition(np.full((100, 2), 9), [30, 10, 500], [True, True, False])
    np.testing.assert_array_equal(composition[..., 2], 6)
    np.testing.assert_array_equal(composition.sum((0, 1)), [450, 150, 1200])


def test_what_a_teacher_labelled_counts_as_unlabelled():
    named = LabelledUnlabelled(1, 2, pseudo_labelled=[2]).composition(ROWS, SIZES, [True] * 3)
    np.testing.assert_array_equal(named, LabelledUnlabelled(1, 2).composition(ROWS, SIZES, [True, True, False]))
    with pytest.raises(RecipeError, match=r"positions of the 3 training sources, from 0; got \[3\]"):
        LabelledUnlabelled(pseudo_labelled=[3]).composition(ROWS, SIZES, [True] * 3)


def test_one_dataset_per_batch_is_the_same_on_all_ranks():
    composition = OneDatasetPerBatch([1, 1, 2]).composition(ROWS, SIZES, [True] * 3)
    assert ((composition > 0).sum(-1) == 1).all()
    np.testing.assert_array_equal(composition[:, 0], composition[:, 1])
    np.testing.assert_allclose((composition[:, 0] > 0).sum(0), [7.5, 7.5, 15], atol=1)


def test_weights_that_do_not_fit_say_so():
    with pytest.raises(RecipeError, match="one weight of Weighted per training source, 3; got 2"):
        Weighted([1, 2]).composition(ROWS, SIZES, [True] * 3)
    with pytest.raises(RecipeError, match="positive weights"):
        Weighted([1, 0, 2])
    with pytest.raises(RecipeError, match="positive weights"):
        OneDatasetPerBatch([1, float("nan")])
    with pytest.raises(RecipeError, match="needs labelled and unlabelled sources; got 3 labelled and 0 unlabelled"):
        LabelledUnlabelled().composition(ROWS, SIZES, [True] * 3)


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (lambda rows: rows[..., None] / 2 * np.ones(2), "got float64"),
        (lambda rows: rows, r"got shape \(3, 2\)"),
        (lambda rows: rows[..., None] * np.array([2, -1]), "none below 0; got -4"),
        (lambda rows: rows[..., None] * np.array([1, 1]), "got 8 instead of 4 at step 0 on rank 0"),
        (lambda rows: rows.tolist(), "got list"),
    ],
    ids=["float", "flat", "negative", "too many", "list"],
)
def test_an_own_mixing_that_answers_wrongly_is_named(answer, match):
    class Own(Mixing):
        def composition(self, rows, samples, labelled):
            return answer(rows)

    with pytest.raises(RecipeError, match=r"Own.composition.*\(3, 2, 2\).*" + match):
        checked_composition(Own(), np.full((3, 2), 4), [5, 5], [True, True])
