from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.testing import assert_close

from depthkit.errors import LabelError, RecipeError, ShapeError
from depthkit.losses import SILogLoss, SSILoss
from depthkit.models import midas_timm
from depthkit.paradigms import AffineInvariantModule, CutMix, SemiSupervisedModule
from depthkit.paradigms.terms.labels import labels
from depthkit.types import Ambiguity, Batch, LabelKind, Representation
from tests.contracts.paradigm import FILM, METRIC_DEPTH, Memory, batch, sgd, trainer, weights_after
from tests.contracts.ranks import on_ranks
from tests.contracts.student import network

NOTHING = LabelKind(Ambiguity.UNLABELLED, Representation.DEPTH)
ROWS = [(0, METRIC_DEPTH), (1, NOTHING), (1, NOTHING), (0, METRIC_DEPTH), (1, NOTHING), (1, NOTHING)]
KINDS = (METRIC_DEPTH, NOTHING)
PLAIN: dict[str, Any] = {"augment": nn.Identity(), "cutmix": CutMix(0)}


def module(**options: Any) -> SemiSupervisedModule:
    return SemiSupervisedModule(network(), **{"teacher": network(1), "optimizer": sgd, **options})


def mixed(rows: list = ROWS, **options: Any) -> Batch:
    b = batch(rows, **options)
    pseudo = torch.tensor([kind == NOTHING for _, kind in rows])
    return replace(b, valid=b.valid & ~pseudo[:, None, None, None])


def step(m: SemiSupervisedModule, b: Batch) -> dict[str, Tensor]:
    """What one training step logs."""
    made = m.combine(m, b)
    return {**made.logged, "total": made.total}


def test_a_mask_of_everything_is_the_plain_loss() -> None:
    m, b = module(**PLAIN), mixed()
    rows = m.unlabelled(b)
    seen = m.strongly_perturbed(b, rows)
    target, valid = m.pseudo_labels(b, rows)
    prediction = m(b.image)
    assert seen.kept.all()
    assert_close(m.regional_losses(prediction, target, valid, seen), m.loss(prediction, target, valid))


def test_each_region_is_aligned_by_itself_and_weighted_by_its_area() -> None:
    m, b = module(augment=nn.Identity(), cutmix=CutMix(1.0, area=(0.2, 0.3))), mixed()
    rows = m.unlabelled(b)
    seen = m.strongly_perturbed(b, rows)
    target, valid = m.pseudo_labels(b, rows)
    assert not seen.kept[rows].all()
    other = target[seen.donor]
    guess = torch.where(seen.kept, 3 * target + 1, 0.2 * other + 7)
    losses = m.regional_losses(guess, target, valid, seen)
    assert_close(losses[rows], torch.zeros(4), atol=1e-4, rtol=0)
    assert (m.loss(guess, torch.where(seen.kept, target, other), torch.ones_like(valid))[rows] > 0.1).all()
    half = m.regional_losses(torch.where(seen.kept, target, m(b.image)), target, valid, seen)
    outside = m.loss(m(b.image), other, valid[seen.donor] & ~seen.kept)
    assert_close(half[rows], ((1 - seen.kept.flatten(1).float().mean(1)) * outside)[rows], atol=1e-5, rtol=1e-4)


def test_the_student_sees_the_donors_pixelsoutside_its_own() -> None:
    m, b = module(augment=nn.Identity(), cutmix=CutMix(1.0)), mixed()
    seen = m.strongly_perturbed(b, m.unlabelled(b))
    assert_close(seen.image, torch.where(seen.kept, b.image, b.image[seen.donor]))
    assert_close(seen.image[[0, 3]], b.image[[0, 3]])
    assert set(seen.donor[[1, 2, 4, 5]].tolist()) == {1, 2, 4, 5}


@pytest.mark.parametrize("count", [1, 2, 5])
def test_no_image_is_mixed_with_itself(count: int) -> None:
    m, b = module(augment=nn.Identity(), cutmix=CutMix(1.0)), mixed([(0, METRIC_DEPTH)] + [(1, NOTHING)] * count)
    for _ in range(8):
        seen = m.strongly_perturbed(b, m.unlabelled(b))
        rows = torch.arange(1, count + 1)
        assert sorted(seen.donor.tolist()) == list(range(count + 1))
        if count == 1:
            assert seen.kept.all()
        else:
            assert (seen.donor[rows] != rows).all()
            assert not seen.kept[rows].flatten(1).all(1).any()


def test_the_teacher_sees_the_clean_image_and_the_student_does_not() -> None:
    shown: list[Tensor] = []
    teacher = network(1)
    teacher.register_forward_hook(lambda _, given, __: shown.append(given[0]))
    m, b = module(teacher=teacher, cutmix=CutMix(1.0)), mixed()
    rows = m.unlabelled(b)
    m.pseudo_labels(b, rows)
    assert_close(shown[0], b.image[rows])
    seen = m.strongly_perturbed(b, rows)
    assert (seen.image[rows] - b.image[rows]).abs().mean() > 0.01
    assert_close(seen.image[~rows], b.image[~rows])


