"""Shuffle within windows and replace what cannot be used: pure, on anything that can be numbered.

A window of consecutive items is held in memory and handed out in a random order. Each place comes with the items that may
stand for it, first the one drawn for it, then those still to come; whoever asks takes the first that is usable.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def shuffled(
    windows: Sequence[tuple[int, Sequence[int] | np.ndarray]], skip: int, read: Callable[[int], Iterator[T]]
) -> Iterator[tuple[int, Iterator[T]]]:
    """Yield each place after the first ``skip``, and its candidates in the order in which they are to be tried.

    The candidates of a place must be taken before the next place is asked for.

    Args:
        windows: first place of each window and the order of its items, as ``Plan.windows`` gives them.
        skip: places already handed out.
        read: the items from a place on, in order.

    >>> from itertools import count
    >>> [(place, next(items)) for place, items in shuffled([(0, [1, 0]), (2, [1, 0])], 1, count)]
    [(1, 0), (2, 3), (3, 2)]
    """
    left = deque(windows)
    while left and skip >= len(left[0][1]):
        skip -= len(left.popleft()[1])
    if not left:
        return
    supply, ahead = read(left[0][0]), deque[T]()
    for first, order in left:
        ahead.extend(islice(supply, max(len(order) - len(ahead), 0)))
        window = {place: ahead.popleft() for place in range(len(order))}
        for place in order[:skip]:
            del window[place]
        for at in range(skip, len(order)):
            yield first + at, candidates(window, order[at:], read, first + len(order))
            # One item of the next window for each one done: no pause between windows, and memory that is used again.
            del window[order[at]]
            ahead.extend(islice(supply, 1))
        skip = 0


def candidates(
    window: dict[int, T], order: Sequence[int] | np.ndarray, read: Callable[[int], Iterator[T]], beyond: int
) -> Iterator[T]:
    """Yield the items of a window in ``order``, then those from ``beyond`` on, which are read only if they are asked for."""
    return chain((window[place] for place in order), (item for start in (beyond,) for item in read(start)))
