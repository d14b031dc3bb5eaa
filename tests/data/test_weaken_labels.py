"""Laws of labels of less."""

import numpy as np
import pytest

from depthkit.data import DepthDataModule, ShardSource
from depthkit.data.transforms import Compose, HorizontalFlip, WeakenLabel, WithoutLabel
from depthkit.errors import LabelError, RecipeError
from depthkit.synthetic import SyntheticScenes
from depthkit.types import Ambiguity, LabelKind, Representation, Sample

RNG = np.random.default_rng(0)
METRIC, UTS, UTSS = (
    LabelKind(Ambiguity.METRIC, Representation.DEPTH),
    LabelKind(Ambiguity.SCALE, Representation.DEPTH),
    LabelKind(Ambiguity.SHIFT_SCALE, Representation.DISPARITY),
)


@pytest.fixture(scope="module")
def street() -> Sample:
    """A scene with sky, and pixels without a label whose values are poison."""
    sample = SyntheticScenes(1, size=(48, 64), kind="street", seed=2)[0]
    label, valid = sample.label.copy(), sample.valid.copy()
    valid[:, :5] = False
    label[:, 0], label[:, 1], label[:, 2], label[:, 3] = np.nan, -1, 0, np.inf
    return sample.replace(label=label, valid=valid)


def test_a_label_up_to_scale_is_depth_times_one_factor(street: Sample) -> None:
    lesser = WeakenLabel(1.0, factor=(0.5, 2.0))(street, RNG)
    assert lesser.kind == UTS
    valid = street.valid & np.isfinite(street.label)
    ratio = lesser.label[valid] / street.label[valid]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)
    assert 0.5 <= ratio[0] <= 2
    assert np.isinf(lesser.label[street.sky & street.valid]).all()


def test_a_label_up_to_shift_and_scale_is_disparity_times_a_factor_plus_an_offset(street: Sample) -> None:
    lesser = WeakenLabel(0.0, offset=0.5)(street, RNG)
    assert lesser.kind == UTSS
    disparity = 1 / street.label[street.valid].astype(np.float64)
    scale, shift = np.polyfit(disparity, lesser.label[street.valid], 1)
    np.testing.assert_allclose(lesser.label[street.valid], scale * disparity + shift, atol=1e-5 * abs(scale))
    assert scale > 0
    assert 0 < abs(shift / scale) <= 0.5 * disparity.std() * 1.001
    np.testing.assert_array_equal(lesser.valid, street.valid)  # sky stays: its disparity is the offset
    assert np.isfinite(lesser.label).all()


def test_what_a_sample_becomes_depends_on_its_key_and_the_seed_alone(street: Sample) -> None:
    degrade = WeakenLabel(0.3, seed=1)
    keys = [f"scene-{i}" for i in range(400)]
    shares = [degrade.ambiguity(key) == Ambiguity.SCALE for key in keys]
    assert 0.22 < np.mean(shares) < 0.38
    for key in keys[:20]:
        first, again = (degrade(street.replace(key=key), np.random.default_rng(i)) for i in range(2))
        assert first.ambiguity == degrade.ambiguity(key)
        np.testing.assert_array_equal(first.label, again.label)
    assert shares != [WeakenLabel(0.3, seed=2).ambiguity(key) == Ambiguity.SCALE for key in keys]


def test_factors_are_log_uniform_and_offsets_uniform_over_their_ranges(street: Sample) -> None:
    """Half of the factors lie below the range's geometric mean; offsets are of both signs, as large as asked."""
    keys = [f"scene-{i}" for i in range(200)]
    at, valid = np.argwhere(street.valid & np.isfinite(street.label))[0], street.valid
    depth, disparity = street.label[tuple(at)], 1 / street.label[valid].astype(np.float64)
    factors = [WeakenLabel(1.0)(street.replace(key=k), RNG).label[tuple(at)] / depth for k in keys]
    assert 0.1 <= min(factors) < 0.15
    assert 7 < max(factors) <= 10
    assert 0.4 < np.mean(np.array(factors) < 1) < 0.6
    lines = [np.polyfit(disparity, WeakenLabel(0.0)(street.replace(key=k), RNG).label[valid], 1) for k in keys]
    offsets = np.array([shift / scale for scale, shift in lines]) / disparity.std()
    assert offsets.min() < -0.45
    assert offsets.max() > 0.45
    assert abs(np.mean(offsets > 0) - 0.5) < 0.12


def test_more_labels_with_geometry_are_those_of_the_smaller_share_and_others() -> None:
    keys = [f"scene-{i}" for i in range(200)]
    few, many = ({k for k in keys if WeakenLabel(p).ambiguity(k) == Ambiguity.SCALE} for p in (0.1, 0.5))
    assert few < many


def test_the_datamodule_says_what_labels_may_become(scenes) -> None:
    for share, kinds in ((1.0, {UTS}), (0.0, {UTSS}), (0.5, {UTS, UTSS})):
        source = ShardSource(str(scenes), transform=Compose([WeakenLabel(share), HorizontalFlip()]))
        assert DepthDataModule([source]).label_kinds == (frozenset(kinds),)


def test_what_cannot_be_degraded_is_refused(street: Sample) -> None:
    film = street.replace(ambiguity=Ambiguity.SHIFT_SCALE, representation=Representation.DISPARITY)
    with pytest.raises(LabelError, match="expected a metric depth label to weaken; got shift_scale disparity"):
        WeakenLabel(0.5)(film, RNG)
    with pytest.raises(LabelError, match="metric depth label"):
        WeakenLabel(0.5)(Sample("a", street.image), RNG)
    with pytest.raises(LabelError, match="expected metric depth labels to weaken; got shift_scale disparity"):
        WeakenLabel(0.5).label_kinds(UTSS)
    with pytest.raises(RecipeError, match="scale_only between 0 and 1"):
        WeakenLabel(10)
    with pytest.raises(RecipeError, match="0 < low <= high"):
        WeakenLabel(0.5, factor=(0, 1))


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_what_is_no_depth_is_no_label_of_less(street: Sample, share: float) -> None:
    broken, row, column = street.label.copy(), *np.argwhere(street.valid)[0]
    for depth in (0.0, -1.0, np.nan):
        broken[row, column] = depth
        lesser = WeakenLabel(share)(street.replace(label=broken), RNG)
        assert not lesser.valid[row, column]
        assert lesser.valid.sum() == street.valid.sum() - 1


def test_an_image_without_a_valid_pixel_stays_one(street: Sample) -> None:
    blind = street.replace(valid=np.zeros_like(street.valid))
    for share in (0.0, 1.0):
        lesser = WeakenLabel(share)(blind, RNG)
        assert not lesser.valid.any()
        assert np.isfinite(lesser.label).all()


def test_without_its_label_a_sample_is_an_image_alone() -> None:
    sample = SyntheticScenes(1, size=(16, 24), kind="street")[0]
    bare = WithoutLabel()(sample, np.random.default_rng(0))
    assert bare.label is None
    assert bare.valid is None
    assert bare.ambiguity == Ambiguity.UNLABELLED
    assert (bare.image == sample.image).all()
    assert {kind.ambiguity for kind in WithoutLabel().label_kinds(sample.kind)} == {Ambiguity.UNLABELLED}