def test_a_perfect_student_has_nothing_to_learn_without_labels() -> None:
    m = module(teacher=network(), labelled_weight=0.0, **PLAIN)
    found = step(m, mixed())
    for name in ("train/unlabelled", "train/feature", "total"):
        assert_close(found[name], torch.tensor(0.0), atol=1e-6, rtol=0)


def test_the_loss_is_a_third_of_the_sum_of_the_means() -> None:
    m, b = module(**PLAIN, feature_loss=Distance()), mixed()
    with torch.no_grad():
        for p in m.model.encoder.parameters():
            p += 0.1
    found = step(m, b)
    unlabelled = m.unlabelled(b)
    target, valid = m.pseudo_labels(b, unlabelled)
    per_image = m.loss(m(b.image), target, valid)
    assert_close(found["train/labelled"], per_image[~unlabelled].mean().detach())
    assert_close(found["train/unlabelled"], per_image[unlabelled].mean().detach())
    feature = m.feature_losses(m.model.encode(b.image), b.image, unlabelled)
    assert (feature[unlabelled] > 0).all()
    assert (feature[~unlabelled] == 0).all()
    mean = feature[unlabelled].mean()
    assert_close(found["total"], (per_image[~unlabelled].mean() + per_image[unlabelled].mean() + mean) / 3)


class Distance(nn.Module):
    def forward(self, features: Tensor, frozen: Tensor) -> Tensor:
        return (features - frozen).abs().flatten(1).mean(1)


def test_teacher_and_frozen_encoder_are_neither_trained_nor_kept(tmp_path: Path) -> None:
    teacher = network(1)
    m = module(teacher=teacher, feature_loss=Distance())
    assert m.state_dict().keys() == AffineInvariantModule(network()).state_dict().keys()
    assert len(list(m.parameters())) == len(list(network().parameters()))
    trainer(tmp_path, max_steps=2, max_epochs=-1).fit(m, datamodule=Memory([mixed()], KINDS))
    for was, name in ((network(1).state_dict(), "teacher"), (network().encoder.state_dict(), "frozen")):
        held = getattr(m.outside, name).state_dict()
        for key, value in was.items():
            assert_close(held[key], value, rtol=0, atol=0)
    assert not torch.equal(m.model.encoder.conv.weight, network().encoder.conv.weight)


def test_stored_pseudo_labels_teach_what_the_teacher_would() -> None:
    live, stored = module(**PLAIN), module(teacher=None, pseudo_labelled=["b"], **PLAIN)
    stored.dataset_names = live.dataset_names = ("a", "b")
    b = mixed()
    target, valid = live.pseudo_labels(b, live.unlabelled(b))
    rows = [(d, kind if d == 0 else FILM) for d, kind in ROWS]
    written = replace(
        batch(rows), image=b.image, target=torch.where(live.unlabelled(b)[:, None, None, None], target, b.target), valid=valid
    )
    assert_close(step(stored, written)["total"], step(live, b)["total"])


@pytest.mark.parametrize("where", ["unlabelled", "labelled", "all"])
def test_features_are_tied_on_the_images_asked_for(where: Any) -> None:
    m, b = module(feature_images=where, feature_loss=Distance(), labelled_weight=0.0, unlabelled_weight=0.0, **PLAIN), mixed()
    image = b.image.clone().requires_grad_()
    with torch.no_grad():
        for p in m.model.encoder.parameters():
            p += 0.1
    step(m, replace(b, image=image))["total"].backward()
    touched = image.grad.abs().flatten(1).sum(1) > 0
    wanted = {"unlabelled": m.unlabelled(b), "labelled": ~m.unlabelled(b), "all": torch.ones(6, dtype=torch.bool)}[where]
    assert (touched == wanted).all()


def test_a_teacher_with_another_grid_is_asked_at_the_nearest_size() -> None:
    torch.manual_seed(0)
    teacher = midas_timm("mobilenetv2_035", pretrained=False, features=8)
    m, b = module(teacher=teacher), mixed(size=(40, 50))
    target, valid = m.pseudo_labels(b, m.unlabelled(b))
    assert target.shape == b.target.shape
    assert valid[1].all()


def test_teacher_and_frozen_encoder_stay_in_evaluation_mode() -> None:
    m = module(teacher=network(1).train()).train()
    assert m.model.training
    assert not any(part.training for net in m.outside for part in net.modules())


