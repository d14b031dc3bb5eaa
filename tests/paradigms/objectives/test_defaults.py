"""Every default of a paradigm, its losses, optimizers, schedules and augmentations against the paper that it is from."""

import inspect
from typing import Any

import pytest
import torch

from depthkit import losses
from depthkit.alignment import align_pair, fit_scale, fit_scale_shift
from depthkit.data import DepthDataModule, LabelledUnlabelled, VideoDataModule
from depthkit.data.stream.loader import Loader
from depthkit.data.stream.plan import Plan
from depthkit.data.transforms import HorizontalFlip, Photometric, RandomResizedCrop, RandomRotation, WeakenLabel
from depthkit.geometry import sample_pixels, warp
from depthkit.losses import functional
from depthkit.losses.reprojection import TIE_BREAK
from depthkit.models import (
    dpt_dinov2_base,
    dpt_dinov2_large,
    dpt_dinov2_small,
    monodepth2_resnet18,
    monodepth2_resnet50,
    monodepth2_timm,
    pose_cnn,
    pose_resnet18,
    pose_shared,
    zoedepth,
)
from depthkit.models.diffusion.depth_codecs import AffineDepth, LinearDepth, LogDepth
from depthkit.models.diffusion.noise_schedule import SD2_SCHEDULE
from depthkit.models.diffusion.sampling import Sampling
from depthkit.models.encoders.vit import ViTEncoder
from depthkit.models.networks.refinenet_light import LightRefineNetDecoder
from depthkit.models.networks.zoedepth import BinsHead
from depthkit.paradigms import (
    AffineInvariantModule,
    CosineDecay,
    CutMix,
    DiffusionModule,
    EndToEndDiffusionModule,
    EqualWeights,
    ExponentialDecay,
    GeometryPreservingModule,
    LinearDecay,
    LookaheadRAdam,
    MetricModule,
    MinNorm,
    MultiResolutionNoise,
    OneCycle,
    SelfSupervisedVideoModule,
    SemiSupervisedModule,
    StepDecay,
)
from depthkit.paradigms.base import adam
from depthkit.paradigms.self_supervised_video import colour_jitter
from depthkit.paradigms.semi_supervised import strong_colours
from tests.contracts.paradigm import TinyNet

