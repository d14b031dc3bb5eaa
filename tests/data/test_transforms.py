"""Laws of the joint transforms."""

import pickle

import numpy as np
import pytest

from depthkit.data.transforms import (
    BottomCrop,
    CenterCrop,
    Compose,
    HorizontalFlip,
    Photometric,
    RandomResizedCrop,
    RandomRotation,
    Resize,
    Transform,
    crop,
    flip,
    resize,
    rotate,
)
from depthkit.errors import GeometryError, RecipeError, ShapeError
from depthkit.evaluation.crops import KB_CROP
from depthkit.types import Ambiguity, Sample

HEIGHT, WIDTH = 24, 36


@pytest.fixture
def sample() -> Sample:
    """A slanted plane z = 2 + 0.05 u + 0.02 v seen by a camera off its centre, with everything a sample may hold."""
    v, u = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    rng = np.random.default_rng(0)
    valid = rng.random((HEIGHT, WIDTH)) < 0.9
    pose = np.eye(4)
    pose[:3, 3] = 0.1, 0.2, 0.3
    return Sample(
        key="a",
        image=rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8),
        label=(2 + 0.05 * u + 0.02 * v).astype(np.float32),
        valid=valid,
        ambiguity=Ambiguity.METRIC,
        sky=valid & (v < 3),
        intrinsics=np.array([[30.0, 0, 16.5], [0, 28.0, 12.0], [0, 0, 1]]),
        world_from_camera=pose,
        frames={"next": rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)},
        frames_from_camera={"next": pose},
        pairs=np.array([[3, 4, 20, 30, 1], [0, 0, 23, 35, -1]], dtype=np.int32),
    )


def points(sample: Sample) -> np.ndarray:
    """Camera coordinates of all pixels, (H, W, 3)."""
    v, u = np.mgrid[: sample.size[0], : sample.size[1]].astype(np.float64)
    rays = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(sample.intrinsics).T
    return rays * sample.label[..., None]


def same(a: Sample, b: Sample) -> None:
    for name in ("image", "label", "valid", "sky", "intrinsics", "world_from_camera", "pairs"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), err_msg=name)
    for name in a.frames:
        np.testing.assert_array_equal(a.frames[name], b.frames[name])
        np.testing.assert_allclose(a.frames_from_camera[name], b.frames_from_camera[name])


def test_flip_twice_is_the_identity(sample):
    same(flip(flip(sample)), sample)


def test_flip_mirrors_the_points(sample):
    np.testing.assert_allclose(points(flip(sample))[:, ::-1] * [-1, 1, 1], points(sample), atol=1e-6)


def test_flip_keeps_what_one_camera_sees_of_the_other(sample):
    flipped = flip(sample)
    pose, mirrored = sample.frames_from_camera["next"], flipped.frames_from_camera["next"]
    point = np.array([0.3, -0.2, 4.0, 1.0])
    mirror = np.array([-1, 1, 1, 1])
    np.testing.assert_allclose(mirrored @ (mirror * point), mirror * (pose @ point))


def test_flip_keeps_pairs_on_their_pixels(sample):
    flipped = flip(sample)
    for before, after in zip(sample.pairs, flipped.pairs, strict=True):
        np.testing.assert_array_equal(sample.image[before[0], before[1]], flipped.image[after[0], after[1]])
        np.testing.assert_array_equal(sample.image[before[2], before[3]], flipped.image[after[2], after[3]])


def test_pairs_stay_in_the_middle_of_pixels_that_grow(sample):
    larger = resize(sample, 3 * HEIGHT, 3 * WIDTH).pairs
    np.testing.assert_array_equal(larger[0], [10, 13, 61, 91, 1])
    np.testing.assert_array_equal(larger[1], [1, 1, 3 * 23 + 1, 3 * 35 + 1, -1])


def test_flip_refuses_a_stereo_pair_without_its_pose(sample):
    stereo = sample.replace(frames={"stereo": sample.image}, frames_from_camera={}, stereo_baseline=0.1)
    with pytest.raises(GeometryError, match="stereo pair without frames_from_camera"):
        flip(stereo)


def test_crop_keeps_the_points(sample):
    cropped = crop(sample, 5, 7, 10, 20)
    np.testing.assert_allclose(points(cropped), points(sample)[5:15, 7:27], atol=1e-6)
    np.testing.assert_array_equal(cropped.frames["next"], sample.frames["next"][5:15, 7:27])
    assert len(cropped.pairs) == 0  # both pairs reach outside


