"""Laws of flicker: none in true depth of a moving camera, as much as was put in, nothing where frames share nothing."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from depthkit.errors import ShapeError
from depthkit.geometry import invert_pose, project, unproject
from depthkit.metrics import FlowWarpedError, TemporalAlignmentError
from depthkit.metrics.functional import flow_warped_error, temporal_alignment_error
from depthkit.synthetic import SyntheticScenes


@pytest.fixture(scope="module")
def film():
    """Depth, cameras and poses of a room through which a camera moves."""
    views = SyntheticScenes(1, size=(48, 64), kind="room", seed=1).video(0, 5)
    depth = torch.from_numpy(np.stack([view.depth for view in views]))[:, None].double()
    camera, pose = (
        torch.from_numpy(np.stack([getattr(v, name) for v in views])) for name in ("intrinsics", "world_from_camera")
    )
    return depth, camera, pose


def by_loops(depth, camera, pose):
    """TAE with a loop over points."""
    total, (frames, _, height, width) = 0.0, depth.shape
    for a, b in [(k, k + 1) for k in range(frames - 1)] + [(k + 1, k) for k in range(frames - 1)]:
        nearest = {}
        for row in range(height):
            for column in range(width):
                point = np.linalg.inv(camera[a]) @ [column, row, 1] * depth[a, 0, row, column]
                x = np.linalg.inv(pose[b]) @ pose[a] @ [*point, 1]
                u, v, w = camera[b] @ x[:3]
                place = round(v / w), round(u / w)
                if w > 0 and 0 <= place[0] < height and 0 <= place[1] < width:
                    nearest[place] = min(nearest.get(place, np.inf), x[2])
        total += np.mean([abs(z - depth[b, 0][place]) / depth[b, 0][place] for place, z in nearest.items()])
    return total / 2 / (frames - 1)


def test_alignment_error_is_that_of_a_loop_over_points(film):
    small = [x[:3] for x in film]
    flickering = small[0] * torch.tensor([1, 1.1, 0.95]).view(3, 1, 1, 1).double()
    expected = by_loops(*(x.numpy() for x in (flickering, *small[1:])))
    assert float(temporal_alignment_error(flickering, *small[1:])) == pytest.approx(expected, rel=1e-9)


def test_true_depth_has_little_and_flicker_shows(film):
    depth, camera, pose = film
    assert float(temporal_alignment_error(depth, camera, pose)) < 0.03  # pixels are rounded, edges occlude
    still = depth[:1].expand(5, -1, -1, -1), camera, pose[:1].expand(5, -1, -1)
    assert float(temporal_alignment_error(*still)) < 1e-9
    factors = torch.tensor([1, 1.1, 1, 1.1, 1], dtype=torch.float64).view(5, 1, 1, 1)
    assert float(temporal_alignment_error(still[0] * factors, *still[1:])) == pytest.approx((0.1 + 1 - 1 / 1.1) / 2, rel=1e-9)


def flow_of(depth, camera, pose):
    """Where each pixel of frames 1.. was in the frame before, by geometry."""
    points = unproject(depth[1:], camera[1:])
    before = invert_pose(pose[:-1]) @ pose[1:]
    return project((before[:, :3, :3] @ points.flatten(2) + before[:, :3, 3:]).view_as(points), camera[1:])


def test_flow_error_of_a_factor_is_its_logarithm_and_only_seen_pixels_count():
    depth = 1 + torch.rand(1, 1, 12, 16).expand(4, 1, 12, 16).double()
    rows, columns = torch.meshgrid(torch.arange(12.0), torch.arange(16.0), indexing="ij")
    pixels = torch.stack([columns, rows]).expand(3, 2, 12, 16)
    seen = torch.ones(3, 1, 12, 16, dtype=torch.bool)
    assert float(flow_warped_error(depth, pixels, seen)) < 1e-9
    jumps = depth * torch.tensor([1, 1.2, 1.2, 1.0]).view(4, 1, 1, 1)
    assert float(flow_warped_error(jumps, pixels, seen)) == pytest.approx(2 / 3 * np.log(1.2), rel=1e-6)
    spoiled, partly = jumps.clone(), seen.clone()
    spoiled[2, 0, 3, 4], partly[:, 0, 3, 4] = torch.nan, False
    spoiled[1, 0, 5, 5] = 0
    assert float(flow_warped_error(spoiled, pixels, partly)) == pytest.approx(2 / 3 * np.log(1.2), rel=1e-6)
    assert flow_warped_error(jumps, pixels, ~seen).isnan()


def test_flow_error_reads_no_place_beside_an_unknown_pixel():
    depth, seen = torch.ones(2, 1, 4, 6, dtype=torch.float64), torch.ones(1, 1, 4, 6, dtype=torch.bool)
    pixels = torch.stack(torch.meshgrid(torch.arange(4.0), torch.arange(6.0), indexing="ij")[::-1])[None]
    depth[0, 0, 1, 2], depth[1, 0, 1, 1] = 0, 2
    pixels[0, 0, 1, 1] = 1.5  # half way to the unknown pixel
    assert flow_warped_error(depth, pixels, seen) == 0
    pixels[0, 0, 1, 1] = 0.5
    assert float(flow_warped_error(depth, pixels, seen)) == pytest.approx(np.log(2) / 23)


def test_flow_error_follows_the_motion(film):
    depth, camera, pose = film
    pixels = flow_of(depth, camera, pose)
    seen = torch.ones(4, 1, 48, 64, dtype=torch.bool)
    still = torch.stack(torch.meshgrid(torch.arange(48.0), torch.arange(64.0), indexing="ij")[::-1]).expand(4, 2, 48, 64)
    assert float(flow_warped_error(depth, pixels, seen)) < float(flow_warped_error(depth, still, seen))


def test_classes_average_the_pairs_of_all_films(film):
    depth, camera, pose = film
    one, both = TemporalAlignmentError(), TemporalAlignmentError()
    one.update(*film)
    assert_close(one.compute(), temporal_alignment_error(*film))
    flicker = depth * torch.tensor([1, 2, 1, 2, 1]).view(5, 1, 1, 1)
    both.update(depth[:2], camera[:2], pose[:2])
    both.update(flicker, camera, pose)
    parts = temporal_alignment_error(depth[:2], camera[:2], pose[:2]), temporal_alignment_error(flicker, camera, pose)
    assert_close(both.compute(), (parts[0] + 4 * parts[1]) / 5)
    flow = FlowWarpedError()
    flow.update(depth, flow_of(*film), torch.ones(4, 1, 48, 64, dtype=torch.bool))
    assert flow.compute() > 0
    assert both.n_pairs == 5


def test_frames_that_share_nothing_count_for_nothing(film):
    depth, camera, pose = (x.clone() for x in film)
    pose[3:, 0, 3] += 1000
    assert_close(temporal_alignment_error(depth, camera, pose), torch.stack([
        temporal_alignment_error(depth[:3], camera[:3], pose[:3]), temporal_alignment_error(depth[:3], camera[:3], pose[:3]),
        temporal_alignment_error(depth[3:], camera[3:], pose[3:]),
    ]).mean())  # fmt: skip


def test_one_frame_and_wrong_shapes_are_refused(film):
    depth, camera, pose = film
    with pytest.raises(ShapeError, match="One frame has no flicker"):
        temporal_alignment_error(depth[:1], camera[:1], pose[:1])
    with pytest.raises(ShapeError, match="Give one of each per frame"):
        temporal_alignment_error(depth, camera[:1], pose)
    with pytest.raises(ShapeError, match="expected pixels of shape"):
        flow_warped_error(depth, torch.zeros(5, 2, 48, 64), torch.ones(4, 1, 48, 64, dtype=torch.bool))
