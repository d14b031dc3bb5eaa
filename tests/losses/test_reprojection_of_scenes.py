"""On rendered video, whose depth and poses are exact, nothing explains the frames better than the truth."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from depthkit.geometry import warp
from depthkit.losses import MinReprojectionLoss
from depthkit.synthetic import SyntheticScenes
from depthkit.types import Sample, Views

SIZE = (96, 128)


def _image(array) -> Tensor:
    return torch.from_numpy(array).permute(2, 0, 1)[None] / 255


def _loss(sample: Sample, loss: MinReprojectionLoss, depth: Tensor, motion: float = 1.0) -> float:
    """The loss of a depth map ``(1, 1, H, W)`` under the true poses with translations times ``motion``."""
    target, intrinsics = _image(sample.image), torch.from_numpy(sample.intrinsics)[None].float()
    sources, warped = [], []
    for name, image in sample.frames.items():
        pose = torch.from_numpy(sample.frames_from_camera[name])[None].float()
        pose[:, :3, 3] *= motion
        sources.append(_image(image))
        warped.append(warp(sources[-1], depth, intrinsics, pose))
    generator = torch.Generator().manual_seed(0)
    return loss(target, torch.stack(warped, 1), torch.stack(sources, 1), generator=generator).item()


def _depth(sample: Sample) -> Tensor:
    return torch.from_numpy(sample.label)[None, None]


@pytest.mark.quick(views=["video_stereo"])
@pytest.mark.quick(kind=["room"])
@pytest.mark.parametrize("views", [Views.VIDEO, Views.STEREO, Views.VIDEO_STEREO])
@pytest.mark.parametrize("automask", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["room", "street"])
def test_true_depth_beats_any_perturbed_one(kind, automask, views):
    loss = MinReprojectionLoss(automask=automask)
    for sample in SyntheticScenes(4, size=SIZE, kind=kind, views=views, noise=0.0):
        depth = _depth(sample)
        true = _loss(sample, loss, depth)
        wavy = F.interpolate(torch.randn(1, 1, 6, 8), size=SIZE, mode="bicubic", align_corners=False)
        finite = depth.isfinite() & (depth > 0)
        flat = depth[finite].median().expand_as(depth)
        wrong = {
            "nearer": depth * 0.8,
            "farther": depth * 1.25,
            "wavy": depth * (0.2 * wavy).exp(),
            "mirrored": depth.flip(3),
            "flat": flat,
        }
        assert {name: value for name, x in wrong.items() if (value := _loss(sample, loss, x)) <= true} == {}, sample.key


@pytest.mark.quick(kind=["street"])
@pytest.mark.parametrize("kind", ["room", "street"])
def test_true_poses_beat_shorter_longer_and_reversed_ones(kind):
    for sample in SyntheticScenes(4, size=SIZE, kind=kind, views=Views.VIDEO, noise=0.0):
        losses = {
            motion: _loss(sample, MinReprojectionLoss(automask=False), _depth(sample), motion)
            for motion in (1, 0, 0.7, 1.4, -1)
        }
        assert min(losses, key=losses.__getitem__) == 1, (sample.key, losses)


def test_a_still_camera_before_still_things_teaches_nothing():
    loss = MinReprojectionLoss()
    for sample in SyntheticScenes(3, size=SIZE, kind="room", views=Views.VIDEO, still=1.0, noise=0.0):
        target, sources = _image(sample.image), torch.stack([_image(image) for image in sample.frames.values()], 1)
        assert (target[:, None] - sources).abs().max() == 0
        assert (loss.maps(target, torch.rand_like(sources), sources).selected == -1).all()


def test_the_minimum_costs_less_than_the_mean_where_a_source_does_not_show_what_the_target_shows():
    for sample in SyntheticScenes(4, size=SIZE, kind="street", views=Views.VIDEO, noise=0.0):
        least, mean = (
            _loss(sample, MinReprojectionLoss(automask=False, reduction=reduction), _depth(sample))
            for reduction in ("min", "mean")
        )
        assert least < 0.8 * mean, sample.key