DEFAULTS: list[tuple[Any, dict[str, Any]]] = [
    # Godard et al. (2019): section 3.1 (alpha), 3.2 (minimum, automask), 3.3 (lambda, four scales, depth), supplement (0.2)
    (functional.photometric_error, {"ssim_weight": 0.85}),
    (losses.PhotometricError, {"ssim_weight": 0.85}),
    (functional.min_reprojection, {"automask": True, "reduction": "min", "mask_weight": 0.2, "visible": None}),
    (losses.MinReprojectionLoss, {"automask": True, "reduction": "min", "mask_weight": 0.2, "error": None}),
    (
        SelfSupervisedVideoModule,
        {
            "smoothness": 1e-3,
            "full_resolution": True,
            "only_visible": False,
            "motion_weight": 0.0,
            "stereo": False,
            "mask_decoder": None,
            "camera": None,
            "augment": None,
            "reprojection": None,
        },
    ),
    *(
        (f, {"scales": 4, "min_depth": 0.1, "max_depth": 100.0})
        for f in (monodepth2_resnet18, monodepth2_resnet50, monodepth2_timm)
    ),
    (VideoDataModule, {"views": "video", "size": (192, 640), "transform": None}),
    (pose_resnet18, {"frames": 2, "unit": 1.0}),
    (pose_cnn, {"frames": 2, "unit": 1.0}),
    (pose_shared, {"frames": 2, "unit": 1.0, "channels": 512}),
    # Ranftl et al. (2022): eqs 7, 11, 12 and section 4
    (functional.gradient_matching_loss, {"scales": 4, "divisor": "level"}),
    (losses.GradientMatchingLoss, {"scales": 4, "divisor": "level"}),
    (AffineInvariantModule, {"gradient_weight": 0.5, "freeze_batch_norm": False, "loss": None, "gradient_loss": None}),
    (MinNorm, {"scope": "all", "normalisation": "none", "forward": "mixed"}),
    *(
        (f, {"align": "least_squares", "penalty": "l1", "trim": 0.0, "halved": True, "require_positive_scale": False})
        for f in (functional.ssi_loss, losses.SSILoss)
    ),
    (align_pair, {"require_positive_scale": False}),
    # Romanov et al. (2020): eq 3 and section 4; the reference implementation of Ranger
    (GeometryPreservingModule, {"geometric_weight": 1.0, "affine_weight": 1.0, "geometric_loss": None, "affine_loss": None}),
    (LookaheadRAdam, {"lr": 1e-3, "betas": (0.95, 0.999), "eps": 1e-5, "weight_decay": 0.0, "alpha": 0.5, "k": 6}),
    *((f, {"norm": "l1", "scale_invariant": False}) for f in (functional.pointwise_loss, losses.PointwiseLoss)),
    (LightRefineNetDecoder, {"crp_stages": 4, "crp_average": True, "crp_bn": True}),
    (RandomRotation, {"degrees": 5.0}),
    (WeakenLabel, {"factor": (0.1, 10.0), "offset": 0.5, "seed": 0}),
    # Yang et al. (2024): sections 3.1 to 3.3 and 4.1
    (functional.feature_alignment_loss, {"margin": 0.85, "divisor": "kept"}),
    (losses.FeatureAlignmentLoss, {"margin": 0.85, "divisor": "kept"}),
    (
        SemiSupervisedModule,
        {"labelled_weight": 1.0, "unlabelled_weight": 1.0, "feature_weight": 1.0, "feature_images": "unlabelled"},
    ),
    (CutMix, {"probability": 0.5, "area": (0.02, 0.4), "aspect": 0.3}),
    *(
        (f, {"hooks": "v1", "position_interpolation": "transformers"})
        for f in (ViTEncoder, dpt_dinov2_small, dpt_dinov2_base, dpt_dinov2_large)
    ),
    *((f, {"bins": 64, "depth_range": None}) for f in (zoedepth, BinsHead)),
    (LabelledUnlabelled, {"labelled": 1, "unlabelled": 2}),
    # Eigen et al. (2014), eq 4, with the focus of its successors, and without their root and factor
    *((f, {"variance_focus": 0.85, "root": False, "factor": 1.0}) for f in (functional.silog_loss, losses.SILogLoss)),
    # Bhat et al. (2023): ZoeDepth's loss and range; torch's own rule and ZoeDepth's momenta
    (
        MetricModule,
        {"label_range": (1e-3, 80.0), "base_lr": None, "network_size": None, "loss": None, "uncertainty_weight": 0.0},
    ),
    (OneCycle, {"rise": 0.3, "start": 0.04, "final": 4e-6, "momentum": (0.85, 0.95)}),
    # Ke et al. (2024) and Shah (2024)
    (MultiResolutionNoise, {"strength": 0.9, "annealed": True, "strategy": "original"}),
    (DiffusionModule, {"penalty": "l2", "masked": True, "tails": None, "trainable": "all", "noise": None}),
    (EndToEndDiffusionModule, {"loss": None, "noise": None}),
    (LogDepth, {"d_min": 0.1, "d_max": 100.0, "fill": "far"}),
    (LinearDepth, {"d_min": 0.1, "d_max": 100.0, "fill": "far"}),
    (Sampling, {"steps": 1, "noise": "gaussian", "members": 1, "reduction": "median", "seed": 0}),
    (AffineDepth, {"low": 0.02, "high": 0.98, "fill": "far"}),
    # of no paper alone: schedules, order of reading, geometry, fits
    (LinearDecay, {"warmup": 0, "final": 0.0, "power": 1.0}),
    (CosineDecay, {"warmup": 0, "final": 0.0, "flat": 0.0}),
    (StepDecay, {"warmup": 0, "milestones": (0.5, 0.75), "gamma": 0.1}),
    (ExponentialDecay, {"warmup": 0, "final": 0.01, "until": 1.0}),
    (RandomResizedCrop, {"scale": (0.5, 1.0)}),
    (HorizontalFlip, {"p": 0.5}),
    (Photometric, {"p": 1.0}),
    (DepthDataModule, {"mixing": None, "seed": 0, "shuffle_window": 256, "drop_last": True, "max_broken_fraction": 0.01}),
    (Loader, {"max_broken_fraction": 0.01}),
    (Plan, {"seed": 0, "shuffle": True, "continuing": False, "window": 256}),
    (sample_pixels, {"padding": "border"}),
    (warp, {"padding": "border"}),
    (fit_scale, {"method": "median_ratio"}),
    (fit_scale_shift, {"method": "least_squares"}),
]


