from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.testing import assert_close

from depthkit.data import ShardSource, VideoDataModule
from depthkit.errors import CheckpointError, GeometryError, RecipeError
from depthkit.geometry import invert_pose
from depthkit.losses import MinReprojectionLoss
from depthkit.models import (
    EgoMotion,
    LearnedCamera,
    PredictiveMask,
    monodepth2_timm,
    pose_cnn,
    pose_shared,
    pose_timm,
    read_checkpoint,
    read_pose_net,
)
from depthkit.models.pose.interface import encode_views
from depthkit.paradigms import SelfSupervisedVideoModule
from depthkit.types import Ambiguity, Batch, Views
from tests.contracts.paradigm import METRIC_DEPTH, Memory, trainer

SIZE = (64, 96)


def data(drive: Path, views: Views = Views.VIDEO, **options: Any) -> VideoDataModule:
    return VideoDataModule([ShardSource(str(drive))], views=views, size=SIZE, batch_size=2, **options)


def batch(drive: Path, views: Views = Views.VIDEO) -> Batch:
    return next(iter(data(drive, views).train_dataloader()))


def module(pose_net: Any = "cnn", seed: int = 0, **options: Any) -> SelfSupervisedVideoModule:
    torch.manual_seed(seed)
    model = monodepth2_timm("test_resnet", pretrained=False)
    return SelfSupervisedVideoModule(model, pose_cnn() if pose_net == "cnn" else pose_net, **options)


@pytest.mark.parametrize("views", [Views.VIDEO, Views.STEREO, Views.VIDEO_STEREO])
def test_a_batch_holds_the_views_in_order_with_their_poses(drive: Path, views: Views) -> None:
    b = batch(drive, views)
    assert b.frame_names == views.frames
    assert b.frames.shape == (2, len(views.frames), 3, *SIZE)
    assert b.frames_from_camera.isfinite().all()


@pytest.mark.parametrize("views", [Views.VIDEO, Views.STEREO, Views.VIDEO_STEREO])
def test_known_motion_is_taken_from_the_batch(drive: Path, views: Views) -> None:
    b = batch(drive, views)
    found = module(None, stereo=Views.STEREO.frames[0] in views.frames).eval().reconstruct(b)
    assert_close(found.source_from_target, b.frames_from_camera)
    assert found.loss.shape == (2,)


def test_the_pose_network_sees_time_run_forwards(drive: Path) -> None:
    """The previous frame's pose is the inverse of what the same network says of (prev, target)."""
    b = batch(drive)
    m = module().eval()
    poses = m.reconstruct(b).source_from_target
    swapped = replace(b, image=b.frames[:, 0], frames=torch.stack([b.frames[:, 1], b.image], 1))  # its next frame is the target
    m.pose_net.times_mean_disparity = False
    plain = m.reconstruct(b).source_from_target[:, 0]
    forwards = m.reconstruct(swapped).source_from_target[:, 1]
    assert_close(plain @ forwards, torch.eye(4).expand(2, 4, 4), rtol=0, atol=1e-5)
    assert poses.shape == (2, 2, 4, 4)


def test_no_motion_and_no_change_is_masked_and_teaches_nothing(drive: Path) -> None:
    b = batch(drive)
    still = replace(b, frames=b.image[:, None].repeat(1, 2, 1, 1, 1))
    m = module(smoothness=0.0).eval()
    found = m.reconstruct(still)
    assert (found.selected == -1).float().mean() > 0.95
    assert (found.loss < 1e-4).all()


def test_depth_that_agrees_along_the_motion_is_consistent(drive: Path) -> None:
    b, m = batch(drive), module(None, consistency=0.5).eval()
    still = replace(b, frames=b.image[:, None].repeat(1, 2, 1, 1, 1), frames_from_camera=torch.eye(4).repeat(2, 2, 1, 1))
    assert (m.inconsistency(m.reconstruct(still), still) < 1e-5).all()
    moved = still.frames_from_camera.clone()
    moved[..., 2, 3] = 1.0
    ahead = replace(still, frames_from_camera=moved)
    term = m.losses(ahead)["consistency"]
    assert (term.values > 1e-3).all()
    assert (term.values <= 1).all()
    assert term.weight == 0.5
    assert "consistency" not in module(None).losses(still)
    stereo = batch(drive, Views.STEREO)
    with pytest.raises(GeometryError, match="Set consistency to 0"):
        module(None, consistency=0.5, stereo=True).losses(stereo)


