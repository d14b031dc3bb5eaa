"""Metrics of the lifted point cloud: planes stay planes and stand as they do, clouds lie on each other."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from torch.testing import assert_close

from depthkit import metrics as m
from depthkit.errors import GeometryError, RecipeError, ShapeError
from depthkit.geometry import flip_intrinsics
from depthkit.metrics import functional as f
from depthkit.synthetic import SyntheticScenes
from tests.contracts.metric import MetricCase, MetricContract, depth_maps, run

CAMERA = torch.tensor([[[9.0, 0, 5], [0, 8, 4], [0, 0, 1]]])
SHARE = {"min_share": 0.05}


def cameras(x):
    return CAMERA.to(x.device).expand(len(x), 3, 3)


def faces(seed=0, images=4):
    """Depth with its noise, planes of which one is too small, and a mask."""
    pred, _, valid = depth_maps(seed, images)
    planes = (torch.arange(9)[:, None] // 3 + 3 * (torch.arange(11) // 6)).expand(pred.shape).clone()
    planes[:, :, 0, 10] = 99
    return pred, planes, valid


def labelled_faces(seed=0, images=4):
    pred, target, _ = depth_maps(seed, images)
    _, planes, valid = faces(seed, images)
    return pred, target, planes, valid


class Planarity(m.PlanarityError):
    def update(self, preds, planes, valid):
        super().update(preds, planes, valid, cameras(preds))


class Orientation(m.PlaneOrientationError):
    def update(self, preds, target, planes, valid):
        super().update(preds, target, valid, planes, cameras(preds))


class FScore(m.PointCloudFScore):
    def update(self, preds, target, valid):
        super().update(preds, target, valid, cameras(preds))


def lifted(depth):
    rows, columns = np.indices(depth.shape)
    fx, fy, cx, cy = (float(CAMERA[0][i]) for i in [(0, 0), (1, 1), (0, 2), (1, 2)])
    return np.stack([(columns - cx) / fx * depth, (rows - cy) / fy * depth, depth], -1)


def each_plane(planes, valid, share=0.05):
    for number in range(1, planes.max() + 1):
        on = valid[0] & (planes[0] == number)
        if on.sum() >= max(4, share * on.size):
            yield on


def flatness_by_svd(pred, planes, valid):
    spreads = []
    for on in each_plane(planes, valid):
        points = lifted(pred[0])[on]
        spreads.append(np.linalg.svd(points - points.mean(0), compute_uv=False))
    return np.mean([s[2] / np.sqrt((s**2).sum()) for s in spreads])


def turn_by_svd(pred, target, planes, valid):
    angles = []
    for on in each_plane(planes, valid):
        normals = []
        for depth in (pred[0], target[0]):
            points = lifted(depth)[on]
            normals.append(np.linalg.svd(points - points.mean(0))[2][2])
        angles.append(np.degrees(np.arccos(min(abs(normals[0] @ normals[1]), 1))))
    return np.mean(angles)


def f_score_by_trees(pred, target, valid, threshold, relative):
    radius = threshold * (np.median(target[valid]) if relative else 1)
    a, b = (lifted(depth[0])[valid[0]] for depth in (pred, target))
    precision, recall = ((cKDTree(y).query(x)[0] < radius).mean() for x, y in ((a, b), (b, a)))
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def f_score_case(threshold, relative):
    options = {"threshold": threshold, "relative": relative}
    return MetricCase(
        f"fscore-{threshold}{'-relative' * relative}",
        lambda **kwargs: FScore(**options, **kwargs),
        lambda p, t, v: f.point_cloud_fscore(p, t, v, cameras(p), **options),
        lambda p, t, v: f_score_by_trees(p, t, v, **options),
        compacted=False,
        waits="clouds of different sizes are searched, so their sizes are read",
    )


CASES = [
    f_score_case(0.3, False),
    f_score_case(0.1, True),
    MetricCase(
        "planarity",
        lambda **kwargs: Planarity(**SHARE, **kwargs),
        lambda pred, planes, valid: f.planarity_error(pred, planes, valid, cameras(pred), **SHARE),
        flatness_by_svd,
        inputs=faces,
        compacted=False,
        waits="how many planes there are is read",
    ),
    MetricCase(
        "orientation",
        lambda **kwargs: Orientation(**SHARE, **kwargs),
        lambda pred, target, planes, valid: f.plane_orientation_error(pred, target, valid, planes, cameras(pred), **SHARE),
        turn_by_svd,
        inputs=labelled_faces,
        compacted=False,
        waits="how many planes there are is read",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
class TestPoints(MetricContract):
    pass


@pytest.fixture(scope="module")
def views():
    """Rendered rooms and streets: depth, what is near enough, planes, cameras."""
    shots = [SyntheticScenes(4, size=(48, 64)).view(i) for i in range(4)]
    depth = torch.from_numpy(np.stack([shot.depth for shot in shots]))[:, None]
    planes = torch.from_numpy(np.stack([shot.planes for shot in shots]))[:, None]
    camera = torch.from_numpy(np.stack([shot.intrinsics for shot in shots])).float()
    return depth, depth < 80, planes, camera


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_true_planes_are_flat_and_upright_at_any_scale(views, scale):
    depth, near, planes, camera = views
    assert (f.planarity_error(scale * depth, planes, near, camera) < 1e-5).all()
    assert (f.plane_orientation_error(scale * depth, depth, near, planes, camera) < 1e-2).all()


@pytest.mark.parametrize("offset", [0.02, 0.1, 0.5])
def test_an_offset_of_disparity_leaves_planes_flat_but_turns_them_as_it_must(views, offset):
    depth, near, planes, camera = views
    pred = 1 / (1 / depth + offset)
    assert (f.planarity_error(pred, planes, near, camera) < 1e-5).all()
    one = planes.where(planes == planes[:, :, 40:41, 32:33], 0)  # the face in front
    found = f.plane_orientation_error(pred, depth, near, one, camera)
    assert found.isfinite().any()
    for i in range(4):
        on = (one[i, 0] > 0) & near[i, 0]
        rows, columns = np.nonzero(on.numpy())
        rays = np.linalg.inv(camera[i].double().numpy()) @ np.stack([columns, rows, np.ones_like(rows)])
        normal = np.linalg.lstsq(rays.T, 1 / depth[i, 0][on].double().numpy(), rcond=None)[0]  # n / D of n . X = D
        turned = normal + np.array([0, 0, offset])
        angle = np.degrees(np.arccos(normal @ turned / np.linalg.norm(normal) / np.linalg.norm(turned)))
        assert found[i].isnan() or found[i].item() == pytest.approx(min(angle, 180 - angle), abs=0.02)


def test_planes_turn_the_more_the_larger_the_offset(views):
    depth, near, planes, camera = views
    turns = [f.plane_orientation_error(1 / (1 / depth + c), depth, near, planes, camera) for c in (0.0, 0.02, 0.1, 0.5)]
    assert all((b > a + 0.1).all() for a, b in pairwise(turns))


def test_what_is_no_projective_map_of_space_bends_planes(views):
    depth, near, planes, camera = views
    bends = [f.planarity_error(depth**power, planes, near, camera) for power in (1.0, 1.1, 1.5, 2.0)]
    assert (bends[0] < 1e-5).all()
    assert all((bend > 100 * bends[0]).all() for bend in bends[1:])


def test_turning_or_mirroring_the_camera_changes_neither(views):
    depth, near, planes, camera = views
    pred = depth * (1 + 0.1 * torch.rand_like(depth))
    flat, turn = f.planarity_error(pred, planes, near, camera), f.plane_orientation_error(pred, depth, near, planes, camera)
    flip = [x.flip(-1) for x in (pred, depth, near, planes)]
    swap = [x.transpose(-1, -2) for x in (pred, depth, near, planes)]
    swapped = camera[:, [1, 0, 2]][:, :, [1, 0, 2]]
    for (p, d, v, n), k in ((flip, flip_intrinsics(camera, 64)), (swap, swapped)):
        assert_close(f.planarity_error(p, n, v, k), flat, rtol=1e-6, atol=1e-9)
        assert_close(f.plane_orientation_error(p, d, v, n, k), turn, rtol=1e-4, atol=1e-4)


def test_numbers_of_planes_and_unlabelled_pixels_do_not_matter(views):
    depth, near, planes, camera = views
    pred = depth * (1 + 0.1 * torch.rand_like(depth))
    renamed = (planes * 7).where(planes > 0, -5).short()
    spoilt = pred.where(near & (planes > 0), torch.nan)
    assert_close(f.planarity_error(spoilt, renamed, near, camera), f.planarity_error(pred, planes, near, camera))
    assert_close(
        f.plane_orientation_error(spoilt, depth.where(near, -1), near, renamed, camera),
        f.plane_orientation_error(pred, depth, near, planes, camera),
    )


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 0.0, -1.0])
def test_a_plane_with_a_pixel_that_has_no_point_is_not_repaired(views, bad):
    depth, near, planes, camera = views
    pred = depth.clone()
    on = near[1, 0] & (planes[1, 0] == planes[1, 0][planes[1, 0] > 0].mode().values)
    row, column = on.nonzero()[0].tolist()
    pred[1, 0, row, column] = bad
    for error in (
        f.planarity_error(pred, planes, near, camera),
        f.plane_orientation_error(pred, depth, near, planes, camera),
    ):
        assert error.isnan().tolist() == [False, True, False, False]


def test_planes_smaller_than_their_share_are_not_scored():
    pred, planes, valid = faces()
    counts = []
    for share in (0.0, 0.05, 0.155, 1.0):
        metric = Planarity(min_share=share)
        metric.update(pred, planes, valid | True)
        counts.append(int(metric.n_pixels))
    assert counts == [4 * 5, 4 * 5, 4 * 2, 0]  # a face of one pixel never counts
    assert f.planarity_error(pred, planes, valid, cameras(pred), min_share=1.0).isnan().all()


def test_three_pixels_lie_in_a_plane_whatever_their_depth_and_are_not_scored():
    depth, planes = 1 + torch.rand(1, 1, 6, 6), torch.zeros(1, 1, 6, 6, dtype=torch.int64)
    for pixels, known in ((3, False), (4, True)):
        planes[0, 0, 2, :pixels] = 1
        planes[0, 0, 3, 0] = 1  # not in one row
        planes[0, 0, 2, pixels - 1] = 0
        assert f.planarity_error(depth, planes, depth > 0, cameras(depth), min_share=0.0).isfinite().item() == known


def test_pooled_planes_weigh_alike_and_images_weigh_alike_by_name():
    pred, planes, valid = faces(images=2)
    planes = planes.clone()
    planes[1][planes[1] != 1] = 0
    errors = f.planarity_error(pred, planes, valid, cameras(pred))
    counts = [len(list(each_plane(planes[i].numpy(), valid[i].numpy(), 0.01))) for i in range(2)]
    assert_close(run(Planarity(), (pred, planes, valid), (1, 1)).compute(), errors.mean())
    pooled = (errors[0] * counts[0] + errors[1] * counts[1]) / sum(counts)
    assert_close(run(Planarity(reduction="pixel"), (pred, planes, valid), (2,)).compute(), pooled)


def test_an_alignment_is_applied_where_a_label_is_read_and_refused_where_none_is():
    pred, target, planes, valid = labelled_faces()
    fit = m.Alignment("scale", "log_l1")
    score = FScore(alignment=fit)
    score.update(3 * pred, target, valid)
    aligned = fit.apply(pred, *fit.fit(pred, target, valid))
    assert_close(score.compute(), f.point_cloud_fscore(aligned, target, valid, cameras(pred)).mean())
    turn = Orientation(alignment=m.Alignment("scale_shift", "least_squares", space="disparity"), caps=(0, 80.0))
    turn.update(1 / (0.5 / target + 0.2), target, planes, valid)
    assert turn.compute() < 1e-2
    with pytest.raises(TypeError, match="alignment"):
        m.PlanarityError(alignment=fit)


@pytest.mark.parametrize("relative", [False, True])
def test_f_score_of_the_truth_is_one_and_of_a_cloud_out_of_reach_zero(views, relative):
    depth, near, _, camera = views
    assert f.point_cloud_fscore(depth, depth, near, camera, threshold=1e-4, relative=relative).tolist() == [1, 1, 1, 1]
    assert f.point_cloud_fscore(depth + 500, depth, near, camera, relative=relative).tolist() == [0, 0, 0, 0]


def test_f_score_is_that_of_search_trees_on_rendered_scenes(views):
    depth, near, _, camera = views
    pred = depth * (1 + 0.05 * torch.randn_like(depth))
    found = f.point_cloud_fscore(pred, depth, near, camera)
    for i in range(4):
        clouds = []
        for z in (pred, depth):
            rows, columns = np.nonzero(near[i, 0].numpy())
            rays = np.linalg.inv(camera[i].double().numpy()) @ np.stack([columns, rows, np.ones_like(rows)])
            clouds.append((rays * z[i, 0][near[i, 0]].double().numpy()).T)
        p, r = ((cKDTree(b).query(a)[0] < 0.1).mean() for a, b in (clouds, clouds[::-1]))
        assert found[i].item() == pytest.approx(2 * p * r / (p + r), rel=1e-6)
        assert 0.1 < found[i] < 0.99


def test_f_score_grows_with_the_threshold_and_falls_with_the_error(views):
    depth, near, _, camera = views
    by_threshold = [f.point_cloud_fscore(1.05 * depth, depth, near, camera, threshold=t) for t in (0.05, 0.2, 1.0)]
    by_error = [f.point_cloud_fscore(e * depth, depth, near, camera) for e in (1.5, 1.1, 1.01)]
    for scores in (by_threshold, by_error):
        assert all((b >= a).all() for a, b in pairwise(scores))
        assert (scores[-1] > scores[0] + 0.1).all()


def test_a_point_as_far_as_the_threshold_is_not_near():
    depth, camera = torch.full((1, 1, 1, 1), 2.0), torch.eye(3)[None]
    near = [f.point_cloud_fscore(depth + 0.5, depth, depth > 0, camera, threshold=t).item() for t in (0.5, 0.51)]
    assert near == [0, 1]


def test_a_relative_threshold_makes_the_unit_of_both_clouds_irrelevant(views):
    depth, near, _, camera = views
    pred = depth * (1 + 0.05 * torch.randn_like(depth))
    metres = f.point_cloud_fscore(pred, depth, near, camera, threshold=0.02, relative=True)
    millimetres = f.point_cloud_fscore(1000 * pred, 1000 * depth, near, camera, threshold=0.02, relative=True)
    assert_close(metres, millimetres, rtol=0, atol=1e-3)  # float32 rounding at the rim


def test_pixels_without_a_predicted_point_are_missed():
    depth = torch.full((1, 1, 4, 4), 2.0)
    camera = torch.eye(3)[None]
    pred = depth.clone()
    pred[..., :2] = -1
    pred[..., 0, 0] = torch.inf
    assert f.point_cloud_fscore(pred, depth, depth > 0, camera).item() == 0.5  # half the precision, half the recall
    assert f.point_cloud_fscore(-depth, depth, depth > 0, camera).item() == 0


def test_what_does_not_fit_is_refused():
    pred, target, planes, valid = labelled_faces()
    with pytest.raises(ShapeError, match=r"expected planes as integers of shape \(4, 1, 9, 11\)"):
        f.planarity_error(pred, planes.float(), valid, cameras(pred))
    with pytest.raises(ShapeError, match=r"expected planes as integers .* got torch.int64 of shape \(4, 9, 11\)"):
        f.plane_orientation_error(pred, target, valid, planes[:, 0], cameras(pred))
    with pytest.raises(ShapeError, match=r"expected intrinsics of shape \(4, 3, 3\)"):
        f.planarity_error(pred, planes, valid, CAMERA)
    with pytest.raises(GeometryError, match="expected known intrinsics"):
        f.point_cloud_fscore(pred, target, valid, cameras(pred) * torch.nan)
    with pytest.raises(RecipeError, match=r"expected min_share in \[0, 1\]"):
        m.PlanarityError(min_share=2)
    with pytest.raises(RecipeError, match="expected a threshold above 0"):
        m.PointCloudFScore(threshold=0)