def test_the_coarsest_of_several_maps_is_tied() -> None:
    m, b = module(feature_loss=Distance(), **PLAIN), mixed()
    (last,) = m.model.encode(b.image)
    rows = torch.ones(6, dtype=torch.bool)
    assert_close(m.feature_losses([last + 7, last], b.image, rows), torch.zeros(6))


def test_encoders_that_differ_cannot_be_tied() -> None:
    m = module(**PLAIN)
    m.outside = m.outside._replace(frozen=midas_timm("mobilenetv2_035", pretrained=False, features=8).encoder)
    with pytest.raises(ShapeError, match="Freeze an encoder of the same architecture"):
        step(m, mixed(size=(32, 32)))


def ranks_agree(_: int, root: Path, ranks: int) -> list[dict[str, Tensor]]:
    options = {"feature_loss": Distance(), **PLAIN}
    return [weights_after(module(**options), Memory([mixed()], KINDS, split), root, ranks=ranks) for split in ((3, 3), (1, 5))]


def test_a_step_on_two_ranks_is_the_step_on_one(tmp_path: Path) -> None:
    """The second split leaves one rank without an unlabelled image."""
    start = torch.cat([p.detach().flatten() for p in network().parameters()])
    one, (two, other) = ranks_agree(0, tmp_path, 1), on_ranks(2, ranks_agree, tmp_path, 2)
    for alone, together, rival in zip(one, two, other, strict=True):
        flat = [torch.cat([p.flatten() for p in weights.values()]) for weights in (alone, together, rival)]
        change = flat[0] - start
        assert change.norm() > 1e-3
        assert_close(flat[1] - start, change, rtol=0, atol=1e-4 * change.norm().item())
        assert_close(flat[2], flat[1], rtol=0, atol=0)


def sharded_and_not(_: int, root: Path) -> list[tuple[dict[str, Tensor], list[int]]]:
    found = []
    for strategy in ("ddp", ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)):
        m = module(feature_loss=Distance(), optimizer=partial(torch.optim.Adam, lr=1e-2), **PLAIN)
        run = trainer(root, ranks=2, max_steps=3, strategy=strategy)
        run.fit(m, datamodule=Memory([mixed(seed=seed) for seed in range(3)], KINDS, (3, 3)))
        held = {**dict(m.model.named_parameters()), **dict(m.outside.teacher.named_parameters(prefix="teacher"))}
        whole = {name: getattr(p, "full_tensor", lambda p=p: p)().detach().clone() for name, p in held.items()}
        found.append((whole, [getattr(p, "to_local", lambda p=p: p)().numel() for p in held.values()]))
    return found


@pytest.mark.slow
def test_weights_spread_over_two_ranks_learn_what_whole_ones_do(tmp_path: Path) -> None:
    (((whole, sizes), (spread, half)), ((_, _), (other, rest))) = on_ranks(2, sharded_and_not, tmp_path)
    assert whole.keys() == spread.keys()
    for name, expected in whole.items():
        assert_close(spread[name], expected, rtol=0, atol=1e-6, msg=name)
        assert_close(other[name], spread[name], rtol=0, atol=0, msg=name)
    assert [a + b for a, b in zip(half, rest, strict=True)] == sizes


def test_a_run_resumed_ends_in_the_same_weights_bit_for_bit(tmp_path: Path) -> None:
    def run(**start: Any) -> dict[str, Tensor]:
        seed_everything(3, verbose=False)
        m = module(optimizer=partial(torch.optim.Adam, lr=1e-3))
        torch.manual_seed(len(start))  # a new process has drawn something else before
        keep = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=3, save_top_k=-1)
        fitting = trainer(tmp_path, max_steps=6, max_epochs=-1, enable_checkpointing=True, callbacks=[keep])
        fitting.fit(m, datamodule=Memory([mixed(seed=s) for s in range(3)], KINDS), **start)
        return dict(m.state_dict())

    whole, resumed = run(), run(ckpt_path=tmp_path / "step=3.ckpt")
    for name, value in whole.items():
        assert_close(resumed[name], value, rtol=0, atol=0)


def test_it_learns_from_all_three(tmp_path: Path) -> None:
    batches = [mixed(seed=seed) for seed in range(4)]
    m = module(teacher=network(1), optimizer=partial(torch.optim.Adam, lr=1e-2))

    @torch.no_grad()
    def error() -> Tensor:
        errors = []
        for b in batches:
            unlabelled = m.unlabelled(b)
            errors.append(m.loss(m(b.image), *m.pseudo_labels(b, unlabelled)).mean())
        return torch.stack(errors).sum()

    before = error()
    trainer(tmp_path, max_steps=80, max_epochs=-1).fit(m, datamodule=Memory(batches, KINDS))
    assert error() < 0.8 * before


