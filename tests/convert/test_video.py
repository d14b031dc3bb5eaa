"""Laws of video files: a frame is the one shown at its time however it is reached, and what is damaged is told, not guessed."""

import builtins
import pickle
import random
import re
import struct
import sys
from fractions import Fraction

import numpy as np
import pytest

from depthkit.convert import video
from depthkit.convert.video import Video
from depthkit.errors import DepthKitError, GeometryError, LabelError, RecipeError, ShapeError
from depthkit.shards import ShardIndex, verify, write_shards
from depthkit.types import Ambiguity

av = pytest.importorskip("av", reason="PyAV is not installed")
K = (40.0, 41.0, 31.5, 23.5)
TEXTURE = np.kron(np.random.default_rng(0).integers(0, 256, (12, 90, 3), dtype=np.uint8), np.ones((4, 4, 1), np.uint8))


def shown(n):
    """What frame n shows: a camera that pans 2 px per frame."""
    return np.ascontiguousarray(TEXTURE[:, 2 * n : 2 * n + 64])


def encode(path, pictures, codec="libx264", start=0):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.codec_context.gop_size = "yuv420p", 10
        for n, picture in enumerate(pictures, start):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = n, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def decoded(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def without(path, n):
    """A copy in which the bytes of frame n are all 0."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        (lost,) = [packet for packet in packets if round(float(packet.pts * packet.time_base * 25)) == n]
        data, copy = bytearray(path.read_bytes()), path.with_stem(f"damaged_{path.stem}")
        data[lost.pos : lost.pos + lost.size] = bytes(lost.size)
    copy.write_bytes(data)
    return copy


def begin(path, share):
    """A copy of the file's begin."""
    copy = path.with_stem(f"cut_{path.stem}")
    copy.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    return copy


@pytest.fixture
def clip(tmp_path):
    return encode(tmp_path / "my clip.1.mp4", [shown(n) for n in range(40)])


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.ts", "mpeg2video"), ("a.avi", "mpeg4")]
)
@pytest.mark.parametrize("memory", [0, video._MEMORY])
def test_a_frame_does_not_depend_on_the_order_of_access(name, codec, memory, tmp_path, monkeypatch):
    monkeypatch.setattr(video, "_MEMORY", memory)
    file = encode(tmp_path / name, [shown(n) for n in range(40)], codec)
    expected, clip = decoded(file), Video(file)
    assert len(clip) == len(expected) == 40
    for n in [*range(40), *random.Random(1).choices(range(40), k=60), *reversed(range(40))]:
        assert np.array_equal(clip[n], expected[n])
    assert np.array_equal(clip[-1], expected[-1])
    assert len(clip[5:8]) == 3


def test_frames_become_samples_with_their_neighbours_and_the_camera(clip):
    expected = decoded(clip)
    frames = video.video(clip, views="video", spacing=3, every=5, intrinsics=K)
    assert [f.key for f in frames.records] == [f"my_clip_1/{n:06d}" for n in range(5, 40, 5) if n + 3 < 40]
    for n, s in zip(range(5, 40, 5), frames, strict=True):
        assert np.array_equal(s.image, expected[n])
        assert np.array_equal(s.frames["prev"], expected[n - 3])
        assert np.array_equal(s.frames["next"], expected[n + 3])
        assert s.intrinsics.tolist() == [[40, 0, 31.5], [0, 41, 23.5], [0, 0, 1]]
        assert s.ambiguity == Ambiguity.UNLABELLED
        assert s.source["image"] == f"my clip.1.mp4#{n}"
    assert frames.rejects == (("my_clip_1/000000", "there is no frame 3 before it"),)


