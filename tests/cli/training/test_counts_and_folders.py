"""A run that goes on has one folder and one log; what is left out is counted, and a test without it fails."""

import csv
import json
import re
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from depthkit.cli.main import main
from depthkit.data import ShardWriter
from depthkit.models import midas_timm, save_network
from depthkit.shards import ShardIndex
from depthkit.synthetic import SyntheticScenes

RECIPE = """
model:
  class_path: depthkit.paradigms.AffineInvariantModule
  init_args:
    model:
      class_path: depthkit.models.midas_timm
      init_args: {backbone: mobilenetv3_small_050, features: 8, pretrained: false}
data:
  class_path: depthkit.data.DepthDataModule
  init_args:
    sources: [{root: SHARDS}]
    val_sources: [{root: SHARDS, split: test}]
    size: [32, 32]
    batch_size: 2
    max_broken_fraction: 0.5
trainer:
  max_epochs: 1
  accelerator: cpu
  log_every_n_steps: 1
  enable_progress_bar: false
  enable_model_summary: false
  logger: LOGGERS
  callbacks: [{class_path: ModelCheckpoint, init_args: {save_last: true}}]
"""
LOGGERS = (
    "[{class_path: CSVLogger, init_args: {save_dir: ., name: csv}}, "
    "{class_path: TensorBoardLogger, init_args: {save_dir: logs}}]"
)


@pytest.fixture
def recipe(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    text = RECIPE.replace("SHARDS", str(scenes)).replace("LOGGERS", LOGGERS)
    (tmp_path / "r.yaml").write_text(text)
    return tmp_path


def losses(file: Path) -> list[tuple[int, float]]:
    rows = csv.DictReader(file.read_text().splitlines())
    return [(int(row["step"]), float(row["train/loss"])) for row in rows if row["train/loss"]]


def test_a_run_that_goes_on_keeps_its_folder_and_its_logs(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main(["fit", "--config=r.yaml", "--trainer.max_epochs=3"])
    whole = losses(recipe / "csv/version_0/metrics.csv")
    (recipe / "again").mkdir()
    monkeypatch.chdir(recipe / "again")
    part = ["fit", "--config=../r.yaml", "--ckpt_path=auto"]
    main([*part, "--trainer.max_epochs=1"])
    main([*part, "--trainer.max_epochs=2"])
    main([*part, "--trainer.max_epochs=3"])
    here = recipe / "again"
    assert [path.name for path in sorted(here.glob("csv/*"))] == ["version_0"]
    assert [path.name for path in sorted(here.glob("logs/*/*"))] == ["version_0"]
    assert len(list(here.rglob("last.ckpt"))) == 1
    assert losses(here / "csv/version_0/metrics.csv") == whole
    assert [step for step, _ in whole] == list(range(9))
    events = EventAccumulator(str(here / "logs/lightning_logs/version_0"))
    events.Reload()
    assert [(event.step, pytest.approx(event.value)) for event in events.Scalars("train/loss")] == whole
    timer = ["--trainer.callbacks+=Timer", "--trainer.callbacks.duration=00:00:10:00"]  # whose default is a member of an enum
    main(["fit", "--config=../r.yaml", *timer])  # another run
    assert [path.name for path in sorted(here.glob("csv/*"))] == ["version_0", "version_1"]


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """Six samples of which one does not read."""
    root = tmp_path / "broken"
    for split in ("train", "test"):
        with ShardWriter(root, split=split, dataset="room", samples_per_shard=3) as writer:
            for sample in SyntheticScenes(6, size=(32, 32), kind="room"):
                writer.write(sample)
    for shard in ShardIndex.load(root).shards("train")[:1] + ShardIndex.load(root).shards("test")[:1]:
        file = root / shard.name
        data = file.read_bytes()
        place = data.index(b"IHDR") - 4
        file.write_bytes(data[:place] + bytes(20) + data[place + 20 :])
    return root


def test_fit_and_validate_say_what_they_could_not_read(
    recipe: Path, broken: Path, scenes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (recipe / "r.yaml").read_text().replace(str(scenes), str(broken))
    (recipe / "r.yaml").write_text(text)
    main(["fit", "--config=r.yaml"])
    out = capsys.readouterr().out
    assert "training: 5 samples read, 1 broken and left out: " in out
    assert "5 samples read, 1 broken and left out: " in next(recipe.rglob("report.html")).read_text()
    with pytest.raises(SystemExit) as stop:
        main(["validate", "--config=r.yaml", "--ckpt_path=last"])
    assert stop.value.code == 2
    found = capsys.readouterr()
    assert "abs_rel" in found.out
    message = "expected all samples of room; 5 samples read, 1 broken and left out: .* So the numbers are not those of the set"
    assert re.search(message, found.err.replace("\n", " "))


def test_a_published_test_of_other_images_is_named(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = tmp_path / "net.ckpt"
    save_network(midas_timm("mobilenetv3_small_050", pretrained=False, features=8), network, ambiguity="shift_scale")
    main(["evaluate", str(network), str(scenes), "--protocol", "midas_nyu", "--out", str(tmp_path / "out"), "--pictures", "0"])
    said = "the published numbers are of 654 images, these of 6: not comparable."
    assert said in capsys.readouterr().out
    content = json.loads(next((tmp_path / "out").glob("*.json")).read_text())
    assert (content["n_published"], content["n_read"], content["facts"]["not the test"]) == (654, 6, said)
