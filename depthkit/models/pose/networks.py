"""Pose networks of Monodepth2 (Godard et al. 2019): how the camera moved between frames."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from depthkit.errors import RecipeError, ShapeError
from depthkit.geometry import pose_from_axis_angle
from depthkit.models.build import architecture
from depthkit.models.encoders.timm_encoder import TimmEncoder
from depthkit.models.net import Buildable, DepthNet
from depthkit.models.networks.heads import OutputConv
from depthkit.models.networks.monodepth2 import MEAN, STD

_STEP = 0.01  # of the last layer, so that a fresh network predicts hardly any motion
_WIDTH = 256
Motion = tuple[Tensor, Tensor]


def _motion(x: Tensor, count: int) -> Motion:
    """The first ``count`` of n motions in ``(B, 6 n, h, w)``: axis-angle and translation, ``(B, count, 3)`` each."""
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
        """``(B, inputs, channels, h, w) -> (B, 6 motions, h, w)``."""
        x = F.relu(self.squeeze(maps.flatten(0, 1))).unflatten(0, maps.shape[:2]).flatten(1, 2)
        return self.output(F.relu(self.second(F.relu(self.first(x)))))


class PoseNet(Buildable):
    """A pose network with an encoder of its own, which sees all frames at once.

    Args:
        encoder: maps ``(B, 3 F, H, W)`` to feature maps and publishes ``channels``, ``mean`` and ``std``.
        frames: how many frames it sees, F.

    Attributes:
        frames: F.
        shares_encoder: False: it takes images.
        times_mean_disparity: False: translations are in the unit of the depth as they are.
    """

    shares_encoder = False
    times_mean_disparity = False
    mean: Tensor
    std: Tensor

    def __init__(self, encoder: TimmEncoder, *, frames: int = 2) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = PoseDecoder(encoder.channels[-1], inputs=1, motions=max(frames - 1, 2))  # two of a pair, as released
        self.frames = frames
        self.register_buffer("mean", torch.tensor(encoder.mean).view(1, -1, 1, 1).repeat(1, frames, 1, 1))
        self.register_buffer("std", torch.tensor(encoder.std).view(1, -1, 1, 1).repeat(1, frames, 1, 1))

    def forward(self, frames: Tensor) -> Motion:
        """The motion from the first frame to each other one.

        Args:
            frames: float RGB in [0, 1], ``(B, F, 3, H, W)``. Monodepth2 gives pairs in temporal order and inverts the pose
                where the target is the later one; it gives three frames target first.

        Returns:
            Axis-angle [rad] and translation [unit of depth], ``(B, F - 1, 3)`` each, float32 under autocast.

        Raises:
            ShapeError: another shape or dtype.
        """
        _check_frames(frames, self.frames)
        features = self.encoder((frames.flatten(1, 2) - self.mean) / self.std)
        return _motion(self.decoder(features[-1][:, None]), self.frames - 1)


class SharedPoseNet(Buildable):
    """A pose network on top of the depth network's encoder.

    Args:
        channels: channels of that encoder's coarsest map: 512 of ResNet-18, 2,048 of ResNet-50.
        frames: how many frames it compares, F.

    Attributes:
        channels: of the maps it takes.
        frames: F.
        shares_encoder: True: it takes features.
        times_mean_disparity: False: translations are in the unit of the depth as they are.
    """

    shares_encoder = True
    times_mean_disparity = False

    def __init__(self, channels: int = 512, *, frames: int = 2) -> None:
        super().__init__()
        self.decoder = PoseDecoder(channels, inputs=frames, motions=frames - 1)
        self.channels, self.frames = channels, frames

    def forward(self, features: Tensor) -> Motion:
        """As ``PoseNet.forward``, of the encoder's coarsest map of every frame, ``(B, F, C, h, w)``."""
        if features.ndim != 5 or features.shape[1:3] != (self.frames, self.channels):
            raise ShapeError(
                f"expected features of shape (B, {self.frames}, {self.channels}, h, w), the encoder's last map of each frame; "
                f"got {tuple(features.shape)}. Stack the frames on axis 1."
            )
        return _motion(self.decoder(features), self.frames - 1)