def test_parts_hold_every_frame_once_and_neighbours_stay_in_them(clip):
    parts = [video.video(clip, split, holdout=0.25) for split in ("train", "test")]
    assert [frame.key for part in parts for frame in part.records] == [frame.key for frame in video.video(clip).records]
    train = video.video(clip, "train", holdout=0.25, views="video")
    assert train.records[-1].views["next"] == "my clip.1.mp4#29"
    assert next(iter(video.video(clip, first=7, stop=8))).key == "my_clip_1/000007"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_video_is_written_by_any_number_of_processes(clip, workers, tmp_path):
    frames = video.video(clip, views="video")
    frames[0]
    pickle.dumps(frames)  # an open file does not travel
    report = write_shards(frames, tmp_path / "out", split="train", dataset="clip", workers=workers)
    assert (report.samples, len(report.rejects)) == (38, 2)
    assert verify(tmp_path / "out").ok
    assert str(ShardIndex.load(tmp_path / "out").split("train").views) == "video"


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("step", [1, -1])
def test_what_builds_on_a_damaged_frame_is_refused_with_its_time_and_the_rest_is_as_it_was(codec, step, tmp_path):
    file = encode(tmp_path / "a.mp4", [shown(n) for n in range(40)], codec)
    expected, clip, refused = decoded(file), Video(without(file, 15)), []
    for n in list(range(40))[::step]:
        try:
            assert np.array_equal(clip[n], expected[n])
        except DepthKitError:
            refused.append(n)
    with pytest.raises(DepthKitError, match=r"damaged_a.mp4: frame 15 \(0.600 s\): expected a picture that decodes"):
        clip[15]
    assert {15, 19} <= set(refused) <= set(range(10, 20))  # of its group of ten, what was encoded later
    report = write_shards(video.video(without(file, 15)), tmp_path / "out", split="train", dataset="clip")
    assert [reject.name for reject in report.rejects] == [f"damaged_a/{n:06d}" for n in sorted(refused)]


def test_a_file_that_ends_early_says_so(clip, tmp_path):
    with pytest.raises(DepthKitError, match=r"cut_my clip.1.mp4: expected a video file; it does not open"):
        Video(begin(clip, 0.5))
    assert 10 < len(Video(begin(encode(tmp_path / "a.mkv", [shown(n) for n in range(40)]), 0.6))) < 40
    avi = encode(tmp_path / "a.avi", [shown(n) for n in range(40)], "mpeg4")
    (*_, last) = video.video(begin(avi, 0.6)).rejects
    assert re.fullmatch(r"the file ends \d+ frames early", last.reason)


def test_frames_of_another_size_are_refused(tmp_path):
    a = encode(tmp_path / "a.ts", [shown(n) for n in range(10)], "mpeg4")
    b = encode(tmp_path / "b.ts", [shown(n)[:32, :48] for n in range(10)], "mpeg4", start=10)
    a.write_bytes(a.read_bytes() + b.read_bytes())
    clip = Video(a)
    assert clip[5].shape == (48, 64, 3)
    with pytest.raises(ShapeError, match=r"a.ts: frame 15 .*expected 64 x 48 pixels, as the video begins; got 48 x 32"):
        clip[15]


def test_a_telephone_held_upright_gives_upright_pictures(clip, tmp_path):
    flat, turned = encode(tmp_path / "flat.mp4", [shown(n) for n in range(3)]), tmp_path / "turned.mp4"
    data = bytearray(flat.read_bytes())
    matrix = data.index(b"tkhd") + 44  # of the track's header, in 16.16 and 2.30 fixed point: right becomes up
    data[matrix : matrix + 36] = struct.pack(">9i", 0, -(1 << 16), 0, 1 << 16, 0, 0, 0, 0, 1 << 30)
    turned.write_bytes(data)
    assert np.array_equal(Video(turned)[1], np.rot90(Video(flat)[1]))


