"""Odometry: laws of the error of snippets, in closed form and against an implementation of its own."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from depthkit.errors import RecipeError, ShapeError
from depthkit.geometry import chain_poses, invert_pose, pose_from_axis_angle
from depthkit.metrics import TrajectoryError
from depthkit.metrics.functional import trajectory_error

CHAININGS = ["published", "camera"]


def drive(count=9, seed=0, turn=0.4):
    """Motions ``next_from_current`` of a camera that turns while it moves."""
    g = torch.Generator().manual_seed(seed)
    rotation, translation = (torch.randn(count, 3, generator=g, dtype=torch.float64) for _ in range(2))
    return pose_from_axis_angle(turn * rotation, translation)


def straight(steps):
    """Motions of a camera that drives along z by these steps [m]: points come nearer."""
    motions = torch.eye(4, dtype=torch.float64).repeat(len(steps), 1, 1)
    motions[:, 2, 3] = -torch.tensor(steps, dtype=torch.float64)
    return motions


def scaled(motions, factor):
    return torch.cat([torch.cat([motions[..., :3, :3], factor * motions[..., :3, 3:]], -1), motions[..., 3:, :]], -2)


def by_hand(pred, target, start, frames, chaining):
    """One snippet, multiplied out matrix by matrix."""
    paths = []
    for motions in (pred, target):
        pose, path = np.eye(4), [np.zeros(3)]
        for motion in motions[start : start + frames - 1].numpy():
            pose = pose @ (np.linalg.inv(motion) if chaining == "camera" else motion)
            path.append(pose[:3, 3])
        paths.append(np.array(path))
    p, g = paths
    return np.sqrt((((g * p).sum() / (p * p).sum() * p - g) ** 2).sum()) / len(p)


@pytest.mark.parametrize("chaining", CHAININGS)
@pytest.mark.parametrize("frames", [2, 3, 5, 12])
def test_each_snippet_has_the_value_of_an_independent_implementation(frames, chaining):
    pred, target = drive(seed=1), drive(seed=2)
    expected = [by_hand(pred, target, i, frames, chaining) for i in range(9)]
    found = trajectory_error(pred, target, frames=frames, chaining=chaining)
    assert_close(found, torch.tensor(expected, dtype=torch.float64))
    if frames <= 9:
        whole = trajectory_error(pred, target, frames=frames, chaining=chaining, partial=False)
        assert_close(whole, found[: 9 - frames + 2])


@pytest.mark.parametrize("chaining", CHAININGS)
@pytest.mark.parametrize("factor", [1e-3, 1.0, 40.0])
def test_truth_in_any_unit_has_no_error(factor, chaining):
    target = drive()
    assert trajectory_error(scaled(target, factor), target, chaining=chaining).max() < 1e-9
    assert trajectory_error(target, target, chaining=chaining).max() < 1e-9


def test_zero_motion_has_the_root_of_the_squared_path_over_the_positions():
    still = torch.eye(4, dtype=torch.float64).repeat(6, 1, 1)
    error = trajectory_error(still, straight([2.0] * 6))
    assert_close(error[0], torch.tensor(2 * (1 + 4 + 9 + 16) ** 0.5 / 5, dtype=torch.float64))
    assert_close(error[-1], torch.tensor(2 / 2, dtype=torch.float64))  # two positions


def test_constant_motion_is_right_for_constant_motion_and_known_for_another():
    constant = straight([1.0] * 4)
    assert trajectory_error(constant, straight([3.0] * 4)).max() < 1e-12
    p, g = np.array([1.0, 2, 3, 4]), np.array([1.0, 3, 6, 10])
    residual = g - (g @ p) / (p @ p) * p
    error = trajectory_error(constant, straight([1.0, 2.0, 3.0, 4.0]), partial=False)
    assert error.tolist() == pytest.approx([np.sqrt((residual**2).sum()) / 5])


def test_the_best_scale_is_the_best():
    pred, target = drive(4, seed=1), drive(4, seed=2)
    p, g = (chain_poses(x)[:, :3, 3] for x in (pred, target))
    best = trajectory_error(pred, target, partial=False).item()
    others = [((s * p - g) ** 2).sum().sqrt().item() / 5 for s in np.linspace(-3, 3, 200)]
    assert best <= min(others)
    assert best == pytest.approx(min(others), rel=1e-2)


def test_the_order_of_composition_matters_where_the_camera_turns():
    """A quarter turn between two steps: the camera ends at (1, 0, 1); the other order, and the published one, elsewhere."""
    quarter = pose_from_axis_angle(torch.tensor([0.0, torch.pi / 2, 0.0]), torch.zeros(3))  # current_from_next: looks to +x
    step = straight([-1.0])[0].float()  # current_from_next of a step forward
    path = chain_poses(torch.stack([step @ quarter, step]))[:, :3, 3]
    assert_close(path, torch.tensor([[0.0, 0, 0], [0, 0, 1], [1, 0, 1]]), atol=1e-6, rtol=0)
    swapped = chain_poses(torch.stack([step, step @ quarter]))[:, :3, 3]
    assert_close(swapped[-1], torch.tensor([0.0, 0, 2]), atol=1e-6, rtol=0)
    pred, target = drive(seed=1), drive(seed=2)
    published, camera = (trajectory_error(pred, target, chaining=c) for c in CHAININGS)
    assert (published - camera).abs().max() > 0.05
    for straight_on in (drive(seed=1, turn=0.0), drive(seed=3, turn=0.0)):
        errors = [trajectory_error(straight_on, drive(seed=2, turn=0.0), chaining=c) for c in CHAININGS]
        assert_close(*errors)


def test_camera_chaining_is_blind_to_where_and_how_the_world_lies():
    """The path of the camera, from absolute poses in a world of any orientation."""
    world = drive(1, seed=9)[0] @ chain_poses(invert_pose(drive(seed=2)))
    motions = invert_pose(world[1:]) @ world[:-1]
    assert_close(motions, drive(seed=2))
    pred = drive(seed=1)
    assert_close(trajectory_error(pred, motions, chaining="camera"), trajectory_error(pred, drive(seed=2), chaining="camera"))


def test_batching_sequences_and_ranks_are_invisible():
    preds, targets = (torch.stack([drive(seed=s + i) for i in range(4)]) for s in (10, 20))
    errors = trajectory_error(preds, targets)
    assert errors.shape == (4, 9)
    together, one_by_one = TrajectoryError(), [TrajectoryError() for _ in range(2)]
    together.update(preds, targets)
    for i in range(4):
        one_by_one[i % 2].update(preds[i], targets[i])
    one_by_one[0].merge_state(one_by_one[1])
    expected = {"trajectory_error": errors.mean(), "trajectory_error_std": errors.std(correction=0)}
    for metric in (together, *(f(together) for f in (copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)))), one_by_one[0]):
        assert_close(metric.compute(), expected)
        assert metric.n_snippets == 36


def test_sums_stay_in_double_precision_and_float32_poses_are_chained_in_it():
    target = drive()
    metric = TrajectoryError()
    metric.half()
    metric.update(drive(seed=5).float(), target.float())
    assert metric.total.dtype == torch.float64
    assert_close(metric.compute()["trajectory_error"], trajectory_error(drive(seed=5), target).mean(), rtol=1e-5, atol=0)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_nothing_seen_is_nan_and_nan_is_never_repaired():
    metric = TrajectoryError()
    assert all(value.isnan() for value in metric.compute().values())
    broken = drive()
    broken[3, 0, 3] = torch.nan
    assert trajectory_error(broken, drive(seed=1)).isnan().tolist() == [True] * 4 + [False] * 5


def test_mistakes_end_in_one_sentence():
    motions = drive()
    for pred in (motions[:-1], motions[:, :3], motions[0]):
        with pytest.raises(ShapeError, match=r"expected predicted and true motions of one shape \(\.\.\., N, 4, 4\)"):
            trajectory_error(pred, pred if pred.ndim == 2 or pred.shape[-2] == 3 else motions)
    with pytest.raises(ShapeError, match="at least 4 motions for snippets of 5 frames; got 3"):
        trajectory_error(motions[:3], motions[:3], partial=False)
    with pytest.raises(RecipeError, match="at least 2 frames; got 1"):
        TrajectoryError(frames=1)
    with pytest.raises(RecipeError, match="expected chaining to be one of published, camera; got 'kitti'"):
        TrajectoryError(chaining="kitti")
