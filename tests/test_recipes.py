"""Every recipe, shrunk to a small network and rendered scenes, starts (slow: learns)."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from omegaconf import OmegaConf

from depthkit.cli.training.command import run
from tests.contracts.recipes import RECIPES, ROOT, STAND_FOR_ALL, named


def dpt(**options: Any) -> dict[str, Any]:
    """A small network of Depth Anything's kind."""
    arguments = {"backbone": "test_resnet", "pretrained": False, "features": 16, **options}
    return {"class_path": "depthkit.models.dpt_timm", "init_args": arguments}


TINY_DIFFUSION = {
    "class_path": "depthkit.models.latent_diffusion_tiny",
    "init_args": {"codec": {"class_path": "depthkit.models.LogDepth", "init_args": {"d_min": 0.5, "d_max": 80.0}}},
}
SMALL = {
    "AffineInvariantModule": {
        "model": {
            "class_path": "depthkit.models.midas_timm",
            "init_args": {"backbone": "mobilenetv3_small_050", "features": 16, "pretrained": False},
        },
        "protocols": "synthetic_affine",
    },
    "GeometryPreservingModule": {
        "model": {"class_path": "depthkit.models.lrn_timm", "init_args": {"backbone": "mobilenetv2_035", "pretrained": False}},
        "protocols": "synthetic_scale",
    },
    "SelfSupervisedVideoModule": {
        "model": {
            "class_path": "depthkit.models.monodepth2_timm",
            "init_args": {"backbone": "test_resnet", "pretrained": False, "min_depth": 2.0},  # a fresh one says 4 m
        },
        "protocols": "synthetic_median",
        "augment": {"class_path": "torch.nn.Identity"},
    },
    "SemiSupervisedModule": {"model": dpt(), "protocols": "synthetic_affine"},
    "MetricModule": {"model": dpt(max_depth=80.0), "protocols": "synthetic_metric"},
    "DiffusionModule": {"model": TINY_DIFFUSION, "protocols": "synthetic_metric"},
    "EndToEndDiffusionModule": {"model": TINY_DIFFUSION, "protocols": "synthetic_metric"},
}
"""What shrinks a recipe of each paradigm."""
SMALL_POSE = {"class_path": "depthkit.models.pose_timm", "init_args": {"backbone": "test_resnet", "pretrained": False}}
FAST = {"LookaheadRAdam": {"lr": 1e-2, "alpha": 1.0}}
"""Settings of optimizers that are slow in their first steps."""


class Losses(Callback):
    """Keeps the loss of every step."""

    seen: list[float]

    def on_train_start(self, *_: Any) -> None:
        self.seen = []

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *_: Any) -> None:
        self.seen.append(float(outputs["loss"]))


def of_any_size(source: dict[str, Any]) -> dict[str, Any]:
    """A source without what brings its images to a size of their own."""
    own = "size" in source.get("transform", {}).get("init_args", {})
    return {key: value for key, value in source.items() if key != "size" and not (own and key == "transform")}


def test_there_are_recipes() -> None:
    assert {"quickstart.yaml", "midas_mix5.yaml"} <= {recipe.name for recipe in RECIPES}


@pytest.mark.quick(recipe=[str(ROOT / "recipes" / name) for name in STAND_FOR_ALL])
@pytest.mark.parametrize("steps", [2, pytest.param(40, marks=pytest.mark.slow)], ids=["starts", "learns"])
@pytest.mark.parametrize("recipe", RECIPES, ids=named)
def test_a_shrunk_recipe_starts_and_learns(recipe: Path, steps: int, scenes: Path, drive: Path, tmp_path: Path) -> None:
    if recipe.parent.name == "diffusion":
        pytest.importorskip("diffusers")
    config: Any = OmegaConf.to_container(OmegaConf.load(recipe), resolve=True)
    model, data = config["model"]["init_args"], config["data"]["init_args"]
    paradigm = config["model"]["class_path"].rpartition(".")[2]
    model.update(SMALL[paradigm], schedule=None, weights=None)
    rate = {"lr": 5e-4 if "views" in data else 3e-3}  # without labels, steps that are too long end at a map without depth
    model["optimizer"]["init_args"].update(FAST.get(model["optimizer"]["class_path"].rpartition(".")[2], rate))
    for name in ("encoder_lr", "base_lr"):
        model.pop(name, None)
    if "network_size" in model:
        model["network_size"] = [48, 64]
    if "pose_net" in model:
        model["pose_net"] = SMALL_POSE
    if "teacher" in model:
        model["teacher"] = dpt()
    if "error" in model.get("reprojection", {}).get("init_args", {}):
        model["reprojection"]["init_args"]["error"]["init_args"]["features"]["init_args"]["pretrained"] = False
    names = model.get("pseudo_labelled", ())
    if names:
        model["pseudo_labelled"] = [f"set{i}" for i, source in enumerate(data["sources"]) if source.get("name") in names]
    root = str(drive if "views" in data else scenes)
    data["sources"] = [{**of_any_size(source), "root": root, "name": f"set{i}"} for i, source in enumerate(data["sources"])]
    data["transform"] = {"class_path": "depthkit.data.transforms.Resize", "init_args": {"size": [64, 96]}}
    data.update(val_sources=[{"root": root, "split": "test", "name": "test"}], size=[64, 96], num_workers=0)
    data.pop("val_loss_sources", None)
    data["batch_size"] = data["epoch_size"] = max(len(data["sources"]), 6)
    limits = {
        "max_steps": steps,
        "max_epochs": -1,
        "accumulate_grad_batches": 1,
        "accelerator": "cpu",
        "devices": 1,
        "precision": "32-true",
        "sync_batchnorm": False,
        "default_root_dir": str(tmp_path),
        "num_sanity_val_steps": 0,
    }
    config["trainer"].update(
        limits, callbacks=[], logger=False, limit_val_batches=1, check_val_every_n_epoch=steps // 2, enable_progress_bar=False
    )
    file = tmp_path / "recipe.yaml"
    OmegaConf.save(config, file)
    losses = Losses()
    cli = run(["fit", f"--config={file}", "--trainer.enable_model_summary=false"], callbacks=[losses])
    assert cli.trainer.global_step == steps
    slow = "views" in data or paradigm == "EndToEndDiffusionModule"  # whose random VAE can show little
    assert steps < 40 or sum(losses.seen[-8:]) < (0.97 if slow else 0.85) * sum(losses.seen[:8])
    assert torch.isfinite(torch.tensor(losses.seen)).all()
    assert cli.trainer.callback_metrics["val/test/abs_rel"].isfinite()
