"""Laws of stereo films: what is known of a film made from known disparities comes out of it, and nothing else does.

The flow is an oracle: it knows the disparity of every picture by a mark in the film.
"""

import pickle
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from depthkit.convert.records.stereo_labels import RULES, Rules
from depthkit.convert.records.stereo_layout import Layout
from depthkit.errors import CheckpointError, DepthKitError, LabelError, RecipeError

av = pytest.importorskip("av", reason="PyAV is not installed")
from depthkit.convert import stereo_movie  # noqa: E402
from depthkit.shards import ShardIndex, decode_sample, verify, write_shards  # noqa: E402
from depthkit.shards.reading import read_shard  # noqa: E402

HEIGHT, WIDTH, FPS, SECONDS = 64, 128, 4, 40
OFFSET = -5.0  # px: what the film makers moved the right picture by; nobody is told
FLAT, TORN, ROLLED = 13, 17, 21  # seconds at which the film is not as it should be


def inverse_depth(second):
    """Disparity [px] without the hidden offset: a slope with a box before it, other ones in every second."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    slope = 4 + (2 + second % 5) * y / HEIGHT
    box = (abs(y - 30) < 12) & (abs(x - 40 - second) < 14)
    if second == FLAT:
        return np.full((HEIGHT, WIDTH), 6.0)
    return np.where(box, 16.0, slope)


def flows(second):
    """Flow from left to right and back, with the hidden offset."""
    shift = inverse_depth(second) + OFFSET
    forward, backward = np.zeros((2, HEIGHT, WIDTH, 2))
    forward[..., 0] = -shift
    x, nearest = np.arange(WIDTH), np.full((HEIGHT, WIDTH), -np.inf)
    for row in range(HEIGHT):  # what is nearest is seen from the right
        at = np.rint(x - shift[row]).astype(int)
        for column in np.argsort(shift[row], kind="stable"):
            if 0 <= at[column] < WIDTH:
                nearest[row, at[column]] = shift[row, column]
    backward[..., 0] = np.where(np.isfinite(nearest), nearest, 0)
    if second == TORN:
        backward[:, : WIDTH // 2, 0] += 30
    if second == ROLLED:
        forward[: HEIGHT // 2, :, 1] = 5
    return forward, backward


def eyes(second):
    """Left and right picture, the second written as a mark into the corner of both."""
    rng = np.random.default_rng(second // 10)  # another scene every ten seconds
    tint = np.array([[255, 120, 120], [120, 255, 120], [120, 120, 255], [200, 200, 60]][second // 10 % 4]) / 255
    left = np.kron(rng.integers(60, 256, (HEIGHT // 4, WIDTH // 4, 1)), np.ones((4, 4, 1))) * tint
    back = flows(second)[1][..., 0] if second != TORN else flows(second + 1)[1][..., 0]
    at = np.clip(np.arange(WIDTH) + np.rint(back), 0, WIDTH - 1).astype(int)
    right = np.take_along_axis(left, at[..., None], 1)
    for picture in (left, right):
        picture[:8, :8] = 40 + 5 * second
    return left.astype(np.uint8), right.astype(np.uint8)


@dataclass(frozen=True)
class Oracle:
    """Flow of the made film; a file counts its calls, across processes."""

    calls: Path | None = None
    bars: int = 0

    def __call__(self, first, second):
        if self.calls:
            with self.calls.open("a") as file:
                file.write(".")
        time = round((float(first[self.bars : self.bars + 8, :8].mean()) - 40) / 5)
        left = eyes(time)[0]
        return flows(time)[0 if np.array_equal(first[self.bars : self.bars + HEIGHT], left) else 1]


def encode(path, pictures, codec="libx264rgb", fps=FPS):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.options = "rgb24", {"crf": "0", "preset": "ultrafast"}
        stream.codec_context.gop_size = 12
        for n, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = n, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def side_by_side(second):
    return np.concatenate(eyes(second), 1)


@pytest.fixture(scope="session")
def film(tmp_path_factory):
    """A film of 40 s and a frame, side by side; frames between the seconds show the same."""
    pictures = [side_by_side(n // FPS) for n in range(SECONDS * FPS + 1)]
    return encode(tmp_path_factory.mktemp("film") / "A film.3D.mp4", pictures)


def second_of(key):
    return int(key.rpartition("/")[2]) // FPS


def cut(frames):
    """How the film is cut into its two pictures."""
    return frames.reader.pair.__self__.cut


def affine_error(label, truth, valid):
    """Largest error after the best factor and offset, and the factor."""
    x, y = truth[valid], label[valid]
    (a, b), *_ = np.linalg.lstsq(np.stack([x, np.ones_like(x)], 1), y, rcond=None)
    return np.abs(a * x + b - y).max(), a


def test_labels_are_the_truth_up_to_scale_and_shift_and_bad_frames_are_left_out(film, tmp_path):
    frames = stereo_movie.stereo_movie(film, flow=Oracle(), views="stereo")
    assert [second_of(frames.key(n)) for n in range(len(frames))] == list(range(4, 37))  # without 10 % at both ends
    report = write_shards(frames, tmp_path / "out", split="train", dataset="film", image_format="png")
    assert {(second_of(name), reason) for name, reason in report.rejects} == {
        (FLAT, "its disparities span no more than 8 px"),
        (TORN, "no more than 80% of its pixels match within 8 px"),
    }
    index = ShardIndex.load(tmp_path / "out")
    assert str(index.kind("train")) == "shift_scale disparity"
    assert str(index.split("train").views) == "stereo"
    assert verify(tmp_path / "out").ok
    shard = index.shards("train")[0]
    raws = list(read_shard(index.url(shard), 0, shard.samples, total=shard.samples, wanted=lambda name: True))
    assert len(raws) == 31
    for raw in raws[::6]:
        sample, time = decode_sample(raw.key, raw.members, where="out"), second_of(raw.key)
        assert np.array_equal(sample.image, eyes(time)[0])
        assert np.array_equal(sample.frames["stereo"], eyes(time)[1])
        assert sample.valid.mean() > 0.8
        error, factor = affine_error(sample.label, inverse_depth(time), sample.valid)
        assert error < 2e-3  # half a step of 16 bits
        assert factor == pytest.approx(1, abs=1e-3)


def test_what_the_right_eye_does_not_see_is_not_valid(film):
    frames = stereo_movie.stereo_movie(film, flow=Oracle(), rules=Rules(discrepancy=1, matched=0.5))
    sample = frames[6]
    box = inverse_depth(10)
    hidden = np.zeros((HEIGHT, WIDTH), bool)
    hidden[20:40, 26:30] = True  # left of the box, from which the right eye is turned away
    hidden &= box < 16
    assert hidden.any()
    assert sample.valid[hidden].mean() < 0.5 < sample.valid[:, 60:].mean()


def test_rules_of_midas_look_at_vertical_flow(film):
    frames = stereo_movie.stereo_movie(film, flow=Oracle(), rules=RULES["midas"])
    assert frames[0].valid.any()
    with pytest.raises(LabelError, match="over 10% of its pixels move by more than 2 px vertically"):
        frames[ROLLED - 4]


def test_the_sky_has_the_least_disparity_and_is_valid(film):
    def sky(picture):
        return np.arange(len(picture))[:, None] < np.full(picture.shape[1], 6)

    sample = stereo_movie.stereo_movie(film, flow=Oracle(), sky=sky)[0]
    assert sample.sky[:6].all()
    assert not sample.sky[6:].any()
    assert sample.valid[:6].all()
    assert (sample.label[:6] == sample.label[6:][sample.valid[6:]].min()).all()


def test_splits_part_at_a_cut_and_hold_every_frame_once(film):
    parts = [stereo_movie.stereo_movie(film, split, holdout=0.25, flow=Oracle()) for split in ("train", "test")]
    train, test = ([second_of(frame.key) for frame in part.records] for part in parts)
    assert train + test == list(range(4, 37))
    assert test[0] == 30  # the scene changes there; a quarter would begin at 29


def test_a_folder_of_films_is_one_dataset_of_many_sources(film, tmp_path):
    folder = tmp_path / "films"
    folder.mkdir()
    for name in ("b.mp4", "a.mp4"):
        (folder / name).symlink_to(film)
    parts = [stereo_movie.stereo_movie(folder, split, holdout=0.25, flow=Oracle()) for split in ("train", "test")]
    train, test = ([part.key(n).rpartition("/") for n in range(len(part))] for part in parts)
    for part in (train, test):
        assert [film for film, _, _ in part] == ["a"] * (len(part) // 2) + ["b"] * (
            len(part) // 2
        )  # the end of each is held out
    assert len(train) + len(test) == 2 * 33
    assert parts[0][0].kind == parts[0][len(train) - 1].kind


def test_shots_give_their_first_second_and_every_fourth(film):
    frames = stereo_movie.stereo_movie(film, flow=Oracle(), shots=True, rate=2, trim=0.05)
    begins = [2 * FPS, 10 * FPS, 20 * FPS, 30 * FPS]  # of the scenes, the first without the film's first two seconds
    ends = [*begins[1:], 38 * FPS]
    wanted = [n for a, b in zip(begins, ends, strict=True) for w in range(a, b - FPS + 1, 4 * FPS) for n in (w, w + FPS // 2)]
    assert [int(frame.key.rpartition("/")[2]) for frame in frames.records] == wanted


@pytest.mark.parametrize("layout", ["side_by_side", "over_under"])
@pytest.mark.parametrize("eyes_first", ["left_right", "right_left"])
def test_the_layout_is_found_and_bars_are_cut_off(layout, eyes_first, tmp_path):
    bar = np.zeros((20, WIDTH, 3), np.uint8)

    def frame(second):
        pair = [np.concatenate([bar, eye, bar], 0) for eye in eyes(second)]
        return np.concatenate(pair if eyes_first == "left_right" else pair[::-1], 1 if layout == "side_by_side" else 0)

    file = encode(tmp_path / "film.mkv", [frame(n) for n in range(5)], fps=1)
    frames = stereo_movie.stereo_movie(file, flow=Oracle(), eyes=eyes_first, trim=0)
    assert cut(frames).layout == layout
    assert not cut(frames).squeezed
    assert np.array_equal(frames[2].image, eyes(2)[0])
    assert affine_error(frames[2].label, inverse_depth(2), frames[2].valid)[0] < 1e-4


def test_bars_of_single_frames_are_not_valid(tmp_path):
    def frame(second):
        pair = [eye.copy() for eye in eyes(second)]
        for eye in pair:
            eye[-8:] *= second != 2
        return np.concatenate(pair, 1)

    file = encode(tmp_path / "film.mkv", [frame(n) for n in range(5)], fps=1)
    frames = stereo_movie.stereo_movie(
        file, flow=lambda a, b: flows(2)[0 if np.array_equal(a[:56], eyes(2)[0][:56]) else 1], trim=0
    )
    assert cut(frames).area == (slice(0, HEIGHT), slice(0, WIDTH))
    assert not frames[2].valid[-8:].any()
    assert frames[2].valid[:-8].mean() > 0.8


def test_squeezed_pictures_get_their_aspect_back(tmp_path):
    def frame(second):
        return np.concatenate([eye[:, ::2] for eye in eyes(second)], 1)  # 64 x 64 each

    file = encode(tmp_path / "film.mkv", [frame(n) for n in range(5)], fps=1)
    frames = stereo_movie.stereo_movie(file, flow=Oracle(), trim=0)
    assert cut(frames).squeezed
    assert frames.image(frames.records[0].image).shape == (HEIGHT // 2, WIDTH // 2, 3)
    small = stereo_movie.stereo_movie(file, flow=Oracle(), trim=0, squeezed=False, height=16)
    assert small.image(small.records[0].image).shape == (16, 16, 3)


def test_a_killed_run_continues_with_the_frames_that_are_missing(film, tmp_path):
    def run(calls, **options):
        frames = stereo_movie.stereo_movie(film, flow=Oracle(tmp_path / calls))
        options = {"split": "train", "dataset": "film", "samples_per_shard": 5, **options}
        return write_shards(frames, tmp_path / "out", **options), frames

    class Killed(Exception):
        pass

    class Fatal(Oracle):
        def __call__(self, first, second):
            if round((float(first[:8, :8].mean()) - 40) / 5) == 16:
                raise Killed
            return super().__call__(first, second)

    with pytest.raises(Killed):
        write_shards(
            stereo_movie.stereo_movie(film, flow=Fatal()), tmp_path / "out", split="train", dataset="film", samples_per_shard=5
        )
    report, frames = run("calls", resume=True)
    assert report.skipped == 9  # of the ten frames of two shards
    assert report.samples == 22
    assert len(report.rejects) == 2
    assert (tmp_path / "calls").stat().st_size == 2 * 23  # both ways, not for what was left out before
    assert verify(tmp_path / "out").ok
    keys = [
        raw.key
        for shard in report.shards
        for raw in read_shard(str(tmp_path / "out" / shard.name), 0, shard.samples, total=shard.samples, wanted=lambda n: False)
    ]
    assert sorted(keys) == sorted(frames.key(n) for n in range(33) if n + 4 not in (FLAT, TORN))


def test_frames_travel_to_other_processes(film):
    frames = stereo_movie.stereo_movie(film, flow=Oracle())
    here, there = frames[2], pickle.loads(pickle.dumps(frames))[2]
    assert np.array_equal(here.image, there.image)
    assert np.array_equal(here.label, there.label)


def test_damage_is_told_and_the_rest_is_kept(film, tmp_path):
    with av.open(str(film)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        inside = [packet for packet in packets if not packet.is_keyframe and 5 < packet.pts * packet.time_base < 35]
        lost = max(inside, key=lambda packet: packet.size)
    data = bytearray(film.read_bytes())
    data[lost.pos : lost.pos + lost.size] = bytes(lost.size)
    (tmp_path / "damaged.mp4").write_bytes(data)
    frames = stereo_movie.stereo_movie(tmp_path / "damaged.mp4", flow=Oracle())
    report = write_shards(frames, tmp_path / "out", split="train", dataset="film")
    damaged = [reason for _, reason in report.rejects if "damaged" in reason]
    assert 1 <= len(damaged) <= 3  # up to the next key frame
    assert report.samples == 31 - len(damaged)


@pytest.mark.parametrize(
    ("pictures", "options", "message"),
    [
        (4, {}, "at least 2 samples; got 3.0 s, .* Raise --rate"),
        (12, {"mono": True}, "expected stereo, two pictures of the same .* What is made for one eye has no disparity"),
        (12, {"black": True, "layout": "side_by_side"}, "expected pictures; all frames looked at are black"),
    ],
)
def test_a_film_that_gives_nothing_is_an_error(pictures, options, message, tmp_path):
    mono, black = options.pop("mono", False), options.pop("black", False)
    rng = np.random.default_rng(0)
    shown = [rng.integers(60, 256, (64, 128, 3), np.uint8) if mono else side_by_side(n) for n in range(pictures)]
    file = encode(tmp_path / "film.mkv", [picture * (not black) for picture in shown], fps=1)
    with pytest.raises(DepthKitError, match=message):
        stereo_movie.stereo_movie(file, flow=Oracle(), **options, **({"trim": 0.45} if pictures == 4 else {}))


def test_one_picture_twice_is_left_out_frame_by_frame(tmp_path):
    file = encode(tmp_path / "film.mkv", [np.concatenate([eyes(n)[0]] * 2, 1) for n in range(5)], fps=1)
    frames = stereo_movie.stereo_movie(file, flow=lambda a, b: np.zeros((HEIGHT, WIDTH, 2)))
    with pytest.raises(DepthKitError, match=r"got none, 4 .*the first, .*: its disparities span no more than 8 px"):
        write_shards(frames, tmp_path / "out", split="train", dataset="film")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"rate": 0}, RecipeError, "rate above 0"),
        ({"trim": 0.5}, RecipeError, "trim from 0 to below 0.5"),
        ({"rules": "dpt"}, RecipeError, "rules among gp2, midas; got 'dpt'"),
        ({"views": "video"}, LabelError, "views single or stereo"),
        ({"layout": "diagonal"}, RecipeError, "layout to be one of auto, side_by_side, over_under"),
    ],
)
def test_mistakes_are_told(film, options, error, message):
    with pytest.raises(error, match=message):
        stereo_movie.stereo_movie(film, flow=Oracle(), **options)


def test_weights_that_do_not_read_are_told_before_anything_is_written(film, tmp_path):
    (tmp_path / "raft.pth").write_bytes(b"none")
    with pytest.raises(CheckpointError, match=r"expected weights of RAFT, large, in .*raft.pth; .* give --weights raft_large"):
        stereo_movie.stereo_movie(film, weights=tmp_path / "raft.pth")


def test_layouts_are_named():
    assert [str(layout) for layout in Layout] == ["auto", "side_by_side", "over_under"]


def test_the_command_writes_a_film(film, tmp_path, monkeypatch, capsys):
    from depthkit.cli.main import main

    class Known(Oracle):
        def __init__(self, weights):
            super().__init__()
            assert weights is None

        def ready(self):
            return self

    monkeypatch.setattr(stereo_movie, "Raft", Known)
    main(["shards", "write", "stereo-movie", str(film), str(tmp_path / "out"), "--holdout=0.25", "--rules=midas"])
    index = ShardIndex.load(tmp_path / "out")
    assert index.samples("train") + index.samples("test") == 33 - 3  # FLAT, TORN and ROLLED
    assert "over 10% of its pixels move" in " ".join(capsys.readouterr().out.split())
