"""Laws of shots: a cut is where pictures change and had not been changing; a shot gives its first second, and every fourth."""

from itertools import pairwise

import numpy as np
import pytest

from depthkit.convert.records.shots import frames_of_shots, scene_scores, shots


def grey(level: float) -> np.ndarray:
    return np.full((6, 8, 3), level, np.uint8)


def test_a_score_is_the_smaller_of_the_change_and_of_how_it_changed() -> None:
    levels = [50, 50, 101, 101, 111, 121, 131]
    scores = scene_scores(map(grey, levels))
    changes = [0, *(abs(b - a) / 255 for a, b in pairwise(levels))]
    assert scores == pytest.approx([min(c, abs(c - before)) for c, before in zip(changes, [0, *changes], strict=False)])
    assert scores[2] == pytest.approx(0.2)  # a cut
    assert scores[5] == pytest.approx(0)  # a fade goes on


def test_a_damaged_picture_is_no_cut_and_large_ones_are_reduced() -> None:
    assert scene_scores([grey(50), None, grey(50), grey(101), grey(101)]) == pytest.approx([0, 0, 0, 0.2, 0])
    stripes = np.tile(np.array([[[0], [200]]], np.uint8), (40, 1600, 3))  # which reduction makes grey
    assert scene_scores([np.zeros_like(stripes), stripes])[1] == pytest.approx(100 / 255, abs=0.01)
    assert scene_scores([stripes, stripes[:, ::-1]])[1] == pytest.approx(0, abs=0.01)


def test_shots_end_at_cuts_and_short_ones_are_left_out() -> None:
    times = [n / 8 for n in range(80)]
    scores = [0.0] * 80
    for cut in (20, 26, 34):  # the second shot lasts three quarters of a second, the third exactly one
        scores[cut] = 0.11
    scores[50] = 0.1  # not above
    assert shots(times, scores) == [(0, 20), (26, 34), (34, 80)]


@pytest.mark.parametrize(("fps", "rate"), [(24, 4), (24, 24), (25, 4), (8, 1)])
def test_windows_of_a_second_begin_with_the_shot_and_every_four_seconds(fps: int, rate: int) -> None:
    times = [n / fps for n in range(13 * fps)]
    found = frames_of_shots(times, [(fps, 13 * fps)], rate=rate)  # a shot of twelve seconds from the first on
    assert len(found) == 3 * rate
    seconds = np.array([times[n] for n in found]).reshape(3, rate)
    np.testing.assert_allclose(seconds[:, 0], [1, 5, 9], atol=1e-9)
    assert (np.diff(seconds, axis=1) >= 1 / rate - 1 / fps - 1e-9).all()
    assert (seconds[:, -1] < [2, 6, 10]).all()


def test_a_window_that_the_shot_cuts_off_is_left_out() -> None:
    times = [n / 24 for n in range(24 * 10)]
    assert frames_of_shots(times, [(0, 24 * 4 + 12)], rate=4) == [0, 6, 12, 18]
    assert len(frames_of_shots(times, [(0, 24 * 5)], rate=4)) == 8
