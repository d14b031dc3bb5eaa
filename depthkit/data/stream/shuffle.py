"""Shuffle within windows and replace what cannot be used: pure, on anything that can be numbered.

A window of consecutive items is held in memory and handed out in a random order. Each place comes with the items that may
stand for it, first the one drawn for it, then those still to come; whoever asks takes the first that is usable.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def shuffled(
    windows: Iterable[tuple[int, Sequence[int]]], begin: int, read: Callable[[int], Iterator[T]]
) -> Iterator[tuple[int, Iterator[T]]]:
    """Yield the places from ``begin`` on, and the candidates of each in the order in which they are to be tried.

    The candidates of a place must be taken before the next place is asked for.

    Args:
        windows: first place of each window and the order of its items, as ``Plan.windows`` gives them.
        begin: the first place to yield; as many items of its window as places before it have been handed out.
        read: the items from a place on, in order.

    >>> from itertools import count
    >>> [(place, next(items)) for place, items in shuffled([(0, [1, 0]), (2, [1, 0])], 1, count)]
    [(1, 0), (2, 3), (3, 2)]
    """
    supply, ahead = None, deque[T]()
    for first, items in windows:
        order, skip = list(items), max(begin - first, 0)
        if skip >= len(order):
            continue
        supply = supply or read(first)
        ahead.extend(islice(supply, max(len(order) - len(ahead), 0)))
        window = {place: ahead.popleft() for place in range(len(order))}
        for place in order[:skip]:
            del window[place]
        for at in range(skip, len(order)):
            yield first + at, candidates(window, order, at, read, first + len(order))
            # One item of the next window for each one done: no pause between windows, and memory that is used again.
            del window[order[at]]
            ahead.extend(islice(supply, 1))


def candidates(
    window: dict[int, T], order: Sequence[int], at: int, read: Callable[[int], Iterator[T]], beyond: int
) -> Iterator[T]:
    """Yield the items of a window in ``order`` from ``at`` on, then those from ``beyond`` on, read only if asked for."""
    for place in range(at, len(order)):
        yield window[order[place]]
    yield from read(beyond)
