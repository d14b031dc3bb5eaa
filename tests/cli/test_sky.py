"""Sky for converters: found at the model's size, told at the picture's."""

import numpy as np
import pytest
import torch

from depthkit.cli.sky import SkyFinder
from depthkit.errors import CheckpointError


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
