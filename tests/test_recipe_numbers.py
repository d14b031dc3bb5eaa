"""What each paper says of its training against the recipe that repeats it: a table of (section, key, number)."""

from pathlib import Path
from typing import Any

import pytest
import yaml

RECIPES = Path(__file__).parents[1] / "recipes"
TRANSFORMS = "depthkit.data.transforms"
Numbers = dict[str, Any]

MONODEPTH2_640: Numbers = {  # Godard et al. (2019), section 4.1 and supplement
    "model.optimizer": ("torch.optim.Adam", {"lr": 1e-4}),
    "model.schedule": ("depthkit.paradigms.StepDecay", {"milestones": [0.75], "gamma": 0.1}),
    "model.smoothness": 1e-3,
    "model.full_resolution": True,
    "model.reprojection": ("depthkit.losses.MinReprojectionLoss", {"automask": True, "reduction": "min"}),
    "model.model.pretrained": True,
    "model.augment": None,
    "model.only_visible": None,
    "model.motion_weight": None,
    "data.transform": None,
    "data.size": [192, 640],
    "data.batch_size": 12,
    "trainer.max_epochs": 20,
}
MONODEPTH2_1024: Numbers = MONODEPTH2_640 | {
    "model.optimizer": ("torch.optim.Adam", {"lr": 1e-5}),
    "model.schedule": None,
    "data.size": [320, 1024],
    "data.batch_size": 4,
    "trainer.max_epochs": 5,
}
METRES: Numbers = {"model.model.min_depth": 0.54, "model.model.max_depth": 540.0, "model.stereo": True}
POSE: Numbers = {"model.pose_net": ("depthkit.models.pose_resnet18", {"pretrained": True})}
POSE_IN_METRES: Numbers = {"model.pose_net": ("depthkit.models.pose_resnet18", {"pretrained": True, "unit": 5.4})}
ALONE: Numbers = {"model.pose_net": None, "data.views": "stereo"}
DEPTH_ANYTHING: Numbers = {  # Yang et al. (2024), sections 3 and 4.1
    "model.optimizer": ("torch.optim.AdamW", {"lr": 5e-5}),
    "model.encoder_lr": 5e-6,
    "model.schedule": ("depthkit.paradigms.LinearDecay", {}),
    "model.loss": ("depthkit.losses.SSILoss", {"align": "median", "penalty": "l1", "halved": False}),
    "model.model.pretrained": True,
    "model.weights": None,
    "data.size": [518, 518],
    "data.transform.transforms.0": (f"{TRANSFORMS}.RandomResizedCrop", {"size": [518, 518], "scale": [1.0, 1.0]}),
    "data.transform.transforms.1": (f"{TRANSFORMS}.HorizontalFlip", {}),
}
STUDENT: Numbers = DEPTH_ANYTHING | {
    "model.teacher": None,
    "model.augment": None,
    "model.feature_images": None,
    "model.unlabelled_weight": None,
    "model.feature_weight": None,
    "data.mixing.labelled": None,
    "data.mixing.unlabelled": None,
    "model.feature_loss.margin": 0.85,
    "model.cutmix.probability": 0.5,
    "data.epoch_size": 93_450_000,
    "data.mixing.pseudo_labelled": list(range(6, 14)),
    "data.batch_size": 24,
    "trainer.max_epochs": 1,
}
ZOEDEPTH: Numbers = {  # Bhat et al. (2023) as Depth Anything, section 4.3, uses it
    "model.loss": ("depthkit.losses.SILogLoss", {"variance_focus": 0.85, "root": True, "factor": 10.0}),
    "model.optimizer": ("torch.optim.AdamW", {"lr": 1.61e-4, "weight_decay": 1e-2}),
    "model.encoder_lr": 3.22e-6,
    "model.base_lr": 3.22e-6,
    "model.schedule": (
        "depthkit.paradigms.OneCycle",
        {"rise": 0.7, "start": 1.0, "final": 1e-4, "momentum": [0.85, 0.95]},
    ),
    "data.batch_size": 16,
    "trainer.max_epochs": 5,
    "trainer.gradient_clip_val": 0.1,
}
DIFFUSION: Numbers = {  # Ke et al. (2024), section 4.1; Shah (2024)
    "model.model.codec": ("depthkit.models.LogDepth", {"d_min": 0.1, "d_max": 100.0, "fill": "far"}),
    "data.mixing": ("depthkit.data.OneDatasetPerBatch", {"weights": [0.9, 0.1]}),
    "data.batch_size": 2,
    "trainer.accumulate_grad_batches": 16,
    "data.sources.1.size": [352, 1216],
    "data.transform": (f"{TRANSFORMS}.HorizontalFlip", {}),
    "data.size": [480, 640],
}

