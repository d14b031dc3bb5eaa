"""What the references of the papers' objectives share: batches that hold everything a step meets, and the comparison of a step.

A reference is written from its paper in double precision, a loop over images and lists of pixels; of depthkit it takes what the
networks output and the numbers that a step draws, nothing else.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.testing import assert_close

from depthkit.types import AMBIGUITIES, REPRESENTATIONS, Ambiguity, Batch, LabelKind, Representation
from tests.contracts.paradigm import FILM, METRIC_DEPTH, batch

UTS_DEPTH = LabelKind(Ambiguity.SCALE, Representation.DEPTH)
UTS_DISPARITY = LabelKind(Ambiguity.SCALE, Representation.DISPARITY)
METRIC_LOG = LabelKind(Ambiguity.METRIC, Representation.LOG_DEPTH)
NOTHING = LabelKind(Ambiguity.UNLABELLED, Representation.DEPTH)


def assert_same_step(module: Any, batch: Batch, expected: Tensor, tolerance: float = 1e-3) -> None:
    """The objective that the optimizer follows has the value and the gradient of the reference, ``()`` with its graph."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    found = module.combine(module, batch).total
    ours, theirs = (
        torch.cat([g.double().flatten() for g in torch.autograd.grad(x, parameters, materialize_grads=True)])
        for x in (found, expected)
    )
    assert_close(found.detach().double(), expected.detach().double(), rtol=tolerance / 10, atol=1e-7)
    assert theirs.norm() > 1e-6
    assert (ours - theirs).norm() < tolerance * theirs.norm(), f"{(ours - theirs).norm() / theirs.norm():.2e}"


def mixture(seed: int = 0) -> Batch:
    """Three datasets of every kind of label: holes, skies, a row without a label and one whose label is constant."""
    rows = [
        (0, METRIC_DEPTH),
        (1, FILM),
        (0, METRIC_DEPTH),
        (2, UTS_DEPTH),
        (2, UTS_DISPARITY),
        (1, FILM),
        (0, METRIC_DEPTH),
        (2, METRIC_LOG),
        (0, METRIC_DEPTH),
    ]
    b = batch(rows, seed=seed, unlabelled=[2])
    target = b.target.clone()
    noise = torch.rand(target.shape, generator=torch.Generator().manual_seed(seed + 1))
    target = target * (0.7 + 0.6 * noise)  # not what the colours say
    target[4] = 1 / target[4]
    target[7] = target[7].log()
    target[8] = torch.where(b.valid[8], 2.5, target[8])
    sky = torch.zeros_like(b.valid)
    sky[[0, 3], :, :3] = b.valid[[0, 3], :, :3]
    image = b.image + 0.05 * torch.rand(b.image.shape, generator=torch.Generator().manual_seed(seed + 2))  # no two pixels alike
    return replace(b, image=image, target=target.where(~sky, torch.inf), sky=sky)


def kind_of(b: Batch, row: int) -> LabelKind:
    """What the label of a row is."""
    return LabelKind(AMBIGUITIES[int(b.ambiguity[row])], REPRESENTATIONS[int(b.representation[row])])


def disparity_of(b: Batch, row: int) -> tuple[Tensor, Tensor]:
    """The label of a row as disparity, double ``(H, W)``, 0 in the sky, and where it is, bool ``(H, W)``."""
    x, valid = b.target[row, 0].double(), b.valid[row, 0]
    kind = kind_of(b, row)
    if kind.ambiguity == Ambiguity.UNLABELLED:
        return torch.zeros_like(x), torch.zeros_like(valid)
    if kind.representation == Representation.DEPTH:
        x = 1 / x
    if kind.representation == Representation.LOG_DEPTH:
        x = (-x).exp()
    return x.where(valid, 0), valid
