from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.testing import assert_close

from depthkit.data import DepthDataModule, ShardSource
from depthkit.errors import LabelError, RecipeError
from depthkit.losses import GradientMatchingLoss, PairwiseL1SILoss, SSILoss
from depthkit.paradigms import AffineInvariantModule, CosineDecay, EqualWeights, MinNorm, pareto_weights
from depthkit.paradigms.terms.term import means_per_group
from depthkit.types import Ambiguity, Batch, LabelKind, Representation
from tests.contracts.paradigm import FILM, METRIC_DEPTH, Memory, TinyNet, batch, sgd, trainer, weights_after
from tests.contracts.ranks import on_ranks

KINDS = (METRIC_DEPTH, FILM, METRIC_DEPTH)
ROWS = [(0, METRIC_DEPTH), (0, METRIC_DEPTH), (1, FILM), (0, METRIC_DEPTH), (2, METRIC_DEPTH), (1, FILM)]
VARIANTS = [
    {"combine": EqualWeights()},
    {"combine": MinNorm()},
    {"combine": MinNorm(forward="per_dataset"), "freeze_batch_norm": True},
    {"combine": MinNorm(forward="per_dataset")},
    {"combine": MinNorm("last_shared_layer")},
    {"combine": MinNorm(normalisation="loss+")},
]


def module(seed: int = 0, norm: bool = False, **options: Any) -> AffineInvariantModule:
    torch.manual_seed(seed)
    return AffineInvariantModule(TinyNet(norm=norm), **{"optimizer": sgd, **options})


def dataset_losses(m: AffineInvariantModule, b: Batch) -> torch.Tensor:
    return means_per_group(m.losses(b)["affine"], b.dataset, len(m.dataset_names))[0]


def flat(weights: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in weights.values()])


def steps_of_all_variants(_: int, root: Path, ranks: int) -> list[dict[str, torch.Tensor]]:
    return [
        weights_after(module(**options), Memory([batch(ROWS, unlabelled=[1])], KINDS, split), root, ranks=ranks)
        for options in VARIANTS
        for split in ((3, 3), (5, 1))
    ]


def test_a_step_on_two_ranks_is_the_step_on_one(tmp_path: Path) -> None:
    start = dict(module().model.named_parameters())
    one, (two, other) = steps_of_all_variants(0, tmp_path, 1), on_ranks(2, steps_of_all_variants, tmp_path, 2)
    for alone, together, rival in zip(one, two, other, strict=True):
        step = flat({name: alone[name] - weight for name, weight in start.items()})
        assert step.norm() > 1e-3
        assert_close(flat(together) - flat(start), step, rtol=0, atol=1e-4 * step.norm().item())
        assert_close(flat(rival), flat(together), rtol=0, atol=0)


@pytest.mark.parametrize("scope", ["all", "last_shared_layer"])
def test_a_pareto_step_goes_along_the_min_norm_combination(scope: str, tmp_path: Path) -> None:
    b = batch(ROWS)
    probe = module()
    probe.dataset_names = ("a", "b", "c")
    parameters = list(probe.model.parameters())
    gradients = [
        torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters, retain_graph=True)])
        for loss in dataset_losses(probe, b)
    ]
    rows = torch.stack(gradients)
    shared = rows
    if scope == "last_shared_layer":
        sizes = torch.cat(
            [
                torch.full_like(p, p is probe.model.last_layer.weight or p is probe.model.last_layer.bias).flatten()
                for p in parameters
            ]
        )
        shared = rows[:, sizes.bool()]
    expected = pareto_weights(shared @ shared.T).float() @ rows
    after = weights_after(module(combine=MinNorm(scope)), Memory([b], KINDS), tmp_path)
    change = torch.cat([(p - after[name]).flatten() for name, p in module().model.named_parameters()])
    assert_close(change, expected, rtol=1e-3, atol=1e-4 * expected.norm().item())


