"""The one interface of pose networks, ``pose_net(views, steps, disparity) -> (B, S, 4, 4)``, and its uses."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from depthkit.errors import RecipeError, ShapeError
from depthkit.geometry import pose_from_axis_angle
from depthkit.models.net import Buildable, DepthNet

Motion = tuple[Tensor, Tensor]


class PosePredictor(Buildable, ABC):
    """A network that says where each source view was taken; base of all pose networks.

    A subclass answers how the camera moved between frames (``motions``). This class alone knows how to ask: pairs go in
    temporal order and the pose of an earlier source is the inverse of the answer; three or more frames go target first.

    Args:
        frames: how many frames ``motions`` compares at once, F: 2 for pairs of target and source, 1 + S for all views.
        unit: length that the network counts translations in, in the unit of the depth. 1 for video alone, whose unit is
            arbitrary; 5.4 for metres beside KITTI's rig, whose baseline of 0.54 m Monodepth2 calls 0.1.

    Attributes:
        shares_encoder: whether views are the depth encoder's maps and not images.
        times_mean_disparity: whether translations are multiplied by the target's mean disparity.

    Raises:
        RecipeError: fewer than 2 frames, or ``unit`` is not positive.
    """

    shares_encoder = False
    times_mean_disparity = False

    def __init__(self, *, frames: int = 2, unit: float = 1.0) -> None:
        super().__init__()
        if frames < 2 or not unit > 0:
            raise RecipeError(f"expected at least 2 frames and a unit above 0; got frames={frames} and unit={unit}.")
        self.frames, self.unit = frames, unit

    @abstractmethod
    def motions(self, seen: Tensor) -> Motion:
        """Predict the motion from the first of F frames to each other one.

        Args:
            seen: RGB in [0, 1], ``(B, F, 3, H, W)``, or the encoder's coarsest map of each frame, ``(B, F, C, h, w)``.

        Returns:
            Axis-angle [rad] and translation, ``(B, F - 1, 3)`` each, float32 under autocast.

        Raises:
            ShapeError: another shape or dtype.
        """

    def forward(self, views: Tensor, steps: Sequence[int], disparity: Tensor | None = None) -> Tensor:
        """Predict ``source_from_target`` of every source.

        Args:
            views: the target, then S sources: RGB in [0, 1], ``(B, 1 + S, 3, H, W)``; with ``shares_encoder`` the depth
                encoder's coarsest map of each, ``(B, 1 + S, C, h, w)``.
            steps: when each source was taken, in frames after the target: -1 is the one before it.
            disparity: of the target, ``(B, 1, H, W)``; read if ``times_mean_disparity``.

        Returns:
            Poses in the unit of the depth, ``(B, S, 4, 4)``.

        Raises:
            ShapeError: views, steps or disparity do not fit each other or the network.
        """
        if views.ndim != 5 or views.shape[1] != 1 + len(steps):
            raise ShapeError(
                f"expected the target and {len(steps)} source(s) on axis 1 of views, one step per source; got views of shape "
                f"{tuple(views.shape)}. Stack the frames on axis 1."
            )
        length = self._length(disparity)
        if self.frames > 2:
            turn, move = self.motions(views)
            return pose_from_axis_angle(turn, move * length)
        poses = []
        for place, step in enumerate(steps, start=1):
            backwards = step < 0
            turn, move = self.motions(torch.stack([views[:, i] for i in ((place, 0) if backwards else (0, place))], 1))
            poses.append(pose_from_axis_angle(turn, move * length, invert=backwards)[:, 0])
        return torch.stack(poses, 1)

    def _length(self, disparity: Tensor | None) -> Tensor | float:
        """Find what translations are multiplied by to be in the unit of the depth."""
        if not self.times_mean_disparity:
            return self.unit
        if disparity is None:
            raise ShapeError(f"expected the target's disparity, which {type(self).__name__} measures motion by; got none.")
        # counted in units, the disparity is self.unit times as large as in the depth's
        return disparity.mean((1, 2, 3))[:, None, None] * self.unit**2


def encode_views(depth_net: DepthNet, views: Tensor, pose_net: nn.Module | None) -> tuple[list[Tensor], Tensor]:
    """Encode the targets for the depth network, and what the pose network sees of all views.

    Args:
        depth_net: has the encoder.
        views: target and sources, ``(B, 1 + S, 3, H, W)``.
        pose_net: a ``PosePredictor``, or None.

    Returns:
        Feature maps of the targets, finest first, and the first argument of ``pose_net``, ``(B, 1 + S, ...)``. An encoder
        that is shared sees all views as one batch.
    """
    if not getattr(pose_net, "shares_encoder", False):
        return depth_net.encode(views[:, 0]), views
    of_all = [maps.unflatten(0, views.shape[:2]) for maps in depth_net.encode(views.flatten(0, 1))]
    return [maps[:, 0] for maps in of_all], of_all[-1]


class EgoMotion(nn.Module):
    """How the camera moved between two pictures, by a depth network and the pose network that was trained with it.

    Args:
        depth_net: gives a shared encoder's features, or the unit of ``PoseCNN``; other pose networks do not need it.
        pose_net: a ``PosePredictor`` that sees pairs of frames.

    Raises:
        RecipeError: there is no pose network, or it sees more frames.
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
        """Predict ``next_from_current``, ``(N, 4, 4)``, in the unit of the depth.

        Args:
            pairs: a picture and the one after it, RGB in [0, 1], ``(N, 2, 3, H, W)``, of a size that the networks take.
        """
        seen = encode_views(self.depth_net, pairs, self.pose_net)[1] if self.pose_net.shares_encoder else pairs
        disparity = self.depth_net(pairs[:, 0]) if self.pose_net.times_mean_disparity else None
        poses: Tensor = self.pose_net(seen, (1,), disparity)
        return poses[:, 0]
