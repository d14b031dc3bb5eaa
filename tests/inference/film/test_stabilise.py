"""Laws of a stabilised film: less flicker, motion and metres kept, a new start at a cut, a single frame unchanged."""

from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from depthkit.errors import DepthKitError, ShapeError
from depthkit.geometry.flow import motion_between, small_grey
from depthkit.inference import DepthPredictor, Prediction
from depthkit.inference.film.frames import Footage, ahead
from depthkit.inference.film.stabilise import Stabiliser, robust_line
from depthkit.resize import InputResize
from depthkit.synthetic import SyntheticScenes
from depthkit.types import Ambiguity, Representation

FRAMES = 24
KINDS = [
    (Ambiguity.METRIC, Representation.DEPTH),
    (Ambiguity.SCALE, Representation.LOG_DISPARITY),
    (Ambiguity.SHIFT_SCALE, Representation.DISPARITY),
]


@pytest.fixture(scope="module")
def room():
    """Pictures of a moving camera, their depth and motion."""
    views = SyntheticScenes(1, size=(96, 128), kind="room", seed=3).video(0, FRAMES)
    greys = [small_grey(view.image) for view in views]
    motions = [None, *(motion_between(a, b) for a, b in pairwise(greys))]
    return [view.image for view in views], [view.depth.astype(np.float32) for view in views], motions


def as_predicted(depth, representation):
    return {"depth": depth, "disparity": 1 / depth, "log_disparity": -np.log(depth)}[representation].astype(np.float32)


def film(room, kind, factors, shifts=None, noise=0.0):
    images, depths, motions = room
    rng, maps = np.random.default_rng(1), []
    for depth, factor in zip(depths, factors, strict=True):
        local = np.exp(noise * cv2.resize(rng.normal(size=(6, 8)), (128, 96), interpolation=cv2.INTER_CUBIC))
        maps.append(as_predicted(depth * factor * local, kind[1]))
    for i, shift in enumerate(() if shifts is None else shifts):
        maps[i] = maps[i] + shift * maps[i].std()
    return [
        (Prediction(x.astype(np.float32), kind[1], kind[0], image), m)
        for x, image, m in zip(maps, images, motions, strict=True)
    ]


def depth_of(prediction):
    x = prediction.map
    return {"depth": x, "disparity": 1 / x, "log_disparity": np.exp(-x)}[prediction.representation]


def jitter(predictions, depths):
    """Standard deviation of the change of the best factor from frame to frame."""
    return np.std(np.diff([np.log(np.median(depth_of(p) / d)) for p, d in zip(predictions, depths, strict=True)]))


def error(predictions, depths):
    """Mean over frames of the median relative error after the best factor."""
    ratios = [depth_of(p) / d for p, d in zip(predictions, depths, strict=True)]
    return np.mean([np.median(np.abs(r / np.median(r) - 1)) for r in ratios])


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind[0]))
def test_flicker_goes_and_the_depth_gets_no_worse(kind, room):
    factors = np.exp(np.random.default_rng(0).normal(0, 0.06, FRAMES))
    given = film(room, kind, factors, noise=0.05)
    stabiliser = Stabiliser()
    stable = [stabiliser(*each) for each in given]
    assert jitter(stable, room[1]) < 0.5 * jitter([p for p, _ in given], room[1])
    assert error(stable, room[1]) < error([p for p, _ in given], room[1])


def test_a_shift_that_jitters_goes_too(room):
    shifts = np.random.default_rng(2).normal(0, 0.2, FRAMES)
    given = film(room, KINDS[2], np.ones(FRAMES), shifts)
    stabiliser = Stabiliser()
    moved = [np.median(p.map - 1 / d) for p, d in zip((stabiliser(*each) for each in given), room[1], strict=True)]
    before = [np.median(p.map - 1 / d) for (p, _), d in zip(given, room[1], strict=True)]
    assert np.std(np.diff(moved)) < 0.4 * np.std(np.diff(before))


@pytest.mark.parametrize("kind", KINDS[:2], ids=lambda kind: str(kind[0]))
def test_true_depth_of_a_moving_camera_stays(kind, room):
    stabiliser = Stabiliser()
    for (given, motion), depth in zip(film(room, kind, np.ones(FRAMES)), room[1], strict=True):
        assert np.median(np.abs(depth_of(stabiliser(given, motion)) / depth - 1)) < 0.01


def test_a_scale_that_drifts_steadily_is_the_scenes_own(room):
    """A correction that held on to the first frame's scale would be a factor of e off at the end."""
    factors = np.exp(np.linspace(0, 1, FRAMES))
    stabiliser = Stabiliser()
    stable = [stabiliser(*each) for each in film(room, KINDS[0], factors)]
    assert np.median(stable[-1].map / room[1][-1]) == pytest.approx(np.e, rel=0.05)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind[0]))
