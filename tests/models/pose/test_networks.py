"""Pose networks: published sizes, shapes, where RGB weights go."""

import pytest
import timm
import torch
from torch.testing import assert_close

from depthkit.errors import CheckpointError, RecipeError, ShapeError
from depthkit.geometry import invert_pose, pose_from_axis_angle, scale_intrinsics
from depthkit.models import LearnedCamera, PoseNet, PosePredictor, pose_cnn, pose_resnet18, pose_shared, pose_timm


def _size(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_the_networks_have_the_published_number_of_parameters():
    with torch.device("meta"):
        separate = pose_resnet18(pretrained=False)
    assert (_size(separate.encoder), _size(separate.decoder)) == (11_185_920, 1_314_572)
    assert (_size(pose_cnn(frames=2)), _size(pose_cnn(frames=3))) == (1_586_774, 1_590_668)
    assert tuple(separate.encoder.backbone.conv1.weight.shape) == (64, 6, 7, 7)


NETS = {
    "separate": lambda frames, **options: pose_timm("test_resnet", pretrained=False, frames=frames, **options),
    "cnn": lambda frames, **options: pose_cnn(frames=frames, **options),
    "shared": lambda frames, **options: pose_shared(24, frames=frames, **options),
}


def _input(name: str, frames: int, batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, frames, 24, 2, 3) if name == "shared" else torch.rand(batch, frames, 3, 64, 96)


STEPS = {2: (-1,), 3: (-1, 1)}


def _poses(net: PosePredictor, views: torch.Tensor, frames: int) -> torch.Tensor:
    return net(views, STEPS[frames], torch.full((len(views), 1, 4, 4), 0.2))


@pytest.mark.parametrize("frames", [2, 3])
@pytest.mark.parametrize("name", NETS)
class TestEveryPoseNet:
    def test_gives_one_pose_near_the_identity_per_source(self, name, frames):
        net = NETS[name](frames).eval()
        poses = _poses(net, _input(name, frames), frames)
        assert poses.shape == (2, frames - 1, 4, 4)
        assert (poses - torch.eye(4)).abs().max() < 0.1
        assert_close(poses[..., :3, :3].det(), torch.ones(2, frames - 1))

    def test_every_parameter_receives_a_finite_gradient(self, name, frames):
        net = NETS[name](frames)
        sum(motion.square().sum() for motion in net.motions(_input(name, frames))).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())

    def test_a_batch_of_one_gives_its_row(self, name, frames):
        net, x = NETS[name](frames).eval(), _input(name, frames)
        assert_close(_poses(net, x, frames)[1:], _poses(net, x[1:], frames), rtol=1e-4, atol=1e-6)

    def test_motions_are_float32_under_autocast_and_close(self, name, frames):
        net, x = NETS[name](frames).eval(), _input(name, frames)
        with torch.autocast("cpu", torch.bfloat16):
            half = net.motions(x)
        for motion, full in zip(half, net.motions(x), strict=True):
            assert motion.dtype == torch.float32
            assert (motion - full).abs().max() < 0.1 * full.abs().max()

    def test_another_number_of_frames_is_refused(self, name, frames):
        with pytest.raises(ShapeError, match=r"(expected \d frames|expected features of shape).*Stack the frames on axis 1"):
            NETS[name](frames).motions(_input(name, frames + 1))
        with pytest.raises(ShapeError, match=r"one step per source; got views of shape .*Stack the frames on axis 1"):
            NETS[name](frames)(_input(name, frames + 2), STEPS[frames])
        with pytest.raises(ShapeError, match="Stack the frames on axis 1"):
            NETS[name](frames)(_input(name, frames)[:, 0], STEPS[frames])

    def test_a_hundredth_of_the_last_layer_is_the_motion(self, name, frames):
        net, x = NETS[name](frames).eval(), _input(name, frames)
        last = net.output if name == "cnn" else net.decoder.output
        with torch.no_grad():
            last.weight.zero_()
            last.bias.copy_(torch.arange(len(last.bias)) + 1.0)
        turn, move = net.motions(x)
        assert_close(turn[0], 0.01 * torch.tensor([[1.0, 2, 3], [7, 8, 9]])[: frames - 1])
        assert_close(move[0], 0.01 * torch.tensor([[4.0, 5, 6], [10, 11, 12]])[: frames - 1])

    def test_another_unit_of_length_changes_translations_alone(self, name, frames):
        """Metres instead of units of 5.4 m: depth and with it every translation is 5.4 times as many."""
        in_units, in_metres = (NETS[name](frames, unit=unit).eval() for unit in (1.0, 5.4))
        in_metres.load_state_dict(in_units.state_dict())
        x, disparity = _input(name, frames), torch.rand(2, 1, 6, 8)
        units, metres = in_units(x, STEPS[frames], disparity), in_metres(x, STEPS[frames], disparity / 5.4)
        assert_close(metres[..., :3, 3], 5.4 * units[..., :3, 3])
        assert_close(metres[..., :3, :3], units[..., :3, :3], rtol=0, atol=0)
        with pytest.raises(RecipeError, match="a unit above 0"):
            NETS[name](frames, unit=0.0)


def test_a_pair_is_seen_in_temporal_order_and_the_pose_of_the_past_is_inverted():
    net, views = NETS["separate"](2).eval(), torch.rand(2, 4, 3, 64, 96)
    poses = net(views, (-2, 1, -1))
    assert_close(poses[:, 0], invert_pose(pose_from_axis_angle(*net.motions(views[:, [1, 0]]))[:, 0]))
    assert_close(poses[:, 1], pose_from_axis_angle(*net.motions(views[:, [0, 2]]))[:, 0])
    assert_close(poses[:, 2], invert_pose(pose_from_axis_angle(*net.motions(views[:, [3, 0]]))[:, 0]))


def test_three_frames_are_seen_target_first_and_nothing_is_inverted():
    net, views = NETS["separate"](3).eval(), torch.rand(2, 3, 3, 64, 96)
    assert_close(net(views, (-1, 1)), pose_from_axis_angle(*net.motions(views)))


def test_motion_is_measured_by_the_mean_disparity_of_the_target_as_released():
    net, views = NETS["cnn"](2), torch.rand(1, 2, 3, 64, 96)
    turn, move = net.motions(views)
    found = net(views, (1,), torch.tensor([1.0, 2, 6, 3]).view(1, 1, 2, 2))
    assert_close(found, pose_from_axis_angle(turn, 3 * move))
    with pytest.raises(ShapeError, match="expected the target's disparity, which PoseCNN measures motion by"):
        net(views, (1,))


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
    net.eval().motions(frames)
    assert isinstance(net, PoseNet)
    assert_close(seen[0], ((frames - 0.45) / 0.225).flatten(1, 2))


def test_a_learned_camera_fits_every_resolution_and_starts_with_square_pixels():
    camera = LearnedCamera(2, focal_length=0.6, aspect=0.5)
    assert_close(camera(torch.tensor([0]), (64, 128)), torch.tensor([[[76.8, 0, 63.5], [0, 76.8, 31.5], [0, 0, 1]]]))
    torch.nn.init.normal_(camera.offset, std=0.1)  # as training moves the principal point
    small, large = (camera(torch.tensor([1, 0]), size) for size in ((64, 128), (128, 256)))
    assert torch.allclose(scale_intrinsics(small, 2.0, 2.0), large)
    small[0, 0, 0].backward()
    assert camera.log_focal.grad[1, 0] > 0
    assert (camera.log_focal.grad[0] == 0).all()
