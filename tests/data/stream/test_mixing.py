"""Laws of the mixing objects."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from depthkit.data.stream.mixing import (
    EqualParts,
    LabelledUnlabelled,
    Mixing,
    Mixture,
    OneDatasetPerBatch,
    Proportional,
    Weighted,
    apportion,
)
from depthkit.errors import RecipeError

SIZES = (500, 40, 3)
ALL = (True, True, True)
MIXINGS = [EqualParts(), Proportional(), Weighted([1, 2, 3.5]), OneDatasetPerBatch(), LabelledUnlabelled()]


def by_definition(places, weights):
    """Webster's method as one would write it down: every dataset's times, sorted."""
    share = weights / weights.sum()
    times = [((j + 0.5) / p, d) for d, p in enumerate(share) for j in range(places)]
    return np.bincount([d for _, d in sorted(times)[:places]], minlength=len(share))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=8), st.integers(0, 60))
def test_places_are_apportioned_as_the_definition_says(weights, places):
    np.testing.assert_array_equal(apportion(places, np.array(weights)), by_definition(places, np.array(weights)))


@pytest.mark.parametrize("weights", [[1.0] * 8, [1.0] * 14, [5.0] + [1.0] * 9, [1.0, 100.0]])
def test_places_of_equal_weights_are_apportioned_as_the_definition_says(weights):
    for places in range(40):
        np.testing.assert_array_equal(apportion(places, np.array(weights)), by_definition(places, np.array(weights)))


@pytest.mark.parametrize("mixing", MIXINGS, ids=lambda mixing: type(mixing).__name__)
def test_one_more_place_is_one_more_sample_of_one_dataset(mixing):
    mixture = Mixture(mixing, SIZES, (True, False, True))
    for places in (*range(50), 10**9, 10**12):
        more = mixture.between(places, places + 1)
        assert (more.sum(), more.max()) == (1, 1)


def test_equal_parts_differ_by_at_most_one_in_every_batch_and_over_all_batches():
    mixture = Mixture(EqualParts(), SIZES, ALL)
    for first in range(0, 100, 7):
        assert np.ptp(mixture.between(first, first + 7)) <= 1
        assert np.ptp(mixture(first)) <= 1


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.05, 10), min_size=1, max_size=6), st.integers(1, 2000))
def test_frequencies_follow_the_weights(weights, places):
    share = np.array(weights) / sum(weights)
    counts = apportion(places, np.array(weights))
    assert (np.abs(counts - places * share) < np.maximum(2, 3 * np.sqrt(places * share * (1 - share)))).all()


def test_two_datasets_are_never_more_than_one_sample_from_their_share():
    assert max(abs(apportion(n, np.array([1.0, np.pi]))[0] - n / (1 + np.pi)) for n in range(2500)) <= 1


def test_proportional_reads_every_sample_once_where_the_epoch_has_room_for_all():
    np.testing.assert_array_equal(Proportional().filled(sum(SIZES), SIZES, ALL), SIZES)
    large = (62_000_001, 1_000_003, 7)
    np.testing.assert_array_equal(Proportional().filled(sum(large), large, ALL), large)


def test_batches_of_one_dataset_follow_the_weights_or_else_the_sizes():
    np.testing.assert_array_equal(OneDatasetPerBatch().filled(543, SIZES, ALL), SIZES)
    np.testing.assert_array_equal(OneDatasetPerBatch([1, 1, 2]).filled(400, SIZES, ALL), [100, 100, 200])


def test_labelled_and_unlabelled_keep_their_ratio_in_every_batch_and_share_it_by_size():
    mixture = Mixture(LabelledUnlabelled(1, 2), (30, 10, 500), (True, True, False))
    assert {int(mixture.between(first, first + 9)[2]) for first in range(0, 900, 9)} == {6}
    np.testing.assert_array_equal(mixture(1800), [450, 150, 1200])


def test_what_a_teacher_labelled_counts_as_unlabelled():
    named = LabelledUnlabelled(1, 2, pseudo_labelled=[2]).filled(210, SIZES, ALL)
    np.testing.assert_array_equal(named, LabelledUnlabelled(1, 2).filled(210, SIZES, (True, True, False)))
    with pytest.raises(RecipeError, match=r"positions of the 3 training sources, from 0; got \[3\]"):
        LabelledUnlabelled(pseudo_labelled=[3]).filled(210, SIZES, ALL)


def test_weights_that_do_not_fit_say_so():
    with pytest.raises(RecipeError, match="one weight of Weighted per training source, 3; got 2"):
        Weighted([1, 2]).filled(1, SIZES, ALL)
    with pytest.raises(RecipeError, match="positive weights"):
        Weighted([1, 0, 2])
    with pytest.raises(RecipeError, match="positive weights"):
        OneDatasetPerBatch([1, float("nan")])
    with pytest.raises(RecipeError, match="needs labelled and unlabelled sources; got 3 labelled and 0 unlabelled"):
        LabelledUnlabelled().filled(1, SIZES, ALL)


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (lambda n: np.array([n / 2, n / 2]), "got float64"),
        (lambda n: np.array([n]), r"got shape \(1,\)"),
        (lambda n: np.array([n + 1, -1]), "none below 0; got -1"),
        (lambda n: np.array([n, n]), "sum to the places; got 2 for 1"),
        (lambda n: [n, 0], "got list"),
        (
            lambda n: np.array([n, 0] if n % 2 else [0, n]),
            r"never fall as places grow; got \[0, 2\] for 2 places after \[1, 0\]",
        ),
    ],
    ids=["float", "flat", "negative", "too many", "list", "takes back"],
)
def test_an_own_mixing_that_answers_wrongly_is_named(answer, match):
    class Own(Mixing):
        def filled(self, places, samples, labelled):
            return answer(places)

    with pytest.raises(RecipeError, match=r"Own.filled to return 2 integers, one per dataset.*" + match):
        Mixture(Own(), (5, 5), (True, True))
