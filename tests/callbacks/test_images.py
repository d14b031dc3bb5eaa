from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from depthkit.callbacks import DepthImages, ReprojectionImages, RunReport
from depthkit.callbacks.images import log_picture
from depthkit.data import DepthDataModule, ShardSource, ShardWriter, VideoDataModule
from depthkit.errors import RecipeError
from depthkit.evaluation.render import GREY
from depthkit.models import monodepth2_timm, pose_cnn
from depthkit.paradigms import AffineInvariantModule, SelfSupervisedVideoModule
from depthkit.synthetic import SyntheticScenes
from depthkit.types import Views
from tests.contracts.paradigm import METRIC_DEPTH, Memory, TinyNet, batch, trainer

SIZE = (64, 64)


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("drive")
    with ShardWriter(root, split="train", dataset="drive", samples_per_shard=2) as writer:
        for sample in SyntheticScenes(4, size=SIZE, kind="street", views=Views.VIDEO, still=1.0, noise=0.0):
            writer.write(sample)
    return root


def pictures(folder: Path) -> dict[str, list[int]]:
    """Steps at which each picture was logged."""
    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    return {name: [event.step for event in events.Images(name)] for name in events.Tags()["images"]}


def video_module() -> SelfSupervisedVideoModule:
    torch.manual_seed(0)
    return SelfSupervisedVideoModule(monodepth2_timm("test_resnet", pretrained=False), pose_cnn())


def test_every_validation_set_gets_its_picture(scenes: Path, tmp_path: Path) -> None:
    sets = [ShardSource(str(scenes), split="test", name=name) for name in ("a", "b")]
    data = DepthDataModule([ShardSource(str(scenes))], val_sources=sets, size=(32, 48), batch_size=2)
    logger = TensorBoardLogger(tmp_path, name="", version="")
    scoring = trainer(tmp_path, limit_val_batches=2, logger=logger, callbacks=[DepthImages()])
    scoring.validate(AffineInvariantModule(TinyNet()), datamodule=data, verbose=False)
    assert pictures(tmp_path).keys() == {"val/a/pictures", "val/b/pictures"}


def test_reprojections_are_drawn_as_often_as_asked_and_change_nothing(drive: Path, tmp_path: Path) -> None:
    ends = []
    for name, callbacks in (("without", []), ("with", [ReprojectionImages(rows=1, every_n_steps=2)])):
        torch.manual_seed(0)
        m = video_module()
        data = VideoDataModule([ShardSource(str(drive))], size=SIZE, batch_size=2)
        logger = TensorBoardLogger(tmp_path / name, name="", version="")
        trainer(tmp_path, max_steps=4, max_epochs=-1, logger=logger, callbacks=callbacks).fit(m, datamodule=data)
        ends.append(m.state_dict())
    assert pictures(tmp_path / "with") == {"train/reprojection": [1, 3]}
    for name, value in ends[0].items():
        assert torch.equal(value, ends[1][name])


def test_a_static_camera_is_drawn_masked(drive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray] = []
    monkeypatch.setattr("depthkit.callbacks.images.log_picture", lambda trainer, name, picture, caption: seen.append(picture))
    data = VideoDataModule([ShardSource(str(drive))], size=SIZE, batch_size=2)
    trainer(tmp_path, max_steps=1, callbacks=[ReprojectionImages(rows=1)]).fit(video_module(), datamodule=data)
    mask = seen[0][:, -seen[0].shape[0] :]
    assert (mask < GREY).mean() > 0.9


def test_a_module_that_reprojects_nothing_is_refused(tmp_path: Path) -> None:
    fitting = trainer(tmp_path, callbacks=[ReprojectionImages()])
    with pytest.raises(RecipeError, match="reprojects views, such as SelfSupervisedVideoModule; got AffineInvariantModule"):
        fitting.fit(AffineInvariantModule(TinyNet()), datamodule=Memory([batch([(0, METRIC_DEPTH)])], (METRIC_DEPTH,)))


def test_pictures_without_rows_or_steps_are_refused() -> None:
    with pytest.raises(RecipeError, match="rows of at least 1; got 0"):
        DepthImages(rows=0)
    with pytest.raises(RecipeError, match="at least 1; got 4 and 0"):
        ReprojectionImages(every_n_steps=0)


class Recorder:
    """Clients of MLflow and of Weights & Biases, as far as pictures go."""

    def __init__(self) -> None:
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def log_image(self, *args: Any, **options: Any) -> None:
        self.calls.append((args, options))


def test_each_logger_gets_the_picture_its_own_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client, table = Recorder(), Recorder()
    mlflow, wandb = MLFlowLogger.__new__(MLFlowLogger), WandbLogger.__new__(WandbLogger)  # the packages are not installed
    monkeypatch.setattr(MLFlowLogger, "experiment", client)
    monkeypatch.setattr(MLFlowLogger, "run_id", "run-1")
    monkeypatch.setattr(WandbLogger, "log_image", table.log_image)
    csv = CSVLogger(tmp_path, name="", version="")
    report, picture = RunReport(), np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    log_picture(
        trainer(tmp_path, logger=[mlflow, wandb, csv], callbacks=[report]), "val/room/pictures", picture, "image | label"
    )
    ((run, sent), options), *_ = client.calls
    assert (run, sent is picture, options) == ("run-1", True, {"artifact_file": "pictures/val.room.pictures.00000000.png"})
    assert table.calls == [(("val/room/pictures", [picture]), {"step": 0})]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "pictures" / "val.room.pictures.00000000.png")), picture)
    assert report.pictures == {"val/room/pictures": (0, picture, "image | label")}
