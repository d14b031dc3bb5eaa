from functools import partial
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from torch.testing import assert_close

from depthkit.errors import CheckpointError, LabelError, RecipeError
from depthkit.paradigms import AffineInvariantModule, CosineDecay, LinearDecay, LookaheadRAdam
from tests.contracts.paradigm import METRIC_DEPTH, Memory, TinyNet, batch, trainer

DATA = Memory([batch([(0, METRIC_DEPTH)])], (METRIC_DEPTH,))


def module(seed: int, **options: object) -> AffineInvariantModule:
    torch.manual_seed(seed)
    return AffineInvariantModule(TinyNet(), optimizer=partial(torch.optim.SGD, lr=0.0), **options)


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    first = trainer(tmp_path)
    first.fit(module(0), datamodule=DATA)
    first.save_checkpoint(tmp_path / "earlier.ckpt")
    return tmp_path / "earlier.ckpt"


def test_training_starts_from_the_weights_of_an_earlier_run(earlier: Path, tmp_path: Path) -> None:
    m = module(1, weights=earlier)
    trainer(tmp_path).fit(m, datamodule=DATA)
    for name, value in module(0).state_dict().items():
        assert_close(m.state_dict()[name], value, rtol=0, atol=0)


def test_an_interrupted_run_goes_on_from_its_own_checkpoint(earlier: Path, tmp_path: Path) -> None:
    m = module(1, weights=tmp_path / "gone.ckpt")
    trainer(tmp_path, max_steps=2, max_epochs=-1).fit(m, datamodule=DATA, ckpt_path=earlier)
    for name, value in module(0).state_dict().items():
        assert_close(m.state_dict()[name], value, rtol=0, atol=0)


def test_weights_that_do_not_fit_are_refused(earlier: Path, tmp_path: Path) -> None:
    other = torch.load(earlier, weights_only=True)
    other["state_dict"].pop("model.head.weight")
    torch.save(other, tmp_path / "other.ckpt")
    with pytest.raises(
        CheckpointError, match=r"expected weights of this AffineInvariantModule; got others: .*model\.head\.weight"
    ):
        trainer(tmp_path).fit(module(1, weights=tmp_path / "other.ckpt"), datamodule=DATA)
    (tmp_path / "text.ckpt").write_text("no weights")
    for name in ("text.ckpt", "gone.ckpt"):
        with pytest.raises(CheckpointError, match=rf"expected a (MODEL|checkpoint of `depthkit fit`) at .*{name}"):
            trainer(tmp_path).fit(module(1, weights=tmp_path / name), datamodule=DATA)


def test_a_protocol_that_does_not_align_what_the_model_leaves_open_stops_the_run_before_it_starts(tmp_path: Path) -> None:
    """Scored, it would be a number that says nothing."""
    message = "'synthetic_scale' aligns scale in depth; the model predicts disparity with ambiguity shift_scale"
    for run in (Trainer.fit, Trainer.validate, Trainer.test):
        with pytest.raises(LabelError, match=message):
            run(trainer(tmp_path), module(0, protocols={"memory": "synthetic_scale"}), datamodule=DATA)


def test_so_does_one_for_sets_that_come_without_a_datamodule(tmp_path: Path) -> None:
    loader, m = DATA.val_dataloader(), module(0, protocols="synthetic_metric")
    trainer(tmp_path).fit(m, train_dataloaders=loader)  # nothing is scored
    with pytest.raises(LabelError, match="'synthetic_metric' aligns nothing"):
        trainer(tmp_path, limit_val_batches=1).validate(m, dataloaders=loader)


def test_a_run_limited_by_time_alone_trains_at_a_constant_rate(tmp_path: Path) -> None:
    endless = {"max_steps": -1, "max_epochs": -1, "max_time": {"seconds": 0.2}}
    fitting = trainer(tmp_path, **endless)
    fitting.fit(module(0), datamodule=DATA)
    assert fitting.global_step > 0
    with pytest.raises(RecipeError, match="expected a run with a known end for CosineDecay"):
        trainer(tmp_path, **endless).fit(module(0, schedule=CosineDecay()), datamodule=DATA)


def test_the_encoder_keeps_its_weights_at_rate_0_and_has_none_below(tmp_path: Path) -> None:
    m = module(0, encoder_lr=0.0)
    m.optimizer = partial(torch.optim.SGD, lr=0.1)
    trainer(tmp_path).fit(m, datamodule=DATA)
    start = module(0).model.state_dict()
    moved = {name for name, weight in m.model.state_dict().items() if not torch.equal(weight, start[name])}
    assert moved
    assert not any(name.startswith("encoder") for name in moved)
    with pytest.raises(RecipeError, match=r"encoder_lr of 0 or more; got -0\.1"):
        module(0, encoder_lr=-0.1)


def test_a_schedule_falls_with_every_optimizer_step_over_the_whole_run(tmp_path: Path) -> None:
    """Four batches of one epoch are two steps of two batches each: rates 1, 1/2, and 0 at the end."""
    seen = []
    m = module(0, schedule=LinearDecay())
    m.optimizer = partial(torch.optim.SGD, lr=1.0)
    m.on_before_optimizer_step = lambda optimizer: seen.append(optimizer.param_groups[0]["lr"])
    four = Memory(DATA.batches * 4, (METRIC_DEPTH,))
    trainer(tmp_path, max_steps=-1, max_epochs=1, accumulate_grad_batches=2).fit(m, datamodule=four)
    assert_close([*seen, *m.lr_schedulers().get_last_lr()[:1]], [1.0, 0.5, 0.0])


def test_rates_of_encoder_and_decoder_are_those_asked_for() -> None:
    groups = module(0, encoder_lr=1e-5).parameter_groups()
    assert [(group["name"], group.get("lr")) for group in groups] == [("encoder", 1e-5), ("decoder", None)]
    assert "lr" not in module(0).parameter_groups()[0]


def test_the_chance_of_a_step_is_that_of_the_runs_seed_the_batch_and_the_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn(seed: int, step: int, rank: int) -> float:
        monkeypatch.setenv("PL_GLOBAL_SEED", str(seed))
        monkeypatch.setattr(AffineInvariantModule, "global_rank", rank)
        m = module(0)
        m._drawn = step
        with m.step_rng():
            return float(torch.rand(()))

    draws = [drawn(*at) for at in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))]
    assert len(set(draws)) == 4
    assert draws[0] == drawn(0, 0, 0)


def test_settings_that_an_optimizer_refuses_are_one_sentence(tmp_path: Path) -> None:
    for factory, complaint in ((torch.optim.SGD, "Invalid learning rate: -1"), (LookaheadRAdam, "Invalid learning rate: -1")):
        m = module(0)
        m.optimizer = partial(factory, lr=-1.0)
        with pytest.raises(RecipeError, match=f"settings that the optimizer takes; it says: {complaint}"):
            trainer(tmp_path).fit(m, datamodule=DATA)
    m = module(0)
    for parameter in m.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(RecipeError, match="empty parameter list"):
        trainer(tmp_path).fit(m, datamodule=DATA)


def test_several_sets_need_names(tmp_path: Path) -> None:
    loaders = [DATA.val_dataloader(), DATA.val_dataloader()]
    with pytest.raises(
        RecipeError, match="expected one val set, or a datamodule that names them in `val_names`; got loader number 2"
    ):
        trainer(tmp_path, limit_val_batches=1).validate(module(0), dataloaders=loaders)
