"""Monodepth2: depth and motion from video and stereo without labels (Godard et al. 2019, arXiv 1806.01260)."""

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from depthkit.checks import check_intrinsics
from depthkit.devices import sent
from depthkit.errors import GeometryError, RecipeError
from depthkit.geometry import inside_image, reproject, sample_pixels, scale_intrinsics, unproject
from depthkit.losses import MinReprojectionLoss
from depthkit.losses.functional import depth_consistency_loss, edge_aware_smoothness_loss
from depthkit.masked import masked_mean
from depthkit.models import EgoMotion
from depthkit.models.networks.monodepth2 import Monodepth2Net
from depthkit.models.pose.interface import encode_views
from depthkit.paradigms.base import DepthModule
from depthkit.paradigms.terms.term import Term
from depthkit.types import AMBIGUITIES, Ambiguity, Batch, LabelKind, Representation

STEREO = "stereo"
"""Name of the view whose pose is always the known one."""
STEPS = {"prev": -1, "next": 1}
"""When a neighbour in time was taken, in frames after the target."""


class Reconstruction(NamedTuple):
    """What one step believes about a batch.

    Attributes:
        sigmoids: of each scale, ``(B, 1, H / 2^s, W / 2^s)``, finest first.
        source_from_target: pose of each source view, ``(B, S, 4, 4)``.
        warped: sources seen from the target at the finest scale, ``(B, S, 3, H, W)``.
        selected: source each pixel learns from at that scale, ``(B, 1, H, W)``; -1 where it learns from none.
        loss: per image, ``(B,)``.
    """

    sigmoids: list[Tensor]
    source_from_target: Tensor
    warped: Tensor
    selected: Tensor
    loss: Tensor


