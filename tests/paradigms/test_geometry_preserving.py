from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.testing import assert_close

from depthkit.data import DepthDataModule, ShardSource
from depthkit.data.transforms import WeakenLabel
from depthkit.errors import LabelError, PredictionError, RecipeError
from depthkit.inference import DepthPredictor
from depthkit.losses import PairwiseL1SILoss, PairwiseL2SILoss, PointwiseLoss, SILogLoss, SSILoss
from depthkit.losses.functional import pairwise_l1_si_loss, pairwise_l1_ssi_loss, silog_loss, ssi_loss
from depthkit.models import lrn_timm
from depthkit.paradigms import CosineDecay, GeometryPreservingModule, LookaheadRAdam
from depthkit.types import AMBIGUITIES, REPRESENTATIONS, Ambiguity, Batch, LabelKind, Representation
from tests.contracts.paradigm import FILM, METRIC_DEPTH, Memory, TinyNet, batch, sgd, trainer, weights_after
from tests.contracts.ranks import on_ranks

UTS = LabelKind(Ambiguity.SCALE, Representation.DEPTH)
KINDS = (METRIC_DEPTH, FILM, UTS)
ROWS = [(0, METRIC_DEPTH), (1, FILM), (2, UTS), (1, FILM), (0, METRIC_DEPTH), (1, FILM)]
TERMS = [{}, {"affine_weight": 0.0}, {"geometric_weight": 0.0}, {"geometric_loss": PointwiseLoss(scale_invariant=True)}]


class LogNet(TinyNet):
    """A tiny network whose output may be negative."""

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.decoder(self.encoder(image)))


def module(seed: int = 0, representation: Representation = Representation.LOG_DISPARITY, **options: Any):
    torch.manual_seed(seed)
    return GeometryPreservingModule(LogNet(representation), **{"optimizer": sgd, **options})


def with_labels(b: Batch, kind: LabelKind, target: Tensor) -> Batch:
    return replace(
        b,
        target=target.where(b.valid, torch.nan),
        ambiguity=torch.full_like(b.ambiguity, AMBIGUITIES.index(kind.ambiguity)),
        representation=torch.full_like(b.representation, REPRESENTATIONS.index(kind.representation)),
    )


def loss_of(m: GeometryPreservingModule, b: Batch) -> Tensor:
    return m.combine(m, b).total


def test_the_loss_is_equation_3() -> None:
    """SI where the geometry is known plus SSI everywhere, the mean over images."""
    b, m = batch(ROWS), module()
    p = m(b.image)
    depth = b.target.where(b.valid, 1)
    film = (b.ambiguity == AMBIGUITIES.index(Ambiguity.SHIFT_SCALE))[:, None, None, None]
    disparity = torch.where(film, depth, 1 / depth)
    affine = pairwise_l1_ssi_loss(p.exp(), disparity, b.valid)
    geometric = pairwise_l1_si_loss(p, -depth.where(~film, 1).log(), b.valid).where(~film.flatten(), 0)
    assert_close(loss_of(m, b), (affine + geometric).mean())


def test_a_network_that_outputs_log_depth_learns_the_same() -> None:
    """Its output is the negative of log-disparity."""
    b, m = batch(ROWS), module()
    other = module(representation=Representation.LOG_DEPTH)
    for p in other.model.head.parameters():
        p.data.neg_()
    assert_close(loss_of(other, b), loss_of(m, b))


@pytest.mark.parametrize("kind", [METRIC_DEPTH, UTS, LabelKind(Ambiguity.SCALE, Representation.DISPARITY), FILM], ids=str)
def test_the_loss_ignores_what_a_label_leaves_undetermined(kind: LabelKind) -> None:
    b = batch([(0, METRIC_DEPTH)] * 3)
    target = b.target if kind.representation == Representation.DEPTH else 1 / b.target
    moved = 7 * target + (3 if kind == FILM else 0)
    first, second = (loss_of(module(), with_labels(b, kind, t)) for t in (target, moved))
    assert_close(first, second, rtol=1e-4, atol=1e-5)
    assert first > 0.1


def test_a_prediction_with_a_wrong_shift_is_penalised_where_the_geometry_is_known_only() -> None:
    b, m = batch([(0, METRIC_DEPTH)] * 2), module()
    wrong = (1 / b.target.where(b.valid, 1) + 0.5).log()
    geometric = m.geometric_losses(wrong, b)
    affine = m.affine_losses(wrong, b)
    assert (geometric > 0.05).all()
    assert (affine < 1e-5).all()


def test_poison_in_invalid_pixels_and_film_rows_changes_neither_loss_nor_gradient() -> None:
    """A film's disparity may be negative, whose logarithm times 0 would be NaN."""
    results = []
    for poison in (torch.nan, torch.inf, 0.0, -1.0):
        b = batch(ROWS)
        b = replace(b, target=b.target.where(b.valid, poison))
        m = module()
        loss = loss_of(m, b)
        results.append([loss, *torch.autograd.grad(loss, list(m.model.parameters()))])
    for other in results[1:]:
        for x, y in zip(results[0], other, strict=True):
            assert_close(x, y, rtol=0, atol=0)
    assert all(x.isfinite().all() for x in results[0])


