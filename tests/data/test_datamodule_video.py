"""Laws of images with further views: from scenes through shards to batches, what belongs together stays together."""

import json
from functools import cache
from itertools import islice

import numpy as np
import pytest
import torch

from depthkit.data import DepthDataModule, ShardSource, ShardWriter, VideoDataModule
from depthkit.data.stream.collate import collate, frame_names, padding, to_float
from depthkit.data.transforms import Compose, HorizontalFlip, Resize, flip, resize
from depthkit.errors import GeometryError, RecipeError, ShapeError
from depthkit.geometry import inside_image, reproject, warp
from depthkit.synthetic import SyntheticScenes
from depthkit.types import Batch, Sample, Views

SIZE = (24, 40)
ALL = [Views.VIDEO, Views.STEREO, Views.VIDEO_STEREO]


@cache
def scenes():
    return list(SyntheticScenes(10, size=SIZE, kind="mixed", views=Views.VIDEO_STEREO, noise=0.0))


def write(root, samples, **options):
    with ShardWriter(root, split="train", dataset="v", samples_per_shard=3, image_format="png", **options) as writer:
        for sample in samples:
            writer.write(sample)
    return ShardSource(str(root))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write(tmp_path_factory.mktemp("video"), scenes(), depth_format="npy")


def module(source, **options):
    return VideoDataModule([source], **{"size": SIZE, "batch_size": 2, "views": Views.VIDEO_STEREO, **options})


def same(batches, others):
    for a, b in zip(batches, others, strict=True):
        assert (a.keys, a.frame_names) == (b.keys, b.frame_names)
        for name in ("image", "frames", "frames_from_camera", "intrinsics", "target"):
            torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=0, atol=0, equal_nan=True)


@pytest.mark.quick(views=["video", "stereo"])
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("views", ALL)
def test_scenes_come_back_from_shards_with_their_views_and_poses(source, views, workers):
    data = module(
        source, views=views, transform=Resize(SIZE), num_workers=workers, multiprocessing_context="fork" if workers else None
    )
    by_key = {sample.key: sample for sample in scenes()}
    seen = []
    for batch in data.train_dataloader():
        assert batch.frame_names == views.frames
        assert batch.frames.shape == (2, len(views.frames), 3, *SIZE)
        assert batch.frames.dtype == torch.float32
        for row, key in enumerate(batch.keys):
            for view, name in enumerate(batch.frame_names):
                pixels = torch.from_numpy(by_key[key].frames[name]).permute(2, 0, 1)
                assert torch.equal((batch.frames[row, view] * 255).round().to(torch.uint8), pixels)
                pose = torch.from_numpy(by_key[key].frames_from_camera[name]).float()
                torch.testing.assert_close(batch.frames_from_camera[row, view], pose, rtol=0, atol=0)
        seen += batch.keys
    assert sorted(seen) == sorted(by_key)


@pytest.mark.quick(context=["fork"])
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_batches_with_views_outlive_the_memory_they_came_in(source, context):
    whole = [module(source, num_workers=n, multiprocessing_context=context, epoch_size=40) for n in (1, 0)]
    kept, expected = (list(data.train_dataloader()) for data in whole)
    same(kept, expected)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", [1, 4])
def test_a_restored_loader_goes_on_with_the_next_unseen_batch(source, workers, stop):
    make = {"num_workers": workers, "multiprocessing_context": "fork"}
    whole = module(source, **make).train_dataloader()
    expected = [*whole, *whole]
    interrupted = module(source, **make).train_dataloader()
    seen = list(islice(interrupted, stop))
    restored = module(source, **make).train_dataloader()
    restored.load_state_dict(json.loads(json.dumps(interrupted.state_dict())))
    same([*seen, *restored, *restored], expected)


def test_default_transforms_change_no_colour_and_mirror_half_of_the_samples(source):
    data = module(source, epoch_size=60)
    plain = {s.key: torch.from_numpy(s.image).permute(2, 0, 1) for s in scenes()}
    mirrored = 0
    for batch in data.train_dataloader():
        for key, image in zip(batch.keys, (batch.image * 255).round().to(torch.uint8), strict=True):
            here = torch.equal(image, plain[key].flip(-1))
            assert here or torch.equal(image, plain[key])
            mirrored += here
    assert 15 <= mirrored <= 45
    (scaled,) = VideoDataModule([source], batch_size=10).train_dataloader()
    assert scaled.frames.shape == (10, 2, 3, 192, 640)


def test_mirrored_twice_nothing_has_changed():
    for sample in islice(scenes(), 4):
        twice = flip(flip(sample))
        assert np.array_equal(twice.image, sample.image)
        assert np.allclose(twice.intrinsics, sample.intrinsics)
        for name, frame in sample.frames.items():
            assert np.array_equal(twice.frames[name], frame)
            assert np.allclose(twice.frames_from_camera[name], sample.frames_from_camera[name])


def test_the_partner_of_a_mirrored_pair_is_on_the_other_side():
    sample = scenes()[0]
    assert flip(sample).frames_from_camera["stereo"][0, 3] == -sample.frames_from_camera["stereo"][0, 3] != 0