def test_crop_moves_pairs_and_drops_those_outside(sample):
    np.testing.assert_array_equal(crop(sample, 2, 3, 20, 30).pairs, [[1, 1, 18, 27, 1]])
    kept = [len(crop(sample, 0, 0, *size).pairs) for size in ((21, 31), (20, 31), (21, 30))]
    assert kept == [1, 0, 0]  # its far end lies in row 20 and column 30


def test_resize_by_an_odd_factor_keeps_the_points(sample):
    """Then every new pixel centre is an old one."""
    np.testing.assert_allclose(points(resize(sample, HEIGHT // 3, WIDTH // 3)), points(sample)[1::3, 1::3], atol=1e-6)


@pytest.mark.parametrize("size", [(48, 72), (12, 18), (17, 50)])
def test_resize_keeps_the_points_within_a_pixel(sample, size):
    resized = resize(sample, *size)
    v, u = (np.mgrid[: size[0], : size[1]] + 0.5) * np.array([HEIGHT / size[0], WIDTH / size[1]])[:, None, None] - 0.5
    depth = 2 + 0.05 * u + 0.02 * v
    rays = np.stack([(u - 16.5) / 30, (v - 12) / 28, np.ones_like(u)], -1)
    np.testing.assert_allclose(points(resized), rays * depth[..., None], atol=0.1)
    np.testing.assert_allclose(points(resized) / resized.label[..., None], rays, atol=1e-6)


def test_labels_and_masks_invent_no_value(sample):
    poisoned = sample.replace(label=np.where(sample.valid, sample.label, np.nan).astype(np.float32))
    for transform in (Resize((31, 17)), RandomResizedCrop((40, 40))):
        out = transform(poisoned, np.random.default_rng(0))
        assert set(np.unique(out.label[out.valid])) <= set(np.unique(poisoned.label[poisoned.valid]))
        assert np.isnan(out.label[~out.valid]).all()
        assert (out.valid | ~out.sky).all()


def test_random_crop_keeps_the_aspect_ratio_and_its_scale(sample):
    rng = np.random.default_rng(0)
    for _ in range(20):
        out = RandomResizedCrop((64, 96), scale=(0.25, 1.0))(sample, rng)
        assert out.size == (64, 96)
        x, y = out.intrinsics[0, 0] / 30, out.intrinsics[1, 1] / 28
        assert 0.9 < x / y < 1.1
        assert 64 / 24 - 0.2 <= x <= 2 * 64 / 24 + 0.2


def test_random_crop_reaches_every_corner(sample):
    rng = np.random.default_rng(0)
    corners = {
        (o.intrinsics[0, 2] > 8, o.intrinsics[1, 2] > 5)
        for o in (RandomResizedCrop((12, 12), scale=(0.1, 0.2))(sample, rng) for _ in range(60))
    }
    assert len(corners) == 4
    centres = {
        tuple(RandomResizedCrop(size, scale=(1, 1))(sample, rng).intrinsics[:2, 2]) for size in ((24, 35), (23, 36)) * 20
    }
    assert len(centres) == 3  # at both ends of the one column, or row, that is left over


@pytest.mark.parametrize(("multiple", "size"), [(4, (16, 24)), (10, (20, 20))])
def test_resize_keeps_the_aspect_ratio_and_covers_the_size_in_the_nearest_multiples(sample, multiple, size):
    out = Resize((16, 16), keep_aspect=True, multiple_of=multiple)(sample, np.random.default_rng(0))
    assert out.size == size


def test_the_same_random_numbers_make_the_same_sample_and_others_another(sample):
    transform = Compose([RandomResizedCrop((20, 20)), HorizontalFlip()])
    same(transform(sample, np.random.default_rng(3)), transform(sample, np.random.default_rng(3)))
    outs = [transform(sample, np.random.default_rng(i)).image.tobytes() for i in range(5)]
    assert len(set(outs)) == 5


def test_flips_come_with_their_probability(sample):
    rng = np.random.default_rng(0)
    flips = sum(HorizontalFlip(0.25)(sample, rng) is not sample for _ in range(400))
    assert abs(flips - 100) < 3 * np.sqrt(400 * 0.25 * 0.75)


def test_colours_depend_on_the_given_numbers_alone_and_views_share_them(sample):
    import albumentations

    transform = Photometric([albumentations.ColorJitter(p=1.0), albumentations.RandomGamma(p=0.5)])
    sample = sample.replace(frames={"next": sample.image})
    first, copied = (
        transform(sample, np.random.default_rng(1)),
        pickle.loads(pickle.dumps(transform))(sample, np.random.default_rng(1)),
    )
    np.testing.assert_array_equal(first.image, copied.image)
    np.testing.assert_array_equal(first.image, first.frames["next"])
    assert len({transform(sample, np.random.default_rng(i)).image.tobytes() for i in range(5)}) == 5
    np.testing.assert_array_equal(first.label, sample.label)


def test_colour_transforms_that_move_pixels_are_refused():
    import albumentations

    with pytest.raises(RecipeError, match="leave pixels where they are; got HorizontalFlip"):
        Photometric([albumentations.HorizontalFlip()])


def test_impossible_geometry_is_refused(sample):
    with pytest.raises(ShapeError, match="inside the image of 24 x 36; got 30 x 30"):
        CenterCrop((30, 30))(sample, np.random.default_rng(0))
    with pytest.raises(ShapeError, match="view 'next' in the size of the image"):
        flip(sample.replace(frames={"next": sample.image[:5]}))
    with pytest.raises(RecipeError, match=r"0 < low <= high <= 1; got \(0.5, 2.0\)"):
        RandomResizedCrop((8, 8), scale=(0.5, 2.0))
    with pytest.raises(RecipeError, match="height, width"):
        Resize((8, 0))


def world(sample: Sample, valid: np.ndarray) -> np.ndarray:
    """World coordinates of some pixels."""
    pose = sample.world_from_camera
    return points(sample)[valid] @ pose[:3, :3].T + pose[:3, 3]


@pytest.mark.parametrize("angle", [0.3, -1.2])
def test_a_rotated_camera_sees_the_same_world(sample, angle):
    turned = rotate(sample.replace(valid=np.ones(sample.size, bool)), angle)
    assert 0.3 < turned.valid.mean() < 1
    seen, plane = world(turned, turned.valid), world(sample, np.ones(sample.size, bool))
    nearest = np.linalg.norm(seen[:, None] - plane[None], axis=-1).min(1)
    assert np.median(nearest) < 0.05  # a pixel is 0.08 wide there
    centre = sample.replace(label=None, valid=None, sky=None)
    middle = np.array([(WIDTH - 1) / 2, (HEIGHT - 1) / 2, 1])
    ray, turned_ray = (np.linalg.inv(s.intrinsics) @ middle for s in (sample, rotate(centre, angle)))
    pose, turned_pose = sample.world_from_camera[:3, :3], turned.world_from_camera[:3, :3]
    np.testing.assert_allclose(turned_pose @ turned_ray, pose @ ray, atol=1e-9)


def test_rotating_there_and_back_restores_camera_and_poses(sample):
    back = rotate(rotate(sample, 0.4), -0.4)
    np.testing.assert_allclose(back.intrinsics, sample.intrinsics, atol=1e-9)
    np.testing.assert_allclose(back.world_from_camera, sample.world_from_camera, atol=1e-12)
    np.testing.assert_allclose(back.frames_from_camera["next"], sample.frames_from_camera["next"], atol=1e-12)


def test_rotation_by_half_a_turn_reverses_every_map(sample):
    turned = rotate(sample, np.pi)
    for name in ("image", "label", "valid", "sky"):
        np.testing.assert_allclose(getattr(turned, name), getattr(sample, name)[::-1, ::-1], err_msg=name)
    np.testing.assert_array_equal(turned.frames["next"], sample.frames["next"][::-1, ::-1])
    np.testing.assert_array_equal(turned.pairs[:, :4], np.array([HEIGHT - 1, WIDTH - 1] * 2) - sample.pairs[:, :4])
    np.testing.assert_array_equal(turned.pairs[:, 4], sample.pairs[:, 4])


def test_a_positive_angle_turns_the_picture_clockwise_and_mirrors_the_border_into_its_corners(sample: Sample) -> None:
    square = crop(sample.replace(intrinsics=None), 0, 0, 24, 24)
    np.testing.assert_array_equal(rotate(square, np.pi / 2).label[2:-2, 2:-2], np.rot90(square.label, -1)[2:-2, 2:-2])
    white = square.replace(image=np.full_like(square.image, 255))
    assert (rotate(white, 0.6).image == 255).all()


def test_random_rotations_turn_both_ways_up_to_their_angle(sample: Sample) -> None:
    poses = [RandomRotation(10)(sample, np.random.default_rng(seed)).world_from_camera for seed in range(60)]
    angles = np.rad2deg([np.arctan2(pose[1, 0], pose[0, 0]) for pose in poses])
    assert -10 <= angles.min() < -7
    assert 7 < angles.max() <= 10


def test_rotation_keeps_what_one_camera_sees_of_the_other(sample):
    turned = rotate(sample, 0.5)
    point = np.array([0.3, -0.2, 4.0, 1.0])
    to_turned = np.linalg.inv(turned.world_from_camera) @ sample.world_from_camera
    before, after = sample.frames_from_camera["next"], turned.frames_from_camera["next"]
    np.testing.assert_allclose(after @ (to_turned @ point), to_turned @ (before @ point), atol=1e-12)


def test_corners_that_come_in_have_no_label(sample):
    full = sample.replace(valid=np.ones(sample.size, bool), label=np.full(sample.size, 2.0, np.float32), sky=None, pairs=None)
    turned = RandomRotation(45)(full, np.random.default_rng(0))
    assert 0.5 < turned.valid.mean() < 1
    assert (turned.label[turned.valid] == 2).all()
    with pytest.raises(RecipeError, match="degrees"):
        RandomRotation(-1)


def test_the_centre_crop_leaves_the_odd_row_and_column_below_and_on_the_right(sample: Sample) -> None:
    same(CenterCrop((9, 13))(sample, np.random.default_rng(0)), crop(sample, 7, 11, 9, 13))  # 15 rows and 23 columns are left


def test_an_image_that_grows_is_smooth(sample: Sample) -> None:
    """Cubic where it grows, if only across, the mean of the area where it shrinks."""
    ramp = np.repeat(np.arange(0, 252, 7, dtype=np.uint8)[None, :, None], HEIGHT, 0).repeat(3, 2)
    for height in (4 * HEIGHT, HEIGHT // 2):
        grown = resize(sample.replace(image=ramp), height, 4 * WIDTH).image[height // 2, 8:-8, 0].astype(int)
        assert np.diff(grown).max() <= 2
    checked = np.indices((HEIGHT, WIDTH)).sum(0)[..., None].repeat(3, 2) % 2 * 200
    shrunk = resize(sample.replace(image=checked.astype(np.uint8)), HEIGHT // 2, WIDTH // 2).image
    assert (shrunk == 100).all()


def test_the_scale_of_a_random_crop_is_its_area(sample: Sample) -> None:
    out = RandomResizedCrop((24, 36), scale=(0.25, 0.25))(sample, np.random.default_rng(0))
    assert out.intrinsics[0, 0] == pytest.approx(2 * 30)


def test_the_bottom_crop_is_that_of_kittis_depth_benchmark(sample: Sample) -> None:
    cut = BottomCrop((10, 21))(sample, np.random.default_rng(0))
    same(cut, crop(sample, HEIGHT - 10, (WIDTH - 21) // 2, 10, 21))
    top, bottom, left, right = KB_CROP.box(375, 1242)
    whole = sample.replace(image=np.zeros((375, 1242, 3), np.uint8), label=None, valid=None, sky=None, frames={}, pairs=None)
    whole.image[top:bottom, left:right] = 1
    assert BottomCrop((352, 1216))(whole, np.random.default_rng(0)).image.all()


def test_colours_change_as_often_as_asked(sample: Sample) -> None:
    import albumentations

    noise = albumentations.MultiplicativeNoise((0.5, 0.6), per_channel=True, p=1)
    always, never, half = (Photometric([noise], p=p) for p in (1.0, 0.0, 0.5))
    changed = [
        [not np.array_equal(how(sample, np.random.default_rng(seed)).image, sample.image) for seed in range(40)]
        for how in (always, never, half)
    ]
    assert [sum(changed[0]), sum(changed[1])] == [40, 0]
    assert 8 <= sum(changed[2]) <= 32


def test_a_transform_that_returns_a_float_image_is_named():
    class ToFloat(Transform):
        def __call__(self, sample, rng):
            return sample.replace(image=sample.image / 255)

    sample = Sample("a", np.zeros((4, 6, 3), np.uint8))
    with pytest.raises(ShapeError, match=r"expected uint8 \(H, W, 3\) from ToFloat for 'image' of sample a; got float64"):
        Compose([HorizontalFlip(), ToFloat()])(sample, np.random.default_rng(0))
