"""Laws of the ranking loss."""

import math

import pytest
import torch
from torch.testing import assert_close

from depthkit.errors import ShapeError
from depthkit.losses.functional import ranking_loss


def one_pair(difference, order):
    disparity = torch.tensor([[[[0.0, 5.0], [difference, 0.0]]]])
    return ranking_loss(disparity, torch.tensor([[[1, 0, 1, 1]]]), torch.tensor([[order]])).item()


@pytest.mark.parametrize("difference", [-3.0, 0.0, 0.5, 20.0])
def test_an_ordered_pair_costs_the_logistic_of_its_difference_and_an_equal_one_its_square(difference):
    assert one_pair(difference, 1) == pytest.approx(math.log1p(math.exp(-difference)), abs=1e-6)
    assert one_pair(difference, -1) == pytest.approx(math.log1p(math.exp(difference)), abs=1e-6)
    assert one_pair(difference, 0) == pytest.approx(difference**2)


def test_the_closer_point_has_the_larger_disparity():
    assert one_pair(2.0, +1) < one_pair(-2.0, +1)


def test_swapping_the_points_and_the_order_changes_nothing():
    disparity, points = torch.rand(2, 1, 6, 7), torch.randint(6, (2, 30, 4))
    order = torch.randint(-1, 2, (2, 30))
    assert_close(ranking_loss(disparity, points[..., [2, 3, 0, 1]], -order), ranking_loss(disparity, points, order))


def test_padding_does_not_count():
    disparity, points, order = torch.rand(1, 1, 6, 7), torch.randint(6, (1, 5, 4)), torch.tensor([[1, -1, 0, 1, 1]])
    padded = torch.cat([points, torch.full((1, 3, 4), -1)], 1)
    padded_order = torch.cat([order, torch.full((1, 3), -1)], 1)
    assert_close(ranking_loss(disparity, padded, padded_order), ranking_loss(disparity, points, order))


def test_no_pairs_at_all_is_zero_and_stays_in_the_graph():
    disparity = torch.rand(2, 1, 4, 4, requires_grad=True)
    loss = ranking_loss(disparity, torch.empty(2, 0, 4, dtype=torch.int64), torch.empty(2, 0, dtype=torch.int64))
    assert (loss == 0).all()
    loss.sum().backward()
    assert (disparity.grad == 0).all()


@pytest.mark.parametrize("point", [(4, 0), (0, 5), (2, -1)])
def test_a_point_outside_the_map_is_refused(point):
    with pytest.raises(ShapeError, match="inside a map of 4 x 5 pixels"):
        ranking_loss(torch.rand(1, 1, 4, 5), torch.tensor([[[0, 0, *point]]]), torch.tensor([[1]]))


def test_pairs_of_another_shape_are_refused_with_the_remedy():
    with pytest.raises(ShapeError, match="Pad images that have fewer pairs with -1"):
        ranking_loss(torch.rand(1, 1, 4, 5), torch.zeros(1, 3, 5, dtype=torch.int64), torch.ones(1, 3))
