from functools import partial
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from depthkit.errors import CheckpointError
from depthkit.paradigms import AffineInvariantModule
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
    with pytest.raises(CheckpointError, match=r"does not fit this AffineInvariantModule: .*model\.head\.weight"):
        trainer(tmp_path).fit(module(1, weights=tmp_path / "other.ckpt"), datamodule=DATA)
    (tmp_path / "text.ckpt").write_text("no weights")
    for name in ("text.ckpt", "gone.ckpt"):
        with pytest.raises(CheckpointError, match=rf"expected model\.weights to be a checkpoint .*{name} is none"):
            trainer(tmp_path).fit(module(1, weights=tmp_path / name), datamodule=DATA)
