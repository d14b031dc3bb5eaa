from pathlib import Path

import numpy as np
import pytest
import torch

from depthkit.cli.scoring.odometry import odometry
from depthkit.errors import CheckpointError, RecipeError
from depthkit.models import monodepth2_timm, pose_cnn
from depthkit.paradigms import SelfSupervisedVideoModule


def checkpoint(root: Path, pose_net) -> str:
    module = SelfSupervisedVideoModule(monodepth2_timm("test_resnet", pretrained=False), pose_net)
    content = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(content)
    torch.save(content, root / "last.ckpt")
    return str(root / "last.ckpt")


def test_a_checkpoint_is_scored_and_its_paths_are_written(drive, tmp_path, capsys):
    odometry(checkpoint(tmp_path, pose_cnn()), [str(drive)], out=tmp_path / "out", size=(64, 96))
    printed = capsys.readouterr().out
    for words in ("protocol: monodepth2_odometry_09", "6 of 2 to 2 motions, 12 in all", "no motion", "ORB-SLAM (published)"):
        assert words in printed
    (folder,) = (tmp_path / "out").iterdir()
    assert len(list(folder.glob("*.txt"))) == 6
    assert np.loadtxt(next(folder.glob("*.txt"))).shape == (3, 12)


def test_mistakes_end_in_one_sentence(drive, tmp_path):
    with pytest.raises(RecipeError, match="unknown odometry protocol 'kitti'"):
        odometry(str(tmp_path / "last.ckpt"), [str(drive)], "kitti")
    with pytest.raises(CheckpointError, match="expected a checkpoint with a pose network"):
        odometry(checkpoint(tmp_path, None), [str(drive)])
    with pytest.raises(RecipeError, match="expected a pose_net that sees 2 frames; got a PoseCNN of 3"):
        odometry(checkpoint(tmp_path, pose_cnn(frames=3)), [str(drive)])