def test_what_stands_still_is_left_out_and_counted(tmp_path):
    still = encode(tmp_path / "still.mp4", [shown(min(n, 10)) for n in range(25)])
    frames = video.video(still, views="video", min_motion=1)
    assert [int(frame.key[-2:]) for frame in frames.records] == list(range(1, 10))
    reasons = [reject.reason for reject in frames.rejects]
    assert reasons.count("the picture moves less than 1 px within 1 frame") == 14
    with pytest.raises(RecipeError, match=r"expected views video or video_stereo with spacing.*got views single"):
        video.video(still, min_motion=1)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"intrinsics": (40, 41, 31.5)}, GeometryError, "expected finite fx, fy, cx, cy .*got 40, 41, 31.5"),
        ({"intrinsics": (float("nan"), 41, 31, 23)}, GeometryError, "expected finite fx, fy, cx, cy .*got nan"),
        ({"intrinsics": (-40, 41, 31, 23)}, GeometryError, "fx and fy above 0; got -40"),
        ({"intrinsics": (0.58, 1.92, 0.5, 0.5)}, GeometryError, "look like fractions of the image's size. Multiply"),
        ({"views": "stereo"}, LabelError, "A video file has no second camera"),
        ({"views": "both"}, RecipeError, "expected views to be one of single, video"),
        ({"every": 0}, RecipeError, "expected every to be 1"),
        ({"views": "video", "spacing": 0}, RecipeError, "expected 1 <= spacing <= max_spacing"),
        ({"views": "video", "max_spacing": 3}, RecipeError, "expected min_motion above 0 with max_spacing 3"),
    ],
)
def test_options_that_cannot_be_are_refused(clip, options, error, says):
    with pytest.raises(error, match=says):
        video.video(clip, **options)


def test_intrinsics_of_a_larger_picture_are_refused(clip):
    with pytest.raises(GeometryError, match=r"#0: expected a principal point inside of the 64 x 48 pixels; got cx 320, cy 240"):
        video.video(clip, intrinsics=(500, 500, 320, 240))[0]


def test_what_is_no_video_is_refused(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    for path, says in [
        ("a.mp4", "a.mp4: expected a video file; it does not open"),
        ("b.mp4", "expected a video file at .*b.mp4; found nothing"),
        (".", "found a folder. Use dataset folder"),
    ]:
        with pytest.raises(DepthKitError, match=says):
            Video(tmp_path / path)
    bare = encode(tmp_path / "bare.h264", [shown(n) for n in range(3)])
    with pytest.raises(DepthKitError, match=r"bare.h264: expected a video with time stamps; got 3 packets, some without"):
        Video(bare)


def test_without_pyav_the_extra_is_named(clip, monkeypatch):
    real = builtins.__import__

    def no_av(name, *args, **options):
        if name == "av":
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", no_av)
    with pytest.raises(DepthKitError, match=r"expected PyAV to read video files; .*pip install 'depthkit\[video\]'"):
        Video(clip)


def test_a_folder_of_videos_is_one_dataset_of_many_sources(clip, tmp_path):
    folder = tmp_path / "films"
    folder.mkdir()
    (folder / "a.mp4").write_bytes(clip.read_bytes())
    (folder / "b.MP4").write_bytes(clip.read_bytes())
    (folder / "c.mp4").write_bytes(b"no film")
    (folder / "notes.txt").write_text("not read")
    one, both = video.video(clip, "train", holdout=0.25, every=5), video.video(folder, "train", holdout=0.25, every=5)
    assert len(both) == 2 * len(one)
    assert [both.key(n).partition("/")[0] for n in range(len(both))] == ["a"] * len(one) + ["b"] * len(one)
    assert np.array_equal(both[len(one)].image, one[0].image)
    assert [reject.name for reject in both.rejects] == ["c.mp4"]
    report = write_shards(both, tmp_path / "out", split="train", dataset="films", workers=2)
    assert report.samples == len(both)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DepthKitError, match=r"expected films \(.mp4, .*\) under .*empty; found nothing"):
        video.video(tmp_path / "empty")


def test_a_video_of_too_many_pixels_is_refused_by_its_header_and_by_its_decoder(clip, monkeypatch):
    known = Video(clip)
    monkeypatch.setattr(sys.modules["depthkit.convert.video"], "MAX_PIXELS", 64 * 48 - 1)
    with pytest.raises(DepthKitError, match="expected pictures of at most 3071 pixels; got 64 x 48"):
        Video(clip)
    with pytest.raises(DepthKitError, match="expected pictures of at most 3071 pixels"):  # a file that was changed since
        known[0]