def test_networks_see_changed_colours_and_losses_do_not(drive: Path) -> None:
    class Invert(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 1 - x

    b = batch(drive)
    m = module(augment=Invert())
    assert_close(m.augmented(b), 1 - torch.cat([b.image[:, None], b.frames], 1))
    true = replace(b, frames=b.image[:, None].repeat(1, 2, 1, 1, 1))
    assert (m.reconstruct(true).loss < 0.01).all()  # identity compares clean with clean


def test_one_draw_of_colours_changes_all_views_of_a_sample(drive: Path) -> None:
    b = batch(drive)
    same = replace(b, frames=b.image[:, None].repeat(1, 2, 1, 1, 1))
    views = module().train().augmented(same)
    assert_close(views[:, 1], views[:, 0])
    assert_close(views[:, 2], views[:, 0])


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"camera": LearnedCamera(focal_length=0.8, aspect=64 / 96)}, marks=pytest.mark.slow),
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param({"full_resolution": False}, marks=pytest.mark.slow),
        pytest.param({"reprojection": MinReprojectionLoss(reduction="mean", automask=False)}, marks=pytest.mark.slow),
        pytest.param({"motion_weight": 0.05}, marks=pytest.mark.slow),
    ],
    ids=lambda o: ", ".join(o) or "default",
)
def test_it_learns_from_video(options: dict, drive: Path, tmp_path: Path) -> None:
    m = module(optimizer=partial(torch.optim.Adam, lr=1e-3), **options)
    b = batch(drive)

    def loss() -> float:
        with torch.no_grad():
            return float(m.train().reconstruct(b).loss.mean())

    m.augment = nn.Identity()
    before = loss()
    trainer(tmp_path, max_steps=50, max_epochs=-1).fit(m, datamodule=Memory([b], (METRIC_DEPTH,)))
    assert loss() < before


def test_shared_encoder_and_predictive_mask_get_gradients(drive: Path) -> None:
    torch.manual_seed(0)
    model = monodepth2_timm("test_resnet", pretrained=False)
    m = SelfSupervisedVideoModule(
        model,
        pose_shared(model.encoder.channels[-1]),
        mask_decoder=PredictiveMask(model.encoder.channels, model.encoder.strides),
        reprojection=MinReprojectionLoss(automask=False),
    )
    m.reconstruct(batch(drive)).loss.mean().backward()
    for part in (m.pose_net, m.mask_decoder, m.model.head):
        assert all(p.grad is not None and p.grad.isfinite().all() for p in part.parameters())


def test_a_shared_encoder_normalises_all_views_together(drive: Path) -> None:
    torch.manual_seed(0)
    model = monodepth2_timm("test_resnet", pretrained=False)
    m = SelfSupervisedVideoModule(model, pose_shared(model.encoder.channels[-1]), augment=nn.Identity()).train()
    views = m.augmented(batch(drive))
    features, seen = encode_views(model, views, m.pose_net)
    together = model.encode(views.flatten(0, 1))
    assert_close(features[0], together[0].unflatten(0, (2, 3))[:, 0])
    assert_close(seen.flatten(0, 1), together[-1])


def test_what_a_source_does_not_show_can_be_left_out(drive: Path) -> None:
    b = batch(drive, Views.STEREO)
    aside = b.frames_from_camera.clone()
    aside[:, :, 0, 3] = 1e3  # nothing of the target is seen from there
    b = replace(b, frames_from_camera=aside)
    loss = MinReprojectionLoss(automask=False)
    as_released, strict = (module(None, stereo=True, reprojection=loss, only_visible=v, smoothness=0.0) for v in (False, True))
    assert (as_released.reconstruct(b).loss > 0).all()
    found = strict.reconstruct(b)
    assert (found.loss == 0).all()
    assert (found.selected == -1).all()