@pytest.mark.parametrize("offset", [-200.0, 0.0, 200.0])
def test_a_drifted_output_neither_overflows_nor_changes_the_loss(offset: float) -> None:
    b, m = batch(ROWS), module()
    expected = loss_of(m, b)
    m.model.head.bias.data += offset
    assert_close(loss_of(m, b), expected, rtol=1e-3, atol=1e-4)


def test_film_alone_is_an_exact_zero_without_a_gradient_for_a_loss_of_geometry() -> None:
    m = module(affine_weight=0.0)
    loss = loss_of(m, batch([(1, FILM)] * 3))
    assert loss == 0
    assert all((g == 0).all() for g in torch.autograd.grad(loss, list(m.model.parameters())))


def test_a_constant_disparity_map_is_an_exact_zero_without_a_gradient() -> None:
    b = batch([(1, FILM)] * 2)
    m = module()
    loss = loss_of(m, with_labels(b, FILM, torch.full_like(b.target, 3.0)))
    assert loss == 0
    assert all((g == 0).all() for g in torch.autograd.grad(loss, list(m.model.parameters())))


def test_labels_no_loss_reads_stop_the_run_before_it_starts(tmp_path: Path, scenes: Path) -> None:
    with pytest.raises(LabelError, match=r"'set1' holds shift_scale disparity labels; GeometryPreservingModule as configured"):
        trainer(tmp_path).fit(module(affine_weight=0.0), datamodule=Memory([batch(ROWS)], KINDS))
    points = LabelKind(Ambiguity.ORDINAL, Representation.DEPTH)
    with pytest.raises(LabelError, match="'set1' holds ordinal depth labels"):
        trainer(tmp_path).fit(module(), datamodule=Memory([batch(ROWS)], (UTS, points, UTS)))
    absolute = {"geometric_loss": PointwiseLoss(), "affine_weight": 0.0}
    with pytest.raises(LabelError, match=r"'set2' holds scale depth labels; .* learns from metric"):
        trainer(tmp_path).fit(module(**absolute), datamodule=Memory([batch(ROWS)], (METRIC_DEPTH, METRIC_DEPTH, UTS)))
    degraded = DepthDataModule([ShardSource(str(scenes), transform=WeakenLabel(0.5))], size=(32, 32), batch_size=2)
    with pytest.raises(LabelError, match="'room' holds shift_scale disparity labels"):
        trainer(tmp_path).fit(module(affine_weight=0.0), datamodule=degraded)


def test_a_loss_that_cannot_do_its_part_is_refused() -> None:
    with pytest.raises(LabelError, match=r"to tell a wrong shift of disparity; SSILoss accepts metric, scale, shift_scale"):
        module(geometric_loss=SSILoss())
    with pytest.raises(LabelError, match=r"disparity up to shift and scale; PairwiseL1SILoss reads log_disparity of metric"):
        module(affine_loss=PairwiseL1SILoss())
    with pytest.raises(LabelError, match=r"affine_loss to say what it reads; L1Loss does not"):
        module(affine_loss=torch.nn.L1Loss())


def test_losses_compare_in_the_representation_they_name() -> None:
    """SILog reads depth, of metric labels; MiDaS's loss reads disparity, of all."""
    b, m = batch([(0, METRIC_DEPTH)] * 3), module(geometric_loss=SILogLoss(), affine_loss=SSILoss())
    p = m(b.image)
    expected = silog_loss((-p).exp(), b.target, b.valid) + ssi_loss(p.exp(), 1 / b.target, b.valid)
    assert_close(loss_of(m, b), expected.mean(), rtol=1e-4, atol=1e-5)
    assert m.ambiguity == Ambiguity.METRIC


def test_a_network_whose_output_has_no_logarithm_is_named_instead_of_trained_on_nan() -> None:
    b, m = batch(ROWS), module(representation=Representation.DISPARITY)
    m.model.head.bias.data.sub_(10)
    with pytest.raises(PredictionError, match=r"expected a positive disparity, .* the network predicts -.*softplus"):
        loss_of(m, b)
    positive = GeometryPreservingModule(TinyNet(Representation.DISPARITY))
    assert loss_of(positive, b).isfinite()


def test_what_a_trained_model_leaves_open_follows_from_its_losses() -> None:
    assert module().ambiguity == Ambiguity.SCALE
    assert module(geometric_loss=PairwiseL2SILoss()).ambiguity == Ambiguity.SCALE
    assert module(geometric_loss=PointwiseLoss()).ambiguity == Ambiguity.METRIC
    assert module(geometric_weight=0.0).ambiguity == Ambiguity.SHIFT_SCALE
    with pytest.raises(RecipeError, match="not both 0"):
        module(geometric_weight=0.0, affine_weight=0.0)


def steps_of_all_terms(_: int, root: Path, ranks: int) -> list[dict[str, Tensor]]:
    return [
        weights_after(module(**options), Memory([batch(ROWS, unlabelled=[1])], KINDS, split), root, ranks=ranks)
        for options in (TERMS[0], TERMS[3])
        for split in ((3, 3), (5, 1))
    ]


