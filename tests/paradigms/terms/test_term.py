import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from depthkit.errors import ShapeError
from depthkit.paradigms import AffineInvariantModule, Term
from depthkit.paradigms.terms.term import mean_of, means_per_group
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
