"""`depthkit shards`: what it writes, what it says, and how it refuses."""

import json

import cv2
import numpy as np
import pytest

from depthkit.cli import shards
from depthkit.cli.main import main
from depthkit.cli.shards_write import write
from depthkit.convert.catalogue import CATALOGUE
from depthkit.errors import RecipeError, ShardError
from depthkit.shards import ShardIndex, ShardWriter
from depthkit.types import Sample


@pytest.fixture
def recording(tmp_path):
    root = tmp_path / "room"
    for name in ("rgb", "depth"):
        (root / name).mkdir(parents=True)
    for n in range(10):
        cv2.imwrite(str(root / f"rgb/{n:03d}.jpg"), np.full((24, 32, 3), n, np.uint8))
        cv2.imwrite(str(root / f"depth/{n:03d}.png"), np.full((24, 32), 1000 + n, np.uint16))
    (root / "intrinsics.json").write_text(json.dumps({"fx": 30, "fy": 30, "cx": 15.5, "cy": 11.5, "width": 32, "height": 24}))
    return root


def said(capsys):
    return " ".join(capsys.readouterr().out.split())


def test_a_recording_becomes_a_train_and_a_test_split(recording, tmp_path, capsys):
    write("folder", str(recording), str(tmp_path / "out"), holdout=0.2, licence="CC0")
    assert "8 samples in 8 shards of split 'train'" in said(capsys)
    index = ShardIndex.load(tmp_path / "out")
    assert (index.dataset, index.licence, index.samples("train"), index.samples("test")) == ("room", "CC0", 8, 2)
    shards.verify([str(tmp_path / "out")])
    assert "10 samples in 10 shards are what the index says; every sample decodes" in said(capsys)
    shards.info([str(tmp_path / "out")])
    out = said(capsys)
    for word in ("room", "train", "test", "metric", "licence: CC0", f"digest: {index.digest}"):
        assert word in out


def test_scenes_are_rendered_without_a_source(tmp_path):
    out = tmp_path / "street"
    write("synthetic", "-", str(out), split="val", count=3, size=(24, 32), kind="street", seed=5, views="video")
    index = ShardIndex.load(out)
    assert (index.dataset, index.samples("val"), str(index.split("val").views)) == ("street", 3, "video")


def test_samples_left_out_are_shown_with_their_reason(recording, tmp_path, capsys):
    (recording / "depth/003.png").write_bytes(b"x")
    (recording / "depth/004.png").unlink()
    write("folder", str(recording), str(tmp_path / "out"))
    out = said(capsys)
    assert "8 samples in 8 shards" in out
    assert "2 samples were left out" in out
    assert "room/004" in out
    assert "it has no label" in out


def test_a_run_that_was_cut_short_is_continued_by_the_same_command_and_a_finished_one_is_kept(recording, tmp_path, capsys):
    out = str(tmp_path / "out")
    write("folder", str(recording), out, samples_per_shard=2)
    for number in (2, 3, 4):
        (tmp_path / f"out/train-{number:06d}.tar").unlink()
    write("folder", str(recording), out, samples_per_shard=2)
    assert "4 samples were there already" in said(capsys)
    assert ShardIndex.load(out).samples("train") == 10
    write("folder", str(recording), out, samples_per_shard=2)
    assert "split 'train' is complete" in said(capsys)
    with pytest.raises(ShardError, match="their stop was None and is 3 now"):
        write("folder", str(recording), out, stop=3, samples_per_shard=2)
    write("folder", str(recording), out, stop=3, overwrite=True)
    assert ShardIndex.load(out).samples("train") == 3


