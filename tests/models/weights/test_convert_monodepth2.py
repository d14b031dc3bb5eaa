"""Monodepth2's files: ours computes with them what functions written here from the published layout compute."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close
from torchvision.models import resnet18

from depthkit.errors import CheckpointError
from depthkit.models import load_published, monodepth2_resnet18, pose_cnn, pose_resnet18, pose_shared

# in and out channels of decoder.0 to decoder.9, and of the heads decoder.10 (finest) to decoder.13
DECODER = [(512, 256), (512, 256), (256, 128), (256, 128), (128, 64), (128, 64), (64, 32), (96, 32), (32, 16), (16, 16)]
HEADS = [16, 32, 64, 128]


def _conv(name: str, fan_in: int, out: int, kernel: int) -> dict[str, Tensor]:
    weight = torch.randn(out, fan_in, kernel, kernel) / (kernel * fan_in**0.5)
    return {f"{name}.weight": weight, f"{name}.bias": 0.1 * torch.randn(out)}


def _depth_file() -> dict[str, Tensor]:
    state = {}
    for k, (fan_in, out) in enumerate(DECODER):
        state |= _conv(f"decoder.{k}.conv.conv", fan_in, out, 3)
    for s, fan_in in enumerate(HEADS):
        state |= _conv(f"decoder.{10 + s}.conv", fan_in, 1, 3)
    return state


def _encoder_file(frames: int = 1) -> tuple[dict, torch.nn.Module]:
    encoder = resnet18(weights=None)
    encoder.conv1 = torch.nn.Conv2d(3 * frames, 64, 7, 2, 3, bias=False)
    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    return {f"encoder.{key}": x for key, x in encoder.state_dict().items()}, encoder.eval()


def _features(encoder: torch.nn.Module, image: Tensor) -> list[Tensor]:
    maps = [encoder.relu(encoder.bn1(encoder.conv1((image - 0.45) / 0.225)))]
    maps.append(encoder.layer1(encoder.maxpool(maps[0])))
    for layer in (encoder.layer2, encoder.layer3, encoder.layer4):
        maps.append(layer(maps[-1]))
    return maps


def _reflecting(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), state[f"{name}.weight"], state[f"{name}.bias"])


def _decode(maps: list[Tensor], state: dict[str, Tensor]) -> list[Tensor]:
    x, sigmoids = maps[-1], {}
    for level in (4, 3, 2, 1, 0):
        x = F.elu(_reflecting(x, state, f"decoder.{2 * (4 - level)}.conv.conv"))
        x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        x = torch.cat([x, maps[level - 1]], 1) if level else x
        x = F.elu(_reflecting(x, state, f"decoder.{2 * (4 - level) + 1}.conv.conv"))
        if level < 4:
            sigmoids[level] = _reflecting(x, state, f"decoder.{10 + level}.conv").sigmoid()
    return [sigmoids[s] for s in range(4)]


def _pose_file(inputs: int, motions: int) -> dict[str, Tensor]:
    sizes = ((512, 256, 1), (256 * inputs, 256, 3), (256, 256, 3), (256, 6 * motions, 1))
    return {key: x for k, size in enumerate(sizes) for key, x in _conv(f"net.{k}", *size).items()}


def _pose(maps: list[Tensor], state: dict[str, Tensor]) -> Tensor:
    """``(B, 6 n)``: axis-angle and translation of each motion in turn."""
    x = torch.cat([F.relu(F.conv2d(m, state["net.0.weight"], state["net.0.bias"])) for m in maps], 1)
    for k in (1, 2):
        x = F.relu(F.conv2d(x, state[f"net.{k}.weight"], state[f"net.{k}.bias"], padding=1))
    return 0.01 * F.conv2d(x, state["net.3.weight"], state["net.3.bias"]).mean((2, 3))


@torch.no_grad()
def test_depth_files_compute_the_published_sigmoids():
    (encoder_file, encoder), depth_file = _encoder_file(), _depth_file()
    beside = {"height": 192, "width": 640, "use_stereo": False}
    model = monodepth2_resnet18(pretrained=False).eval()
    load_published(model, {"encoder": encoder_file | beside, "depth": depth_file}, source="monodepth2")
    image = torch.rand(1, 3, 64, 96)
    expected = _decode(_features(encoder, image), depth_file)
    assert min(x.std() for x in expected) > 1e-3
    assert_close(model.multiscale(image), expected, rtol=1e-4, atol=1e-5)
    assert_close(model(image), 0.01 + (10 - 0.01) * expected[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("frames", [2, 3])
@torch.no_grad()
def test_pose_files_compute_the_published_motions(frames):
    (encoder_file, encoder), pose_file, shared_file = _encoder_file(frames), _pose_file(1, 2), _pose_file(frames, frames - 1)
    images, maps = torch.rand(2, frames, 3, 64, 96), torch.rand(2, frames, 512, 2, 3)
    separate, shared = pose_resnet18(pretrained=False, frames=frames).eval(), pose_shared(frames=frames).eval()
    load_published(separate, {"pose_encoder": encoder_file, "pose": pose_file}, source="monodepth2")
    load_published(shared, {"pose": shared_file}, source="monodepth2")
    for found, expected in (
        (separate.motions(images), _pose([_features(encoder, images.flatten(1, 2))[-1]], pose_file)),
        (shared.motions(maps), _pose(list(maps.unbind(1)), shared_file)),
    ):
        motions = expected.view(2, -1, 6)[:, : frames - 1]
        assert_close(found, (motions[..., :3], motions[..., 3:]), rtol=1e-4, atol=1e-6)


def test_a_pose_cnn_file_has_its_own_layout():
    net, other = pose_cnn(), pose_cnn()
    names = {"convs.": "net.", "output.": "pose_conv."}
    file = {names[key.split(".")[0] + "."] + key.split(".", 1)[1]: x for key, x in other.state_dict().items()}
    assert "pose_conv.weight" in file
    load_published(net, {"pose": file}, source="monodepth2")
    assert_close(net.state_dict(), other.state_dict(), rtol=0, atol=0)


def test_files_that_do_not_fit_are_refused_with_every_name_and_nothing_is_loaded():
    encoder_file, depth_file = _encoder_file()[0], _depth_file()
    model = monodepth2_resnet18(pretrained=False)
    before = {key: x.clone() for key, x in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"28 missing: decoder\.up\.0\.reduce\.weight, "):
        load_published(model, {"encoder": encoder_file}, source="monodepth2")
    with pytest.raises(CheckpointError, match=r"expected Monodepth2's files under their names, .*got 'encoder\.conv1\.weight'"):
        load_published(model, encoder_file, source="monodepth2")
    depth_file["decoder.10.conv.weight"] = torch.zeros(2, 16, 3, 3)
    with pytest.raises(CheckpointError, match=r"1 of another shape: head\.output\.0\.weight \(2, 16, 3, 3\)"):
        load_published(model, {"encoder": encoder_file, "depth": depth_file}, source="monodepth2")
    assert_close(model.state_dict(), before, rtol=0, atol=0)
