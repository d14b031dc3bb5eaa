"""What the KITTI recipes of Monodepth2 say of their paper's data and batch."""

from pathlib import Path

import pytest
import yaml

from tests.contracts.recipes import commands

RECIPES = Path(__file__).parents[1] / "recipes" / "self_supervised_video"


@pytest.mark.parametrize("size", ["640x192", "1024x320"])
@pytest.mark.parametrize("views", ["mono", "stereo", "mono_stereo"])
def test_split_batch_and_start_are_the_papers(views: str, size: str) -> None:
    text = (RECIPES / f"kitti_{views}_{size}.yaml").read_text()
    recipe = yaml.safe_load(text)
    assert recipe["trainer"]["devices"] == 1
    assert recipe["data"]["init_args"]["batch_size"] == {"640x192": 12, "1024x320": 4}[size]
    split = "eigen_full" if views == "stereo" else "eigen_zhou"
    lists = [words[words.index("--split_file") + 1] for words in commands(RECIPES / f"kitti_{views}_{size}.yaml")[:2]]
    assert lists == [f"DATA/splits/{split}/{part}_files.txt" for part in ("train", "val")]
    assert recipe["trainer"]["default_root_dir"] == f"runs/kitti_{views}_{size}"
    if size == "640x192":
        assert recipe["trainer"]["callbacks"][-1]["init_args"]["filename"] == "{epoch}"  # epoch=9.ckpt is after ten
        assert ("45,200 images" if views == "stereo" else "39,810 images") in text
        assert "--trainer.max_epochs 30" in text
    else:
        assert recipe["model"]["init_args"]["weights"] == f"runs/kitti_{views}_640x192/epoch=9.ckpt"


@pytest.mark.parametrize("size", ["640x192", "1024x320"])
@pytest.mark.parametrize("views", ["mono", "stereo", "mono_stereo"])
def test_depth_and_motion_are_in_one_unit(views: str, size: str) -> None:
    """The paper's unit is 5.4 m: depth between 0.1 and 100 of them, and the pose network's translations counted in them."""
    model = yaml.safe_load((RECIPES / f"kitti_{views}_{size}.yaml").read_text())["model"]["init_args"]
    unit = 1.0 if views == "mono" else 5.4
    depth = model["model"]["init_args"]
    assert (depth.get("min_depth", 0.1), depth.get("max_depth", 100.0)) == pytest.approx((0.1 * unit, 100 * unit))
    if views == "stereo":
        assert "pose_net" not in model
    else:
        assert model["pose_net"]["init_args"].get("unit", 1.0) == unit