PAPERS: dict[str, Numbers] = {
    "affine_invariant/midas_mix5": {  # Ranftl et al. (2022), sections 3 to 6
        "model.optimizer": ("torch.optim.Adam", {"lr": 1e-4}),
        "model.encoder_lr": 1e-5,
        "model.schedule": None,
        "model.loss": ("depthkit.losses.SSILoss", {"align": "median", "penalty": "l1", "trim": 0.2}),
        "model.gradient_loss": ("depthkit.losses.GradientMatchingLoss", {"scales": 4, "align": "median"}),
        "model.gradient_weight": 0.5,
        "model.model": ("depthkit.models.midas_resnext101", {"pretrained": True}),
        "model.combine": ("depthkit.paradigms.MinNorm", {"normalisation": "none", "forward": "per_dataset"}),
        "data.mixing": ("depthkit.data.EqualParts", {}),
        "data.transform": None,
        "data.size": [384, 384],
        "data.batch_size": 5,
        "data.epoch_size": 72_000,
        "trainer.max_epochs": 60,
    },
    "geometry_preserving/gp2_mixture": {  # Romanov et al. (2020), section 4
        "model.optimizer": ("depthkit.paradigms.LookaheadRAdam", {"lr": 1e-3}),
        "model.geometric_weight": 1.0,
        "model.affine_weight": 1.0,
        "model.model": ("depthkit.models.lrn_mobilenetv2", {"pretrained": True}),
        "model.geometric_loss": ("depthkit.losses.PairwiseL1SILoss", {}),
        "model.affine_loss": ("depthkit.losses.PairwiseL1SSILoss", {}),
        "model.encoder_lr": None,
        "model.schedule": ("depthkit.paradigms.CosineDecay", {"flat": 0.72}),  # Ranger's author: the paper has none
        "data.transform.transforms.0": (f"{TRANSFORMS}.RandomResizedCrop", {"size": [384, 384], "scale": [0.5, 1.0]}),
        "data.transform.transforms.1": (f"{TRANSFORMS}.RandomRotation", {"degrees": 5.0}),
        "data.transform.transforms.2": (f"{TRANSFORMS}.HorizontalFlip", {}),
        "data.mixing": ("depthkit.data.EqualParts", {}),
        "data.size": [384, 384],
        "data.batch_size": 32,
        "data.epoch_size": 320_000,
        "trainer.max_epochs": 40,
    },
    **{
        f"self_supervised_video/kitti_{data}_{size}": numbers | of_data
        for size, numbers in (("640x192", MONODEPTH2_640), ("1024x320", MONODEPTH2_1024))
        for data, of_data in (
            ("mono", POSE | {"data.views": "video", "model.stereo": None, "model.model.min_depth": None}),
            ("stereo", METRES | ALONE),
            ("mono_stereo", METRES | POSE_IN_METRES | {"data.views": "video_stereo"}),
        )
    },
    "semi_supervised/teacher_large": DEPTH_ANYTHING
    | {
        "model.model": ("depthkit.models.dpt_dinov2_large", {"pretrained": True}),
        "data.mixing": ("depthkit.data.Proportional", {}),
        "model.unlabelled_weight": 0.0,
        "model.feature_weight": 0.0,
        "trainer.max_epochs": 20,
    },
    **{
        f"semi_supervised/student_{size}": STUDENT
        | {"model.model": (f"depthkit.models.dpt_dinov2_{size}", {"pretrained": True})}
        for size in ("small", "base", "large")
    },
    "semi_supervised/metric_nyu": ZOEDEPTH | {"model.network_size": [392, 518], "model.label_range": [1e-3, 10.0]},
    "semi_supervised/metric_kitti": ZOEDEPTH | {"model.network_size": [384, 768], "model.label_range": [1e-3, 80.0]},
    "diffusion/metricgold_sd2": DIFFUSION
    | {
        "model.optimizer": ("torch.optim.Adam", {"lr": 3e-5}),
        "model.noise": (
            "depthkit.paradigms.MultiResolutionNoise",
            {"strength": 0.9, "annealed": True, "strategy": "original"},
        ),
        "model.penalty": "l2",
        "model.masked": None,
        "model.trainable": None,
        "model.model.scheduler": None,
        "model.model.sampling": ("depthkit.models.Sampling", {"steps": 1}),
        "model.schedule": ("depthkit.paradigms.ExponentialDecay", {"warmup": 100, "final": 0.01, "until": 0.8328}),
        "trainer.max_steps": 30_000,
    },
    "diffusion/end_to_end": DIFFUSION  # Garcia et al. (2024)
    | {
        "model.model.codec": ("depthkit.models.LogDepth", {"d_min": 0.1, "d_max": 100.0}),
        "model.loss": ("depthkit.losses.PointwiseLoss", {"norm": "l1"}),
        "model.noise": None,
        "model.optimizer": ("torch.optim.AdamW", {"lr": 3e-5, "weight_decay": 1e-2}),
        "model.schedule": ("depthkit.paradigms.ExponentialDecay", {"warmup": 100, "final": 0.01}),
        "trainer.max_steps": 20_000,
        "trainer.gradient_clip_val": 1.0,
    },
}


def _at(recipe: Any, path: str) -> Any:
    """What stands at a path of keys; an object as its class and arguments, None where nothing is said."""
    for key in path.split("."):
        while isinstance(recipe, dict) and "init_args" in recipe:
            recipe = recipe["init_args"]
        recipe = recipe[int(key)] if isinstance(recipe, list) else (recipe or {}).get(key)
    if isinstance(recipe, dict) and "class_path" in recipe:
        return recipe["class_path"], recipe.get("init_args", {})
    return recipe


@pytest.mark.parametrize("name", PAPERS)
def test_a_recipe_says_its_papers_numbers(name: str) -> None:
    recipe = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())
    found = {path: _at(recipe, path) for path in PAPERS[name]}
    assert found == PAPERS[name]


def test_every_recipe_of_a_paper_is_in_the_table() -> None:
    ours = ("synthetic", "rgbd", "metric_v2_hypersim")  # made data, small data, and numbers of released code alone
    of_papers = {f"{path.parent.name}/{path.stem}" for path in RECIPES.glob("*/*.yaml") if not path.stem.startswith(ours)}
    assert of_papers == PAPERS.keys()


def test_midas_batch_is_eight_images_of_each_of_five_datasets_on_eight_devices() -> None:
    recipe = yaml.safe_load((RECIPES / "affine_invariant/midas_mix5.yaml").read_text())
    assert len(_at(recipe, "data.sources")) * 8 == _at(recipe, "data.batch_size") * 8 == 40
