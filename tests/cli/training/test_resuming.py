"""What a run goes on with, and what is kept when it is stopped or the disk refuses a checkpoint."""

import errno
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import LambdaCallback

from depthkit.cli.main import main
from depthkit.cli.training.command import run
from depthkit.cli.training.resuming import last_checkpoint
from depthkit.shards import files

RECIPE = """
model:
  class_path: depthkit.paradigms.AffineInvariantModule
  init_args:
    encoder_lr: 1.0e-5
    model:
      class_path: depthkit.models.midas_timm
      init_args: {backbone: mobilenetv3_small_050, features: 8, pretrained: false}
data:
  class_path: depthkit.data.DepthDataModule
  init_args: {sources: [{root: SHARDS}], size: [64, 64], batch_size: 2}
trainer:
  max_epochs: 1
  accelerator: cpu
  enable_progress_bar: false
  enable_model_summary: false
  logger: {class_path: CSVLogger, init_args: {save_dir: ROOT}}
  default_root_dir: ROOT
  callbacks: [{class_path: ModelCheckpoint, init_args: {save_last: true}}]
"""


@pytest.fixture(scope="module")
def finished(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three steps."""
    root = tmp_path_factory.mktemp("run")
    (root / "r.yaml").write_text(RECIPE.replace("SHARDS", str(scenes)).replace("ROOT", "."))
    here = Path.cwd()
    os.chdir(root)
    try:
        main(["fit", "--config=r.yaml"])
    finally:
        os.chdir(here)
    return root


@pytest.fixture
def root(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that run, which is the current folder."""
    copy = shutil.copytree(finished, tmp_path / "copy")
    monkeypatch.chdir(copy)
    return copy


def steps(path: Path | None) -> int:
    assert path is not None
    return int(torch.load(path, weights_only=True)["global_step"])


def test_a_checkpoint_that_does_not_read_is_passed_over_and_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    last = next(root.rglob("last.ckpt"))
    good = next(path for path in root.rglob("*.ckpt") if path != last)
    for damage in (b"", last.read_bytes()[:1000], b"no checkpoint"):
        last.write_bytes(damage)
        assert last_checkpoint(root) == good
        assert f"Passed over {last}" in capsys.readouterr().err
    main(["fit", "--config=r.yaml", "--trainer.max_epochs=2", "--ckpt_path=auto"])
    assert steps(last_checkpoint(root)) == 6


def test_the_newest_is_that_of_most_steps_whatever_the_clock_says(root: Path) -> None:
    main(["fit", "--config=r.yaml", "--trainer.max_epochs=2", "--ckpt_path=last"])
    for path in root.rglob("*.ckpt"):
        os.utime(path, (10**9 - steps(path),) * 2)
    found = last_checkpoint(root)
    assert found is not None
    assert (steps(found), found.name) == (6, "last.ckpt")


@pytest.mark.quick(key=["model.encoder_lr=0.01", "trainer.precision=64-true"])
@pytest.mark.parametrize(
    ("which", "key"),
    [
        ("auto", "seed_everything=7"),
        ("last", "model.encoder_lr=0.01"),
        ("auto", "data.batch_size=3"),
        ("auto", "trainer.precision=64-true"),
    ],
)
def test_another_recipe_does_not_go_on_unasked(root: Path, which: str, key: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config=r.yaml", f"--{key}", "--trainer.max_epochs=2", f"--ckpt_path={which}"])
    assert stop.value.code == 2
    name, _, value = key.partition("=")
    message = capsys.readouterr().err
    assert f"1 keys are others: {name.replace('model.', 'model.init_args.').replace('data.', 'data.init_args.')} (" in message
    assert f"now {value})" in message


@pytest.mark.slow
def test_limits_workers_and_validation_may_change_and_a_path_overrules(root: Path) -> None:
    free = ["--trainer.log_every_n_steps=1", "--data.num_workers=1", "--model.protocols=midas_nyu"]
    main(["fit", "--config=r.yaml", "--trainer.max_epochs=2", "--ckpt_path=auto", *free])
    last = last_checkpoint(root)
    assert steps(last) == 6
    main(["fit", "--config=r.yaml", "--trainer.max_epochs=3", f"--ckpt_path={last}", "--seed_everything=1"])
    assert steps(last_checkpoint(root)) == 9


@pytest.mark.quick(times=["1"])
@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_finishes_the_batch_and_two_do_not(root: Path, times: int, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*_: object) -> None:
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as stop:
        run(
            ["fit", "--config=r.yaml", "--trainer.max_epochs=2", "--ckpt_path=auto"],
            [LambdaCallback(on_train_batch_start=interrupt)],
        )
    signal.signal(signal.SIGINT, before)  # Lightning ignores it from a KeyboardInterrupt on
    assert stop.value.code == 130
    assert "Stopped by SIGINT; the same command with --ckpt_path auto goes on." in capsys.readouterr().err
    assert steps(last_checkpoint(root)) == (4 if times == 1 else 3)
    main(["fit", "--config=r.yaml", "--trainer.max_epochs=2", "--ckpt_path=auto"])
    assert steps(last_checkpoint(root)) == 6


def test_a_disk_that_refuses_a_checkpoint_leaves_the_one_before(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in root.rglob("*.ckpt")}

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config=r.yaml", "--trainer.max_epochs=2", "--ckpt_path=auto"])
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert "expected to write a checkpoint of" in message
    assert "No space left on device" in message
    assert {path: path.read_bytes() for path in root.rglob("*.ckpt*")} == before
