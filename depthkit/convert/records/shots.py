"""Shots of a film: where a scene changes, and which frames of each shot are worth a label (Ranftl et al. 2022, appendix)."""

from collections.abc import Iterable, Sequence

import cv2
import numpy as np

THRESHOLD, SHORTEST = 0.1, 1.0
"""Scene score above which a frame begins a shot, and the least length of a shot [s], as in the paper."""
WINDOW, EVERY = 1.0, 4.0
"""Of a shot the paper takes the first 24 frames, one second, and as many again every four seconds [s]."""
_WIDE = 320  # pixels: scores are of pictures that are reduced to this width


def scene_scores(pictures: Iterable[np.ndarray | None]) -> list[float]:
    """Score how much each picture differs from the one before, as FFmpeg's filter ``select`` does.

    With m the mean absolute difference to the picture before, in per cent of the range, the score is the smaller of m and of
    how much m itself has changed, over 100: a pan is no cut, as its m stays.

    Args:
        pictures: uint8 ``(H, W, 3)`` in the order of the film; None where one is damaged, which counts as no change.

    Returns:
        A score in [0, 1] of each, 0 of the first.
    """
    scores, last, before = list[float](), None, 0.0
    for picture in pictures:
        if picture is None:
            scores.append(0.0)
            continue
        small = picture
        if picture.shape[1] > _WIDE:
            size = (_WIDE, max(1, round(picture.shape[0] * _WIDE / picture.shape[1])))
            small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        change = 0.0 if last is None else 100 / 255 * float(np.abs(small.astype(np.int16) - last).mean())
        scores.append(min(change, abs(change - before), 100.0) / 100)
        last, before = small.astype(np.int16), change
    return scores


def shots(times: Sequence[float], scores: Sequence[float]) -> list[tuple[int, int]]:
    """Divide a film at its cuts; return the first frame of each shot and the one behind its last, without too short ones.

    Args:
        times: when each frame is shown [s].
        scores: of each frame; see ``scene_scores``.

    Example:
        >>> shots([n / 4 for n in range(16)], [0.0] * 5 + [0.4] + [0.0] * 10)
        [(0, 5), (5, 16)]
    """
    begins = [0, *(n for n in range(1, len(times)) if scores[n] > THRESHOLD)]
    ends = [*begins[1:], len(times)]
    step = (times[-1] - times[0]) / max(len(times) - 1, 1)  # how long the last frame is shown
    return [(a, b) for a, b in zip(begins, ends, strict=True) if times[b - 1] + step - times[a] >= SHORTEST - 1e-6]


def frames_of_shots(times: Sequence[float], found: Sequence[tuple[int, int]], *, rate: float) -> list[int]:
    """Choose frames: within the first second of each shot, and within a second every four seconds, ``rate`` per second.

    A window that its shot cuts off is left out.

    Args:
        times: when each frame is shown [s].
        found: shots; see ``shots``.
        rate: frames per second within a window.

    Example:
        >>> frames_of_shots([n / 4 for n in range(40)], [(0, 24), (24, 40)], rate=2)
        [0, 2, 16, 18, 24, 26]
    """
    chosen = list[int]()
    for first, stop in found:
        begin = times[first]
        while True:
            end = begin + WINDOW
            inside = [n for n in range(first, stop) if begin - 1e-6 <= times[n] < end - 1e-6]
            if not inside or times[stop - 1] < end - WINDOW / rate - 1e-6:
                break
            wanted = begin + np.arange(int(WINDOW * rate + 1e-6)) / rate
            chosen += [
                next(n for n in inside if times[n] >= time - 1e-6) for time in wanted if times[inside[-1]] >= time - 1e-6
            ]
            begin += EVERY
    return sorted(set(chosen))
