"""What each paper says of its training against the recipe that repeats it: paper, section, key, number.

Every number of a recipe stands in a table here, or in ``FREE`` with the reason why no paper says it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contracts.recipes import OF_PAPERS, at, content, named

Numbers = dict[str, dict[str, Any]]
"""By section of the paper: the number at each key; an object is its class and arguments, None is nothing said."""


TRANSFORMS = "depthkit.data.transforms"


def crop(*size: int, scale: tuple[float, float] = (1.0, 1.0)) -> tuple[str, dict[str, Any]]:
    """Random crops at the aspect of a size, and mirror images."""
    cut = {"class_path": f"{TRANSFORMS}.RandomResizedCrop", "init_args": {"size": list(size), "scale": list(scale)}}
    return f"{TRANSFORMS}.Compose", {"transforms": [cut, {"class_path": f"{TRANSFORMS}.HorizontalFlip"}]}


MIDAS: Numbers = {
    "3, labels": {
        "model.loss": ("depthkit.losses.SSILoss", {"align": "median", "penalty": "l1", "trim": 0.2}),
        "model.gradient_loss": ("depthkit.losses.GradientMatchingLoss", {"scales": 4, "align": "median"}),
        "model.gradient_weight": 0.5,
    },
    "6, implementation": {
        "model.model": ("depthkit.models.midas_resnext101", {"pretrained": True}),
        "model.optimizer": ("torch.optim.Adam", {"lr": 1e-4}),
        "model.encoder_lr": 1e-5,
        "model.schedule": None,
        "data.transform": None,  # the default: flips, and crops of the image's aspect
        "data.size": [384, 384],
        "data.epoch_size": 72_000,
        "trainer.max_epochs": 60,
    },
}
GP2: Numbers = {
    "3.2, encoders": {"model.model": ("depthkit.models.lrn_mobilenetv2", {"pretrained": True})},
    "4, implementation": {
        "model.optimizer": ("depthkit.paradigms.LookaheadRAdam", {"lr": 1e-3}),
        "data.size": [384, 384],
        "data.batch_size": 32,
        "trainer.devices": 1,
        "data.epoch_size": 320_000,
        "trainer.max_epochs": 40,
    },
    "3.1, eq 3": {
        "model.geometric_weight": 1.0,
        "model.affine_weight": 1.0,
        "model.geometric_loss": ("depthkit.losses.PairwiseL1SILoss", {}),
        "model.affine_loss": ("depthkit.losses.PairwiseL1SSILoss", {}),
        "model.encoder_lr": None,
    },
    "nothing; ours": {
        "model.schedule": ("depthkit.paradigms.CosineDecay", {"flat": 0.72}),  # Ranger's author
        "data.transform.transforms.0": (f"{TRANSFORMS}.RandomResizedCrop", {"size": [384, 384], "scale": [0.5, 1.0]}),
        "data.transform.transforms.1": (f"{TRANSFORMS}.RandomRotation", {"degrees": 5.0}),
        "data.transform.transforms.2": (f"{TRANSFORMS}.HorizontalFlip", {}),
    },
}
MONODEPTH2: Numbers = {
    "3, eqs 3 to 7": {
        "model.smoothness": 1e-3,
        "model.full_resolution": True,
        "model.reprojection": ("depthkit.losses.MinReprojectionLoss", {"automask": True, "reduction": "min"}),
        "model.augment": None,
        "model.only_visible": None,
        "model.motion_weight": None,
        "data.transform": None,
    },
    "4.1": {
        "model.optimizer": ("torch.optim.Adam", {"lr": 1e-4}),
        "model.schedule": ("depthkit.paradigms.StepDecay", {"milestones": [0.75], "gamma": 0.1}),
        "model.weights": None,
        "data.size": [192, 640],
        "data.batch_size": 12,
        "trainer.devices": 1,
        "trainer.max_epochs": 20,
        "trainer.gradient_clip_val": None,
    },
}
MONODEPTH2_1024: Numbers = {
    "3, eqs 3 to 7": MONODEPTH2["3, eqs 3 to 7"],
    "supplement, higher resolution": {
        "model.optimizer": ("torch.optim.Adam", {"lr": 1e-5}),
        "model.schedule": None,
        "data.size": [320, 1024],
        "data.batch_size": 4,
        "trainer.devices": 1,
        "trainer.max_epochs": 5,
    },
}
POSES = {"model.pose_net": ("depthkit.models.pose_resnet18", {"pretrained": True})}
POSES_IN_UNITS = {"model.pose_net": ("depthkit.models.pose_resnet18", {"pretrained": True, "unit": 5.4})}
UP_TO_SCALE: Numbers = {
    "supplement, networks": {"model.model": ("depthkit.models.monodepth2_resnet18", {"pretrained": True}), **POSES},
    "views": {"data.views": "video", "model.stereo": None},
}
IN_METRES = {
    "model.model": ("depthkit.models.monodepth2_resnet18", {"pretrained": True, "min_depth": 0.54, "max_depth": 540.0}),
    "model.stereo": True,
}
STEREO: Numbers = {"4.1, a baseline of 0.1 units": {**IN_METRES, "data.views": "stereo", "model.pose_net": None}}
BOTH: Numbers = {"4.1, a baseline of 0.1 units": {**IN_METRES, "data.views": "video_stereo", **POSES_IN_UNITS}}
DEPTH_ANYTHING: Numbers = {
    "3.1, eqs 1 to 3": {"model.loss": ("depthkit.losses.SSILoss", {"align": "median", "penalty": "l1", "halved": False})},
    "4.1": {
        "model.optimizer": ("torch.optim.AdamW", {"lr": 5e-5}),
        "model.encoder_lr": 5e-6,
        "model.schedule": ("depthkit.paradigms.LinearDecay", {}),
        "model.weights": None,
        "model.model.pretrained": True,
        "data.size": [518, 518],
        "data.transform": crop(518, 518),
        "trainer.devices": 8,
    },
}
STUDENT: Numbers = DEPTH_ANYTHING | {
    "3.2, eqs 5 to 8": {"model.cutmix": ("depthkit.paradigms.CutMix", {"probability": 0.5})},
    "3.3, eq 9": {"model.feature_loss": ("depthkit.losses.FeatureAlignmentLoss", {"margin": 0.85})},
    "4.1, labelled to unlabelled 1:2, one sweep over 62 M": {
        "data.mixing": ("depthkit.data.LabelledUnlabelled", {"pseudo_labelled": list(range(6, 14))}),
        "data.epoch_size": 93_450_000,
        "data.batch_size": 24,
        "trainer.max_epochs": 1,
    },
    "3.4, a third each": {"model.unlabelled_weight": None, "model.feature_weight": None, "model.labelled_weight": None},
    "3.2 and 3.3, the defaults": {"model.teacher": None, "model.augment": None, "model.feature_images": None},
}
ZOEDEPTH: Numbers = {
    "Bhat et al., section 4, and their code": {
        "model.loss": ("depthkit.losses.SILogLoss", {"variance_focus": 0.85, "root": True, "factor": 10.0}),
        "model.optimizer": ("torch.optim.AdamW", {"lr": 1.61e-4, "weight_decay": 1e-2}),
        "model.encoder_lr": 3.22e-6,
        "model.base_lr": 3.22e-6,
        "model.schedule": (
            "depthkit.paradigms.OneCycle",
            {"rise": 0.7, "start": 1.0, "final": 1e-4, "momentum": [0.85, 0.95]},
        ),
        "data.batch_size": 16,
        "trainer.devices": 1,
        "trainer.max_epochs": 5,
        "trainer.gradient_clip_val": 0.1,
        "trainer.precision": None,  # float32
    },
    "Yang et al., section 4.3: from Depth Anything L": {
        "model.model.base": ("depthkit.models.from_pretrained", {"model": "runs/student_large/last.ckpt"}),
    },
}
DIFFUSION: Numbers = {
    "Ke et al., section 4.1": {
        "data.mixing": ("depthkit.data.OneDatasetPerBatch", {"weights": [0.9, 0.1]}),
        "data.batch_size": 2,
        "trainer.accumulate_grad_batches": 16,
        "trainer.devices": 1,
        "data.sources.0.transform": ("depthkit.data.transforms.Resize", {"size": [480, 640]}),
        "data.sources.1.size": [352, 1216],
        "data.size": [480, 640],
        "data.transform": ("depthkit.data.transforms.HorizontalFlip", {}),
        "model.model.pretrained": True,
    },
}
PHOTOMETRIC = {
    "nyu": {"gamma": [90, 110], "brightness": [0.75, 1.25], "colour": [0.9, 1.1]},
    "kitti": {"gamma": [90, 110], "brightness": [0.9, 1.1], "colour": [0.9, 1.1]},
}

PAPERS: dict[str, Numbers] = {
    "affine_invariant/midas_redweb": MIDAS
    | {"6, 8 images of each dataset": {"data.batch_size": 8, "trainer.devices": 1, "model.weights": None}},
    "affine_invariant/midas_mix5": MIDAS
    | {
        "6, 8 images of each dataset": {"data.batch_size": 5, "trainer.devices": 8},
        "6, from the network of ReDWeb": {"model.weights": "runs/midas_redweb/last.ckpt"},
        "4": {
            "data.mixing": ("depthkit.data.EqualParts", {}),
            "model.combine": ("depthkit.paradigms.MinNorm", {"normalisation": "none", "forward": "per_dataset"}),
        },
    },
    "geometry_preserving/gp2_mixture": GP2 | {"4, equal parts": {"data.mixing": ("depthkit.data.EqualParts", {})}},
    "geometry_preserving/gp2_nyu_raw": GP2
    | {
        "4.4, a fifth keeps its geometry": {
            "data.sources.0.transform": ("depthkit.data.transforms.WeakenLabel", {"scale_only": 0.2}),
        },
    },
    "self_supervised_video/kitti_mono_640x192": MONODEPTH2 | UP_TO_SCALE,
    "self_supervised_video/kitti_stereo_640x192": MONODEPTH2 | STEREO,
    "self_supervised_video/kitti_mono_stereo_640x192": MONODEPTH2 | BOTH,
    "self_supervised_video/kitti_mono_1024x320": MONODEPTH2_1024
    | UP_TO_SCALE
    | {"from ten epochs": {"model.weights": "runs/kitti_mono_640x192/epoch=9.ckpt"}},
    "self_supervised_video/kitti_stereo_1024x320": MONODEPTH2_1024
    | STEREO
    | {"from ten epochs": {"model.weights": "runs/kitti_stereo_640x192/epoch=9.ckpt"}},
    "self_supervised_video/kitti_mono_stereo_1024x320": MONODEPTH2_1024
    | BOTH
    | {"from ten epochs": {"model.weights": "runs/kitti_mono_stereo_640x192/epoch=9.ckpt"}},
    "semi_supervised/teacher_large": DEPTH_ANYTHING
    | {
        "3.1, labels alone": {"model.unlabelled_weight": 0.0, "model.feature_weight": 0.0},
        "4.1, the teacher": {
            "model.model": ("depthkit.models.dpt_dinov2_large", {"pretrained": True}),
            "data.mixing": ("depthkit.data.Proportional", {}),
            "trainer.max_epochs": 20,
        },
    },
    "semi_supervised/student_small": STUDENT,
    "semi_supervised/student_base": STUDENT,
    "semi_supervised/student_large": STUDENT,
    "semi_supervised/metric_nyu": ZOEDEPTH
    | {"their settings of NYU": {"model.network_size": [392, 518], "model.label_range": [1e-3, 10.0], "data.size": [480, 640]}},
    "semi_supervised/metric_kitti": ZOEDEPTH
    | {
        "their settings of KITTI": {
            "model.network_size": [384, 768],
            "model.label_range": [1e-3, 80.0],
            "model.model.depth_range": [1e-3, 80.0],
            "data.size": [352, 1216],
        }
    },
    "semi_supervised/metric_v2_hypersim": {
        "Yang et al. (V2), released metric_depth": {
            "model.model": ("depthkit.models.dpt_dinov2_large", {"pretrained": True, "hooks": "v2", "max_depth": 20.0}),
            "model.loss": ("depthkit.losses.SILogLoss", {"variance_focus": 0.5, "root": True}),
            "model.label_range": [1e-3, 20.0],
            "model.optimizer": ("torch.optim.AdamW", {"lr": 5e-5, "weight_decay": 1e-2}),
            "model.encoder_lr": 5e-6,
            "model.schedule": ("depthkit.paradigms.LinearDecay", {"power": 0.9}),
            "data.size": [518, 518],
            "data.transform": crop(518, 518),
            "data.batch_size": 4,
            "trainer.devices": 8,
            "trainer.max_epochs": 120,
            "trainer.precision": None,
        },
    },
    "diffusion/metricgold_sd2": DIFFUSION
    | {
        "Shah, eqs 1 to 3": {"model.model.codec": ("depthkit.models.LogDepth", {"d_min": 0.1, "d_max": 100.0, "fill": "far"})},
        "Ke et al., sections 3 and 4.1": {
            "model.optimizer": ("torch.optim.Adam", {"lr": 3e-5}),
            "model.schedule": ("depthkit.paradigms.ExponentialDecay", {"warmup": 100, "final": 0.01, "until": 0.8328}),
            "model.noise": (
                "depthkit.paradigms.MultiResolutionNoise",
                {"strength": 0.9, "annealed": True, "strategy": "original"},
            ),
            "model.penalty": "l2",
            "model.masked": None,
            "model.trainable": None,
            "model.model.scheduler": None,
            "model.model.tokens": 2,
            "model.model.sampling": ("depthkit.models.Sampling", {"steps": 1}),
            "trainer.max_steps": 30_000,
            "trainer.max_epochs": -1,
        },
    },
    "diffusion/end_to_end": DIFFUSION
    | {
        "Shah, eqs 1 to 3": {"model.model.codec": ("depthkit.models.LogDepth", {"d_min": 0.1, "d_max": 100.0})},
        "Martin Garcia et al., section 4": {
            "model.optimizer": ("torch.optim.AdamW", {"lr": 3e-5, "weight_decay": 1e-2}),
            "model.schedule": ("depthkit.paradigms.ExponentialDecay", {"warmup": 100, "final": 0.01}),
            "model.weights": "runs/metricgold_sd2/last.ckpt",
            "model.loss": ("depthkit.losses.PointwiseLoss", {"norm": "l1"}),
            "model.noise": None,
            "trainer.max_steps": 20_000,
            "trainer.max_epochs": -1,
            "trainer.gradient_clip_val": 1.0,
        },
    },
}
FREE = {
    "seed_everything": "papers state none, or one of their own",
    "data.num_workers": "changes no number",
    "data.val_sources": "papers do not say how they validate",
    "data.epoch_size": "how often an epoch of diffusion ends, whose length is in steps",
    "trainer.callbacks": "how often checkpoints are written",
    "trainer.sync_batchnorm": "of more than the paper's one device",
    "model.freeze_batch_norm": "open in the paper",
    "model.channels_last": "changes speed",
    "model.checkpointing": "changes memory",
    "data.transform": "magnitudes that the paper does not state; those of ZoeDepth in a test of their own",
    "data.batch_size": "of Depth Anything's teacher, not stated",
}


def pinned(name: str) -> dict[str, Any]:
    """Every key of a recipe that a section of its paper states."""
    return {path: number for section in PAPERS[name].values() for path, number in section.items()}


def numbers(value: Any, path: str = "") -> Iterator[str]:
    """The keys of all numbers in a recipe."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from numbers(part, path if key in ("init_args", "class_path") else f"{path}.{key}".strip("."))
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from numbers(part, f"{path}.{index}")
    elif isinstance(value, bool | int | float):
        yield path