class SelfSupervisedVideoModule(DepthModule):
    """Reproject neighbouring views with predicted depth and pose; the photometric error that is left trains both.

    Per scale ``s`` the loss of an image is ``reprojection + smoothness / 2^s * smoothness term``, and the mean over scales is
    minimised (section 3). Neighbours in time get their pose from ``pose_net``; the stereo partner its own from the batch.
    Every row of the paper's ablation (table 2) is an argument here, of ``MinReprojectionLoss`` or of the networks.

    Args:
        model: network with sigmoids at several scales, such as ``depthkit.models.monodepth2_resnet18()``.
        pose_net: ``PoseNet``, ``SharedPoseNet``, ``PoseCNN`` or another ``PosePredictor``; None takes every pose from the
            batch, as for stereo alone or video with known motion.
        reprojection: photometric loss over sources; default ``MinReprojectionLoss()``.
        smoothness: weight of the edge-aware smoothness at the finest scale.
        full_resolution: compare every scale at the input's resolution; else each at its own, as before Monodepth2.
        augment: changes colours, ``(B, V, 3, H, W)`` to the same, all views of a sample alike. Networks see the result, losses
            do not. Default: torchvision's jitter by 0.2 (hue 0.1) of half of the samples, each view about its own mean grey.
        mask_decoder: ``PredictiveMask``, the baseline that the automask replaced; needs a loss with ``automask=False``.
        camera: gives intrinsics for videos without: from ``Batch.dataset`` and the image's (height, width) to ``(B, 3, 3)``,
            such as ``depthkit.models.LearnedCamera``; None takes those of the batch.
        only_visible: let a source compete only where it shows what the target shows; else, as released, a pixel that it does
            not show is compared with the border pixel nearest to it.
        motion_weight: weight of the difference between predicted and known length of the camera's motion, where it is known
            (after Guizilini et al. 2020, arXiv 1905.02693): it makes the scale metric. Some sample of every batch must know it.
        consistency: weight of ``depth_consistency_loss`` between the depth of the target and of each source in time (after Bian
            et al. 2019), against flicker and a scale that drifts; each source then is predicted, too.
        stereo: batches hold a stereo partner, whose known baseline makes the scale metric.
        kwargs: see ``DepthModule``; ``channels_last`` is for every network.

    Raises:
        RecipeError: the parts do not fit each other.
    """

    model: Any

    def __init__(
        self,
        model: Monodepth2Net,
        pose_net: nn.Module | None = None,
        *,
        reprojection: MinReprojectionLoss | None = None,
        smoothness: float = 1e-3,
        full_resolution: bool = True,
        augment: nn.Module | None = None,
        mask_decoder: nn.Module | None = None,
        camera: nn.Module | None = None,
        only_visible: bool = False,
        motion_weight: float = 0.0,
        consistency: float = 0.0,
        stereo: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(model, **kwargs)
        if not hasattr(model, "multiscale_of"):
            raise RecipeError(
                f"expected a model with sigmoids at several scales; got {type(model).__name__}. Use monodepth2_timm."
            )
        channels = tuple(model.encoder.channels)
        if pose_net is not None:
            _check_built_for(pose_net, "channels", channels[-1])
        if mask_decoder is not None:
            _check_built_for(mask_decoder, "encoder_channels", channels)
        self.pose_net: Any = pose_net
        self.reprojection = reprojection or MinReprojectionLoss()
        if mask_decoder is not None and self.reprojection.automask:
            raise RecipeError("expected either automask or mask_decoder; set automask to False in reprojection.")
        if motion_weight and pose_net is None:
            raise RecipeError("motion_weight supervises a pose_net; got none. Give one, or set motion_weight to 0.")
        self.smoothness, self.full_resolution, self.only_visible = smoothness, full_resolution, only_visible
        self.augment: Any = colour_jitter() if augment is None else augment
        self.mask_decoder: Any = mask_decoder
        self.camera: Any = camera
        self.motion_weight, self.consistency, self.stereo = motion_weight, consistency, stereo
        if kwargs.get("channels_last"):
            self.to(memory_format=torch.channels_last)

    @property
    def accepts(self) -> frozenset[LabelKind]:
        """Accept any labels: none is read in training."""
        return frozenset(LabelKind(a, r) for a in AMBIGUITIES for r in Representation)

    @property
    def ambiguity(self) -> Ambiguity:
        """State what a trained model leaves undetermined."""
        known = self.stereo or self.motion_weight or self.pose_net is None
        return Ambiguity.METRIC if known else Ambiguity.SCALE

    def losses(self, batch: Batch) -> dict[str, Term]:
        """Compare what the sources show of the target with it, and keep disparity smooth (section 3)."""
        with self.step_rng():
            found = self.reconstruct(batch)
        every = torch.ones_like(batch.real)
        learning = (found.selected >= 0).float()
        terms = {"photometric": Term(found.loss, every), "unmasked": Term(learning, learning.isfinite(), weight=0.0)}
        if self.motion_weight:
            terms["motion"] = Term(self._motion_error(found.source_from_target, batch), every, self.motion_weight)
        if self.consistency:
            terms["consistency"] = Term(self.inconsistency(found, batch), every, self.consistency)
        return terms

    def inconsistency(self, found: Reconstruction, batch: Batch) -> Tensor:
        """Compare the target's depth, seen from each source in time, with what is predicted for that source, ``(B,)``."""
        target, camera = 1 / self.model.to_disparity(found.sigmoids[0]), self.intrinsics(batch)
        points, size, errors = unproject(target, camera).flatten(2), (target.shape[-2], target.shape[-1]), []
        for i in (i for i, name in enumerate(batch.frame_names) if name in STEPS):
            source, pose = batch.frames[:, i], found.source_from_target[:, i]
            depth = 1 / self.model.to_disparity(self.model.multiscale_of(self.model.encode(source))[0])
            computed = (pose[:, 2:3, :3] @ points + pose[:, 2:3, 3:]).view_as(target)
            pixels = reproject(target, camera, pose)
            seen = inside_image(pixels, size)  # where points behind the camera are not
            errors.append(depth_consistency_loss(computed.where(seen, 1), sample_pixels(depth, pixels), seen.to(target)))
        if not errors:
            held = ", ".join(batch.frame_names)
            raise GeometryError(
                f"consistency compares frames of a film; batches hold {held}. Set consistency to 0, or data.views."
            )
        return torch.stack(errors).mean(0)

    def reconstruct(self, batch: Batch) -> Reconstruction:
        """Predict depth and motion, warp the sources into the target at every scale, and compare.

        Raises:
            GeometryError: no neighbouring view, an unknown one, or a camera or pose that is not known.
        """
        features, seen = encode_views(self.model, self.augmented(batch), self.pose_net)
        sigmoids = self.model.multiscale_of(features)
        poses = self.poses(batch, seen, self.model.to_disparity(sigmoids[0]))
        masks = [None] * len(sigmoids) if self.mask_decoder is None else self.mask_decoder(features)
        cameras, identity = self.intrinsics(batch), None
        if self.full_resolution and self.reprojection.automask:  # the same at every scale
            identity = self.reprojection.identity(batch.image, batch.frames)
        losses, finest = [], None
        for scale, (sigmoid, mask) in enumerate(zip(sigmoids, masks, strict=True)):
            small = _shrunk(batch.image, sigmoid)
            smooth = self.smoothness / 2**scale * edge_aware_smoothness_loss(sigmoid, small)
            image, sources, camera = batch.image, batch.frames, cameras
            if not self.full_resolution:
                image, sources = small, _shrunk(batch.frames, sigmoid)
                camera = scale_intrinsics(cameras, 0.5**scale, 0.5**scale)
            depth = 1 / self.model.to_disparity(_enlarged(sigmoid, image))
            warped, visible = self.synthesised(sources, depth, camera, poses)
            mask = None if mask is None else _enlarged(mask, image)
            found = self.reprojection.maps(image, warped, sources, identity=identity, visible=visible, predictive_mask=mask)
            finest = finest or (warped, found.selected)
            losses.append(found.loss + smooth)
        assert finest is not None
        return Reconstruction(sigmoids, poses, *finest, torch.stack(losses).mean(0))

    def synthesised(self, sources: Tensor, depth: Tensor, camera: Tensor, poses: Tensor) -> tuple[Tensor, Tensor | None]:
        """Warp each source into the target, ``(B, S, 3, H, W)``; say where it shows it if ``only_visible``."""
        pixels = [reproject(depth, camera, pose) for pose in poses.unbind(1)]
        warped = torch.stack([sample_pixels(x, at) for x, at in zip(sources.unbind(1), pixels, strict=True)], 1)
        size = depth.shape[-2], depth.shape[-1]
        return warped, torch.cat([inside_image(at, size) for at in pixels], 1) if self.only_visible else None

    def augmented(self, batch: Batch) -> Tensor:
        """Show target and sources as the networks see them, ``(B, 1 + S, 3, H, W)``."""
        self._check_views(batch)
        views = torch.cat([batch.image[:, None], batch.frames], 1)
        return self.augment(views) if self.training else views

    def intrinsics(self, batch: Batch) -> Tensor:
        """Give the camera of each image, ``(B, 3, 3)`` [px]."""
        if self.camera is None:
            check_intrinsics(batch.on_host(batch.intrinsics), len(batch))
            return batch.intrinsics
        found: Tensor = self.camera(batch.dataset, (batch.image.shape[-2], batch.image.shape[-1]))
        return found

    def poses(self, batch: Batch, seen: Tensor, disparity: Tensor) -> Tensor:
        """Give ``source_from_target`` of each source, ``(B, S, 4, 4)``: predicted in time, known for the stereo partner."""
        poses, predicted = list(batch.frames_from_camera.unbind(1)), []
        for i, name in enumerate(batch.frame_names):
            if name in STEPS and self.pose_net is not None:
                predicted.append(i)
            elif not batch.on_host(batch.frames_from_camera)[:, i].isfinite().all():
                raise GeometryError(
                    f"the pose of view {name!r} is not known for every sample, such as {batch.keys[0]!r}. "
                    "Store it with the shards, leave the view out, or give a pose_net for views in time."
                )
        if predicted:
            steps = [STEPS[batch.frame_names[i]] for i in predicted]
            shown = torch.stack([seen[:, i] for i in (0, *(i + 1 for i in predicted))], 1)
            found = self.pose_net(shown, steps, disparity)
            for i, pose in zip(predicted, found.unbind(1), strict=True):
                poses[i] = pose
        return torch.stack(poses, 1)

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Tensor | None:
        """Score labels as every paradigm does, or log the loss of a video of ``val_loss_sources`` as ``val/<dataset>/loss``."""
        if not batch.frame_names:
            return super().validation_step(batch, batch_idx, dataloader_idx)
        data: Any = getattr(self.trainer, "datamodule", None)
        name = data.val_loss_names[dataloader_idx - len(data.val_names)]
        kept, loss = batch.rows(batch.real), batch.image.new_zeros(())  # the other rows only keep ranks in step
        if len(kept):
            if self.camera is not None:
                kept = replace(kept, dataset=torch.full_like(kept.dataset, self._camera_of(name)))
            with self.step_rng():
                loss = self.reconstruct(kept).loss.mean()
        weight: Any = float(len(kept))  # Lightning averages the ranks' counts, and cuts off the fraction of integers
        self.log(f"val/{name}/loss", loss, batch_size=weight, sync_dist=True, add_dataloader_idx=False)
        return None

    def _camera_of(self, name: str) -> int:
        """Find the training set of this name, whose learned camera is taken."""
        if name not in self.dataset_names:
            raise RecipeError(
                f"expected val_loss_sources named like training sets, {', '.join(self.dataset_names)}, whose cameras are "
                f"learned; got {name!r}. Give it the `name:` of the set with its camera."
            )
        return self.dataset_names.index(name)

    @torch.no_grad()
    def motions(self, video: Tensor) -> Tensor:
        """Predict how the camera moved from each frame to the next, for ``TrajectoryError`` and ``chain_poses``.

        Args:
            video: successive frames at a size that the networks take, RGB in [0, 1], ``(T, 3, H, W)``.

        Returns:
            ``next_from_current`` in the unit of the depth, ``(T - 1, 4, 4)``.

        Raises:
            RecipeError: there is no pose network for pairs of frames.
        """
        return EgoMotion(self.model, self.pose_net)(torch.stack([video[:-1], video[1:]], 1))

    def _check_views(self, batch: Batch) -> None:
        """Refuse batches whose views do not fit ``stereo`` and ``pose_net``."""
        if not batch.frames.shape[1]:
            raise GeometryError(
                f"sample {batch.keys[0]!r} has no neighbouring view to learn from. "
                "Train with VideoDataModule on shards that were written with views=video, stereo or video_stereo."
            )
        held = ", ".join(batch.frame_names)
        if self.stereo != (STEREO in batch.frame_names):
            raise GeometryError(f"batches hold the views {held}, but stereo={self.stereo}. Set stereo to what the data holds.")
        if unknown := set(batch.frame_names) - {STEREO, *STEPS}:
            raise GeometryError(f"expected views among prev, next and stereo; got {', '.join(sorted(unknown))}.")
        if self.pose_net is not None and not set(batch.frame_names) & {*STEPS}:
            raise GeometryError(
                f"batches hold the views {held}, and none is for the pose_net. Leave it out, or set data.views."
            )

    def _motion_error(self, poses: Tensor, batch: Batch) -> Tensor:
        """Average the difference in the motion's length [m] over the sources where it is known, ``(B,)``."""
        timed = torch.tensor([name in STEPS for name in batch.frame_names])  # the stereo partner's pose is not predicted
        known = batch.on_host(batch.frames_from_camera)[..., :3, 3].isfinite().all(-1) & timed
        if not known.any():
            raise GeometryError(
                f"motion_weight is {self.motion_weight:g}, but how the camera moved is known for no sample, such as "
                f"{batch.keys[0]!r}. Write shards of recordings with poses, or set motion_weight to 0 for depth up to a factor."
            )
        actual, known = batch.frames_from_camera[..., :3, 3], sent(known, poses.device)
        difference = poses[..., :3, 3].norm(dim=-1) - actual.where(known[..., None], 1).norm(dim=-1)
        return masked_mean(difference.abs(), known)


def _check_built_for(part: nn.Module, attribute: str, channels: Any) -> None:
    """Refuse what takes the encoder's maps but was built for those of another."""
    built_for = getattr(part, attribute, channels)
    if built_for != channels:
        raise RecipeError(
            f"expected a {type(part).__name__} for the maps of this model's encoder; it has {attribute}={built_for}. "
            f"Give it {attribute}={channels}."
        )


def _enlarged(x: Tensor, like: Tensor) -> Tensor:
    """Enlarge a map, ``(B, C, h, w)``, to the size of an image."""
    return interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)


def _shrunk(x: Tensor, like: Tensor) -> Tensor:
    """Shrink images, ``(B, 3, H, W)`` or ``(B, S, 3, H, W)``, to the size of a map."""
    size = like.shape[-2:]
    if x.shape[-2:] == size:
        return x
    small = interpolate(x.flatten(0, -4), size, mode="bilinear", align_corners=False, antialias=True)
    return small.unflatten(0, x.shape[:-3])


def colour_jitter() -> nn.Module:
    """Build the paper's colour jitter (section 4): one draw for all views of a sample, each view about its own mean grey."""
    from kornia.augmentation import ColorJitter, VideoSequential

    return VideoSequential(ColorJitter(0.2, 0.2, 0.2, 0.1, p=0.5), data_format="BTCHW", same_on_frame=True)
