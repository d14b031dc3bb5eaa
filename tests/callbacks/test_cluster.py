"""What is kept when a run is told to stop, and what its log says of its speed."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor

from depthkit.callbacks import SaveOnTermination, Throughput
from depthkit.data import DepthDataModule, ShardSource
from depthkit.paradigms import AffineInvariantModule, CosineDecay
from depthkit.types import Batch
from tests.contracts.paradigm import METRIC_DEPTH, Memory, TinyNet, batch, trainer
from tests.contracts.ranks import on_ranks

EPOCH = 3  # batches of two in six scenes


class Signal(Callback):
    """The scheduler: SIGTERM to this process after so many batches."""

    def __init__(self, after: int) -> None:
        self.after = after

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        if trainer.fit_loop.total_batch_idx + 1 == self.after:
            os.kill(os.getpid(), signal.SIGTERM)


def run(root: Path, scenes: Path, *callbacks: Callback, ranks: int = 1, resume: Path | None = None) -> torch.Tensor:
    torch.manual_seed(0)
    module = AffineInvariantModule(TinyNet(), schedule=CosineDecay(warmup=2))
    options = {"enable_checkpointing": True, "max_steps": -1, "max_epochs": 2 * ranks}
    checkpoints = ModelCheckpoint(root / "checkpoints", every_n_epochs=100)
    fit = trainer(root, ranks=ranks, callbacks=[SaveOnTermination(), checkpoints, *callbacks], **options).fit
    data = DepthDataModule([ShardSource(str(scenes))], size=(16, 24), batch_size=2 // ranks)
    fit(module, data, ckpt_path=resume, weights_only=False)
    return torch.nn.utils.parameters_to_vector(module.parameters()).detach()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("after", [1, EPOCH, EPOCH + 2])
def test_a_run_stopped_by_sigterm_and_continued_ends_with_the_weights_of_a_whole_one(
    after: int, scenes: Path, tmp_path: Path
) -> None:
    handler = signal.getsignal(signal.SIGINT)
    whole = run(tmp_path / "whole", scenes)
    assert signal.getsignal(signal.SIGINT) == handler
    with pytest.raises(SIGTERMException):
        run(tmp_path / "stopped", scenes, Signal(after))
    assert signal.getsignal(signal.SIGINT) == handler  # a notebook goes on
    last = tmp_path / "stopped" / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=False)["global_step"] == after
    assert torch.equal(run(tmp_path / "continued", scenes, resume=last), whole)


def _stopped_and_continued(rank: int, root: Path, scenes: Path, after: tuple[int, int]) -> tuple[int, bool]:
    told = [Signal(after[rank])] if after[rank] else []
    whole = run(root / "whole", scenes, ranks=2)
    with pytest.raises(SIGTERMException):
        run(root / "stopped", scenes, *told, ranks=2)
    last = root / "stopped" / "checkpoints" / "last.ckpt"
    step = torch.load(last, weights_only=False)["global_step"]
    return step, torch.equal(run(root / "continued", scenes, ranks=2, resume=last), whole)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("after", [(0, 1), *(pytest.param(each, marks=pytest.mark.slow) for each in ((1, 2), (2, 1)))])
def test_all_ranks_stop_at_one_step_and_go_on_from_it(after: tuple[int, int], scenes: Path, tmp_path: Path) -> None:
    """Whenever the signal reaches each of them, or one alone: the batch after the first that was told is the last."""
    assert on_ranks(2, _stopped_and_continued, tmp_path, scenes, after) == [(2, True), (2, True)]


class Clock:
    """A time of one's own [s]."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.filterwarnings("ignore")
def test_the_log_tells_images_per_second_and_the_share_of_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two images take 3 s to come and 1 s to learn from."""
    clock = Clock()
    monkeypatch.setattr("depthkit.callbacks.cluster.perf_counter", clock)

    class Slow(list[Batch]):
        def __getitem__(self, index: Any) -> Any:
            clock.now += 3
            return super().__getitem__(index)

    class Module(AffineInvariantModule):
        def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
            clock.now += 1
            return super().training_step(batch, batch_idx)

    batches = [batch([(0, METRIC_DEPTH)] * 2, seed=i) for i in range(12)]
    data = Memory(batches, [METRIC_DEPTH])
    data.batches = Slow(batches)
    options = {"logger": CSVLogger(tmp_path, name="", version=""), "callbacks": [Throughput()], "log_every_n_steps": 3}
    trainer(tmp_path, max_steps=6, **options).fit(Module(TinyNet()), data)
    table = np.genfromtxt(tmp_path / "metrics.csv", delimiter=",", names=True, deletechars="")
    np.testing.assert_allclose(table["speed/waiting"][:2], [6 / 9, 9 / 12], rtol=1e-6)  # the first batch is not waited for
    np.testing.assert_allclose(table["speed/images_per_second"][:2], [6 / 9, 6 / 12], rtol=1e-6)
