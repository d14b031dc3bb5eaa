"""Views in the stream: what was written is what a batch holds, with or without workers, and missing views are told."""

from dataclasses import fields
from pathlib import Path

import pytest
import torch

from depthkit.data import ShardSource, ShardWriter, SyntheticScenes, VideoDataModule
from depthkit.data.transforms import Resize
from depthkit.errors import ShardError
from depthkit.types import Batch, Views

SIZE = (32, 48)


def write(root: Path, views: Views) -> ShardSource:
    with ShardWriter(root, split="train", dataset="drive", samples_per_shard=2, image_format="png") as writer:
        for sample in SyntheticScenes(4, size=SIZE, kind="street", views=views):
            writer.write(sample)
    return ShardSource(str(root))


def batches(source: ShardSource, views: Views, **options: int) -> list[Batch]:
    return list(
        VideoDataModule([source], views=views, size=SIZE, transform=Resize(SIZE), batch_size=2, **options).train_dataloader()
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_holds_what_was_rendered(workers: int, tmp_path: Path) -> None:
    source = write(tmp_path, Views.VIDEO_STEREO)
    scenes = {sample.key: sample for sample in SyntheticScenes(4, size=SIZE, kind="street", views=Views.VIDEO_STEREO)}
    seen = []
    for b in batches(source, Views.VIDEO_STEREO, num_workers=workers):
        for key, frames, poses in zip(b.keys, b.frames, b.frames_from_camera, strict=True):
            seen.append(key)
            for name, frame, pose in zip(b.frame_names, frames, poses, strict=True):
                rendered = torch.from_numpy(scenes[key].frames[name]).permute(2, 0, 1) / 255
                torch.testing.assert_close(frame, rendered)
                torch.testing.assert_close(pose, torch.from_numpy(scenes[key].frames_from_camera[name]).float())
    assert sorted(seen) == sorted(scenes)


def test_views_that_are_not_asked_for_are_not_read(tmp_path: Path) -> None:
    (first, *_) = batches(write(tmp_path, Views.VIDEO_STEREO), Views.STEREO)
    assert first.frame_names == ("stereo",)
    assert first.frames.shape[1] == 1


def test_samples_without_a_view_stop_the_run_with_their_names(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="expected views prev, next; prev, next is missing"):
        batches(write(tmp_path, Views.SINGLE), Views.VIDEO)


def test_a_batch_without_views_holds_none_of_its_size(tmp_path: Path) -> None:
    (b, *_) = batches(write(tmp_path, Views.VIDEO), Views.VIDEO)
    plain = Batch(**{f.name: getattr(b, f.name) for f in fields(Batch) if not f.name.startswith("frame")})
    assert plain.frames.shape == (2, 0, 3, *SIZE)
    assert plain.rows(torch.tensor([True, False])).frames_from_camera.shape == (1, 0, 4, 4)