def test_a_cut_begins_anew(kind, room):
    given = film(room, kind, np.exp(np.random.default_rng(0).normal(0, 0.06, FRAMES)))
    other = np.random.default_rng(5).integers(0, 255, (96, 128, 3), dtype=np.uint8)
    cut = motion_between(small_grey(room[0][7]), small_grey(other))
    stabiliser, after = Stabiliser(), Prediction(given[0][0].map * 3, kind[1], kind[0], other)
    for each in given[:8]:
        stabiliser(*each)
    np.testing.assert_array_equal(stabiliser(after, cut).map, after.map)


def test_what_no_line_fits_is_left_as_it_is(room):
    flat = Prediction(np.ones((96, 128), np.float32), *reversed(KINDS[2]))
    stabiliser = Stabiliser()
    for _ in range(2):
        np.testing.assert_array_equal(stabiliser(flat, room[2][1]).map, flat.map)


def test_points_without_depth_stay_without(room):
    depth = room[1][0].copy()
    depth[:20] = np.inf
    given = [Prediction((1 / d).astype(np.float32), Representation.DISPARITY, Ambiguity.METRIC) for d in (depth, depth)]
    stabiliser = Stabiliser()
    _, second = stabiliser(given[0], None), stabiliser(given[1], room[2][1])
    assert (second.map[:15] == 0).all()
    assert np.isfinite(second.map).all()


def test_a_line_is_found_among_outliers_and_noise_in_both_coordinates():
    rng = np.random.default_rng(0)
    x = rng.uniform(1, 5, 4000)
    y = 1.3 * x + 0.4
    noisy = robust_line(x + rng.normal(0, 0.4, 4000), y + rng.normal(0, 0.4 * 1.3, 4000))
    y[:1000] = rng.uniform(0, 9, 1000)
    exact = robust_line(x, y)
    assert exact.scale == pytest.approx(1.3, abs=1e-6)
    assert exact.shift == pytest.approx(0.4, abs=1e-6)
    assert noisy.scale == pytest.approx(1.3, rel=0.03)  # y on x alone is 12 % too flat
    assert robust_line(x, -y) is None
    assert robust_line(x[:5], y[:5]) is None


class Brightness(nn.Module):
    """Disparity from brightness, as it may be."""

    representation, size_multiple = Representation.DISPARITY, 1
    input_rule = InputResize(rule="native", multiple=1)

    def forward(self, image):
        return image.mean(1, keepdim=True) + 0.1


@pytest.fixture
def predictor():
    return DepthPredictor(Brightness(), ambiguity=Ambiguity.SHIFT_SCALE)


def test_unstabilised_frames_are_those_of_images(predictor, room):
    found = list(predictor.video(room[0][:3], stabilise=False))
    for prediction, image in zip(found, room[0], strict=False):
        np.testing.assert_array_equal(prediction.map, predictor(image).map)


def test_one_frame_is_its_image(predictor, room):
    (only,) = predictor.video(room[0][:1])
    np.testing.assert_array_equal(only.map, predictor(room[0][0]).map)
    assert list(predictor.video([])) == []


def test_frames_come_while_the_film_goes_on(predictor, room):
    asked = []

    def endless():
        for number in range(1000):
            asked.append(number)
            yield room[0][number % FRAMES]

    film = predictor.video(endless())
    for _ in range(3):
        next(film)
    film.close()
    assert len(asked) <= 5


def test_an_error_reaches_the_one_who_asks_and_skips_are_named(predictor, room):
    broken = [room[0][0], room[0][1][..., :2], room[0][2]]
    with pytest.raises(ShapeError):
        list(predictor.video(broken))
    names = []
    assert len(list(predictor.video(broken, on_error=lambda name, error: names.append(name)))) == 2
    assert names == ["frame 1"]
    assert list(ahead(range(4))) == [0, 1, 2, 3]


def test_a_photo_or_nothing_is_no_film(tmp_path):
    photo = tmp_path / "a.png"
    photo.write_bytes(b"")
    with pytest.raises(ShapeError, match="got an image"):
        Footage(photo)
    with pytest.raises(DepthKitError, match="found nothing"):
        Footage(tmp_path / "b.mp4")


def test_a_network_that_overflows_in_one_frame_loses_that_frame_only(room):
    class Poisoned(Brightness):
        seen = 0

        def forward(self, image):
            self.seen += 1
            return super().forward(image) * (torch.nan if self.seen == 2 else 1)

    names = []
    predictor = DepthPredictor(Poisoned(), ambiguity=Ambiguity.SHIFT_SCALE)
    assert len(list(predictor.video(room[0][:4], on_error=lambda name, _: names.append(name)))) == 3
    assert names == ["frame 1"]
