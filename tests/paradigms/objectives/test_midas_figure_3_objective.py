"""AffineInvariantModule with each loss of Ranftl et al. (2022), figure 3, written from eqs 8 to 11."""

import pytest
import torch
from torch import Tensor

from depthkit.errors import LabelError, PredictionError, RecipeError
from depthkit.losses import GradientMatchingLoss, NormalisedGradientLoss, OrdinalLoss, PairwiseL1SILoss, SILogLoss, SSILoss
from depthkit.paradigms import AffineInvariantModule
from depthkit.types import Batch, Representation
from tests.contracts.objective import assert_same_step, disparity_of, mixture
from tests.contracts.paradigm import TinyNet

FAR = 0.05
LOSSES = {
    "silog+reg": {"loss": SILogLoss(variance_focus=1, factor=0.5), "far": FAR},
    "simse+reg": {"loss": SSILoss(align="scale", penalty="l2"), "far": 0.0},
    "nmg": {"loss": NormalisedGradientLoss(spacings=(2, 8)), "gradient_weight": 0},
    "ord": {"loss": OrdinalLoss(pairs=200), "gradient_weight": 0},
}


def slopes(residual: Tensor, valid: Tensor) -> Tensor:
    """Eq 11 of a residual, ``(H, W)`` each."""
    total = residual.new_zeros(())
    for k in range(4):
        r, there = residual[:: 2**k, :: 2**k], valid[:: 2**k, :: 2**k]
        across = (r[:, 1:] - r[:, :-1])[there[:, 1:] & there[:, :-1]].abs().sum()
        total = total + (across + (r[1:] - r[:-1])[there[1:] & there[:-1]].abs().sum()) / there.sum()
    return total


def of_image(name: str, d: Tensor, label: Tensor, valid: Tensor, shares: Tensor) -> Tensor:
    """The objective of an image, ``(H, W)`` each, on its label between ``far`` and 1."""
    low, high = label[valid].min(), label[valid].max()
    truth = (label - low) / (high - low)
    if name == "simse+reg":
        r = (d[valid] * truth[valid]).sum() / (d[valid] ** 2).sum() * d - truth
        return (r[valid] ** 2).mean() / 2 + 0.5 * slopes(r, valid)
    if name == "silog+reg":
        r = -d.log() + (FAR + (1 - FAR) * truth.where(valid, 1)).log()
        shift = r[valid].mean()
        return ((r[valid] - shift) ** 2).mean() / 2 + 0.5 * slopes(r, valid)
    if name == "nmg":
        parts = []
        for k in (2, 8):
            parts += [(x[k:] - x[:-k])[valid[k:] & valid[:-k]] for x in (d, truth)]
            parts += [(x[:, k:] - x[:, :-k])[valid[:, k:] & valid[:, :-k]] for x in (d, truth)]
        ours, theirs = torch.cat(parts[::2]), torch.cat(parts[1::2])
        return (theirs.abs().sum() / ours.abs().sum() * ours - theirs).abs().sum() / valid.sum()
    pixels = valid.nonzero()[(shares * valid.sum()).long()]
    (a, b), total = pixels.chunk(2), d.new_zeros(())
    for (ya, xa), (yb, xb) in zip(a.tolist(), b.tolist(), strict=True):
        closer, sign = truth[ya, xa] - truth[yb, xb], d[ya, xa] - d[yb, xb]
        total = total + (sign**2 if closer.abs() <= 0.02 else (1 + (-closer.sign() * sign).exp()).log())
    return total / len(a)


@pytest.mark.parametrize("name", LOSSES)
def test_the_step_is_that_of_the_formula(name: str) -> None:
    torch.manual_seed(1)
    m, b = AffineInvariantModule(TinyNet(), **LOSSES[name]), mixture()
    m.dataset_names = ("a", "b", "c")
    with m.step_rng():
        shares = torch.rand(400)
    prediction = m.model(b.image)[:, 0].double()
    losses: dict[int, list[Tensor]] = {}
    for row in range(len(b)):
        label, valid = disparity_of(b, row)
        if valid.any() and label[valid].min() < label[valid].max():
            losses.setdefault(int(b.dataset[row]), []).append(of_image(name, prediction[row], label, valid, shares))
    assert len(losses) == 3
    assert_same_step(m, b, sum(torch.stack(x).mean() for x in losses.values()) / 3)


def test_a_loss_that_knows_the_shift_needs_one_made_up() -> None:
    for loss in (SSILoss(align="scale"), SILogLoss(variance_focus=1), PairwiseL1SILoss()):
        with pytest.raises(LabelError, match="expected loss to read disparity up to shift and scale"):
            AffineInvariantModule(TinyNet(), loss=loss)
    with pytest.raises(RecipeError, match=r"above 0 for loss, SILogLoss, which reads depth; got 0"):
        AffineInvariantModule(TinyNet(), loss=SILogLoss(variance_focus=1), far=0.0)
    with pytest.raises(RecipeError, match=r"expected far in \[0, 1\)"):
        AffineInvariantModule(TinyNet(), far=1.0)


def test_the_gradient_term_compares_what_the_data_term_does() -> None:
    log = AffineInvariantModule(TinyNet(), **LOSSES["silog+reg"]).gradient_loss
    assert (log.representation, log.align) == (Representation.LOG_DISPARITY, None)
    assert AffineInvariantModule(TinyNet(), **LOSSES["simse+reg"]).gradient_loss.align == "scale"
    with pytest.raises(RecipeError, match="expected align=None in log_disparity"):
        GradientMatchingLoss(align="median", representation="log_disparity")


class Negative(TinyNet):
    """A network that predicts nothing but 0."""

    def forward(self, image: Tensor) -> Tensor:
        return 0 * super().forward(image)


def test_a_disparity_without_a_logarithm_is_refused_with_the_remedy() -> None:
    m, b = AffineInvariantModule(Negative(), **LOSSES["silog+reg"]), mixture()
    with pytest.raises(PredictionError, match="output_activation: softplus"):
        m.losses(b)


def test_a_made_up_shift_changes_nothing_for_a_loss_that_fits_one() -> None:
    torch.manual_seed(1)
    m = AffineInvariantModule(TinyNet(), far=0.3)
    plain = AffineInvariantModule(m.model)
    b: Batch = mixture()
    torch.testing.assert_close(m.losses(b)["affine"].values, plain.losses(b)["affine"].values, rtol=1e-5, atol=1e-6)
