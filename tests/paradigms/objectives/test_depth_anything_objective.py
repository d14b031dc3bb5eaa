"""SemiSupervisedModule against Yang et al. (2024), eqs 1-9 and section 3.3, written from the paper."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from depthkit.paradigms import CutMix, SemiSupervisedModule
from depthkit.paradigms.terms.rng import step_rng
from depthkit.types import Batch
from tests.contracts.objective import NOTHING, assert_same_step, disparity_of
from tests.contracts.paradigm import FILM, METRIC_DEPTH, batch
from tests.contracts.student import network

ROWS = [
    (0, METRIC_DEPTH),
    (1, NOTHING),
    (2, FILM),
    (1, NOTHING),
    (3, FILM),
    (1, NOTHING),
    (2, FILM),
    (0, METRIC_DEPTH),
    (2, FILM),
]
"""Labelled, without a label, and of a set that brings its pseudo-label (the third); the last two without a valid pixel."""
PSEUDO = (1, 2, 3, 5, 6, 8)
"""Rows that are unlabelled in the paper's sense."""


class Darkened(nn.Module):
    """Colours that are changed without chance."""

    def forward(self, x: Tensor) -> Tensor:
        return 0.8 * x**2


class Rectangles(CutMix):
    """Given rectangles: the first image is mixed in one corner, the second not at all, the others in another."""

    def masks(self, count: int, size: tuple[int, int], device: torch.device | str = "cpu") -> Tensor:
        kept = torch.ones(count, 1, *size, dtype=torch.bool)
        kept[0, :, :9, 3:17] = False
        kept[2:, :, 5:, 10:] = False
        return kept


def module(**options: Any) -> SemiSupervisedModule:
    settings = {"teacher": network(1), "augment": Darkened(), "cutmix": Rectangles(), "pseudo_labelled": ["stored"]}
    m = SemiSupervisedModule(network(0), **{**settings, **options})
    m.dataset_names = ("labelled", "photos", "stored", "films")
    with torch.no_grad():  # the encoder differs from its frozen copy, at some places by more than the margin
        m.model.encoder.conv.weight += 0.2 * torch.randn_like(m.model.encoder.conv.weight)
    return m


def mixed(seed: int) -> Batch:
    b = batch(ROWS, seed=seed, unlabelled=[7, 8])
    noise = torch.rand(b.target.shape, generator=torch.Generator().manual_seed(seed + 1))
    bare = torch.tensor([kind == NOTHING for _, kind in ROWS])[:, None, None, None]
    sky = torch.zeros_like(b.valid)
    sky[0, :, :2] = b.valid[0, :, :2]
    image = b.image + 0.05 * torch.rand(b.image.shape, generator=torch.Generator().manual_seed(seed + 2))
    target = (b.target * (0.7 + 0.6 * noise)).where(~sky, torch.inf)
    return replace(b, image=image, target=target, valid=b.valid & ~bare, sky=sky)