@pytest.mark.quick(name=["next", "stereo"])
@pytest.mark.parametrize("name", ["prev", "next", "stereo"])
@pytest.mark.parametrize("change", [None, flip, lambda s: resize(s, 48, 120), lambda s: flip(resize(s, 60, 80))])
def test_true_depth_and_motion_explain_every_view_also_after_a_change(name, change):
    """The view warped to the image differs from it by far less than the view itself does."""
    rendered = SyntheticScenes(3, size=(96, 160), kind="room", views=Views.VIDEO_STEREO, noise=0.0, seed=2)
    before = after = 0.0
    for sample in rendered:
        sample = sample if change is None else change(sample)
        batch = to_float(collate([sample], [0]))
        view = batch.frame_names.index(name)
        pose, frame = batch.frames_from_camera[:, view], batch.frames[:, view]
        warped = warp(frame, batch.target, batch.intrinsics, pose)
        inside = inside_image(reproject(batch.target, batch.intrinsics, pose), sample.size)
        before += float((frame - batch.image).abs().where(inside, 0).mean())
        after += float((warped - batch.image).abs().where(inside, 0).mean())
    assert after < 0.4 * before


def test_a_batch_without_views_has_none_and_keeps_to_its_rows_and_device():
    sample = scenes()[0].replace(frames={}, frames_from_camera={})
    for batch in (to_float(collate([sample] * 3, [0] * 3)), _bare(3)):
        assert (batch.frames.shape, batch.frames_from_camera.shape) == ((3, 0, 3, *SIZE), (3, 0, 4, 4))
        assert batch.frame_names == ()
        rows = batch.rows(torch.tensor([True, False, True])).to("cpu")
        assert (rows.frames.shape, rows.frames_from_camera.shape) == ((2, 0, 3, *SIZE), (2, 0, 4, 4))


def _bare(rows):
    maps = torch.zeros(rows, 1, *SIZE)
    number = torch.zeros(rows, dtype=torch.int64)
    return Batch(
        torch.zeros(rows, 3, *SIZE),
        *(maps, maps > 0, maps > 0, number, number, number),
        *(torch.zeros(rows, 3, 3), number == 0, ("a",) * rows, torch.zeros(rows, 0, 5, dtype=torch.int64)),
    )


def test_rows_keep_their_views_and_unknown_poses_are_nan():
    sample = scenes()[0].replace(frames_from_camera={"stereo": np.eye(4)})
    batch = to_float(collate([padding(sample), sample], [0, 0]))
    assert batch.frame_names == frame_names(sample) == ("prev", "next", "stereo")
    kept = batch.rows(torch.tensor([False, True]))
    assert torch.equal(kept.frames[0], batch.frames[1])
    assert kept.frames_from_camera.isfinite().flatten(2).all(2).tolist() == [[False, False, True]]
    assert not batch.frames[0].any()


def test_samples_of_unlike_views_make_no_batch():
    a, b = scenes()[0], scenes()[1].replace(frames={"prev": scenes()[1].image})
    with pytest.raises(ShapeError, match=r"same further views in a batch; got prev, next, stereo \(room.*\) and prev \(street"):
        collate([a, b], [0, 0])


def test_evaluation_reads_no_views(source):
    data = VideoDataModule([source], val_sources=[ShardSource(source.root)])
    batch = next(iter(data.val_dataloader()[0]))
    assert batch.frame_names == ()
    assert batch.image.shape[-2:] == SIZE
    assert next(iter(DepthDataModule([source], size=SIZE, batch_size=2).train_dataloader())).frame_names == ()


def test_what_a_dataset_lacks_is_said_before_training(tmp_path, source):
    bare = write(tmp_path / "bare", [s.replace(intrinsics=None) for s in scenes()])
    short = write(tmp_path / "short", [s.replace(frames={"stereo": s.frames["stereo"]}) for s in scenes()])
    with pytest.raises(RecipeError, match=r"intrinsics with every sample of dataset 'v'.*data.learned_intrinsics"):
        module(bare).train_dataloader()
    assert next(iter(module(bare, learned_intrinsics=True).train_dataloader())).intrinsics.isnan().all()
    with pytest.raises(
        RecipeError, match=r"dataset 'v' with views video_stereo.*they have stereo. Write its shards with views="
    ):
        module(short).train_dataloader()
    with pytest.raises(RecipeError, match=r"expected data.views video, stereo or video_stereo; got single"):
        module(source, views="single")


def test_a_sample_without_a_neighbour_is_skipped_and_counted(tmp_path):
    odd = scenes()[3].replace(frames={"frame-2": scenes()[3].image, "stereo": scenes()[3].image})  # video, but no prev
    loader = module(write(tmp_path, [*islice(scenes(), 3), odd, *islice(scenes(), 4, 10)])).train_dataloader()
    with pytest.warns(UserWarning, match=rf"sample '{odd.key}': expected views prev, next, stereo; prev, next is missing"):
        assert odd.key not in [key for batch in loader for key in batch.keys]
    assert len(loader.broken) == 1


def test_a_stereo_partner_whose_side_is_unknown_is_not_mirrored(tmp_path):
    blind = [s.replace(frames_from_camera={}) for s in scenes()]
    loader = module(write(tmp_path, blind), transform=Compose([HorizontalFlip(1.0)])).train_dataloader()
    with pytest.raises(GeometryError, match="cannot mirror a stereo pair without frames_from_camera"):
        list(loader)


def test_a_single_image_holds_no_memory_for_views():
    assert Sample("a", np.zeros((2, 3, 3), np.uint8)).frames == {}
    stream = collate([Sample("a", np.zeros((2, 3, 3), np.uint8))], [0])
    assert stream.frames.numel() == 0
