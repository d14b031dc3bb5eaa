"""Pose networks of Monodepth2 (Godard et al. 2019): how the camera moved between frames."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from depthkit.errors import ShapeError
from depthkit.models.build import architecture
from depthkit.models.encoders.timm_encoder import TimmEncoder
from depthkit.models.networks.heads import OutputConv
from depthkit.models.networks.monodepth2 import MEAN, STD
from depthkit.models.pose.interface import Motion, PosePredictor

_STEP = 0.01  # of the last layer, so that a fresh network predicts hardly any motion
_WIDTH = 256


def _motion(x: Tensor, count: int) -> Motion:
    """Read the first ``count`` of n motions in ``(B, 6 n, h, w)``: axis-angle and translation, ``(B, count, 3)`` each."""
    both = _STEP * x.mean((2, 3)).unflatten(1, (-1, 2, 3))[:, :count]
    return both[:, :, 0], both[:, :, 1]


def _check_frames(frames: Tensor, count: int) -> None:
    if frames.ndim != 5 or frames.shape[1:3] != (count, 3) or not frames.is_floating_point():
        raise ShapeError(
            f"expected {count} frames as float RGB of shape (B, {count}, 3, H, W) in [0, 1], in temporal order; got "
            f"{frames.dtype} of shape {tuple(frames.shape)}. Stack the frames on axis 1."
        )


class PoseDecoder(nn.Module):
    """Monodepth2's pose decoder: narrow each map to 256 channels, stack them, four convolutions in all, mean over the image.

    Args:
        channels: channels of a map, the encoder's coarsest.
        inputs: how many maps: 1 of all frames together, or one per frame.
        motions: how many motions the last layer has channels for.
    """

    def __init__(self, channels: int, *, inputs: int, motions: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, _WIDTH, 1)
        self.first = nn.Conv2d(inputs * _WIDTH, _WIDTH, 3, padding=1)
        self.second = nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1)
        self.output = OutputConv(_WIDTH, 6 * motions, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """Map ``(B, inputs, channels, h, w)`` to ``(B, 6 motions, h, w)``."""
        x = F.relu(self.squeeze(maps.flatten(0, 1))).unflatten(0, maps.shape[:2]).flatten(1, 2)
        return self.output(F.relu(self.second(F.relu(self.first(x)))))


class PoseNet(PosePredictor):
    """A pose network with an encoder of its own, which sees all frames at once.

    Args:
        encoder: maps ``(B, 3 F, H, W)`` to feature maps and publishes ``channels``, ``mean`` and ``std``.
        frames: how many frames it sees, F.
        unit: see ``PosePredictor``.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: TimmEncoder, *, frames: int = 2, unit: float = 1.0) -> None:
        super().__init__(frames=frames, unit=unit)
        self.encoder = encoder
        self.decoder = PoseDecoder(encoder.channels[-1], inputs=1, motions=max(frames - 1, 2))  # two of a pair, as released
        self.register_buffer("mean", torch.tensor(encoder.mean).view(1, -1, 1, 1).repeat(1, frames, 1, 1))
        self.register_buffer("std", torch.tensor(encoder.std).view(1, -1, 1, 1).repeat(1, frames, 1, 1))

    def motions(self, seen: Tensor) -> Motion:
        """Predict motions from RGB in [0, 1], ``(B, F, 3, H, W)``; see ``PosePredictor.motions``."""
        _check_frames(seen, self.frames)
        features = self.encoder((seen.flatten(1, 2) - self.mean) / self.std)
        return _motion(self.decoder(features[-1][:, None]), self.frames - 1)


