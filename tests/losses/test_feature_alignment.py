"""Feature alignment: which places it pulls."""

import pytest
import torch
from torch.testing import assert_close

from depthkit.errors import RecipeError, ShapeError
from depthkit.losses.functional import feature_alignment_loss


def _at_cosines(*cosines: float) -> tuple[torch.Tensor, torch.Tensor]:
    """One image whose places have these cosines, ``(1, N, 2)``."""
    c = torch.tensor(cosines)
    frozen = torch.tensor([1.0, 0.0]).expand(len(c), 2)
    return torch.stack([c, (1 - c**2).sqrt()], -1)[None], frozen[None]


def test_places_above_the_margin_are_left_alone_and_the_others_averaged():
    features, frozen = _at_cosines(0.9, 0.5, -0.3)
    assert_close(feature_alignment_loss(features, frozen), torch.tensor([(0.5 + 1.3) / 2]))
    assert_close(feature_alignment_loss(features, frozen, divisor="all"), torch.tensor([(0.5 + 1.3) / 3]))
    assert_close(feature_alignment_loss(features, frozen, margin=0.95), torch.tensor([(0.1 + 0.5 + 1.3) / 3]))
    assert feature_alignment_loss(*_at_cosines(0.0), margin=0.0) == 1  # a place at the margin is pulled


def test_an_image_that_agrees_everywhere_gives_zero_with_zero_gradient():
    features, frozen = _at_cosines(0.9, 1.0)
    value = feature_alignment_loss(features.requires_grad_(), frozen)
    assert value == 0
    assert torch.autograd.grad(value.sum(), features)[0].abs().sum() == 0


def test_only_the_trained_features_get_a_gradient_and_their_length_does_not_matter():
    features, frozen = torch.randn(2, 8, 4, 5, requires_grad=True), torch.randn(2, 8, 4, 5, requires_grad=True)
    value = feature_alignment_loss(features, frozen)
    value.sum().backward()
    assert frozen.grad is None
    assert features.grad.abs().sum() > 0
    assert_close(feature_alignment_loss(5 * features, 0.1 * frozen), value)


def test_maps_and_tokens_of_the_same_vectors_agree():
    features, frozen = torch.randn(2, 2, 8, 4, 5)
    tokens = (x.flatten(2).mT for x in (features, frozen))
    assert_close(feature_alignment_loss(*tokens), feature_alignment_loss(features, frozen))


def test_other_shapes_and_options_are_refused():
    with pytest.raises(ShapeError, match=r"expected features of one shape, .*Freeze an encoder of the same architecture"):
        feature_alignment_loss(torch.rand(1, 4, 8), torch.rand(1, 4, 16))
    with pytest.raises(RecipeError, match="expected divisor to be one of kept, all; got 'some'"):
        feature_alignment_loss(torch.rand(1, 4, 8), torch.rand(1, 4, 8), divisor="some")
