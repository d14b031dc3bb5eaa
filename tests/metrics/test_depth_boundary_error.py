"""Depth-boundary errors: known answers, laws, and an implementation of its own with SciPy's filters."""

from functools import partial

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from depthkit import metrics
from depthkit.errors import RecipeError, ShapeError
from depthkit.metrics.boundaries.edges import _is_peak, _smoothed, canny, distance_to
from depthkit.metrics.functional import depth_boundary_error
from tests.contracts.metric import MetricCase, MetricContract

ndimage = pytest.importorskip("scipy.ndimage")
SIZE = (40, 48)


def room(seed=0):
    """A map with blobs nearer than a sloped wall."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(SIZE)
    depth = 6 + 0.01 * rows
    for _ in range(3):
        y, x, r = rng.uniform(8, 32), rng.uniform(8, 40), rng.uniform(4, 9)
        depth = np.where((rows - y) ** 2 + (columns - x) ** 2 < r * r, rng.uniform(1, 4), depth)
    return depth


def slow_canny(image, sigma=2**0.5, low=0.15, high=0.3):
    """Pixel by pixel: angle of the gradient, strength between two neighbours, then labelled components."""
    weight = ndimage.gaussian_filter(np.ones(image.shape), sigma, mode="constant")
    smooth = ndimage.gaussian_filter(image, sigma, mode="constant") / weight
    gx, gy = ndimage.sobel(smooth, 1), ndimage.sobel(smooth, 0)
    m = np.hypot(gx, gy)
    keep = np.zeros(image.shape, bool)
    for y in range(1, image.shape[0] - 1):
        for x in range(1, image.shape[1] - 1):
            if m[y, x] < low:
                continue
            sy, sx = (1 if g >= 0 else -1 for g in (gy[y, x], gx[y, x]))
            a, b = abs(gy[y, x]), abs(gx[y, x])
            sides = []
            for s in (1, -1):
                straight = m[y + s * sy, x] if a > b else m[y, x + s * sx]
                share = min(a, b) / max(a, b)
                sides.append((1 - share) * straight + share * m[y + s * sy, x + s * sx])
            keep[y, x] = m[y, x] >= max(sides)
    labels, count = ndimage.label(keep, np.ones((3, 3)))
    strong = {labels[p] for p in zip(*np.nonzero(keep & (m >= high)), strict=True)}
    return np.isin(labels, list(strong)) if count and strong else np.zeros_like(keep)


def by_hand(pred, edges, side):
    unit = (pred[0] - pred.min()) / np.ptp(pred) if np.ptp(pred) else 0 * pred[0]
    found, edges = slow_canny(unit), edges[0].astype(bool)
    to_label = ndimage.distance_transform_edt(~edges)
    to_found = ndimage.distance_transform_edt(~found) if found.any() else np.full(edges.shape, np.inf)
    near = found & (to_label < 10)
    if not near.any():
        return 10.0
    if side == "accuracy":
        return to_label[near].mean()
    return (np.minimum(to_label[found], 10).sum() + np.minimum(to_found[edges], 10).sum()) / (found.sum() + edges.sum())


def batch(seed=0, images=4):
    maps, edges = [], []
    for k in range(images):
        depth = room(100 * seed + k)
        jumps = np.zeros(SIZE, bool)
        jumps[:, 1:] |= abs(np.diff(depth, axis=1)) > 0.5
        rng = np.random.default_rng(k)
        edges.append(np.roll(jumps, (k, 2 * k), (0, 1)))
        maps.append(ndimage.gaussian_filter(depth, 0.5 * k) + rng.normal(0, 0.01, SIZE))
    return torch.from_numpy(np.stack(maps))[:, None].float(), torch.from_numpy(np.stack(edges))[:, None]


GROWS = "edges grow until they do not"


def case(side):
    make, function, reference = (partial(f, side=side) for f in (metrics.DepthBoundaryError, depth_boundary_error, by_hand))
    return MetricCase(
        f"depth_boundary_error-{side}", make, function, reference, batch, compacted=False, waits="edges grow until they do not"
    )


@pytest.mark.parametrize("case", [case("accuracy"), case("completeness")], ids=lambda case: case.name)
class TestDepthBoundaryError(MetricContract):
    pass


@pytest.mark.parametrize("seed", range(3))
def test_edges_are_those_of_an_independent_implementation(seed):
    depth = room(seed) + np.random.default_rng(seed).normal(0, 0.01, SIZE)  # no two gradients are equal
    unit = (depth - depth.min()) / np.ptp(depth)
    found = canny(torch.from_numpy(unit)[None, None])[0, 0].numpy()
    assert found.sum() > 20
    assert np.array_equal(found, slow_canny(unit))


def test_images_are_smoothed_as_far_as_scipys_gaussian_reaches():
    image = torch.rand(1, 1, *SIZE, dtype=torch.float64)
    expected = ndimage.gaussian_filter(image[0, 0].numpy(), 2**0.5, mode="constant")
    assert_close(_smoothed(image, 2**0.5)[0, 0], torch.from_numpy(expected), rtol=1e-12, atol=0)


@pytest.mark.parametrize("turned", [False, True])
def test_two_equal_gradients_side_by_side_are_both_an_edge(turned):
    strength = torch.tensor([0.0, 1.0, 2.0, 2.0, 1.0, 0.0]).expand(1, 1, 4, 6)
    strength = strength.mT if turned else strength
    peaks = _is_peak(strength, *((0 * strength, strength) if turned else (strength, 0 * strength)))
    assert torch.equal(peaks, strength == 2)


def test_distances_are_exact_up_to_the_limit():
    edges = torch.rand(2, 1, 30, 40, generator=torch.Generator().manual_seed(0)) > 0.995
    expected = np.stack([np.minimum(ndimage.distance_transform_edt(~e[0].numpy()), 10) for e in edges])
    assert_close(distance_to(edges, 10)[:, 0], torch.from_numpy(expected), rtol=1e-12, atol=0)


def step(column):
    """A wall whose depth rises from 2 to 5 m about a column: no other has as strong a gradient, whatever is rounded."""
    columns = torch.arange(48)
    return torch.where(columns < column, 2.0, torch.where(columns > column, 5.0, 3.5)).expand(1, 1, 40, 48)


def line(column, rows=slice(1, -1)):
    """An edge along a column; rows next to the border have none."""
    edges = torch.zeros(1, 1, 40, 48, dtype=torch.bool)
    edges[..., rows, column] = True
    return edges


@pytest.mark.parametrize("offset", [0, 3, 7])
def test_a_straight_edge_is_as_far_as_it_is_moved(offset):
    pred, edges = step(20 + offset), line(20)
    assert torch.equal(canny((pred - 2) / 3), line(20 + offset))
    for side in ("accuracy", "completeness"):
        assert depth_boundary_error(pred, edges, side=side).item() == offset
        assert depth_boundary_error(0.3 * pred + 7, edges, side=side).item() == offset


def test_edges_without_a_counterpart_cost_ten_pixels():
    for pred in (step(30), torch.full((1, 1, 40, 48), 4.0)):  # 25 px away; no edge at all
        for side in ("accuracy", "completeness"):
            assert depth_boundary_error(pred, line(5), side=side).item() == 10
    both = line(5) | line(30)  # now the predicted edge has one, but the other has none
    assert depth_boundary_error(step(30), both).item() == 0
    assert depth_boundary_error(step(30), both, side="completeness").item() == pytest.approx(10 / 3)


def test_pooled_edges_are_weighted_by_their_number():
    """Of a line of 4 labelled pixels, predicted edges above and below are the farther the more; of a whole one none are."""
    pred, edges = torch.cat([step(20), step(20)]), torch.cat([line(20, slice(10, 14)), line(22)])
    beyond = list(range(1, 10))  # rows 1 to 9 above the line, and as many below it
    few, many = 2 * sum(beyond) / (4 + 2 * len(beyond)), 2.0
    assert depth_boundary_error(pred, edges).tolist() == pytest.approx([few, many])
    image, pixel = (metrics.DepthBoundaryError(reduction=name) for name in ("image", "pixel"))
    for metric in (image, pixel):
        metric.update(pred, edges)
    assert image.compute().item() == pytest.approx((few + many) / 2)
    assert pixel.compute().item() == pytest.approx((2 * sum(beyond) + 38 * many) / (4 + 2 * len(beyond) + 38))


def test_what_does_not_fit_is_named():
    with pytest.raises(ShapeError, match="expected edges as bool"):
        depth_boundary_error(step(20), step(20))
    with pytest.raises(RecipeError, match="expected side to be one of accuracy, completeness"):
        metrics.DepthBoundaryError(side="both")