def test_a_run_resumed_mid_epoch_ends_in_the_same_weights_bit_for_bit(drive: Path, tmp_path: Path) -> None:
    def run(**start: Any) -> dict[str, Any]:
        seed_everything(3, verbose=False)
        m = module(optimizer=partial(torch.optim.Adam, lr=1e-3))
        torch.manual_seed(len(start))  # a new process has drawn something else before
        keep = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=3, save_top_k=-1)
        fitting = trainer(tmp_path, max_steps=6, max_epochs=-1, enable_checkpointing=True, callbacks=[keep])
        fitting.fit(m, datamodule=data(drive, seed=3, epoch_size=4), **start)
        return m.state_dict()

    whole, resumed = run(), run(ckpt_path=tmp_path / "step=3.ckpt")
    for name, weight in whole.items():
        assert_close(resumed[name], weight, rtol=0, atol=0)


def test_validation_logs_the_loss_of_videos_beside_the_scores_of_labels(drive: Path, tmp_path: Path) -> None:
    source = ShardSource(str(drive), "test")
    unlabelled = replace(source, name="video")
    both = data(drive, val_sources=[source], val_loss_sources=[unlabelled], val_batch_size=1)
    alone = data(drive, val_loss_sources=[unlabelled], val_batch_size=4)  # the last batch is smaller
    m = module(protocols="synthetic_median")

    def validated(m: SelfSupervisedVideoModule, videos: VideoDataModule) -> dict[str, Any]:
        fitting = trainer(tmp_path, limit_val_batches=1.0)
        fitting.validate(m, datamodule=videos, verbose=False)
        return fitting.callback_metrics

    first, second = validated(m, both), validated(m, alone)
    assert first["val/drive/abs_rel"].isfinite()
    assert second.keys() == {"val/video/loss"}
    with torch.no_grad():
        losses = [m.eval().reconstruct(b).loss for b in data(drive, val_batch_size=4).views_dataloader(source)]
    for found in (first, second):
        assert float(found["val/video/loss"]) == pytest.approx(float(torch.cat(losses).mean()), rel=1e-3)
    with pytest.raises(RecipeError, match=r"named like training sets, data, whose cameras are learned; got 'video'"):
        validated(module(camera=LearnedCamera()), alone)


def test_motion_that_nobody_knows_cannot_make_the_scale_metric(drive: Path, tmp_path: Path) -> None:
    b = batch(drive, Views.VIDEO_STEREO)
    timed_unknown = b.frames_from_camera.clone()
    timed_unknown[:, :2] = torch.nan
    unknown = replace(b, frames_from_camera=timed_unknown)
    fitting = trainer(tmp_path, max_steps=1, max_epochs=-1)
    with pytest.raises(GeometryError, match=r"motion_weight is 0.1, but how the camera moved is known for no sample"):
        fitting.fit(module(motion_weight=0.1, stereo=True), datamodule=Memory([unknown], (METRIC_DEPTH,)))


