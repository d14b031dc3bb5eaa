"""Odometry over a set: which motions are chained, against what, and what is written."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from depthkit.data import ShardSource, ShardWriter, VideoDataModule
from depthkit.errors import GeometryError, PredictionError, RecipeError, ShapeError
from depthkit.evaluation import ODOMETRY_PROTOCOLS, evaluate_odometry, find_odometry_protocol
from depthkit.geometry import chain_poses, invert_pose, pose_from_axis_angle
from depthkit.types import Sample

PROTOCOL = ODOMETRY_PROTOCOLS["monodepth2_odometry_09"]
SIZE = (8, 12)


def world_poses(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    turn, step = (torch.randn(count - 1, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    return chain_poses(pose_from_axis_angle(0.2 * turn, step))


def recording(name: str, count: int, seed: int, *, poses: bool = True) -> tuple[list[Sample], torch.Tensor]:
    """A video whose frame n is grey 10 n + seed as samples with both neighbours, and its motions ``next_from_current``."""
    world = world_poses(count, seed)
    pictures = [np.full((*SIZE, 3), 10 * n + seed, np.uint8) for n in range(count)]
    seen = [(invert_pose(world[n + step]) @ world[n]).numpy() for n in range(1, count - 1) for step in (-1, 1)]
    samples = [
        Sample(
            f"{name}/{n}",
            pictures[n],
            frames={"prev": pictures[n - 1], "next": pictures[n + 1]},
            frames_from_camera={"prev": seen[2 * n - 2], "next": seen[2 * n - 1]} if poses else {},
        )
        for n in range(1, count - 1)
    ]
    return samples, invert_pose(world[1:]) @ world[:-1]


def batches(root: Path, samples: list[Sample], **options):
    with ShardWriter(root, split="test", dataset="d", samples_per_shard=3, image_format="png") as writer:
        for sample in samples:
            writer.write(sample)
    return VideoDataModule(size=SIZE, **options).views_dataloader(ShardSource(str(root), "test"))


def knowing(*motions: torch.Tensor):
    """A model that knows the motion from each picture, by its grey level, up to the scale 0.1."""

    def ego_motion(pairs: torch.Tensor) -> torch.Tensor:
        levels = (pairs[:, 0, 0, 0, 0] * 255).round().long().tolist()
        found = torch.stack([motions[level % 10][level // 10] for level in levels])
        return torch.cat([torch.cat([found[:, :3, :3], 0.1 * found[:, :3, 3:]], 2), found[:, 3:]], 1).float()

    return ego_motion


@pytest.mark.parametrize("options", [{}, {"val_batch_size": 4}, {"num_workers": 1, "multiprocessing_context": "fork"}])
def test_every_motion_of_every_sequence_is_scored_once_in_its_order(tmp_path, options):
    (first, a), (second, b) = recording("a", 9, 0), recording("b", 5, 1)
    report = evaluate_odometry(knowing(a, b), batches(tmp_path / "d", first + second, **options), PROTOCOL)
    assert {key: len(motions) for key, motions in report.motions.items()} == {"a/1": 8, "b/1": 4}
    assert report.summary["trajectory_error"] < 1e-5
    metric = PROTOCOL.metric()
    for true in (a, b):
        metric.update(torch.eye(4, dtype=torch.float64).expand_as(true), true)
    still = {name: float(value) for name, value in metric.compute().items()}
    assert report.beside["no motion"] == pytest.approx(still, rel=1e-5)
    assert "2 of 4 to 8 motions, 12 in all" in report.table()
    assert "Monodepth2 M (published)" in report.table()


def test_a_gap_ends_a_sequence(tmp_path):
    samples, motions = recording("a", 9, 0)
    report = evaluate_odometry(knowing(motions), batches(tmp_path / "d", samples[:2] + samples[3:]), PROTOCOL)
    assert {key: len(found) for key, found in report.motions.items()} == {"a/1": 3, "a/4": 5}
    assert report.summary["trajectory_error"] < 1e-5


def test_a_model_that_is_wrong_has_the_error_of_the_metric(tmp_path):
    samples, motions = recording("a", 9, 0)
    wrong = recording("a", 9, 3)[1]
    report = evaluate_odometry(knowing(wrong), batches(tmp_path / "d", samples), PROTOCOL, name="wrong")
    metric = PROTOCOL.metric()
    metric.update(wrong, motions)
    assert report.summary["trajectory_error"] == pytest.approx(float(metric.compute()["trajectory_error"]), rel=1e-4)


def test_paths_are_written_as_kitti_writes_them(tmp_path):
    samples, motions = recording("a", 9, 0)
    report = evaluate_odometry(knowing(motions), batches(tmp_path / "d", samples), PROTOCOL)
    (file,) = report.save_paths(tmp_path / "paths")
    rows = torch.from_numpy(np.loadtxt(file))
    assert file.name == "a-1.txt"
    assert rows.shape == (9, 12)
    world = world_poses(9, 0)
    assert_close(rows.view(9, 3, 4)[:, :, 3], 0.1 * world[:, :3, 3], rtol=0, atol=1e-5)
    assert_close(rows.view(9, 3, 4)[:, :, :3], world[:, :3, :3], rtol=0, atol=1e-5)
    assert '"a/1": 8' in report.to_json(tmp_path / "report.json").read_text()


def test_mistakes_end_in_one_sentence(tmp_path):
    samples, motions = recording("a", 5, 0)
    known = batches(tmp_path / "known", samples)
    with pytest.raises(GeometryError, match=r"a/1: expected the true poses of prev and next; they are not known"):
        evaluate_odometry(knowing(motions), batches(tmp_path / "bare", recording("a", 5, 0, poses=False)[0]), PROTOCOL)
    with pytest.raises(PredictionError, match=r"a/1: expected a finite motion"):
        evaluate_odometry(lambda pairs: torch.full((len(pairs), 4, 4), torch.nan), known, PROTOCOL)
    single = VideoDataModule(test_sources=[ShardSource(str(tmp_path / "known"), "test")]).test_dataloader()[0]
    with pytest.raises(GeometryError, match=r"a/1: expected views prev and next; got none"):
        evaluate_odometry(knowing(motions), single, PROTOCOL)
    with pytest.raises(ShapeError, match="expected at least one sample to evaluate"):
        evaluate_odometry(knowing(motions), [], PROTOCOL)
    with pytest.raises(RecipeError, match=r"unknown odometry protocol 'x'; expected one of monodepth2_odometry_09, "):
        find_odometry_protocol("x")