def test_a_step_on_two_ranks_is_the_step_on_one(tmp_path: Path) -> None:
    start = torch.cat([p.detach().flatten() for p in module().model.parameters()])
    one, (two, other) = steps_of_all_terms(0, tmp_path, 1), on_ranks(2, steps_of_all_terms, tmp_path, 2)
    for alone, together, rival in zip(one, two, other, strict=True):
        flat = [torch.cat([p.flatten() for p in weights.values()]) for weights in (alone, together, rival)]
        step = flat[0] - start
        assert step.norm() > 1e-3
        assert_close(flat[1] - start, step, rtol=0, atol=1e-4 * step.norm().item())
        assert_close(flat[2], flat[1], rtol=0, atol=0)


@pytest.mark.quick(options=["{}"])
@pytest.mark.parametrize("options", TERMS, ids=str)
def test_it_learns_a_mixture(options: dict, tmp_path: Path) -> None:
    kinds = KINDS if options.get("affine_weight", 1) else (METRIC_DEPTH, METRIC_DEPTH, UTS)
    rows = [(d, kinds[d]) for d, _ in ROWS]
    batches = [batch(rows, seed=seed) for seed in range(4)]

    def total(m: GeometryPreservingModule) -> float:
        return sum(float(loss_of(m, b).detach()) for b in batches)

    before = total(module(**options))
    learner = module(**{**options, "optimizer": partial(torch.optim.Adam, lr=1e-2)})
    trainer(tmp_path, max_steps=60, max_epochs=-1).fit(learner, datamodule=Memory(batches, kinds))
    assert total(learner) < 0.6 * before


@pytest.mark.slow
def test_a_light_refinenet_learns_two_images(scenes: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    b = next(iter(DepthDataModule([ShardSource(str(scenes))], size=(32, 64), batch_size=2).train_dataloader()))
    m = GeometryPreservingModule(lrn_timm("mobilenetv2_035", pretrained=False), optimizer=partial(torch.optim.Adam, lr=5e-3))

    @torch.no_grad()
    def error() -> Tensor:
        return m.train().geometric_losses(m(b.image), b).sum()

    before = error()
    trainer(tmp_path, max_steps=120, max_epochs=-1).fit(m, datamodule=Memory([b], (METRIC_DEPTH,)))
    assert error() < 0.4 * before


def test_validated_and_saved_weights_are_lookaheads_slow_ones(scenes: Path, tmp_path: Path) -> None:
    seen: list[Tensor] = []

    class Watch(GeometryPreservingModule):
        def validation_step(self, *args: Any) -> None:
            seen.append(self.model.head.weight.detach().clone())

    m = Watch(LogNet(Representation.LOG_DISPARITY), optimizer=partial(LookaheadRAdam, lr=1e-2, k=5))
    keep = ModelCheckpoint(tmp_path, save_last=True)
    batches = [batch(ROWS, seed=seed) for seed in range(8)]
    fitting = trainer(tmp_path, max_steps=8, limit_val_batches=1, enable_checkpointing=True, callbacks=[keep])
    fitting.fit(m, datamodule=Memory(batches, KINDS))
    assert_close(seen[-1], fitting.optimizers[0].state[m.model.head.weight]["slow"])
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert_close(saved["state_dict"]["model.head.weight"], seen[-1])


def test_a_run_resumed_mid_epoch_ends_in_the_same_weights_bit_for_bit(scenes: Path, tmp_path: Path) -> None:
    def run(**start: Any) -> dict[str, Tensor]:
        source = ShardSource(str(scenes), transform=WeakenLabel(0.5))
        data = DepthDataModule([source], size=(32, 48), batch_size=4, seed=3, epoch_size=12)
        m = module(optimizer=partial(LookaheadRAdam, lr=1e-2, k=3), schedule=CosineDecay(flat=0.5))
        keep = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=4, save_top_k=-1)
        fitting = trainer(tmp_path, max_steps=8, max_epochs=-1, enable_checkpointing=True, callbacks=[keep])
        fitting.fit(m, datamodule=data, **start)
        return dict(m.model.state_dict())

    whole, resumed = run(), run(ckpt_path=tmp_path / "step=4.ckpt")
    for name, weight in whole.items():
        assert_close(resumed[name], weight, rtol=0, atol=0)


def test_a_predictor_knows_that_only_the_scale_is_open(scenes: Path, tmp_path: Path) -> None:
    m = GeometryPreservingModule(lrn_timm("mobilenetv2_035", pretrained=False))
    data = DepthDataModule([ShardSource(str(scenes))], size=(32, 64), batch_size=4)
    run = trainer(tmp_path)
    run.fit(m, datamodule=data)
    run.save_checkpoint(tmp_path / "gp2.ckpt")
    predictor = DepthPredictor.from_pretrained(tmp_path / "gp2.ckpt")
    prediction = predictor((batch(ROWS, size=(40, 60)).image[0].permute(1, 2, 0) * 255).byte().numpy())
    assert prediction.ambiguity == Ambiguity.SCALE
    assert (prediction.depth() > 0).all()
