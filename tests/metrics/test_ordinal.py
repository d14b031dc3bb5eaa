"""WHDR: directions, ties, equality, padding."""

import pytest
import torch
from torch.testing import assert_close

from depthkit.errors import RecipeError, ShapeError
from depthkit.metrics import WHDR
from depthkit.metrics.functional import whdr
from depthkit.types import Representation
from tests.contracts.metric import point_pairs, run

DISPARITY = Representation.DISPARITY


def labelled_by(depth, pairs):
    """The order that is true of a depth map."""
    read = depth.flatten(1).gather
    a = read(1, pairs[..., 0] * depth.shape[-1] + pairs[..., 1])
    b = read(1, pairs[..., 2] * depth.shape[-1] + pairs[..., 3])
    return (b - a).sign().long()


@pytest.fixture
def truth():
    depth, pairs = point_pairs()
    pairs = pairs[:, :8, :4]  # no padding
    return depth, pairs, labelled_by(depth, pairs)


def test_truth_scores_zero_and_its_inverse_one(truth):
    depth, pairs, order = truth
    assert whdr(depth, pairs, order).tolist() == [0, 0, 0, 0]
    assert whdr(1 / depth, pairs, order).tolist() == [1, 1, 1, 1]
    assert whdr(1 / depth, pairs, order, representation=DISPARITY).tolist() == [0, 0, 0, 0]
    assert whdr(-depth.log(), pairs, order, representation=Representation.LOG_DISPARITY).tolist() == [0, 0, 0, 0]


def test_only_the_order_of_the_prediction_counts(truth):
    _, pairs, order = truth
    disparity = torch.randn(4, 1, 9, 11)
    moved = 7 * disparity - 40
    assert_close(whdr(moved, pairs, order, representation=DISPARITY), whdr(disparity, pairs, order, representation=DISPARITY))


def test_swapping_the_points_and_the_order_changes_nothing(truth):
    depth, pairs, order = truth
    guess = torch.rand_like(depth)
    assert_close(whdr(guess, pairs[..., [2, 3, 0, 1]], -order), whdr(guess, pairs, order))


def test_collapsed_map_scores_one_unless_the_points_are_the_same(truth):
    depth, pairs, order = truth
    order = order.where(order != 0, 1)
    assert whdr(torch.ones_like(depth), pairs, order).tolist() == [1, 1, 1, 1]
    assert whdr(torch.ones_like(depth), pairs, 0 * order, equal_ratio=1.1).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("tie", [-1, 0, 1])
def test_a_tie_stands_for_the_order_it_is_said_to(truth, tie):
    depth, pairs, order = truth
    order = order.where(order != 0, 1)
    share = (order != tie).double().mean(1)
    assert_close(whdr(torch.ones_like(depth), pairs, order, tie=tie), share)
    distinct = torch.arange(depth.numel()).view_as(depth).float()
    assert_close(whdr(distinct, pairs, order, tie=tie), whdr(distinct, pairs, order))
    assert_close(run(WHDR(tie=tie), (torch.ones_like(depth), pairs, order), (4,)).compute(), share.mean())


def test_points_within_the_ratio_are_the_same():
    depth = torch.tensor([1.0, 1.05, 2.0]).view(1, 1, 1, 3)
    pairs = torch.tensor([[[0, 0, 0, 1], [0, 0, 0, 2]]])
    same, closer = torch.tensor([[0, 0]]), torch.tensor([[1, 1]])
    assert whdr(depth, pairs, same, equal_ratio=1.1).tolist() == [0.5]
    assert whdr(depth, pairs, closer, equal_ratio=1.1).tolist() == [0.5]
    assert whdr(depth, pairs, closer, equal_ratio=1.01).tolist() == [0]
    assert whdr(-depth, pairs, closer, equal_ratio=1.1).isnan().all()


def test_a_ratio_of_exactly_the_limit_is_the_same():
    pairs = torch.tensor([[[0, 0, 0, 1, 0]]])
    assert whdr(torch.tensor([4.0, 5.0]).view(1, 1, 1, 2), pairs, equal_ratio=1.25).item() == 0
    assert whdr(torch.tensor([4.0, 5.1]).view(1, 1, 1, 2), pairs, equal_ratio=1.25).item() == 1


