"""AffineInvariantModule against Ranftl et al. (2022), eqs 5-7 and 11-13 and section 5, written from the paper."""

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from depthkit.losses import SSILoss
from depthkit.paradigms import AffineInvariantModule, EqualWeights, MinNorm
from depthkit.types import Batch
from tests.contracts.objective import assert_same_step, disparity_of, mixture
from tests.contracts.paradigm import TinyNet

NAMES = ("a", "b", "c", "absent")


def aligned(x: Tensor) -> Tensor:
    """Eqs 5 and 6: minus the median, over the mean absolute deviation from it."""
    middle = x.sort().values[[(len(x) - 1) // 2, len(x) // 2]].mean()
    return (x - middle) / (x - middle).abs().mean()


def least_squares(x: Tensor, y: Tensor) -> Tensor:
    """Eq 4: the prediction moved and scaled onto the label."""
    a = torch.stack([x, torch.ones_like(x)], 1)
    return a @ torch.linalg.solve(a.T @ a, a.T @ y)


def of_image(prediction: Tensor, label: Tensor, valid: Tensor, squares: bool) -> Tensor:
    """Eq 12's summand, ``(H, W)`` each: the trimmed loss (eq 7), or ssimse (eqs 2-4), plus alpha = 0.5 of eq 11."""
    known = label[valid]
    known = (known - known.min()) / (known.max() - known.min())
    if squares:
        found, truth = least_squares(prediction[valid], known), known
        loss = ((found - truth) ** 2).sum() / (2 * len(known))
    else:
        found, truth = aligned(prediction[valid]), aligned(known)
        loss = (found - truth).abs().sort().values[: len(known) * 4 // 5].sum() / (2 * len(known))
    residual = torch.zeros_like(label).masked_scatter(valid, found - truth)
    for k in range(4):
        r, there = residual[:: 2**k, :: 2**k], valid[:: 2**k, :: 2**k]
        across = (r[:, 1:] - r[:, :-1])[there[:, 1:] & there[:, :-1]].abs().sum()
        down = (r[1:] - r[:-1])[there[1:] & there[:-1]].abs().sum()
        loss = loss + 0.5 * (across + down) / there.sum()
    return loss


def of_datasets(m: AffineInvariantModule, b: Batch, squares: bool = False) -> list[Tensor]:
    """L_l of every dataset in the batch: the mean over its images whose label determines a scale."""
    prediction = m.model(b.image)[:, 0].double()
    losses: dict[int, list[Tensor]] = {}
    for row in range(len(b)):
        label, valid = disparity_of(b, row)
        if valid.any() and label[valid].min() < label[valid].max():
            losses.setdefault(int(b.dataset[row]), []).append(of_image(prediction[row], label, valid, squares))
    return [torch.stack(of_one).mean() for _, of_one in sorted(losses.items())]


def module(norm: bool = False, **options: Any) -> AffineInvariantModule:
    torch.manual_seed(1)
    m = AffineInvariantModule(TinyNet(norm=norm), **options)
    m.dataset_names = NAMES
    return m


@pytest.mark.parametrize("seed", [0, 1])
def test_naive_mixing_minimises_the_mean_of_the_datasets_losses(seed: int) -> None:
    m, b = module(), mixture(seed)
    losses = of_datasets(m, b)
    assert len(losses) == 3
    assert_same_step(m, b, sum(losses) / 3)


def test_the_default_combination_is_naive_mixing() -> None:
    assert isinstance(module().combine, EqualWeights)


def test_least_squares_is_equations_2_to_4_with_the_gradient_term_on_the_same_maps() -> None:
    m, b = module(loss=SSILoss(align="least_squares", penalty="l2")), mixture()
    assert_same_step(m, b, sum(of_datasets(m, b, squares=True)) / 3, tolerance=5e-3)


@pytest.mark.parametrize("forward", ["mixed", "per_dataset"])
def test_pareto_mixing_steps_along_the_shortest_combination_of_gradients(forward: str) -> None:
    """Section 4, eq 13: the least norm over a fine grid of the weights' simplex is what the weights are found to be."""
    m, b = module(combine=MinNorm(forward=forward)), mixture(9)
    losses = of_datasets(m, b)
    parameters = list(m.model.parameters())
    rows = torch.stack(
        [torch.cat([g.flatten() for g in torch.autograd.grad(x, parameters, retain_graph=True)]).double() for x in losses]
    )
    count, gram = 200, rows @ rows.T
    grid = torch.tensor([(i, j, count - i - j) for i, j in product(range(count + 1), repeat=2) if i + j <= count]) / count
    weights = grid.double()[torch.einsum("gi,ij,gj->g", grid.double(), gram, grid.double()).argmin()]
    assert (weights > 0.02).sum() >= 2
    assert_same_step(m, b, (weights * torch.stack(losses)).sum(), tolerance=0.1)


def test_a_fully_labelled_batch_normalised_by_its_own_statistics_is_the_same_objective() -> None:
    m, b = module(norm=True).train(), mixture()
    assert_same_step(m, b, sum(of_datasets(m, b)) / 3)