@pytest.mark.parametrize("recipe", OF_PAPERS, ids=named)
def test_a_recipe_says_its_papers_numbers(recipe: Path) -> None:
    keys, wanted = content(recipe), pinned(named(recipe).removesuffix(".yaml"))
    assert {path: at(keys, path) for path in wanted} == wanted


@pytest.mark.parametrize("recipe", OF_PAPERS, ids=named)
def test_no_number_of_a_recipe_is_without_a_source(recipe: Path) -> None:
    sources = [*pinned(named(recipe).removesuffix(".yaml")), *FREE]
    loose = [path for path in numbers(content(recipe)) if not any(f"{path}.".startswith(f"{source}.") for source in sources)]
    assert loose == []


def test_every_recipe_of_a_paper_is_in_the_table() -> None:
    assert {named(recipe).removesuffix(".yaml") for recipe in OF_PAPERS} == PAPERS.keys()


def test_a_step_of_midas_holds_eight_images_of_each_dataset() -> None:
    for recipe in (r for r in OF_PAPERS if r.stem.startswith("midas")):
        keys = content(recipe)
        assert at(keys, "data.batch_size") * at(keys, "trainer.devices") == 8 * len(at(keys, "data.sources"))


def test_no_recipe_averages_weights_which_no_paper_here_does() -> None:
    kept = {c["class_path"].rpartition(".")[2] for r in OF_PAPERS for c in content(r)["trainer"]["callbacks"]}
    assert kept == {"DepthImages", "ReprojectionImages", "LearningRateMonitor", "ModelCheckpoint"}


