import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from depthkit.errors import ShapeError
from depthkit.paradigms import AffineInvariantModule, Combination, EqualWeights, MinNorm, SumOfTerms, Term
from depthkit.paradigms.terms.combination import _objectives
from depthkit.paradigms.terms.rng import step_rng
from depthkit.paradigms.terms.term import mean_of, means_per_group
from depthkit.types import Batch
from tests.contracts.paradigm import METRIC_DEPTH, TinyNet, batch

ROWS = [(0, METRIC_DEPTH), (0, METRIC_DEPTH), (1, METRIC_DEPTH)]


class Reduced(nn.Module):
    """A loss that returns another shape than a value per image."""

    def __init__(self, shape: str) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, pred: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        error = (pred - target.where(valid, 0)).abs()
        return {"()": error.mean(), "(B, 1)": error.mean((2, 3)), "(B, 1, H, W)": error}[self.shape]


@pytest.mark.parametrize("shape", ["()", "(B, 1)", "(B, 1, H, W)"])
def test_a_loss_that_is_not_per_image_is_refused_by_name(shape: str) -> None:
    m = AffineInvariantModule(TinyNet(), loss=Reduced(shape), gradient_weight=0.0)
    m.dataset_names = ("a", "b")
    with pytest.raises(ShapeError, match=r"term 'affine' of AffineInvariantModule.losses of shape \(3,\), a value per image"):
        m.combine(m, batch(ROWS))


def test_losses_need_no_trainer_and_are_per_image() -> None:
    m = AffineInvariantModule(TinyNet())
    term = m.losses(batch(ROWS))["affine"]
    assert term.values.shape == term.counted.shape == (3,)
    term.values.sum().backward()
    assert all(p.grad is not None for p in m.model.parameters())


def test_an_image_whose_label_is_constant_is_not_counted() -> None:
    b = batch(ROWS)
    b.target[1] = 2.0
    assert AffineInvariantModule(TinyNet()).losses(b)["affine"].counted.tolist() == [True, False, True]


def test_means_are_over_what_is_counted_in_images_or_pixels() -> None:
    values, counted = torch.tensor([1.0, 3.0, 7.0]), torch.tensor([True, False, True])
    assert_close(mean_of(Term(values, counted))[0], torch.tensor(4.0))
    pixels = torch.arange(12.0).reshape(3, 1, 2, 2)
    mask = pixels % 2 == 0
    assert_close(mean_of(Term(pixels, mask))[0], torch.tensor(5.0))
    means, present = means_per_group(Term(pixels, mask), torch.tensor([2, 2, 0]), 3)
    assert_close(means, torch.tensor([9.0, 0.0, 3.0]))
    assert present.tolist() == [True, False, True]


class Asked(nn.Module):
    """Keeps what a loss is given."""

    def forward(self, pred: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        self.target, self.valid = target, valid
        return pred.flatten(1).mean(1)


def test_labels_are_compared_in_the_unit_range() -> None:
    """What a robustly aligned loss does not see, a least-squares one does (Ranftl et al. 2022, section 5)."""
    asked = Asked()
    AffineInvariantModule(TinyNet(), loss=asked, gradient_weight=0.0).losses(batch(ROWS))
    for target, valid in zip(asked.target, asked.valid, strict=True):
        assert_close(torch.stack([target[valid].min(), target[valid].max()]), torch.tensor([0.0, 1.0]))


def test_equal_weights_are_the_mean_over_the_datasets_that_are_there() -> None:
    m, b = AffineInvariantModule(TinyNet()), batch(ROWS)
    m.dataset_names = ("a", "b", "absent")
    losses = m.losses(b)["affine"].values
    assert_close(m.combine(m, b).total, (losses[:2].mean() + losses[2]) / 2)


class Weighted(AffineInvariantModule):
    """Two terms with weights, one of which only is logged."""

    def losses(self, batch: Batch) -> dict[str, Term]:
        affine = super().losses(batch)["affine"]
        values = self.model(batch.image).mean((1, 2, 3))
        return {
            "affine": affine._replace(weight=0.3),
            "mean": Term(values, affine.counted, 2.0),
            "logged": Term(1e3 * values, affine.counted, 0.0),
        }


@pytest.mark.parametrize("combine", [SumOfTerms(), EqualWeights(), MinNorm()], ids=lambda x: type(x).__name__)
def test_every_combination_multiplies_terms_by_their_weights(combine: Combination) -> None:
    b = batch(ROWS[:2])
    m = Weighted(TinyNet(), combine=combine)
    m.dataset_names = ("a",)
    terms = m.losses(b)
    expected = 0.3 * terms["affine"].values.mean() + 2 * terms["mean"].values.mean()
    assert_close(m.combine(m, b).total, expected)


@pytest.mark.parametrize("other", [(1, 7, 0), (0, 8, 0), (0, 7, 1)], ids=["seed", "step", "rank"])
def test_draws_depend_on_seed_step_and_rank_and_leave_the_generator_alone(other: tuple[int, int, int]) -> None:
    before = torch.get_rng_state()
    drawn = []
    for numbers in ((0, 7, 0), (0, 7, 0), other):
        with step_rng(*numbers):
            drawn.append(torch.rand(8))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert torch.equal(torch.get_rng_state(), before)


def test_a_dataset_is_there_if_any_of_its_terms_counts_something() -> None:
    both, second = torch.tensor([True, True]), torch.tensor([False, True])
    terms = {"a": Term(torch.tensor([1.0, 3.0]), both), "b": Term(torch.tensor([5.0, 5.0]), second)}
    losses, present = _objectives(terms, torch.tensor([0, 1]), 3)
    assert_close(losses, torch.tensor([1.0, 8.0, 0.0]))
    assert present.tolist() == [True, True, False]
