"""No scene, no neighbour and no near duplicate of an image that is held out is learnt from."""

import numpy as np
import pytest

from depthkit.cli.finetuning.division import NEAR, divided, near, scene_of
from depthkit.errors import RecipeError


def unlike(count: int) -> np.ndarray:
    return np.random.default_rng(0).random((count, 64)) < 0.5


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
@pytest.mark.parametrize("sizes", [(5, 5, 5), (20, 3, 4, 2), (1,) * 9, (30, 2)])
def test_scenes_are_on_one_side(sizes: tuple[int, ...], share: float) -> None:
    keys = [f"scene{name}/{n:03d}" for name, size in zip("abcdefghi", sizes, strict=False) for n in range(size)]
    found = divided(keys, unlike(len(keys)), share)
    test = {scene_of(keys[n]) for n in found.test}
    others = {scene_of(keys[n]) for n in (*found.train, *found.val)}
    assert found.by == "scenes"
    assert test.isdisjoint(others)
    assert found.train
    assert found.val
    assert not set(found.train) & set(found.val)


@pytest.mark.parametrize("count", [10, 50, 97])
@pytest.mark.parametrize("share", [0.1, 0.3])
def test_neighbours_of_a_sequence_never_straddle(count: int, share: float) -> None:
    found = divided([f"kitchen/{n:06d}" for n in range(count)], unlike(count), share)
    assert found.by == "blocks"
    for ours, theirs in ((found.train, found.val), (found.train, found.test), (found.val, found.test)):
        assert min(abs(a - b) for a in ours for b in theirs) > 1
    for block in (found.train, found.val, found.test):
        assert list(block) == list(range(block[0], block[-1] + 1))
    assert len(found.test) == round(share * count)


def test_what_shows_the_same_is_left_out_of_training() -> None:
    signatures = unlike(20)
    signatures[2] = signatures[19]
    signatures[2, :NEAR] ^= True
    signatures[3] = signatures[19]
    signatures[3, : NEAR + 1] ^= True
    found = divided([f"hall/{n}" for n in range(20)], signatures, 0.2)
    assert 2 not in found.train
    assert {1, 3} <= set(found.train)


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_images_cannot_be_divided(count: int) -> None:
    with pytest.raises(RecipeError, match="at least 3 images"):
        divided([f"hall/{n}" for n in range(count)], unlike(count), 0.2)
    assert divided([f"hall/{n}" for n in range(3)], unlike(3), 0.2).train == (0,)


def test_splits_that_judge_are_kept() -> None:
    keys = [f"hall/{n}" for n in range(12)]
    found = divided(keys, unlike(12), 0.2, judging=(0, 1, 2))
    assert (found.test, found.by) == ((0, 1, 2), "test split")
    assert not {0, 1, 2} & {*found.train, *found.val}


def test_near_is_what_counting_bits_finds() -> None:
    """More than one block of rows; each compared with those before it."""
    signatures = np.random.default_rng(1).random((1500, 64)) < 0.5
    signatures[1400] = signatures[3]
    signatures[1400, :NEAR] ^= True
    signatures[7] = signatures[1200]
    signatures[7, : NEAR + 1] ^= True
    assert np.flatnonzero(near(signatures, signatures, earlier=True)).tolist() == [1400]
    assert np.flatnonzero(near(signatures[:10], signatures[1400:])).tolist() == [3]