def test_pairs_labelled_the_same_are_left_out_without_a_ratio():
    depth, pairs, order = torch.rand(1, 1, 3, 3), torch.tensor([[[0, 0, 1, 1]]]), torch.zeros(1, 1, dtype=torch.int64)
    metric = run(WHDR(), (depth, pairs, order), (1,))
    assert metric.compute().isnan()
    assert metric.n_left_out == 1


def test_order_may_stand_in_the_fifth_column(truth):
    depth, pairs, order = truth
    guess = torch.rand_like(depth)
    assert_close(whdr(guess, torch.cat([pairs, order[..., None]], -1)), whdr(guess, pairs, order))


def test_weight_two_is_the_pair_twice_and_weight_zero_is_no_pair(truth):
    _, pairs, order = truth
    guess, weights = torch.rand(4, 1, 9, 11), torch.ones(4, 8)
    weights[:, 0], weights[:, 1] = 2, 0
    repeated = [0, 0, 2, 3, 4, 5, 6, 7]
    assert_close(whdr(guess, pairs, order, weights), whdr(guess, pairs[:, repeated], order[:, repeated]))


def test_image_whose_pairs_weigh_nothing_is_left_out(truth):
    depth, pairs, order = truth
    weights = torch.ones(4, 8)
    weights[2] = 0
    metric = run(WHDR(), (depth, pairs, order, weights), (1, 3))
    assert metric.compute() == 0
    assert (int(metric.n_images), int(metric.n_left_out), int(metric.n_pixels)) == (3, 1, 24)


def test_padding_changes_nothing(truth):
    _, pairs, order = truth
    guess = torch.rand(4, 1, 9, 11)
    padded = torch.nn.functional.pad(pairs, (0, 0, 0, 3), value=-1)
    assert_close(whdr(guess, padded, torch.nn.functional.pad(order, (0, 3), value=-1)), whdr(guess, pairs, order))


def test_pooled_pairs_weigh_alike_and_images_weigh_alike_by_name():
    depth = torch.tensor([1.0, 2.0]).view(1, 1, 1, 2).expand(2, 1, 1, 2)
    right, wrong, none = [0, 0, 0, 1, 1], [0, 0, 0, 1, -1], [-1] * 5
    pairs = torch.tensor([[right, right, right], [wrong, none, none]])
    assert run(WHDR(), (depth, pairs), (1, 1)).compute() == 0.5
    assert run(WHDR(reduction="pixel"), (depth, pairs), (1, 1)).compute() == 0.25


@pytest.mark.parametrize("point", [[0, 11, 0, 0], [9, 0, 0, 0], [0, 0, 0, -1], [0, 0, 99, 0]])
def test_point_outside_the_image_is_never_read_from_elsewhere(truth, point):
    depth, pairs, order = truth
    pairs = pairs.clone()
    pairs[1, 3], order[1, 3] = torch.tensor(point), 1
    assert whdr(depth, pairs, order).isnan().tolist() == [False, True, False, False]


def test_pairs_that_do_not_fit_are_refused():
    depth, pairs = torch.rand(2, 1, 3, 3), torch.zeros(2, 4, 4, dtype=torch.int64)
    with pytest.raises(ShapeError, match="no order"):
        whdr(depth, pairs)
    with pytest.raises(ShapeError, match=r"expected order of shape \(2, 4\)"):
        whdr(depth, pairs, pairs[:, :3, 0])
    with pytest.raises(ShapeError, match=r"expected integer pairs of shape \(2, P, 4\)"):
        whdr(depth, pairs.float(), pairs[..., 0])
    with pytest.raises(ShapeError, match=r"expected pred of shape \(B, 1, H, W\)"):
        whdr(depth[:, 0], pairs, pairs[..., 0])
    with pytest.raises(RecipeError, match="expected tie of -1, 0 or 1"):
        whdr(depth, pairs, pairs[..., 0], tie=2)
