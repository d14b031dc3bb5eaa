"""Pose networks: published sizes, shapes, where RGB weights go."""

import pytest
import timm
import torch
from torch.testing import assert_close

from depthkit.errors import CheckpointError, ShapeError
from depthkit.geometry import scale_intrinsics
from depthkit.models import LearnedCamera, PoseNet, pose_cnn, pose_resnet18, pose_shared, pose_timm


def _size(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_the_networks_have_the_published_number_of_parameters():
    with torch.device("meta"):
        separate = pose_resnet18(pretrained=False)
    assert (_size(separate.encoder), _size(separate.decoder)) == (11_185_920, 1_314_572)
    assert (_size(pose_cnn(frames=2)), _size(pose_cnn(frames=3))) == (1_586_774, 1_590_668)
    assert tuple(separate.encoder.backbone.conv1.weight.shape) == (64, 6, 7, 7)


NETS = {
    "separate": lambda frames: pose_timm("test_resnet", pretrained=False, frames=frames),
    "cnn": lambda frames: pose_cnn(frames=frames),
    "shared": lambda frames: pose_shared(24, frames=frames),
}


def _input(name: str, frames: int, batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, frames, 24, 2, 3) if name == "shared" else torch.rand(batch, frames, 3, 64, 96)


@pytest.mark.parametrize("frames", [2, 3])
@pytest.mark.parametrize("name", NETS)
class TestEveryPoseNet:
    def test_predicts_one_small_motion_per_further_frame(self, name, frames):
        net = NETS[name](frames).eval()
        for motion in net(_input(name, frames)):
            assert motion.shape == (2, frames - 1, 3)
            assert motion.abs().max() < 0.1
        assert net.frames == frames
        assert net.shares_encoder == (name == "shared")
        assert net.times_mean_disparity == (name == "cnn")

    def test_every_parameter_receives_a_finite_gradient(self, name, frames):
        net = NETS[name](frames)
        sum(motion.square().sum() for motion in net(_input(name, frames))).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())

    def test_a_batch_of_one_gives_its_row(self, name, frames):
        net, x = NETS[name](frames).eval(), _input(name, frames)
        for whole, row in zip(net(x), net(x[1:]), strict=True):
            assert_close(whole[1:], row, rtol=1e-4, atol=1e-6)

    def test_motions_are_float32_under_autocast_and_close(self, name, frames):
        net, x = NETS[name](frames).eval(), _input(name, frames)
        with torch.autocast("cpu", torch.bfloat16):
            half = net(x)
        for motion, full in zip(half, net(x), strict=True):
            assert motion.dtype == torch.float32
            assert (motion - full).abs().max() < 0.1 * full.abs().max()

    def test_another_number_of_frames_is_refused(self, name, frames):
        with pytest.raises(ShapeError, match=r"(expected \d frames|expected features of shape).*Stack the frames on axis 1"):
            NETS[name](frames)(_input(name, frames + 1))
        with pytest.raises(ShapeError, match="Stack the frames on axis 1"):
            NETS[name](frames)(_input(name, frames)[:, 0])


@pytest.mark.parametrize("frames", [2, 3])
def test_weights_of_an_rgb_network_see_equal_frames_as_it_sees_one(tmp_path, frames):
    rgb = timm.create_model("test_resnet").eval()
    torch.save(rgb.state_dict(), tmp_path / "rgb.pth")
    net = pose_timm("test_resnet", pretrained=tmp_path / "rgb.pth", frames=frames).eval()
    image = torch.rand(1, 3, 64, 64)
    found = net.encoder(image.repeat(1, frames, 1, 1))[-1]
    assert_close(found, rgb.forward_features(image), rtol=1e-4, atol=1e-5)


def test_weights_that_were_saved_with_all_frames_fit_as_they_are(tmp_path):
    net = pose_timm("test_resnet", pretrained=False)
    torch.save(net.encoder.backbone.state_dict(), tmp_path / "pose.pth")
    again = pose_timm("test_resnet", pretrained=tmp_path / "pose.pth")
    assert_close(again.encoder.state_dict(), net.encoder.state_dict(), rtol=0, atol=0)
    with pytest.raises(CheckpointError, match="of another shape"):
        pose_timm("test_resnet", pretrained=tmp_path / "pose.pth", frames=3)


def test_frames_are_normalised_as_released():
    net = pose_timm("test_resnet", pretrained=False)
    seen = []
    net.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    frames = torch.rand(1, 2, 3, 32, 32)
    net.eval()(frames)
    assert isinstance(net, PoseNet)
    assert_close(seen[0], ((frames - 0.45) / 0.225).flatten(1, 2))


def test_a_learned_camera_fits_every_resolution_and_starts_with_square_pixels():
    camera = LearnedCamera(2, focal_length=0.6, aspect=0.5)
    small, large = (camera(torch.tensor([1, 0]), size) for size in ((64, 128), (128, 256)))
    assert torch.allclose(small[:, 0, 0], small[:, 1, 1])
    assert torch.allclose(scale_intrinsics(small, 2.0, 2.0), large)
    small[0, 0, 0].backward()
    assert camera.log_focal.grad[1, 0] > 0
    assert (camera.log_focal.grad[0] == 0).all()
