"""Sky for converters: found at the model's size, told at the picture's."""

import cv2
import numpy as np
import pytest
import torch

from depthkit.cli.shards_write import write
from depthkit.cli.sky import SkyFinder
from depthkit.data import DepthDataModule, ShardSource
from depthkit.errors import CheckpointError, RecipeError


class Above(torch.nn.Module):
    """Sky is the upper half of what it sees."""

    size = (32, 48)

    def forward(self, image):
        assert image.shape == (1, 3, 32, 48)
        likely = torch.zeros(1, 1, 8, 12)
        likely[:, :, :4] = 1
        return likely


def test_the_sky_is_told_at_the_pictures_size():
    sky = SkyFinder("none", _model=Above())(np.zeros((64, 100, 3), np.uint8))
    assert sky.shape == (64, 100)
    assert sky.dtype == bool
    assert sky[:30].all()
    assert not sky[34:].any()


def test_a_folder_without_a_model_is_told_at_once(tmp_path):
    with pytest.raises(CheckpointError, match="expected a segmentation model of transformers at"):
        SkyFinder(str(tmp_path)).ready()


@pytest.fixture
def above(monkeypatch):
    """Any model that is named sees sky in the upper half."""
    monkeypatch.setattr(SkyFinder, "ready", lambda self: SkyFinder(self.name, _model=Above()))


def test_unlabelled_sky_becomes_a_label_at_infinity_in_shards(above, tmp_path):
    for folder in ("rgb", "depth"):
        (tmp_path / "source" / folder).mkdir(parents=True)
    depth = np.full((64, 96), 2000, np.uint16)
    depth[:, 48:] = 0
    cv2.imwrite(str(tmp_path / "source/rgb/a.png"), np.zeros((64, 96, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "source/depth/a.png"), depth)
    write("folder", str(tmp_path / "source"), str(tmp_path / "shards"), depth_scale=0.001, sky="model")
    source = ShardSource(str(tmp_path / "shards"), "train")
    batch = next(iter(DepthDataModule(test_sources=[source]).test_dataloader()[0]))
    left, sky, ground = batch.target[0, 0, :, :48], batch.target[0, 0, :30, 48:], batch.valid[0, 0, 34:, 48:]
    assert torch.allclose(left, torch.tensor(2.0), rtol=1e-3)
    assert sky.isinf().all()
    assert batch.sky[0, 0, :30, 48:].all()
    assert not ground.any()


def test_a_scene_that_was_rendered_knows_its_sky(above, tmp_path):
    with pytest.raises(RecipeError, match=r"rendered scenes know theirs\. Leave --sky out"):
        write("synthetic", "-", str(tmp_path / "shards"), count=1, sky="model")


def test_an_option_of_that_name_that_is_no_model_goes_to_its_converter(monkeypatch, tmp_path):
    def fail(self):
        raise AssertionError("asked for a model")

    monkeypatch.setattr(SkyFinder, "ready", fail)
    with pytest.raises(Exception, match="expected abandonedfactory"):
        write("tartanair", str(tmp_path), str(tmp_path / "shards"), sky_depth=1000.0)