def affine_invariant(found: Tensor, truth: Tensor) -> Tensor:
    """Eqs 1-3 on lists of pixels: both maps by their own median and mean absolute deviation, the mean difference."""
    both = []
    for x in (found, truth):
        middle = x.sort().values[[(len(x) - 1) // 2, len(x) // 2]].mean()
        both.append((x - middle) / (x - middle).abs().mean())
    return (both[0] - both[1]).abs().mean()


def student_sees(m: SemiSupervisedModule, b: Batch) -> tuple[Tensor, list[Tensor], list[int]]:
    """Images after eqs 4 and 5, where each row is itself, and which row it is elsewhere."""
    with step_rng(0, m._drawn, 0):
        circle = [PSEUDO[i] for i in torch.randperm(len(PSEUDO)).tolist()]
    donors = {row: circle[i - 1] for i, row in enumerate(circle)}
    masks = Rectangles().masks(len(PSEUDO), (b.image.shape[-2], b.image.shape[-1]))
    images, kept, donor = [], [], []
    for row in range(len(b)):
        if row not in PSEUDO:
            images.append(b.image[row])
            kept.append(torch.ones_like(b.valid[row, 0]))
            donor.append(row)
            continue
        here = masks[PSEUDO.index(row), 0]
        own, other = (0.8 * b.image[i] ** 2 for i in (row, donors[row]))
        images.append(here * own + ~here * other)
        kept.append(here)
        donor.append(donors[row])
    return torch.stack(images), kept, donor


def reference(m: SemiSupervisedModule, b: Batch, weights: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Tensor:
    """Section 3.3: the mean of L_l, L_u and L_feat, each the mean over its images."""
    image, kept, donor = student_sees(m, b)
    features = m.model.encode(image)
    prediction = m.model.decode(features)[:, 0].double()
    with torch.no_grad():
        clean = m.outside.teacher(b.image)[:, 0].double()
        frozen = m.outside.frozen((image - 0.5) / 0.25)[-1].double()
    labels = [disparity_of(b, row) for row in range(len(b))]
    for row, (dataset, _) in enumerate(ROWS):
        if dataset == 1:  # no label: the teacher's
            labels[row] = clean[row], torch.ones_like(kept[row])
    labelled, unlabelled, feature, shares = [], [], [], []
    for row in range(len(b)):
        label, valid = labels[row]
        if row not in PSEUDO:
            if valid.any():
                labelled.append(affine_invariant(prediction[row][valid], label[valid]))
            continue
        inside = valid & kept[row]
        loss = prediction[row].sum() * 0
        if inside.any():
            loss = loss + kept[row].double().mean() * affine_invariant(prediction[row][inside], label[inside])
        other, exists = labels[donor[row]]
        outside = exists & ~kept[row]
        if outside.any():
            loss = loss + (~kept[row]).double().mean() * affine_invariant(prediction[row][outside], other[outside])
        unlabelled.append(loss)
        f, g = features[-1][row].double().flatten(1), frozen[row].flatten(1)
        cosine = (f * g).sum(0) / (f.norm(dim=0) * g.norm(dim=0))
        feature.append((1 - cosine[cosine <= 0.85]).mean())
        shares.append(float((cosine <= 0.85).double().mean()))
    assert len(labelled) == 2
    assert 0.05 < sum(shares) / len(shares) < 0.95
    terms = zip(weights, (labelled, unlabelled, feature), strict=True)
    return sum(weight * torch.stack(values).mean() for weight, values in terms) / 3


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_step_is_section_3(seed: int) -> None:
    m, b = module(), mixed(seed)
    m._drawn = seed
    assert_same_step(m, b, reference(m, b))


def test_each_weight_multiplies_its_term() -> None:
    m, b = module(labelled_weight=0.5, unlabelled_weight=2.0, feature_weight=0.25), mixed(0)
    assert_same_step(m, b, reference(m, b, (0.5, 2.0, 0.25)))


def test_the_first_row_of_table_9_is_the_labelled_term_alone() -> None:
    m, b = module(unlabelled_weight=0.0, feature_weight=0.0), mixed(0)
    prediction = m.model(b.image)[:, 0].double()
    rows = [(prediction[row], *disparity_of(b, row)) for row in (0, 4)]
    losses = [affine_invariant(p[valid], label[valid]) for p, label, valid in rows]
    assert_same_step(m, b, torch.stack(losses).mean() / 3)


def test_each_image_has_its_own_coin_and_half_of_them_are_mixed() -> None:
    """Section 3.2: CutMix by a probability of 50 %, a rectangle per image."""
    torch.manual_seed(0)
    kept = torch.stack([CutMix().masks(8, (30, 40)).flatten(1).float().mean(1) for _ in range(100)])
    mixed = kept < 1
    assert 0.44 < mixed.float().mean() < 0.56
    assert (mixed.any(1) & ~mixed.all(1)).float().mean() > 0.9
    boxes = ~torch.cat([CutMix(1.0).masks(8, (60, 60)) for _ in range(25)])[:, 0]
    aspects = boxes.any(2).sum(1) / boxes.any(1).sum(1)
    assert 0.28 < aspects.min() < 0.45
    assert 2.2 < aspects.max() < 3.6
    edges = [boxes[:, 0].any(1), boxes[:, -1].any(1), boxes[..., 0].any(1), boxes[..., -1].any(1)]
    assert all(0 < edge.float().mean() < 0.2 for edge in edges)  # a rectangle lies anywhere
    shares = 1 - kept[mixed]
    assert 0.01 < shares.min() < 0.05
    assert 0.35 < shares.max() < 0.42
    assert len(shares.unique()) > 100


def test_draws_differ_by_rank_and_step_and_repeat_with_both() -> None:
    def draw(seed: int, step: int, rank: int) -> float:
        with step_rng(seed, step, rank):
            return float(torch.rand(()))

    draws = [draw(*at) for at in ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0))]
    assert len(set(draws)) == 4
    assert draws == [draw(*at) for at in ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0))]
