"""Real recordings through the folder converter, shards and back."""

import cv2
import numpy as np
import pytest

from depthkit.convert import folder, video
from depthkit.shards import DepthFormat, ShardIndex, decode_sample, encode_sample, verify, write_shards
from depthkit.shards.reading import read_shard
from depthkit.types import Ambiguity, LabelKind, Representation

METRIC_DEPTH = LabelKind(Ambiguity.METRIC, Representation.DEPTH)
RGBD = {
    "habitat_render": 7,
    "hololens_office": 187,
    "icl_nuim_livingroom": 5,
    "kitti_raw_drive": 78,
    "nuscenes_one_moment": 6,
    "sevenscenes_redkitchen": 97,
    "slambook_room": 5,
}


@pytest.fixture
def recording(request, real):
    return real(request.param)


def read(root):
    index = ShardIndex.load(root)
    for shard in index.shards("train"):
        for raw in read_shard(index.url(shard), 0, shard.samples, total=shard.samples):
            yield raw, decode_sample(raw.key, raw.members, where=shard.name)


@pytest.mark.quick(recording=["slambook_room", "nuscenes_one_moment", "habitat_render"])
@pytest.mark.parametrize(("recording", "count"), RGBD.items(), indirect=["recording"])
def test_every_depth_and_image_file_comes_back_as_it_was(recording, count, tmp_path):
    frames = folder.folder(recording)
    report = write_shards(
        frames,
        tmp_path,
        split="train",
        dataset=recording.name,
        originals=recording,
        depth_format="png_linear16",
        samples_per_shard=64,
    )
    assert (report.samples, report.rejects) == (count, ())
    assert verify(tmp_path, decode=False).ok
    assert ShardIndex.load(tmp_path).kind("train") == METRIC_DEPTH
    stored = 0
    for frame, (raw, sample) in zip(frames.records, read(tmp_path), strict=True):
        assert sample.key == frame.key
        millimetres = cv2.imread(str(recording / frame.label), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(sample.valid, millimetres > 0)
        assert np.array_equal(np.rint(sample.label[sample.valid] * 1000), millimetres[sample.valid])
        assert sample.intrinsics is not None
        if frame.image.endswith("jpg"):
            stored += raw.members["image.jpg"] == (recording / frame.image).read_bytes()
    assert stored == sum(frame.image.endswith("jpg") for frame in frames.records)


@pytest.mark.parametrize("recording", RGBD, indirect=True)
def test_depth_in_logarithmic_codes_is_within_half_a_step_of_the_files(recording):
    frames = folder.folder(recording)
    for position in range(0, len(frames), 20):
        sample = frames[position]
        got = decode_sample(sample.key, encode_sample(sample, depth_format=DepthFormat.PNG_LOG16), where="here")
        assert np.array_equal(got.valid, sample.valid)
        ratio = got.label[got.valid].astype(np.float64) / sample.label[got.valid]
        assert np.abs(np.log(ratio)).max() <= 2.0**-13 + 1e-6


@pytest.mark.parametrize("recording", ["middlebury_stereo"], indirect=True)
def test_disparity_of_unknown_offset_is_kept_in_pixels_with_its_partner(recording):
    frames = folder.folder(recording, views="stereo")
    assert frames.kind == LabelKind(Ambiguity.SHIFT_SCALE, Representation.DISPARITY)
    for frame, sample in zip(frames.records, frames, strict=True):
        pixels = cv2.imread(str(recording / frame.label), cv2.IMREAD_UNCHANGED) / 256
        got = decode_sample(sample.key, encode_sample(sample, depth_format="png_linear16"), where="here")
        span = pixels[pixels > 0].max() - pixels[pixels > 0].min()
        assert np.array_equal(got.valid, pixels > 0)
        assert np.abs(got.label - pixels)[got.valid].max() <= span / 65533 / 2 + 1e-5
        assert got.frames["stereo"].shape == got.image.shape


@pytest.mark.parametrize("recording", ["middlebury_stereo"], indirect=True)
def test_metric_disparity_of_the_one_calibrated_pair_is_the_inverse_of_its_depth(recording):
    depth = folder.folder(recording, label="depth")[0]
    disparity = folder.folder(recording, label="disparity", ambiguity="metric", stop=1)[0]
    both = depth.valid & disparity.valid
    assert both.mean() > 0.9
    assert np.abs(depth.label * disparity.label - 1)[both].max() < 2e-3


@pytest.mark.parametrize("recording", ["kitti_raw_drive"], indirect=True)
def test_two_encodings_of_the_same_points_agree(recording):
    here, other = folder.folder(recording)[5], folder.folder(recording, depth_folder="depth_kitti256", depth_scale=1 / 256)[5]
    both = here.valid & other.valid
    assert both.sum() > 1000
    assert np.abs(here.label - other.label)[both].max() <= 0.5 / 256 + 0.5 / 1000 + 1e-4
    assert other.label[other.valid].max() > 65.535  # the finer encoding cannot hold what lies further away


@pytest.mark.parametrize("recording", ["fox_handheld", "kitti_odom_gray_a", "unlabelled_bsds"], indirect=True)
def test_recordings_without_depth_are_unlabelled(recording):
    sample = folder.folder(recording)[0]
    assert sample.ambiguity == Ambiguity.UNLABELLED
    assert (sample.world_from_camera is not None) == (recording.name == "kitti_odom_gray_a")  # fox is not in metres


@pytest.mark.parametrize(
    ("recording", "moving"),
    [("kitti_raw_drive", (40, 76)), ("fox_handheld", (48, 48)), ("euroc_stereo_video", (0, 0))],
    indirect=["recording"],
)
def test_a_drive_moves_and_a_drone_before_its_start_does_not(recording, moving):
    frames = folder.folder(recording, label="none", views="video", min_motion=1)
    assert moving[0] <= len(frames) <= moving[1]
    assert len(frames) + len(frames.rejects) == len(list((recording / "rgb").iterdir()))


@pytest.mark.slow
@pytest.mark.parametrize("recording", ["kitti_raw_drive"], indirect=True)
def test_a_real_drive_as_a_video_file_is_the_drive(recording, tmp_path):
    av = pytest.importorskip("av", reason="PyAV is not installed")
    pictures = [frame.image for frame in folder.folder(recording, label="none", stop=12)]
    with av.open(str(tmp_path / "drive.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "12"})
        (stream.height, stream.width), stream.pix_fmt = (374, 1242), "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[:374]), format="rgb24")))
        container.mux(stream.encode())
    frames = video.video(tmp_path / "drive.mp4", views="video", intrinsics=(721.5, 721.5, 609.6, 172.9))
    assert len(frames) == 10
    for n, sample in enumerate(frames, 1):
        for image, original in ((sample.frames["prev"], n - 1), (sample.image, n), (sample.frames["next"], n + 1)):
            errors = [np.abs(image - pictures[k][:374].astype(float)).mean() for k in range(12)]
            assert np.argmin(errors) == original
            assert errors[original] < 6  # grey levels; chroma is stored in a quarter of the pixels