def test_a_checkpoint_brings_both_networks_back(drive: Path, tmp_path: Path) -> None:
    model = monodepth2_timm("test_resnet", pretrained=False)
    for pose_net in (pose_cnn(), pose_shared(model.encoder.channels[-1]), pose_timm("test_resnet", pretrained=False)):
        m = SelfSupervisedVideoModule(model, pose_net)
        fitting = trainer(tmp_path, max_steps=1, max_epochs=-1)
        fitting.fit(m, datamodule=Memory([batch(drive)], (METRIC_DEPTH,)))
        fitting.save_checkpoint(tmp_path / "last.ckpt")
        pairs = torch.rand(2, 2, 3, *SIZE)
        again = SelfSupervisedVideoModule.load_from_checkpoint(tmp_path / "last.ckpt").eval()
        alone = EgoMotion(read_checkpoint(tmp_path / "last.ckpt").model, read_pose_net(tmp_path / "last.ckpt"))
        expected = EgoMotion(m.eval().model, m.pose_net)(pairs)
        assert_close(EgoMotion(again.model, again.pose_net)(pairs), expected)
        assert_close(alone(pairs), expected)
    fitting.fit(stereo := module(None, stereo=True), datamodule=Memory([batch(drive, Views.STEREO)], (METRIC_DEPTH,)))
    stereo.trainer.save_checkpoint(tmp_path / "stereo.ckpt")
    with pytest.raises(CheckpointError, match=r"expected a checkpoint with a pose network; .*stereo.ckpt has none"):
        read_pose_net(tmp_path / "stereo.ckpt")


@pytest.mark.parametrize("kind", ["cnn", "shared", "separate"])
def test_the_motions_of_a_video_are_those_that_training_uses(kind: str, drive: Path) -> None:
    torch.manual_seed(0)
    model = monodepth2_timm("test_resnet", pretrained=False)
    nets = {
        "cnn": pose_cnn,
        "shared": partial(pose_shared, model.encoder.channels[-1]),
        "separate": partial(pose_timm, "test_resnet", pretrained=False),
    }
    m, b = SelfSupervisedVideoModule(model, nets[kind]()).eval(), batch(drive)
    before, after = m.reconstruct(b).source_from_target.unbind(1)
    for row, (previous, following) in enumerate(b.frames):
        motions = m.motions(torch.stack([previous, b.image[row], following]))
        assert_close(motions[0], invert_pose(before[row : row + 1])[0], rtol=1e-4, atol=1e-6)
        assert_close(motions[1], after[row], rtol=1e-4, atol=1e-6)


def test_a_stereo_model_has_no_motions() -> None:
    with pytest.raises(RecipeError, match="pose_net that sees 2 frames"):
        module(None, stereo=True).motions(torch.rand(3, 3, *SIZE))


def test_what_a_trained_model_leaves_open_follows_from_what_it_knew() -> None:
    assert module().ambiguity == Ambiguity.SCALE
    assert module(stereo=True).ambiguity == Ambiguity.METRIC
    assert module(motion_weight=0.1).ambiguity == Ambiguity.METRIC
    assert module(None).ambiguity == Ambiguity.METRIC


def test_what_does_not_fit_is_refused(drive: Path) -> None:
    b = batch(drive)
    with pytest.raises(GeometryError, match="has no neighbouring view"):
        module().reconstruct(replace(b, frames=b.frames[:, :0], frames_from_camera=b.frames_from_camera[:, :0], frame_names=()))
    with pytest.raises(GeometryError, match="hold the views prev, next, but stereo=True"):
        module(stereo=True).reconstruct(b)
    with pytest.raises(GeometryError, match="pose of view 'prev' is not known"):
        module(None).reconstruct(replace(b, frames_from_camera=torch.full_like(b.frames_from_camera, torch.nan)))
    with pytest.raises(GeometryError):
        module().reconstruct(replace(b, intrinsics=torch.full_like(b.intrinsics, torch.nan)))
    with pytest.raises(GeometryError, match=r"hold the views stereo, and none is for the pose_net. Leave it out"):
        module(stereo=True).reconstruct(batch(drive, Views.STEREO))
    with pytest.raises(RecipeError, match="supervises a pose_net"):
        module(None, motion_weight=0.1)
    with pytest.raises(RecipeError, match=r"SharedPoseNet for .* encoder; it has channels=512. Give it channels=96"):
        module(pose_shared())
    with pytest.raises(RecipeError, match=r"PredictiveMask for .* Give it encoder_channels=\(32, 32, 48, 192, 96\)"):
        module(mask_decoder=PredictiveMask(), reprojection=MinReprojectionLoss(automask=False))
    with pytest.raises(RecipeError, match="single"):
        VideoDataModule(views=Views.SINGLE)
