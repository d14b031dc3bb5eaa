"""Laws of the shuffle: integers only, no file is read."""

from itertools import count

import pytest

from depthkit.data.stream.shuffle import shuffled

WINDOWS = [(3, [2, 0, 1]), (6, [1, 0]), (8, [0, 2, 1])]


@pytest.mark.parametrize("skip", range(9))
def test_every_item_comes_once_in_the_order_of_its_window_whatever_is_skipped(skip):
    order = [first + place for first, window in WINDOWS for place in window]
    assert [next(items) for _, items in shuffled(WINDOWS, 3 + skip, count)] == order[skip:]
    assert [place for place, _ in shuffled(iter(WINDOWS), 3 + skip, count)] == list(range(3, 11))[skip:]


def test_what_cannot_be_used_is_replaced_by_the_rest_of_the_window_and_then_by_what_lies_beyond():
    places = [[next(items) for _ in range(4)] for _, items in shuffled(WINDOWS, 3, count)]
    assert places[0] == [5, 3, 4, 6]
    assert places[2] == [4, 6, 7, 8]
    assert places[4] == [6, 8, 9, 10]
