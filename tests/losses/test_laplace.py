import math

import pytest
import torch
from torch.testing import assert_close

from depthkit.errors import ShapeError
from depthkit.losses import LaplaceNLLLoss
from depthkit.losses.functional import laplace_nll_loss

SIZE = (2, 1, 5, 6)


def maps() -> tuple[torch.Tensor, ...]:
    return torch.randn(SIZE), torch.randn(SIZE), torch.rand(SIZE) > 0.3, 0.3 * torch.randn(SIZE)


def test_it_is_the_likelihood_of_torchs_distribution() -> None:
    pred, target, valid, s = maps()
    theirs = -torch.distributions.Laplace(pred, s.exp()).log_prob(target) - math.log(2)
    expected = torch.stack([theirs[i][valid[i]].mean() for i in range(2)])
    assert_close(laplace_nll_loss(pred, target, valid, s), expected)
    assert_close(LaplaceNLLLoss()(pred, target, valid, s), expected)


def test_the_best_scale_is_the_mean_error() -> None:
    pred, target, valid, _ = maps()
    error = (pred - target).abs()
    s = torch.tensor([error[i][valid[i]].mean().log() for i in range(2)]).view(2, 1, 1, 1).expand(SIZE).clone().requires_grad_()
    laplace_nll_loss(pred, target, valid, s).sum().backward()
    assert_close(s.grad.flatten(1).sum(1), torch.zeros(2), atol=1e-6, rtol=0)


def test_what_is_not_valid_is_never_read() -> None:
    pred, target, valid, s = maps()
    valid[1] = False
    poisoned = [x.where(valid, torch.nan).requires_grad_() for x in (pred, target, s)]
    loss = laplace_nll_loss(poisoned[0], poisoned[1], valid, poisoned[2])
    assert_close(loss, laplace_nll_loss(pred, target, valid, s), rtol=0, atol=0)
    assert loss[1] == 0
    loss.sum().backward()
    assert all((x.grad[~valid] == 0).all() and x.grad[valid].any() for x in poisoned)
    assert torch.autograd.gradcheck(
        lambda a, b: laplace_nll_loss(a, target.double(), valid, b), [x.double().detach().requires_grad_() for x in (pred, s)]
    )


def test_maps_of_other_sizes_are_refused() -> None:
    pred, target, valid, s = maps()
    with pytest.raises(ShapeError, match="of one shape"):
        laplace_nll_loss(pred, target, valid, s[..., :3])