def test_a_step_of_diffusion_holds_32_images() -> None:
    for recipe in (r for r in OF_PAPERS if r.parent.name == "diffusion"):
        parts = ("data.batch_size", "trainer.devices", "trainer.accumulate_grad_batches")
        batch, devices, accumulated = (at(content(recipe), part) for part in parts)
        assert batch * devices * accumulated == 32


@pytest.mark.parametrize("name", PHOTOMETRIC)
def test_zoedepths_colours_and_rotation_are_those_of_its_settings(name: str) -> None:
    recipe = next(r for r in OF_PAPERS if r.stem == f"metric_{name}")
    transforms = at(content(recipe), "data.transform")[1]["transforms"]
    found = {step["class_path"].rpartition(".")[2]: step.get("init_args", {}) for step in transforms}
    assert found["RandomRotation"] == {"degrees": 1.0}
    assert "HorizontalFlip" in found
    assert ("BottomCrop" in found) == (name == "kitti")
    colours = found["Photometric"]
    assert colours["p"] == 0.5
    gamma, brightness, colour = (step["init_args"] for step in colours["transforms"])
    said = PHOTOMETRIC[name]
    assert gamma == {"gamma_limit": said["gamma"], "p": 1.0}
    assert brightness == {"multiplier": said["brightness"], "p": 1.0}
    assert colour == {"multiplier": said["colour"], "per_channel": True, "p": 1.0}


@pytest.mark.parametrize("size", ["small", "base", "large"])
def test_a_student_is_of_its_size_and_learns_from_the_eight_pools(size: str) -> None:
    keys = content(next(r for r in OF_PAPERS if r.stem == f"student_{size}"))
    assert at(keys, "model.model") == (f"depthkit.models.dpt_dinov2_{size}", {"pretrained": True})
    names = [source.get("name") for source in at(keys, "data.sources")]
    assert names[:6] == [None] * 6
    assert names[6:] == at(keys, "model.pseudo_labelled")
    assert len(names) == 14
