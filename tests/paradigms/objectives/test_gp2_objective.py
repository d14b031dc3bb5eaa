"""GeometryPreservingModule against Romanov et al. (2020), eqs 1-3, over all pairs of pixels, written from the paper."""

from typing import Any

import pytest
import torch
from torch import Tensor

from depthkit.paradigms import GeometryPreservingModule
from depthkit.types import Ambiguity, Batch, Representation
from tests.contracts.objective import assert_same_step, disparity_of, kind_of, mixture
from tests.contracts.paradigm import TinyNet


def all_pairs(x: Tensor) -> Tensor:
    """Eq 1: the mean of |x_i - x_j| over all pairs, each pixel with itself included."""
    return (x[:, None] - x[None]).abs().sum() / len(x) ** 2


def reference(m: GeometryPreservingModule, b: Batch, geometric: float = 1.0, affine: float = 1.0) -> Tensor:
    """Eq 3: SI where the geometry is known plus SSI everywhere, the mean over the images with a label."""
    sign = -1 if m.model.representation == Representation.LOG_DEPTH else 1
    p, losses = sign * m.model(b.image)[:, 0].double(), []
    for row in range(len(b)):
        disparity, valid = disparity_of(b, row)
        loss = p[row].sum() * 0
        if not valid.any():
            continue
        if kind_of(b, row).ambiguity != Ambiguity.SHIFT_SCALE:
            finite = valid & (disparity > 0)  # the sky has no logarithm
            loss = loss + geometric * all_pairs(p[row][finite] - disparity[finite].log())
        if disparity[valid].std() > 1e-9:
            found, truth = p[row][valid].exp(), disparity[valid]
            loss = loss + affine * all_pairs(found / found.std() - truth / truth.std())
        losses.append(loss)
    assert len(losses) == len(b) - 1
    return torch.stack(losses).mean()


class LogNet(TinyNet):
    """A tiny network whose output may be negative."""

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.decoder(self.encoder(image)))


def module(representation: Representation = Representation.LOG_DISPARITY, **options: Any) -> GeometryPreservingModule:
    torch.manual_seed(1)
    return GeometryPreservingModule(LogNet(representation), **options)


@pytest.mark.parametrize("representation", [Representation.LOG_DISPARITY, Representation.LOG_DEPTH])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_step_is_equation_3(seed: int, representation: Representation) -> None:
    m, b = module(representation), mixture(seed)
    assert_same_step(m, b, reference(m, b))


def test_both_factors_multiply_their_terms() -> None:
    m, b = module(geometric_weight=0.3, affine_weight=2.0), mixture()
    assert_same_step(m, b, reference(m, b, 0.3, 2.0))