def test_a_run_that_was_cut_short_between_train_and_test_is_continued_by_the_same_command(recording, tmp_path, capsys):
    out = str(tmp_path / "out")

    def again(**options):
        write("folder", str(recording), out, holdout=0.2, **options)

    again()
    train = (tmp_path / "out/train-000000.tar").read_bytes()
    index = json.loads((tmp_path / "out/index.json").read_text())
    del index["splits"]["test"]
    (tmp_path / "out/index.json").write_text(json.dumps(index))
    for file in (tmp_path / "out").glob("test-*"):
        file.unlink()
    for options in ({"part": "1/2"}, {"part": "2/2"}):
        again(**options)
    assert "split 'train' is complete" in said(capsys)
    assert (tmp_path / "out/train-000000.tar").read_bytes() == train
    assert ShardIndex.load(out).samples("test") == 2
    again()
    assert "split 'test' is complete" in said(capsys)


def test_a_training_split_that_holds_what_is_to_be_held_out_is_not_kept(recording, tmp_path):
    out = str(tmp_path / "out")
    write("folder", str(recording), out)
    with pytest.raises(ShardError, match=r"their holdout was 0\.0 and is 0\.2 now"):
        write("folder", str(recording), out, holdout=0.2)
    assert not list((tmp_path / "out").glob("test-*"))


def test_a_folder_of_frames_becomes_video_and_what_is_left_out_is_counted_by_reason(recording, tmp_path, capsys):
    options = {"label": "none", "views": "video", "spacing": 2, "intrinsics": (30, 30, 15.5, 11.5)}
    write("folder", str(recording / "rgb"), str(tmp_path / "out"), name="room", **options)
    out = said(capsys)
    assert "6 samples in 6 shards" in out
    assert "4 samples were left out" in out
    assert "│ 2 │ rgb/000 │ there is no frame 2 before it │" in out
    split = ShardIndex.load(tmp_path / "out").split("train")
    assert (str(split.views), split.intrinsics) == ("video", True)
    with pytest.raises(ShardError, match=r"got none, 10 were left out; the first, rgb/000: there is no frame 1 before it"):
        write("folder", str(recording / "rgb"), str(tmp_path / "still"), label="none", views="video", min_motion=1.0)