def test_frozen_statistics_make_one_forward_per_dataset_equal_to_one_for_all(tmp_path: Path) -> None:
    data = Memory([batch(ROWS)], KINDS)
    frozen = module(norm=True, combine=MinNorm(forward="per_dataset"), freeze_batch_norm=True)
    separate = weights_after(frozen, data, tmp_path)
    statistics = frozen.model.encoder[1].running_mean
    assert_close(statistics, torch.zeros_like(statistics))
    mixed = module(norm=True, combine=MinNorm())
    mixed.model.eval()  # the same statistics
    for name, weight in weights_after(mixed, data, tmp_path).items():
        assert_close(weight, separate[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", VARIANTS[:3], ids=str)
def test_accumulating_two_batches_of_one_dataset_equals_the_mean_step(options: dict, tmp_path: Path) -> None:
    halves = [batch([(0, METRIC_DEPTH)] * 2, seed=1), batch([(0, METRIC_DEPTH)] * 2, seed=2)]
    accumulated = weights_after(module(**options), Memory(halves, KINDS), tmp_path, accumulate_grad_batches=2)
    steps = [weights_after(module(**options), Memory([half], KINDS), tmp_path) for half in halves]
    for name, start in module().model.named_parameters():
        assert_close(accumulated[name] - start, (steps[0][name] + steps[1][name]) / 2 - start, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("options", VARIANTS[:3], ids=str)
def test_clipping_bounds_the_step(options: dict, tmp_path: Path) -> None:
    after = weights_after(module(**options), Memory([batch(ROWS)], KINDS), tmp_path, gradient_clip_val=1e-3)
    change = torch.cat([(p - after[name]).flatten() for name, p in module().model.named_parameters()])
    assert_close(change.norm().detach(), torch.tensor(1e-3), rtol=1e-3, atol=0)


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_a_batch_without_any_label_changes_nothing(options: dict, tmp_path: Path) -> None:
    data = Memory([batch(ROWS, unlabelled=range(len(ROWS)))], KINDS)
    after = weights_after(module(**options), data, tmp_path)
    for name, start in module().model.named_parameters():
        assert_close(after[name], start.detach(), rtol=0, atol=0)


@pytest.mark.parametrize("options", VARIANTS[:2], ids=str)
def test_it_learns_a_mixture(options: dict, tmp_path: Path) -> None:
    batches = [batch(ROWS, seed=seed) for seed in range(4)]

    def total(m: AffineInvariantModule) -> float:
        m.dataset_names = ("a", "b", "c")
        return sum(float(dataset_losses(m, b).sum()) for b in batches)

    learner = module(**{**options, "optimizer": partial(torch.optim.Adam, lr=1e-2)})
    before = total(learner)
    trainer(tmp_path, max_steps=60, max_epochs=-1).fit(learner, datamodule=Memory(batches, KINDS))
    assert total(learner) < 0.6 * before


def test_encoder_and_rest_have_their_own_learning_rates(tmp_path: Path) -> None:
    m = module(optimizer=partial(torch.optim.Adam, lr=1e-3), encoder_lr=1e-4)
    run = trainer(tmp_path)
    run.fit(m, datamodule=Memory([batch(ROWS)], KINDS))
    groups = run.optimizers[0].param_groups
    assert [group["lr"] for group in groups] == [1e-4, 1e-3]
    assert {id(p) for group in groups for p in group["params"]} == {id(p) for p in m.parameters()}


def test_labels_it_cannot_learn_from_stop_the_run_before_it_starts(tmp_path: Path) -> None:
    film_depth = LabelKind(Ambiguity.SHIFT_SCALE, Representation.DEPTH)
    with pytest.raises(
        LabelError, match=r"dataset 'set1' holds shift_scale depth labels; AffineInvariantModule as configured learns from"
    ):
        trainer(tmp_path).fit(module(), datamodule=Memory([batch(ROWS)], (METRIC_DEPTH, film_depth)))


def test_pareto_in_float16_is_refused(tmp_path: Path) -> None:
    fitting = trainer(tmp_path)
    fitting.strategy.precision_plugin.precision = "16-mixed"  # what a GPU run with that precision says
    with pytest.raises(RecipeError, match="bf16-mixed"):
        fitting.fit(module(combine=MinNorm()), datamodule=Memory([batch(ROWS)], KINDS))


def test_contradicting_settings_are_refused() -> None:
    with pytest.raises(RecipeError, match="outputs disparity; got log_depth"):
        AffineInvariantModule(TinyNet(Representation.LOG_DEPTH))
    with pytest.raises(RecipeError, match="forward='mixed' with scope='last_shared_layer'"):
        MinNorm("last_shared_layer", forward="per_dataset")
    with pytest.raises(RecipeError, match="expected normalisation to be one of none, l2, loss, loss\\+; got 'l3'"):
        MinNorm(normalisation="l3")
    with pytest.raises(RecipeError, match="unknown protocol 'nyu'; expected one of"):
        module(protocols="nyu")


def test_a_loss_that_cannot_read_disparity_up_to_shift_and_scale_is_refused() -> None:
    with pytest.raises(LabelError, match=r"loss to read disparity up to shift and scale; PairwiseL1SILoss reads log_disparity"):
        module(loss=PairwiseL1SILoss())
    with pytest.raises(LabelError, match=r"gradient_loss to read .*; GradientMatchingLoss reads disparity of metric labels"):
        module(gradient_loss=GradientMatchingLoss())
    module(gradient_loss=GradientMatchingLoss(), gradient_weight=0.0)
    module(loss=torch.nn.L1Loss())  # says nothing, and is believed


@pytest.mark.parametrize("options", VARIANTS[:2], ids=str)
def test_a_run_resumed_mid_epoch_ends_in_the_same_weights_bit_for_bit(options: dict, scenes: Path, tmp_path: Path) -> None:
    def run(**start: Any) -> dict[str, torch.Tensor]:
        data = DepthDataModule(
            [ShardSource(str(scenes), name=name) for name in "ab"], size=(32, 48), batch_size=4, seed=3, epoch_size=12
        )
        m = module(norm=True, **{**options, "optimizer": partial(torch.optim.AdamW, lr=1e-2)}, schedule=CosineDecay(warmup=2))
        keep = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=4, save_top_k=-1)
        fitting = trainer(tmp_path, max_steps=8, max_epochs=-1, enable_checkpointing=True, callbacks=[keep])
        fitting.fit(m, datamodule=data, **start)
        return dict(m.model.state_dict())

    whole, resumed = run(), run(ckpt_path=tmp_path / "step=4.ckpt")  # three batches per epoch
    for name, weight in whole.items():
        assert_close(resumed[name], weight, rtol=0, atol=0)


def test_defaults_are_the_papers_and_the_gradient_term_is_aligned_as_the_data_term() -> None:
    """Ranftl et al. 2022, eqs 7, 11 and 12, and section 5."""
    m = AffineInvariantModule(TinyNet())
    assert (m.loss.align, m.loss.penalty, m.loss.trim) == ("median", "l1", 0.2)
    assert (m.gradient_weight, m.gradient_loss.scales, m.gradient_loss.align) == (0.5, 4, "median")
    assert m.optimizer([torch.nn.Parameter(torch.zeros(1))]).defaults["lr"] == 1e-4
    assert AffineInvariantModule(TinyNet(), loss=SSILoss(align="least_squares")).gradient_loss.align == "least_squares"


def test_the_loss_of_a_dataset_is_equations_7_11_and_12() -> None:
    """The objective again, straight from the paper, in double precision, pixel lists and all."""
    b = batch([(0, METRIC_DEPTH), (0, METRIC_DEPTH)])
    m = module()
    prediction = m(b.image).double()
    expected = []
    for d, z, mask in zip(prediction[:, 0], b.target[:, 0].double(), b.valid[:, 0], strict=True):
        target = (1 / z).where(mask, 0)
        low, high = target[mask].min(), target[mask].max()
        aligned = []
        for x in (d, (target - low) / (high - low)):
            middle = x[mask].quantile(0.5)
            aligned.append((x - middle) / (x[mask] - middle).abs().mean())
        residual = (aligned[0] - aligned[1]).where(mask, 0)
        kept = residual[mask].abs().sort().values[: int(0.8 * mask.sum())]
        total = kept.sum() / (2 * mask.sum())
        for k in range(4):
            r, here = residual[:: 2**k, :: 2**k], mask[:: 2**k, :: 2**k]
            right = ((r[:, 1:] - r[:, :-1]).abs() * (here[:, 1:] & here[:, :-1])).sum()
            down = ((r[1:] - r[:-1]).abs() * (here[1:] & here[:-1])).sum()
            total = total + 0.5 * (right + down) / here.sum()
        expected.append(total)
    assert_close(m.losses(b)["affine"].values.double(), torch.stack(expected), rtol=1e-3, atol=1e-4)
