from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import trimesh

from depthkit.cli.predictions import PredictionWriter
from depthkit.data import DepthDataModule
from depthkit.data.stream.collate import collate, to_float
from depthkit.errors import LabelError, ShapeError
from depthkit.geometry import intrinsics_from_field_of_view
from depthkit.types import Ambiguity, Representation, Sample

SIZE = (12, 16)


def module(ambiguity: Ambiguity) -> Any:
    return SimpleNamespace(ambiguity=ambiguity, model=SimpleNamespace(representation=Representation.LOG_DISPARITY))


def trainer_of(source: Path) -> Any:
    return SimpleNamespace(predict_dataloaders=SimpleNamespace(dataset=SimpleNamespace(sources=[source])))


def write(folder: Path, **options: Any) -> None:
    """One batch of two photos at 2 m, of which the second has a camera."""
    grey = np.full((*SIZE, 3), 127, np.uint8)
    known = intrinsics_from_field_of_view(SIZE, 20.0)
    samples = [Sample(str(folder / "photos" / "a.png"), grey), Sample(str(folder / "photos" / "b.png"), grey, intrinsics=known)]
    (folder / "photos").mkdir()
    for sample in samples:
        Path(sample.key).touch()
    writer, trainer = PredictionWriter(folder / "maps", **options), trainer_of(folder / "photos")
    writer.on_predict_start(trainer, module(Ambiguity.SCALE))
    batch, maps = to_float(collate(samples, [0, 0])), torch.full((2, 1, *SIZE), -np.log(2))
    writer.write_on_batch_end(trainer, module(Ambiguity.SCALE), maps, None, batch, 0, 0)


@pytest.mark.parametrize("suffix", [".ply", ".glb"])
def test_point_clouds_have_the_camera_of_the_image_or_the_angle_given(suffix: str, tmp_path: Path) -> None:
    write(tmp_path, point_cloud=suffix, field_of_view=90.0)
    for name, degrees in (("a", 90.0), ("b", 20.0)):
        cloud = trimesh.load(tmp_path / "maps" / f"{name}.png{suffix}")
        low, high = cloud.bounds
        assert high[0] - low[0] == pytest.approx(2 * 2 * np.tan(np.radians(degrees / 2)) * 15 / 16, rel=1e-5)


def test_an_image_that_could_not_be_read_is_named_at_the_end_and_nothing_is_written_for_it(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    (batch,) = DepthDataModule(predict_sources=[str(tmp_path / "a.png")]).predict_dataloader()
    writer, trainer = PredictionWriter(tmp_path / "maps"), trainer_of(tmp_path)
    writer.on_predict_start(trainer, module(Ambiguity.SCALE))
    maps = torch.ones_like(batch.image[:, :1])
    writer.write_on_batch_end(trainer, module(Ambiguity.SCALE), maps, None, batch, 0, 0)
    writer.on_predict_end(trainer, module(Ambiguity.SCALE))
    with pytest.raises(ShapeError, match=r"(?s)1 of 1 images have no prediction; .*a.png; it cannot be decoded"):
        writer.check()
    assert not (tmp_path / "maps").exists()


def test_there_is_no_cloud_without_asking(tmp_path: Path) -> None:
    write(tmp_path)
    assert sorted(file.name for file in (tmp_path / "maps").iterdir()) == [
        "a.png.colour.png", "a.png.png", "b.png.colour.png", "b.png.png",
    ]  # fmt: skip


def test_clouds_of_a_model_with_an_unknown_shift_are_refused_before_it_runs(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    trainer = trainer_of(tmp_path)
    with pytest.raises(LabelError, match="this one predicts disparity up to scale and shift, and the shift is not known"):
        PredictionWriter(point_cloud=".ply").on_predict_start(trainer, module(Ambiguity.SHIFT_SCALE))
    PredictionWriter().on_predict_start(trainer, module(Ambiguity.SHIFT_SCALE))
    PredictionWriter(point_cloud=".ply").on_predict_start(trainer, module(Ambiguity.SCALE))
