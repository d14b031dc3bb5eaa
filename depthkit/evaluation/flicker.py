"""How much the maps of successive frames contradict each other, beside the numbers of a protocol."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from depthkit.alignment import apply_scale_shift
from depthkit.errors import RecipeError
from depthkit.evaluation.protocol import Protocol
from depthkit.geometry import scale_intrinsics
from depthkit.geometry.flow import LEAST_SEEN, motion_between, small_grey, small_size
from depthkit.metrics import FlowWarpedError, TemporalAlignmentError
from depthkit.representation import clamp_depth, convert, convert_rows, depth_limits
from depthkit.types import Batch, Representation, scene_of

_LINEAR = {Representation.LOG_DEPTH: Representation.DEPTH, Representation.LOG_DISPARITY: Representation.DISPARITY}


@dataclass
class _Film:
    """Frames of one scene, small: grey pictures, and maps ``(1, 1, h, w)``."""

    scene: str
    greys: list[np.ndarray] = field(default_factory=list)
    maps: list[Tensor] = field(default_factory=list)
    labels: list[Tensor] = field(default_factory=list)
    valid: list[Tensor] = field(default_factory=list)
    cameras: list[Tensor] = field(default_factory=list)
    poses: list[Tensor] = field(default_factory=list)


class FlickerScores:
    """``flow_warped_error``, and ``temporal_alignment_error`` where poses are known, of films given frame by frame.

    Frames of one scene (the key without the number at its end) that follow each other are a film; at a cut, where two frames
    share too little, flow tells nothing. What the protocol aligns per
    image is fitted once per film here: flicker of scale is flicker.

    Args:
        protocol: under which the maps are scored.
        representation: of the maps.

    Raises:
        RecipeError: the protocol scores no maps of depth.
    """

    def __init__(self, protocol: Protocol, representation: Representation) -> None:
        if protocol.ordinal or protocol.space != Representation.DEPTH:
            raise RecipeError(
                f"expected a protocol that compares maps of depth to score flicker; {protocol.name!r} compares "
                f"{'the order of points' if protocol.ordinal else protocol.space}. Choose another, or leave it out."
            )
        self.protocol, self.representation = protocol, representation
        self.flow, self.poses = FlowWarpedError(), TemporalAlignmentError()
        self._film = _Film("")

    def update(self, maps: Tensor, batch: Batch, *, resize_space: Representation | None = None) -> None:
        """Add frames in the order of time.

        Args:
            maps: predictions in metres or as the network leaves them, ``(B, 1, h, w)``.
            batch: their samples.
            resize_space: as of ``Protocol.compare``.
        """
        height, width = batch.image.shape[-2:]
        small = small_size(height, width)
        full, _ = self.protocol.place(maps.double(), height, width, self.representation, resize_space)
        linear = convert(full, self.representation, _LINEAR.get(self.representation, self.representation))
        label, valid = convert_rows(batch.target, batch.valid, batch.representation, Representation.DEPTH)
        near, far = depth_limits(Representation.DEPTH, *self.protocol.label_range)
        valid = valid & (label > near) & (label < far)
        factors = small[1] / width, small[0] / height
        for row, key in enumerate(batch.keys):
            grey = small_grey((batch.image[row] * 255).round().byte().permute(1, 2, 0).cpu().numpy())
            scene = scene_of(key)
            if scene != self._film.scene or (self._film.greys and self._film.greys[-1].shape != grey.shape):
                self._finish()
                self._film = _Film(scene)
            film, rows = self._film, slice(row, row + 1)
            film.greys.append(grey)
            film.maps.append(F.interpolate(linear[rows].cpu(), small, mode="area"))
            film.labels.append(F.interpolate(label[rows].double().cpu(), small, mode="nearest-exact"))
            film.valid.append(F.interpolate(valid[rows].double().cpu(), small, mode="nearest-exact") > 0)
            film.cameras.append(scale_intrinsics(batch.intrinsics[rows].double().cpu(), *factors))
            film.poses.append(batch.world_from_camera[rows].double().cpu())

    def _finish(self) -> None:
        """Score the film so far."""
        film, self._film = self._film, _Film("")
        if len(film.greys) < 2:
            return
        depth = self._depth(torch.cat(film.maps), torch.cat(film.labels), torch.cat(film.valid))
        motions: list[Any] = [motion_between(*pair) for pair in zip(film.greys, film.greys[1:], strict=False)]
        pixels = torch.from_numpy(np.stack([np.stack([motion.columns, motion.rows]) for motion in motions]))
        seen = torch.from_numpy(np.stack([motion.seen & (motion.seen.mean() >= LEAST_SEEN) for motion in motions]))[:, None]
        self.flow.update(depth, pixels.double(), seen)
        camera, pose = torch.cat(film.cameras), torch.cat(film.poses)
        if camera.isfinite().all() and pose.isfinite().all():
            self.poses.update(depth, camera, pose)

    def _depth(self, maps: Tensor, label: Tensor, valid: Tensor) -> Tensor:
        """Bring the maps of a film to depth ``(T, 1, h, w)`` by one fit of what the protocol aligns."""
        space, fit = _LINEAR.get(self.representation, self.representation), self.protocol.alignment
        if fit is not None:
            parts = convert(maps, space, fit.space), convert(label, Representation.DEPTH, fit.space), valid
            x, y, seen = (part.view(1, 1, -1, part.shape[-1]) for part in parts)  # the film as one tall image
            found = fit.fit(x, y, seen)
            maps, space = apply_scale_shift(x, found.scale, found.shift).view_as(maps), fit.space
        maps = clamp_depth(maps, space, self.protocol.min_depth, self.protocol.max_depth)
        return convert(maps, space, Representation.DEPTH)

    def summary(self) -> dict[str, float]:
        """Compute the mean over all pairs of successive frames: "flow_error", and "tae" if poses are known [1].

        Raises:
            RecipeError: no two frames follow each other.
        """
        self._finish()
        if not self.flow.n_pairs:
            raise RecipeError(
                "expected successive frames of one film, with keys of one scene and a number, to score flicker; got none that "
                "follow each other and share what they show. Leave flicker out for single images."
            )
        found = {"flow_error": float(self.flow.compute())}
        return found | ({"tae": float(self.poses.compute())} if self.poses.n_pairs else {})