class PoseCNN(Buildable):
    """The pose network of Zhou et al. (2017): seven convolutions of stride 2 on raw frames, without pretraining.

    Args:
        frames: how many frames it sees, F.

    Attributes:
        frames: F.
        shares_encoder: False: it takes images.
        times_mean_disparity: True: translations are to be multiplied by the target's mean disparity, as released (after Wang et
            al. 2018).
    """

    shares_encoder = False
    times_mean_disparity = True

    def __init__(self, *, frames: int = 2) -> None:
        super().__init__()
        widths, kernels = (3 * frames, 16, 32, 64, 128, 256, 256, 256), (7, 5, 3, 3, 3, 3, 3)
        self.convs = nn.ModuleList(
            nn.Conv2d(i, o, k, stride=2, padding=k // 2) for (i, o), k in zip(pairwise(widths), kernels, strict=True)
        )
        self.output = OutputConv(widths[-1], 6 * (frames - 1), 1)
        self.frames = frames

    def forward(self, frames: Tensor) -> Motion:
        """As ``PoseNet.forward``, with translations subject to ``times_mean_disparity``."""
        _check_frames(frames, self.frames)
        x = frames.flatten(1, 2)
        for conv in self.convs:
            x = F.relu(conv(x))
        return _motion(self.output(x), self.frames - 1)


class EgoMotion(nn.Module):
    """How the camera moved between two pictures, by a depth network and the pose network that was trained with it.

    Args:
        depth_net: gives a shared encoder's features, or the unit of ``PoseCNN``; other pose networks do not need it.
        pose_net: sees pairs of frames.

    Raises:
        RecipeError: there is no pose network, or one that sees more frames.
    """

    def __init__(self, depth_net: DepthNet, pose_net: Any) -> None:
        super().__init__()
        if getattr(pose_net, "frames", None) != 2:
            seen = "none" if pose_net is None else f"a {type(pose_net).__name__} of {getattr(pose_net, 'frames', '?')}"
            raise RecipeError(
                f"expected a pose_net that sees 2 frames; got {seen}. Train on video with pose_resnet18(frames=2), say."
            )
        self.depth_net, self.pose_net = depth_net, pose_net

    def forward(self, pairs: Tensor) -> Tensor:
        """A picture and the one after it, RGB in [0, 1], ``(N, 2, 3, H, W)``, to ``next_from_current``, ``(N, 4, 4)``.

        Translations are in the unit of the depth. H and W are such as the networks take.
        """
        seen = pairs
        if self.pose_net.shares_encoder:
            seen = self.depth_net.encode(pairs.flatten(0, 1))[-1].unflatten(0, pairs.shape[:2])
        turn, move = self.pose_net(seen)
        if self.pose_net.times_mean_disparity:
            move = move * self.depth_net(pairs[:, 0]).mean((1, 2, 3))[:, None, None]
        return pose_from_axis_angle(turn, move)[:, 0]


@architecture
def pose_timm(
    backbone: str, *, pretrained: bool | str | Path = True, frames: int = 2, options: dict[str, Any] | None = None
) -> PoseNet:
    """Monodepth2's separate pose network on any timm backbone.

    Weights of an RGB network fit: those of the first convolution are repeated for every frame and divided by their number.

    Args:
        backbone: timm's name of the encoder.
        pretrained: the encoder's weights, see ``TimmEncoder``.
        frames: how many frames it sees at once, 2 or 3 in the paper.
        options: see ``TimmEncoder``.
    """
    widened = {**(options or {}), "in_chans": 3 * frames}
    encoder = TimmEncoder(backbone, pretrained=pretrained, strides=(32,), mean=MEAN, std=STD, options=widened)
    return PoseNet(encoder, frames=frames)


@architecture
def pose_resnet18(*, pretrained: bool | str | Path = True, frames: int = 2) -> PoseNet:
    """Monodepth2's separate ResNet-18 pose network, 12.5 M parameters; arguments as of ``pose_timm``."""
    return pose_timm("resnet18.tv_in1k", pretrained=pretrained, frames=frames)


@architecture
def pose_cnn(*, frames: int = 2) -> PoseCNN:
    """The pose network of Zhou et al. (2017), 1.6 M parameters, as Monodepth2's ablation has it; see ``PoseCNN``."""
    return PoseCNN(frames=frames)


@architecture
def pose_shared(channels: int = 512, *, frames: int = 2) -> SharedPoseNet:
    """Monodepth2's pose decoder on the depth encoder's features; see ``SharedPoseNet``."""
    return SharedPoseNet(channels, frames=frames)