@pytest.mark.parametrize(("function", "expected"), DEFAULTS, ids=lambda x: getattr(x, "__name__", ""))
def test_what_is_not_said_is_the_papers(function: Any, expected: dict[str, Any]) -> None:
    defaults = {name: p.default for name, p in inspect.signature(function).parameters.items()}
    assert {name: defaults[name] for name in expected} == expected


def test_losses_that_are_not_said_are_the_papers() -> None:
    affine = AffineInvariantModule(TinyNet())
    assert vars_of(affine.loss, "align", "penalty", "trim", "halved") == ("median", "l1", 0.2, True)
    assert vars_of(affine.gradient_loss, "align", "scales", "divisor") == ("median", 4, "level")
    assert isinstance(affine.combine, EqualWeights)
    metric = MetricModule(TinyNet("depth"))
    assert vars_of(metric.loss, "variance_focus", "root", "factor") == (0.85, True, 10.0)
    geometric = GeometryPreservingModule(TinyNet("log_disparity"))
    assert isinstance(geometric.geometric_loss, losses.PairwiseL1SILoss)
    assert isinstance(geometric.affine_loss, losses.PairwiseL1SSILoss)
    student = SemiSupervisedModule(TinyNet())
    assert vars_of(student.loss, "align", "penalty", "trim", "halved") == ("median", "l1", 0.0, False)
    assert isinstance(student.feature_loss, losses.FeatureAlignmentLoss)


def vars_of(loss: Any, *names: str) -> tuple[Any, ...]:
    return tuple(getattr(loss, name) for name in names)


def test_the_optimizer_that_is_not_said_is_midas_adam() -> None:
    optimizer = adam([torch.nn.Parameter(torch.zeros(1))])
    assert type(optimizer) is torch.optim.Adam
    assert {k: optimizer.defaults[k] for k in ("lr", "betas", "weight_decay")} == {
        "lr": 1e-4,
        "betas": (0.9, 0.999),
        "weight_decay": 0,
    }


def test_ties_are_broken_by_noise_of_a_hundred_thousandth() -> None:
    assert TIE_BREAK == 1e-5


def test_the_noise_schedule_is_stable_diffusion_2s() -> None:
    stated = (
        "num_train_timesteps",
        "beta_start",
        "beta_end",
        "beta_schedule",
        "steps_offset",
        "set_alpha_to_one",
        "clip_sample",
        "prediction_type",
        "timestep_spacing",
        "rescale_betas_zero_snr",
    )
    expected = [1000, 0.00085, 0.012, "scaled_linear", 1, False, False, "v_prediction", "leading", False]
    assert [SD2_SCHEDULE[name] for name in stated] == expected


def test_colours_change_as_much_as_in_the_papers() -> None:
    """Monodepth2, section 4: +-0.2 (hue 0.1) with a chance of 50 %; UniMatch: 0.5 (hue 0.25) at 80 % and blur at 50 %."""
    (jitter,) = [x for x in colour_jitter().modules() if type(x).__name__ == "ColorJitter"]
    assert [_range(jitter, x) for x in ("brightness", "contrast", "saturation", "hue")] == [(0.2,), (0.2,), (0.2,), (0.1,)]
    assert jitter.p == 0.5
    strong = {type(x).__name__: x for x in strong_colours().modules()}
    found = strong["ColorJitter"]
    assert [_range(found, x) for x in ("brightness", "contrast", "saturation", "hue")] == [(0.5,), (0.5,), (0.5,), (0.25,)]
    assert found.p == 0.8
    blur = strong["RandomGaussianBlur"]
    assert blur.p == 0.5
    assert tuple(blur.flags["kernel_size"]) == (13, 13)
    assert tuple(blur._param_generator.sigma) == (0.1, 2.0)


def _range(jitter: Any, name: str) -> tuple[float, ...]:
    """By how much a property changes; kornia keeps it as it was given."""
    value = getattr(jitter, name)
    return tuple(torch.as_tensor(value).flatten().tolist()[:1]) if not isinstance(value, float) else (value,)