def test_labels_alone_train_a_teacher(tmp_path: Path) -> None:
    only = [(0, METRIC_DEPTH)] * 3
    m = module(teacher=None, unlabelled_weight=0.0, feature_weight=0.0, labelled_weight=3.0)
    rival = AffineInvariantModule(network(), optimizer=sgd, loss=SSILoss(align="median", halved=False), gradient_weight=0.0)
    ours, theirs = (weights_after(x, Memory([batch(only)], (METRIC_DEPTH,)), tmp_path) for x in (m, rival))
    for name, value in theirs.items():
        assert_close(ours[name], value, rtol=1e-4, atol=1e-6)


def test_a_teacher_comes_from_its_checkpoint(scenes: Path, tmp_path: Path) -> None:
    trained = AffineInvariantModule(midas_timm("mobilenetv2_035", pretrained=False, features=8))
    run = trainer(tmp_path)
    run.fit(trained, datamodule=Memory([batch([(0, METRIC_DEPTH)] * 2, size=(32, 32))], (METRIC_DEPTH,)))
    run.save_checkpoint(tmp_path / "teacher.ckpt")
    m, b = module(teacher=tmp_path / "teacher.ckpt"), mixed(size=(32, 32))
    target, _ = m.pseudo_labels(b, m.unlabelled(b))
    with torch.no_grad():
        assert_close(target[1:3], trained.eval()(b.image[1:3]))


def test_features_are_never_tied_to_an_encoder_that_was_not_trained(tmp_path: Path) -> None:
    """A checkpoint rebuilds the student alone: its encoder before training is not in there."""
    memory, run = Memory([batch([(0, METRIC_DEPTH)] * 2, size=(32, 32))], (METRIC_DEPTH,)), trainer(tmp_path)
    build = partial(midas_timm, "mobilenetv2_035", pretrained=False, features=8)
    student = SemiSupervisedModule(build(), unlabelled_weight=0.0, optimizer=sgd)
    run.fit(student, datamodule=memory)
    run.save_checkpoint(tmp_path / "last.ckpt")
    load = partial(SemiSupervisedModule.load_from_checkpoint, tmp_path / "last.ckpt", unlabelled_weight=0.0, optimizer=sgd)
    again = load()
    assert_close(again.model.state_dict(), student.model.state_dict(), rtol=0, atol=0)
    with pytest.raises(RecipeError, match="expected the frozen encoder; no checkpoint holds it"):
        trainer(tmp_path).fit(again, datamodule=memory)
    trainer(tmp_path).fit(load(feature_weight=0.0), datamodule=memory)
    trainer(tmp_path).fit(load(model=build()), datamodule=memory)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="has no label and there is no teacher"):
        step(module(teacher=None), mixed())
    with pytest.raises(LabelError, match="'set1' holds unlabelled depth labels"):
        trainer(tmp_path).fit(module(teacher=None), datamodule=Memory([mixed()], KINDS))
    with pytest.raises(RecipeError, match="pseudo_labelled to name training sets, set0, set1; got films"):
        trainer(tmp_path).fit(module(pseudo_labelled=["films"]), datamodule=Memory([mixed()], KINDS))
    with pytest.raises(RecipeError, match="expected a teacher that states its representation; Identity does not"):
        module(teacher=nn.Identity())
    with pytest.raises(LabelError, match="to read disparity up to shift and scale; SILogLoss reads depth of metric labels"):
        module(loss=SILogLoss())
    with pytest.raises(RecipeError, match="one of unlabelled, labelled, all; got 'both'"):
        module(feature_images="both")
    with pytest.raises(RecipeError, match="not all 0"):
        module(labelled_weight=0.0, unlabelled_weight=0.0, feature_weight=0.0)
    logarithm = {"representation": Representation.LOG_DISPARITY, "output_activation": "none"}
    with pytest.raises(RecipeError, match="outputs disparity; got log_disparity"):
        SemiSupervisedModule(midas_timm("mobilenetv2_035", pretrained=False, **logarithm))


def test_labels_alone_do_not_learn_from_pseudo_labels() -> None:
    """Row 1 of table 9: L_l is the mean over the labelled rows, whatever the pseudo-labels say."""
    options = {"teacher": None, "pseudo_labelled": ["b"], "unlabelled_weight": 0.0, "feature_weight": 0.0, **PLAIN}
    b, totals = batch([(0, METRIC_DEPTH), (1, FILM), (0, METRIC_DEPTH), (1, FILM)]), []
    for pseudo in (b.target, 7 - b.target):
        m = module(**options)
        m.dataset_names = ("a", "b")
        target = torch.where((b.dataset == 1)[:, None, None, None], pseudo, b.target)
        totals.append(step(m, replace(b, target=target))["total"])
    alone = m.loss(m(b.image), *labels(b, Representation.DISPARITY))[b.dataset == 0].mean() / 3
    assert_close(totals[0], totals[1], rtol=0, atol=0)
    assert_close(totals[0], alone)