def test_a_video_file_becomes_shards_named_after_it(tmp_path, capsys):
    av = pytest.importorskip("av", reason="PyAV is not installed")
    with av.open(str(tmp_path / "my drive.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        for n in range(8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((24, 32, 3), 20 * n, np.uint8), format="rgb24")))
        container.mux(stream.encode())
    write("video", str(tmp_path / "my drive.mp4"), str(tmp_path / "out"), holdout=0.5, views="video", every=2)
    index = ShardIndex.load(tmp_path / "out")
    assert (index.dataset, index.samples("train"), index.samples("test")) == ("my drive", 1, 1)
    assert "without intrinsics" in said(capsys)
    shards.verify([str(tmp_path / "out")])


def test_kitti_drives_become_shards_by_a_list(tmp_path):
    root, drive = tmp_path / "kitti", "2011_09_26/2011_09_26_drive_0001_sync"
    folder = root / drive / "image_02/data"
    folder.mkdir(parents=True)
    for n in range(4):
        cv2.imwrite(str(folder / f"{n:010d}.jpg"), np.full((24, 32, 3), n, np.uint8))
    calibration = "P_rect_02: 30 0 15 1.8 0 30 11 0 0 0 1 0\nR_rect_00: 1 0 0 0 1 0 0 0 1\n"
    (root / "2011_09_26/calib_cam_to_cam.txt").write_text(calibration)
    (tmp_path / "train_files.txt").write_text("".join(f"{drive} {n} l\n" for n in range(4)))
    options = {"split_file": str(tmp_path / "train_files.txt"), "views": "video"}
    write("kitti_raw", str(root), str(tmp_path / "out"), **options)
    split = ShardIndex.load(tmp_path / "out").split("train")
    assert (sum(shard.samples for shard in split.shards), split.intrinsics) == (2, True)


def test_every_dataset_is_listed_with_its_label_and_its_published_size(capsys):
    main(["shards", "write", "--list"])
    out = said(capsys)
    for name, dataset in CATALOGUE.items():
        assert f" {name} " in out
        assert all(f"{split} {count:,}" in out for split, count in dataset.published.items() if count)


def test_a_published_dataset_is_written_by_its_split_with_its_licence(tmp_path):
    from tests.convert.test_virtual_kitti import write_variation

    write_variation(tmp_path / "vkitti", "Scene01", "clone")
    options = ["--variations", "[clone]", "--split", "val"]
    main(["shards", "write", "virtual_kitti", str(tmp_path / "vkitti"), str(tmp_path / "out"), *options])
    index = ShardIndex.load(tmp_path / "out")
    assert (index.dataset, index.licence, index.samples("val")) == ("virtual_kitti", "CC BY-NC-SA 3.0", 4)
    assert str(index.split("val").kind) == "metric depth"
    shards.verify([str(tmp_path / "out")])


def test_rendered_videos_have_moving_things_and_still_cameras(tmp_path):
    write("synthetic", "-", str(tmp_path), count=2, size=(24, 32), views="video", moving=1.0, still=1.0, spacing=2)
    assert str(ShardIndex.load(tmp_path).split("train").views) == "video"


@pytest.mark.parametrize(
    ("dataset", "options", "says"),
    [
        ("folder", {"count": 3}, r"options of dataset folder: .*depth_folder.*; got count. Leave count out"),
        ("tum", {"label": "depth"}, "options of dataset tum: .*intrinsics.*; got label"),
        (
            "synthetic",
            {"holdout": 0.2, "count": 3},
            "options of dataset synthetic: count, kind, moving, noise, seed, size, spacing, still, views; got holdout",
        ),
        ("synthetic", {}, "expected option count for dataset synthetic; got none. Give --count"),
        (
            "video",
            {"depth_folder": "d"},
            "options of dataset video: every, first, holdout, intrinsics, max_spacing, .*; got depth_folder",
        ),
        (
            "kitti_raw",
            {"holdout": 0.2},
            "options of dataset kitti_raw: label, max_spacing, min_motion, spacing, split_file, views;",
        ),
        ("kitti_raw", {}, "expected option split_file for dataset kitti_raw; got none. Give --split_file"),
        ("tum", {"every": 2}, "options of dataset tum: .*; got every"),
    ],
)
def test_an_option_of_another_dataset_is_an_error(dataset, options, says, tmp_path):
    with pytest.raises(RecipeError, match=says):
        write(dataset, str(tmp_path), str(tmp_path / "out"), **options)
    assert not (tmp_path / "out").exists()


def test_damage_is_listed_and_raised(tmp_path, capsys):
    with ShardWriter(tmp_path, split="train", dataset="photos", samples_per_shard=1) as writer:
        for n in range(2):
            writer.write(Sample(f"p{n}", np.full((8, 9, 3), n, np.uint8)))
    for n in range(2):
        (tmp_path / f"train-{n:06d}.tar").write_bytes(b"x" * 100)
    with pytest.raises(ShardError, match=r"train-000000.tar: it is not the file of the index: 100 bytes for .*more\)"):
        shards.verify([str(tmp_path)])
    assert "4 problems" in said(capsys)


def test_several_roots_are_checked_and_listed_without_brackets(tmp_path, capsys):
    roots = [tmp_path / "a", tmp_path / "b"]
    for root in roots:
        main(["shards", "write", "synthetic", "-", str(root), "--count", "2", "--size", "16", "24"])
    capsys.readouterr()
    main(["shards", "verify", *map(str, roots), "--decode", "false"])
    assert capsys.readouterr().out.count("2 samples in") == 2
    main(["shards", "info", *map(str, roots)])
    assert capsys.readouterr().out.count("digest:") == 2
    next(roots[0].glob("*.tar")).write_bytes(b"")
    with pytest.raises(SystemExit) as stop:
        main(["shards", "verify", *map(str, roots)])
    streams = capsys.readouterr()
    assert stop.value.code == 2
    assert f"{roots[1]}: 2 samples in" in streams.out