class SharedPoseNet(PosePredictor):
    """A pose network on top of the depth network's encoder.

    Args:
        channels: channels of that encoder's coarsest map: 512 of ResNet-18, 2,048 of ResNet-50.
        frames: how many frames it compares, F.
        unit: see ``PosePredictor``.
    """

    shares_encoder = True

    def __init__(self, channels: int = 512, *, frames: int = 2, unit: float = 1.0) -> None:
        super().__init__(frames=frames, unit=unit)
        self.decoder = PoseDecoder(channels, inputs=frames, motions=frames - 1)
        self.channels = channels

    def motions(self, seen: Tensor) -> Motion:
        """Predict motions from the encoder's coarsest map of every frame, ``(B, F, C, h, w)``."""
        if seen.ndim != 5 or seen.shape[1:3] != (self.frames, self.channels):
            raise ShapeError(
                f"expected features of shape (B, {self.frames}, {self.channels}, h, w), the encoder's last map of each frame; "
                f"got {tuple(seen.shape)}. Stack the frames on axis 1."
            )
        return _motion(self.decoder(seen), self.frames - 1)


class PoseCNN(PosePredictor):
    """The pose network of Zhou et al. (2017): seven convolutions of stride 2 on raw frames, without pretraining.

    As released, translations are multiplied by the target's mean disparity (after Wang et al. 2018).

    Args:
        frames: how many frames it sees, F.
        unit: see ``PosePredictor``.
    """

    times_mean_disparity = True

    def __init__(self, *, frames: int = 2, unit: float = 1.0) -> None:
        super().__init__(frames=frames, unit=unit)
        widths, kernels = (3 * frames, 16, 32, 64, 128, 256, 256, 256), (7, 5, 3, 3, 3, 3, 3)
        self.convs = nn.ModuleList(
            nn.Conv2d(i, o, k, stride=2, padding=k // 2) for (i, o), k in zip(pairwise(widths), kernels, strict=True)
        )
        self.output = OutputConv(widths[-1], 6 * (frames - 1), 1)

    def motions(self, seen: Tensor) -> Motion:
        """Predict motions from RGB in [0, 1], ``(B, F, 3, H, W)``, before they are measured by the disparity."""
        _check_frames(seen, self.frames)
        x = seen.flatten(1, 2)
        for conv in self.convs:
            x = F.relu(conv(x))
        return _motion(self.output(x), self.frames - 1)


@architecture
def pose_timm(
    backbone: str,
    *,
    pretrained: bool | str | Path = True,
    frames: int = 2,
    unit: float = 1.0,
    options: dict[str, Any] | None = None,
) -> PoseNet:
    """Build Monodepth2's separate pose network on any timm backbone.

    Weights of an RGB network fit: those of the first convolution are repeated for every frame and divided by their number.

    Args:
        backbone: timm's name of the encoder.
        pretrained: the encoder's weights, see ``TimmEncoder``.
        frames: how many frames it sees at once, 2 or 3 in the paper.
        unit: length that translations are counted in, in the unit of the depth; see ``PosePredictor``.
        options: see ``TimmEncoder``.
    """
    widened = {**(options or {}), "in_chans": 3 * frames}
    encoder = TimmEncoder(backbone, pretrained=pretrained, strides=(32,), mean=MEAN, std=STD, options=widened)
    return PoseNet(encoder, frames=frames, unit=unit)


@architecture
def pose_resnet18(*, pretrained: bool | str | Path = True, frames: int = 2, unit: float = 1.0) -> PoseNet:
    """Build Monodepth2's separate ResNet-18 pose network, 12.5 M parameters; arguments as of ``pose_timm``."""
    return pose_timm("resnet18.tv_in1k", pretrained=pretrained, frames=frames, unit=unit)


@architecture
def pose_cnn(*, frames: int = 2, unit: float = 1.0) -> PoseCNN:
    """Build the pose network of Zhou et al. (2017), 1.6 M parameters, as Monodepth2's ablation has it; see ``PoseCNN``."""
    return PoseCNN(frames=frames, unit=unit)


@architecture
def pose_shared(channels: int = 512, *, frames: int = 2, unit: float = 1.0) -> SharedPoseNet:
    """Build Monodepth2's pose decoder on the depth encoder's features; see ``SharedPoseNet``."""
    return SharedPoseNet(channels, frames=frames, unit=unit)
