"""Laws of the synthetic scenes; small pictures, but of many scenes."""

from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import max_pool2d
from torch.testing import assert_close

from depthkit.errors import RecipeError, ShapeError
from depthkit.geometry import depth_to_normals, inside_image, invert_pose, reproject, sample_pixels, unproject
from depthkit.synthetic import SyntheticScenes, SyntheticView, render
from depthkit.synthetic.solids import BALL, CYLINDER, ROOM
from depthkit.synthetic.textures import Material, paint, table
from depthkit.types import Ambiguity, Representation, Views

SIZE = (96, 128)
KINDS = ["room", "street"]


def scenes(kind: str, **options) -> SyntheticScenes:
    return SyntheticScenes(6, **({"size": SIZE, "kind": kind, "seed": 3, "noise": 0.0} | options))


@cache
def picture(kind: str, i: int, time: int = 0, right: bool = False) -> SyntheticView:
    return scenes(kind).view(i, time=time, right=right)


def as_map(x: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(x)).reshape(1, *x.shape[:2], -1).permute(0, 3, 1, 2).double()


def tensors(view: SyntheticView) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Image in [0, 1], depth, intrinsics, world_from_camera; float64, batched."""
    matrices = (torch.from_numpy(m)[None] for m in (view.intrinsics, view.world_from_camera))
    return as_map(view.image) / 255, as_map(view.depth), *matrices


def seen_from(view: SyntheticView, other: SyntheticView) -> tuple[Tensor, Tensor]:
    """The other view warped into this one by the exact depth, and where nothing hides what it shows."""
    _, depth, intrinsics, world_from_view = tensors(view)
    image, other_depth, other_intrinsics, world_from_other = tensors(other)
    other_from_view = invert_pose(world_from_other) @ world_from_view
    pixels = reproject(depth, intrinsics, other_from_view, source_intrinsics=other_intrinsics)
    points = unproject(depth.where(depth.isfinite(), 1), intrinsics)
    z = (torch.einsum("bij,bjhw->bihw", other_from_view[:, 2:3, :3], points) + other_from_view[:, 2:3, 3:, None]).where(
        depth.isfinite(), torch.inf
    )
    # Nothing hides the point if the surface there, at all four pixels that the warp blends, is about as far as it.
    farthest = sample_pixels(max_pool2d(other_depth.clamp_max(1e4), 3, 1, 1), pixels)
    nearest = sample_pixels(-max_pool2d(-other_depth.clamp_max(1e4), 3, 1, 1), pixels)
    z = z.clamp_max(1e4)
    visible = inside_image(pixels, SIZE) & (nearest > 0.95 * z) & (farthest < 1.05 * z)
    return sample_pixels(image, pixels), visible


def same(a: SyntheticView, b: SyntheticView) -> bool:
    return all(np.array_equal(x, vars(b)[name]) for name, x in vars(a).items())


@pytest.mark.parametrize("kind", KINDS)
def test_an_item_depends_on_seed_and_index_only(kind):
    first = scenes(kind, noise=0.02).view(2)
    assert same(first, SyntheticScenes(3, size=SIZE, kind=kind, seed=3).view(2))
    assert not same(first, scenes(kind, seed=4, noise=0.02).view(2))
    assert not same(first, scenes(kind, noise=0.02).view(1))


@pytest.mark.parametrize("kind", KINDS)
def test_scenes_differ_in_picture_and_geometry(kind):
    views = [picture(kind, i) for i in range(6)]
    for i, a in enumerate(views):
        for b in views[:i]:
            assert np.abs(a.image.astype(float) - b.image).mean() > 10
            assert np.median(np.abs(np.log(np.minimum(a.depth, 200) / np.minimum(b.depth, 200)))) > 0.03


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("i", range(4))
def test_unprojected_depth_lies_on_the_surfaces_of_the_object_it_names(kind, i):
    view, solids = picture(kind, i), scenes(kind).scene(i).solids
    points = view.depth[..., None] * np.stack(
        [*(np.indices(SIZE)[::-1] - view.intrinsics[:2, 2, None, None]) / view.intrinsics[0, 0], np.ones(SIZE)], -1
    )
    pose = view.world_from_camera
    for thing in np.unique(view.objects[~view.sky]):
        here = view.objects == thing
        world = points[here] @ pose[:3, :3].T + pose[:3, 3]
        off = np.full(here.sum(), np.inf)
        for p in np.flatnonzero(solids.thing == thing):
            size = solids.size[p]
            local = np.abs((world - solids.centre[p]) @ solids.rotation[p]) / size
            round_part = np.linalg.norm(local[:, ::2], axis=1)
            shape = solids.shape[p]
            inside = (
                np.linalg.norm(local, axis=1)
                if shape == BALL
                else np.maximum(round_part, local[:, 1])
                if shape == CYLINDER
                else local.max(1)
            )  # 1 on the surface
            off = np.minimum(off, np.abs(inside - 1) * size.max())
        assert (off < 2e-3 + 1e-4 * view.depth[here]).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("i", range(4))
def test_normals_are_those_of_the_depth_map(kind, i):
    view = picture(kind, i)
    _, depth, intrinsics, _ = tensors(view)
    numeric = depth_to_normals(depth, intrinsics, torch.from_numpy(~view.sky)[None, None])
    error = (as_map(view.normals) - numeric).norm(dim=1)[0].numpy()
    planes, objects = as_map(view.planes), as_map(view.objects)
    alone = lambda x: (max_pool2d(x, 3, 1, 1) == -max_pool2d(-x, 3, 1, 1))[0, 0].numpy()  # noqa: E731
    flat = (view.planes > 0) & alone(planes)
    assert flat.mean() > 0.2
    near = flat & (view.depth < 60)  # beyond, float32 depth differences are coarse
    assert np.quantile(error[near], 0.99) < 0.02
    curved = (view.planes == 0) & ~view.sky & alone(planes) & alone(objects) & (view.depth < 20)
    if curved.sum() > 200:
        assert np.median(error[curved]) < 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_normals_face_the_camera(kind):
    view = picture(kind, 0)
    _, depth, intrinsics, _ = tensors(view)
    rays = unproject(torch.ones_like(depth), intrinsics)
    assert ((as_map(view.normals) * rays).sum(1)[0].numpy()[~view.sky] < 1e-3).all()
    assert_close(
        torch.from_numpy(np.linalg.norm(view.normals, axis=-1)), torch.from_numpy(~view.sky).float(), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_plane_label_names_one_plane(kind):
    view = picture(kind, 1)
    _, depth, intrinsics, _ = tensors(view)
    points = unproject(depth, intrinsics)[0].permute(1, 2, 0).numpy()
    for label in np.unique(view.planes)[1:]:
        here = (view.planes == label) & (view.depth < 60)
        if here.sum() > 20:
            centred = points[here] - points[here].mean(0)
            assert np.abs(centred @ view.normals[here][0]).max() < 2e-3 + 1e-4 * view.depth[here].max()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("i", range(4))
def test_exact_depth_warps_the_stereo_partner_onto_the_image(kind, i):
    left, right = picture(kind, i), picture(kind, i, right=True)
    warped, visible = seen_from(left, right)
    error = (warped - tensors(left)[0]).abs().mean(1, keepdim=True)[visible]
    assert visible.float().mean() > 0.3
    assert error.mean() < 0.03
    unmoved = (tensors(right)[0] - tensors(left)[0]).abs().mean(1, keepdim=True)[visible]
    assert error.mean() < 0.6 * unmoved.mean()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("i", range(4))
def test_exact_depth_and_pose_warp_the_next_frame_onto_the_image(kind, i):
    now, then = picture(kind, i), picture(kind, i, time=1)
    warped, visible = seen_from(now, then)
    error = (warped - tensors(now)[0]).abs().mean(1, keepdim=True)[visible]
    assert visible.float().mean() > 0.3
    assert error.mean() < 0.03


def test_the_stereo_partner_stands_one_baseline_to_the_right():
    sample = scenes("street", views=Views.STEREO)[0]
    expected = np.eye(4)
    expected[0, 3] = -sample.stereo_baseline
    np.testing.assert_allclose(sample.frames_from_camera["stereo"], expected, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_depth_is_positive_and_infinite_exactly_in_the_sky(kind):
    shares = []
    for i in range(6):
        view = picture(kind, i)
        assert (view.depth > 0).all()
        assert np.array_equal(np.isinf(view.depth), view.sky)
        assert np.array_equal(view.objects == 0, view.sky)
        assert np.isfinite(view.normals).all()
        shares.append(view.sky.mean())
    assert max(shares) > 0.1 if kind == "street" else max(shares) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_show_texture_light_and_shade(kind):
    for i in range(6):
        view = picture(kind, i)
        grey = view.image.mean(2)
        assert grey.std() > 8
        assert 25 < grey.mean() < 235
        flat = max(np.unique(view.planes)[1:], key=lambda label: (view.planes == label).sum())
        assert grey[view.planes == flat].std() > 1  # the largest plane is not one grey
    assert len(np.unique(view.objects)) > 4


def test_pictures_hold_planes_curved_things_and_rooms_have_walls():
    views = [picture(kind, i) for kind in KINDS for i in range(6)]
    assert all((v.planes > 0).mean() > 0.2 for v in views)
    assert any(((v.planes == 0) & ~v.sky).mean() > 0.02 for v in views)
    assert all(ROOM in scenes("room").scene(i).solids.shape for i in range(3))


@pytest.mark.parametrize("kind", KINDS)
def test_culling_changes_nothing(kind):
    for i in range(3):
        scene = scenes(kind).scene(i)
        assert same(render(scene, (48, 70)), render(scene, (48, 70), cull=False))


@pytest.mark.parametrize("kind", KINDS)
def test_another_size_is_the_same_scene(kind):
    """Pixel (2 r + 1/2, 2 c + 1/2) of the larger picture is pixel (r, c) of the smaller one."""
    small, large = picture(kind, 0), scenes(kind, size=(192, 256)).view(0)
    pooled = large.depth.reshape(96, 2, 128, 2).transpose(0, 2, 1, 3).reshape(96, 128, 4)
    between = (pooled.min(2) <= small.depth * 1.001) & (small.depth <= pooled.max(2) * 1.001)
    assert between.mean() > 0.97
    blocks = large.image.reshape(96, 2, 128, 2, 3).mean((1, 3))
    assert np.abs(blocks - small.image).mean() < 4


@pytest.mark.parametrize("checker", [0.0, 1.0])
@pytest.mark.parametrize("footprint", [0.1, 0.37, 1.9, 30.0])
def test_a_pattern_seen_through_a_pixel_is_its_mean_over_the_pixel(checker, footprint):
    material = Material((0.2, 0.1, 0.4), (0.8, 0.6, 0.5), period=(0.5, 0.7), duty=(0.7, 0.4), checker=checker)
    at = np.array([[0.31], [-1.73]], np.float32)
    fine = ((np.arange(2003) + 0.5) / 2003 - 0.5) * footprint
    across, along = (at[0] + fine) / 0.5 % 1 < 0.7, (at[1] + fine)[:, None] / 0.7 % 1 < 0.4
    share = (across ^ along if checker else across & along).mean()
    colour, _ = paint(table([material]), *at, np.float32([footprint]), np.float32([footprint]))
    expected = np.array(material.first) + share * (np.array(material.second) - material.first)
    np.testing.assert_allclose(colour[:, 0], expected, atol=5e-3)


def test_grain_fades_to_the_plain_colour_in_the_distance():
    columns = np.repeat(table([Material(grain=0.5, blend=0.5, second=(0.1, 0.9, 0.5))]), 500, 1)
    u, v = np.random.default_rng(0).uniform(0, 99, (2, 500)).astype(np.float32)
    near, far = (paint(columns, u, v, *np.full((2, 500), w, np.float32))[0].std(1) for w in (0.005, 50.0))
    assert (near > 0.03).all()
    assert (far < 1e-3).all()


def test_a_still_camera_sees_two_equal_frames_and_a_moving_one_does_not():
    still, walking = scenes("room", still=1.0).video(0, 2), scenes("room").video(0, 2)
    assert same(*still)
    assert same(walking[1], picture("room", 0, time=1))
    assert not np.array_equal(walking[0].image, walking[1].image)


@pytest.mark.parametrize("kind", KINDS)
def test_moving_things_move_before_a_still_camera_and_nothing_else_does(kind):
    data = scenes(kind, still=1.0, moving=1.0)
    moved = False
    for i in range(6):
        before, after = data.video(i, 2)
        solids = data.scene(i).solids
        movers = np.unique(solids.thing[np.abs(solids.velocity).max(1) > 0])
        changed = before.depth != after.depth
        at_rest = ~np.isin(before.objects, movers) & ~np.isin(after.objects, movers)
        assert not (changed & at_rest).any()
        moved |= bool(changed.any())
    assert moved


def test_in_traffic_a_car_ahead_is_as_fast_as_the_camera():
    data = scenes("street", moving=1.0)
    for i in range(4):
        scene = data.scene(i)
        drift = scene.solids.velocity - scene.path.velocity
        convoy = np.abs(drift).max(1) <= 0.05 * scene.path.velocity[2] + 1e-12
        assert (scene.solids.centre[convoy, 2] > 4).any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_video_stays_smooth_and_outside_the_things(kind):
    scene = scenes(kind).scene(1)
    positions = np.stack([scene.path.world_from_camera(t)[:3, 3] for t in range(-5, 40)])
    steps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    assert 0 < steps.max() < 1.5
    assert np.abs(np.diff(steps)).max() < 0.1
    if kind == "room":
        assert min(scene.solids.clearance(p) for p in positions) > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_samples_carry_metric_depth_and_the_views_asked_for(kind):
    single = scenes(kind)[0]
    assert single.kind == (Ambiguity.METRIC, Representation.DEPTH)
    assert single.valid.all()
    assert single.image.dtype == np.uint8
    assert single.label.dtype == np.float32
    assert not single.frames
    assert single.stereo_baseline is None
    both = scenes(kind, views=Views.VIDEO_STEREO)[0]
    assert set(both.frames) == set(both.frames_from_camera) == {"prev", "next", "stereo"}
    assert both.stereo_baseline > 0
    assert np.array_equal(both.image, single.image)


def test_a_mixed_set_alternates_and_keys_are_unique_and_free_of_dots():
    data = scenes("mixed", size=(24, 32))
    keys = [sample.key for sample in data]
    assert [key.split("-")[0] for key in keys] == KINDS * 3
    assert len(set(keys)) == len(data) == 6
    assert not any("." in key for key in keys)
    assert keys == [data.key(index) for index in range(6)]


def test_bad_arguments_are_named():
    with pytest.raises(RecipeError, match="kind to be one of room, street, mixed; got 'forest'"):
        SyntheticScenes(1, kind="forest")
    with pytest.raises(RecipeError, match="count and seed to be 0 or more; got -1"):
        SyntheticScenes(-1)
    with pytest.raises(RecipeError, match="moving between 0 and 1; got 2"):
        SyntheticScenes(1, moving=2)
    with pytest.raises(ShapeError, match=r"size as \(height, width\) in pixels, both at least 1; got \(0, 5\)"):
        SyntheticScenes(1, size=(0, 5))
    with pytest.raises(IndexError, match="scene 1 of 1"):
        SyntheticScenes(1)[1]


def test_neighbours_lie_as_many_frames_away_as_asked():
    apart = SyntheticScenes(1, size=(24, 32), kind="street", views=Views.VIDEO, spacing=3)
    before, after = apart.view(0, time=-3), apart.view(0, time=3)
    assert (apart[0].frames["prev"] == before.image).all()
    assert (apart[0].frames["next"] == after.image).all()
    with pytest.raises(RecipeError, match="spacing of at least 1"):
        SyntheticScenes(1, spacing=0)
