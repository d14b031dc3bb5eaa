"""Edge-aware smoothness: what it ignores and what it forgives."""

import pytest
import torch
from torch.testing import assert_close

from depthkit.errors import ShapeError
from depthkit.losses.functional import edge_aware_smoothness_loss


def test_a_constant_disparity_is_smooth():
    assert (edge_aware_smoothness_loss(torch.full((2, 1, 6, 7), 0.3), torch.rand(2, 3, 6, 7)) == 0).all()


@pytest.mark.parametrize("scale", [0.01, 3.0, 1000.0])
def test_the_scale_of_the_disparity_does_not_matter(scale):
    disparity, image = 0.1 + torch.rand(2, 1, 6, 7), torch.rand(2, 3, 6, 7)
    expected = edge_aware_smoothness_loss(disparity, image)
    assert_close(edge_aware_smoothness_loss(scale * disparity, image), expected, rtol=1e-4, atol=0)


def test_a_ramp_under_a_plain_image_has_its_closed_form():
    disparity = torch.arange(1.0, 8.0).expand(1, 1, 5, 7)  # mean 4, steps of 1 along rows only
    assert_close(edge_aware_smoothness_loss(disparity, torch.ones(1, 3, 5, 7)), torch.tensor([1 / 4]))
    assert_close(edge_aware_smoothness_loss(disparity.mT, torch.ones(1, 3, 7, 5)), torch.tensor([1 / 4]))


def test_a_step_costs_less_where_the_image_has_one():
    step = torch.ones(1, 1, 4, 8)
    step[..., 4:] = 2
    image = step.expand(1, 3, 4, 8) - 1
    elsewhere = image.roll(2, dims=3)
    plain = edge_aware_smoothness_loss(step, torch.zeros_like(image))
    assert_close(edge_aware_smoothness_loss(step, image), plain * torch.exp(torch.tensor(-1.0)))
    assert edge_aware_smoothness_loss(step, elsewhere) > edge_aware_smoothness_loss(step, image)


def test_all_zero_disparity_gives_a_finite_gradient():
    disparity = torch.zeros(1, 1, 4, 5, requires_grad=True)
    edge_aware_smoothness_loss(disparity, torch.rand(1, 3, 4, 5)).sum().backward()
    assert disparity.grad.isfinite().all()


def test_an_image_of_another_scale_is_refused_with_the_remedy():
    with pytest.raises(ShapeError, match="Resize the image to the disparity's scale"):
        edge_aware_smoothness_loss(torch.rand(1, 1, 4, 4), torch.rand(1, 3, 8, 8))
    with pytest.raises(ShapeError, match="at least 2 x 2"):
        edge_aware_smoothness_loss(torch.rand(1, 1, 1, 4), torch.rand(1, 3, 1, 4))
