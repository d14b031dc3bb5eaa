"""A loss that is not finite: what stops a run, what does not, and what is left of it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from depthkit.errors import TrainingError
from depthkit.losses import SSILoss
from depthkit.paradigms import AffineInvariantModule
from depthkit.paradigms.guards import FiniteWeights
from tests.contracts.paradigm import METRIC_DEPTH, Memory, TinyNet, batch, trainer
from tests.contracts.ranks import on_ranks


class Breaks(SSILoss):
    """NaN in one step."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at, self.step = at, 0

    def forward(self, pred: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        self.step += 1
        return super().forward(pred, target, valid) * (torch.nan if self.step == self.at else 1.0)


def fit(root: Path, at: int, ranks: int = 1, **options: object) -> AffineInvariantModule:
    module = AffineInvariantModule(TinyNet(), loss=Breaks(at), gradient_weight=0.0)
    data = Memory([batch([(0, METRIC_DEPTH)] * 2, seed=i) for i in range(8)], [METRIC_DEPTH], split=(1, 1))
    trainer(root, ranks=ranks, **{"max_steps": 8, "log_every_n_steps": 4, **options}).fit(module, data)
    return module


@pytest.mark.filterwarnings("ignore")
def test_a_run_whose_weights_are_lost_stops_where_it_logs(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"after 4 steps .*, model.encoder.0.weight for one, are NaN.*gradient_clip_val"):
        fit(tmp_path, at=2)


@pytest.mark.filterwarnings("ignore")
def test_the_last_checkpoint_is_whole(tmp_path: Path) -> None:
    checkpoints = ModelCheckpoint(tmp_path, every_n_train_steps=2, save_last=True)
    with pytest.raises(TrainingError, match="after 6 steps"):
        fit(tmp_path, at=5, enable_checkpointing=True, callbacks=[checkpoints], log_every_n_steps=0)
    last = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert last["global_step"] == 4
    assert all(x.isfinite().all() for x in last["state_dict"].values())


@pytest.mark.filterwarnings("ignore")
def test_a_step_that_is_passed_over_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the gradient scaler of float16 does with an overflow."""
    step = torch.optim.Adam.step

    def careful(optimizer: torch.optim.Adam, closure: object = None) -> object:
        with torch.enable_grad():
            loss = closure() if callable(closure) else None
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        return step(optimizer) if all(g.isfinite().all() for g in gradients) else loss

    monkeypatch.setattr(torch.optim.Adam, "step", careful)
    assert all(p.isfinite().all() for p in fit(tmp_path, at=2).parameters())


def _on_rank(rank: int, root: Path) -> str:
    with pytest.raises(TrainingError) as stop:
        fit(root, at=2 if rank else 100, ranks=2)
    return str(stop.value)[:40]


@pytest.mark.filterwarnings("ignore")
def test_all_ranks_stop_together_whichever_broke(tmp_path: Path) -> None:
    first, second = on_ranks(2, _on_rank, tmp_path)
    assert first == second


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("part", ["weight", "running_mean"])
def test_a_weight_or_a_statistic_that_is_not_finite_is_named(value: float, part: str) -> None:
    layer: Any = torch.nn.BatchNorm2d(2)
    trainer: Any = SimpleNamespace(global_step=7)
    FiniteWeights.check(trainer, layer)
    getattr(layer, part).data[1] = value
    with pytest.raises(TrainingError, match=f"after 7 steps 1 of them, {part} for one"):
        FiniteWeights.check(trainer, layer)
