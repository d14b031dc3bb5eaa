"""Laws of neighbours: as far away as asked, of one clip, and where the picture moves; what has none is counted."""

import cv2
import numpy as np
import pytest

from depthkit.convert.records.neighbours import MOTION_WIDTH, Spacing, Target, motion, timeline, with_neighbours
from depthkit.convert.records.record import Record
from depthkit.errors import DepthKitError, RecipeError
from depthkit.types import Views

TEXTURE = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (120, 2400, 3), dtype=np.uint8), (0, 0), 3) * 2


def picture(x):
    """What a camera sees that has panned by x pixels."""
    moved = cv2.warpAffine(TEXTURE, np.float32([[1, 0, -x], [0, 1, 0]]), (TEXTURE.shape[1], 120))
    return np.ascontiguousarray(moved[:, :MOTION_WIDTH])


def clip_at(positions):
    """A clip whose camera stands at these places [px], and how to read it."""
    frames = {n: Record(f"k{n}", f"{n}.png") for n in range(len(positions))}
    return frames, lambda name: picture(positions[int(name[:-4])])


def neighbours(positions, **spacing):
    clip, read = clip_at(positions)
    kept, rejects = with_neighbours([Target(f, clip, n) for n, f in clip.items()], Spacing(**spacing), read)
    names = {f.key: tuple(int(f.views[view][:-4]) for view in ("prev", "next")) for f in kept}
    return names, dict(rejects)


@pytest.mark.parametrize("shift", [0.5, 1, 2, 5, 12])
def test_motion_is_how_far_a_picture_moves(shift):
    assert abs(motion(picture(0), picture(shift)) - shift) < 0.15 + 0.05 * shift


def test_motion_is_measured_in_pictures_of_one_width_and_sees_neither_noise_nor_brightness():
    a, b = picture(0), picture(4)
    twice = [cv2.resize(x, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC) for x in (a, b)]
    assert abs(motion(*twice) - motion(a, b)) < 0.2
    assert motion(a, a) < 0.01
    noise = np.random.default_rng(1).normal(0, 5, (2, *a.shape))
    assert motion(*(np.clip(a + n, 0, 255).astype(np.uint8) for n in noise)) < 0.3
    assert motion(a, np.clip(a * 0.9, 0, 255).astype(np.uint8)) < 0.3


@pytest.mark.parametrize("spacing", [1, 2, 4])
def test_neighbours_are_as_far_away_as_asked_and_every_other_frame_is_counted(spacing):
    kept, rejects = neighbours([0.0] * 10, frames=spacing)
    assert kept == {f"k{n}": (n - spacing, n + spacing) for n in range(spacing, 10 - spacing)}
    assert rejects == {
        **{f"k{n}": f"there is no frame {spacing} before it" for n in range(spacing)},
        **{f"k{n}": f"there is no frame {spacing} behind it" for n in range(10 - spacing, 10)},
    }


def test_frames_that_move_less_than_asked_are_left_out():
    kept, rejects = neighbours([0, 3, 6, 9, 9, 9, 9, 12, 15], min_motion=1)
    assert list(kept) == ["k1", "k2", "k7"]
    still = [name for name, reason in rejects.items() if reason == "the picture moves less than 1 px within 1 frame"]
    assert still == ["k3", "k4", "k5", "k6"]


def test_where_it_moves_less_neighbours_are_further_away():
    positions = [*np.arange(0, 8, 0.5), *np.arange(8, 40, 2.0)]  # slow, then fast
    kept, _ = neighbours(positions, largest=6, min_motion=1.4)
    assert kept["k8"] in ((5, 11), (4, 12))
    assert kept["k25"] == (24, 26)
    for name, pair in kept.items():
        n = int(name[1:])
        assert all(abs(positions[n] - positions[other]) > 1 for other in pair)
        assert n - pair[0] == pair[1] - n


def test_poses_of_neighbours_are_seen_from_the_frame():
    poses = [np.eye(4) for _ in range(3)]
    for n, pose in enumerate(poses):
        pose[0, 3] = 0.5 * n
    clip = {n: Record(f"k{n}", f"{n}.png", world_from_camera=pose) for n, pose in enumerate(poses)}
    ((frame,), _) = with_neighbours([Target(clip[1], clip, 1)], Spacing(), lambda _: pytest.fail("no motion was asked for"))
    assert np.allclose(frame.views_from_camera["prev"] @ [0, 0, 2, 1], [0.5, 0, 2, 1])
    assert np.allclose(frame.views_from_camera["next"] @ [0, 0, 2, 1], [-0.5, 0, 2, 1])


def test_a_picture_that_does_not_read_is_told_when_its_sample_is_made():
    def read(name):
        if name == "2.png":
            raise DepthKitError("damaged")
        return picture(0)

    clip = clip_at([0] * 5)[0]
    kept, rejects = with_neighbours([Target(f, clip, n) for n, f in clip.items()], Spacing(min_motion=1), read)
    assert [frame.key for frame in kept] == ["k2"]
    assert [reject.name for reject in rejects] == ["k0", "k1", "k3", "k4"]


@pytest.mark.parametrize(
    ("names", "times"),
    [
        (["000001", "000002", "000003", "000007"], [0, 1, 2, 6]),
        (["f2", "f4", "f6", "f10"], [0, 1, 2, 4]),
        (["1403636579763555584", "1403636579813555456", "1403636579863555584", "1403636580013555712"], [0, 1, 2, 5]),
        (["alone"], [0]),
        (["x", "y", "z"], [0, 1, 2]),
        ([], []),
    ],
)
def test_a_gap_in_names_is_a_gap_in_time(names, times):
    assert timeline(names) == times


def test_clips_in_one_folder_are_no_neighbours():
    a, b, c, d = timeline(["a_1", "a_2", "b_1", "b_2"])
    assert (b - a, d - c) == (1, 1)
    assert c - b > 10**6


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"frames": 0}, "expected 1 <= spacing <= max_spacing and min_motion of 0 or more; got 0"),
        ({"frames": 3, "largest": 2, "min_motion": 1}, "got 3, 2 and 1"),
        ({"min_motion": float("nan")}, "got 1, None and nan"),
        ({"largest": 4}, "expected min_motion above 0 with max_spacing 4"),
    ],
)
def test_spacings_that_cannot_be_are_refused(options, says):
    with pytest.raises(RecipeError, match=says):
        Spacing(**options)


def test_spacing_without_neighbours_is_refused():
    assert Spacing.of(Views.STEREO, 1, None, 0.0) is None
    assert Spacing.of(Views.VIDEO_STEREO, 2, None, 0.0) == Spacing(2)
    with pytest.raises(RecipeError, match=r"with spacing, max_spacing or min_motion; got views stereo"):
        Spacing.of(Views.STEREO, 2, None, 0.0)
