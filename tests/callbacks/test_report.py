"""A run leaves its curves and a page, whole ones from its beginning, also when it fails."""

from pathlib import Path

import pytest
from lightning.pytorch import Callback
from PIL import Image

from depthkit.callbacks import DepthImages, RunReport
from depthkit.data import DepthDataModule, ShardSource
from depthkit.paradigms import AffineInvariantModule
from tests.contracts.paradigm import TinyNet, trainer


class Failing(Callback):
    """A machine that breaks down at the third batch."""

    def on_train_batch_start(self, trainer: object, pl_module: object, batch: object, batch_idx: int) -> None:
        if batch_idx == 2:
            raise ZeroDivisionError


def data(scenes: Path) -> DepthDataModule:
    sources = [ShardSource(str(scenes), split="test", name="room")]
    return DepthDataModule([ShardSource(str(scenes))], val_sources=sources, size=(32, 48), batch_size=2)


def fitted(scenes: Path, folder: Path, epochs: int, *callbacks: RunReport, resume: Path | None = None) -> Path:
    options = {"max_epochs": epochs, "max_steps": -1, "log_every_n_steps": 1, "limit_val_batches": 1}
    fitting = trainer(folder, enable_checkpointing=True, callbacks=[*callbacks, DepthImages(rows=1)], **options)
    fitting.fit(AffineInvariantModule(TinyNet()), datamodule=data(scenes), ckpt_path=resume)
    return next(folder.rglob("*.ckpt"))


@pytest.mark.slow
def test_a_run_that_goes_on_has_the_curves_from_its_beginning(scenes: Path, tmp_path: Path) -> None:
    first, second = RunReport(), RunReport()
    checkpoint = fitted(scenes, tmp_path / "a", 1, first)
    fitted(scenes, tmp_path / "b", 2, second, resume=checkpoint)
    steps = [step for step, _ in first.curves["train/loss"]]
    assert steps == [1, 2, 3]
    assert second.curves["train/loss"][: len(steps)] == first.curves["train/loss"]
    assert [step for step, _ in second.curves["train/loss"]] == [1, 2, 3, 4, 5, 6]
    assert [step for step, _ in second.curves["val/room/abs_rel"]] == [3, 6]
    page = second.page.read_text()
    assert f'data-v="{second.curves["val/room/abs_rel"][-1][1]}"' in page
    assert "val/room/pictures" in page
    assert "image | prediction | label" in page
    with Image.open(second.page.parent / "curves.png") as curves:
        assert min(curves.size) > 200


def test_a_run_that_fails_leaves_its_report(scenes: Path, tmp_path: Path) -> None:
    report, failing = RunReport(), Failing()
    with pytest.raises(ZeroDivisionError):
        trainer(tmp_path, max_epochs=1, max_steps=-1, log_every_n_steps=1, callbacks=[report, failing]).fit(
            AffineInvariantModule(TinyNet()), datamodule=data(scenes)
        )
    assert "stopped by ZeroDivisionError" in report.page.read_text()
    assert len(report.curves["train/loss"]) == 2


def test_a_full_disk_does_not_spoil_a_finished_run(scenes: Path, tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()
    (tmp_path / "report.html" / "x").touch()
    report = RunReport()
    with pytest.warns(UserWarning, match=r"expected to write .*report\.html"):
        trainer(tmp_path, max_steps=1, callbacks=[report]).fit(AffineInvariantModule(TinyNet()), datamodule=data(scenes))
    assert report.page is None
