"""Published checkpoints: ours computes with them what a network in the authors' layout and names, written here, computes."""

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close
from torchvision.models import resnet18, resnext101_32x8d

from depthkit.errors import CheckpointError
from depthkit.models import load_published, midas_resnext101, midas_small, midas_timm


class PublishedUnit(nn.Module):
    """Convolutions named as published. In place, the first ReLU also changes what is added at the end."""

    def __init__(self, width: int, inplace: bool) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(width, width, 3, 1, 1), nn.Conv2d(width, width, 3, 1, 1)
        self.first = nn.ReLU(inplace)

    def forward(self, x):
        y = self.conv1(self.first(x))
        return x + self.conv2(y.clamp_min(0))


class PublishedBlock(nn.Module):
    def __init__(self, width: int, small: bool, halve: bool) -> None:
        super().__init__()
        self.resConfUnit1, self.resConfUnit2 = PublishedUnit(width, not small), PublishedUnit(width, not small)
        if small:
            self.out_conv = nn.Conv2d(width, width // 2 if halve else width, 1)

    def forward(self, x, skip=None):
        if skip is not None:
            x = x + self.resConfUnit1(skip)
        x = self.resConfUnit2(x)
        x = F.interpolate(x, size=(2 * x.shape[2], 2 * x.shape[3]), mode="bilinear", align_corners=True)
        return self.out_conv(x) if hasattr(self, "out_conv") else x


class PublishedMidas(nn.Module):
    """MiDaS v2 (``small=False``) and v2.1 small, with the released files' names of weights."""

    def __init__(self, stages: list[nn.Module], channels: tuple[int, ...], width: int, small: bool = False) -> None:
        super().__init__()
        self.pretrained, self.scratch = nn.Module(), nn.Module()
        for k, (stage, c) in enumerate(zip(stages, channels, strict=True), start=1):
            w = width * 2 ** (k - 1) if small else width
            setattr(self.pretrained, f"layer{k}", stage)
            setattr(self.scratch, f"layer{k}_rn", nn.Conv2d(c, w, 3, 1, 1, bias=False))
            setattr(self.scratch, f"refinenet{k}", PublishedBlock(w, small, halve=k > 1))
        up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        first, middle, last = nn.Conv2d(width, width // 2, 3, 1, 1), nn.Conv2d(width // 2, 32, 3, 1, 1), nn.Conv2d(32, 1, 1)
        self.scratch.output_conv = nn.Sequential(first, up, middle, nn.ReLU(), last, nn.ReLU())

    def forward(self, x):
        maps = []
        for k in (1, 2, 3, 4):
            x = getattr(self.pretrained, f"layer{k}")(x)
            maps.append(getattr(self.scratch, f"layer{k}_rn")(x))
        path = self.scratch.refinenet4(maps[3])
        for k in (3, 2, 1):
            path = getattr(self.scratch, f"refinenet{k}")(path, maps[k - 1])
        return self.scratch.output_conv(path)


def _resnet_stages(resnet: nn.Module) -> list[nn.Module]:
    stem = nn.Sequential(resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool, resnet.layer1)
    return [stem, resnet.layer2, resnet.layer3, resnet.layer4]


def _midas_resnet18(width: int = 8) -> PublishedMidas:
    return PublishedMidas(_resnet_stages(resnet18(weights=None)), (64, 128, 256, 512), width)


def _midas_small() -> PublishedMidas:
    net = timm.create_model("tf_efficientnet_lite3")  # its BatchNorm holds the activation
    stem = nn.Sequential(net.conv_stem, net.bn1, nn.Identity(), *net.blocks[:2])
    stages = [stem, nn.Sequential(net.blocks[2]), nn.Sequential(*net.blocks[3:5]), nn.Sequential(*net.blocks[5:])]
    return PublishedMidas(stages, (32, 48, 136, 384), 64, small=True)


def _normalised(image: torch.Tensor) -> torch.Tensor:
    """ImageNet's statistics, as the authors' scripts apply them before the network."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (image - mean[:, None, None]) / std[:, None, None]


@pytest.mark.parametrize(
    ("published", "ours"),
    [
        (_midas_resnet18, lambda: midas_timm("resnet18.tv_in1k", pretrained=False, features=8)),
        (_midas_small, lambda: midas_small(pretrained=False)),
        (
            lambda: PublishedMidas(_resnet_stages(resnext101_32x8d(weights=None)), (256, 512, 1024, 2048), 256),
            lambda: midas_resnext101(pretrained=False),
        ),
    ],
    ids=["resnet18", "small", "resnext101"],
)
@torch.no_grad()
def test_published_weights_compute_what_the_published_network_computes(published, ours):
    reference, model = published().eval(), ours().eval()
    for module in reference.modules():  # statistics that matter, as trained ones do
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    reference.scratch.output_conv[4].bias.fill_(1.0)
    load_published(model, reference.state_dict(), source="midas")
    image = torch.rand(1, 3, 64, 96)
    expected = reference(_normalised(image))
    assert expected.std() > 1e-4
    assert_close(model(image), expected, rtol=1e-5, atol=1e-5)


def test_every_key_that_does_not_fit_is_named_and_nothing_is_loaded():
    model = midas_timm("resnet18.tv_in1k", pretrained=False, features=8)
    before = {key: x.clone() for key, x in model.state_dict().items()}
    state = _midas_resnet18().state_dict()
    del state["scratch.refinenet3.resConfUnit1.conv2.bias"], state["pretrained.layer1.0.weight"]
    state["scratch.layer2_rn.weight"] = torch.zeros(8, 3, 3, 3)
    state |= {"scratch.extra.weight": torch.zeros(1), "fc.weight": torch.zeros(1)}
    with pytest.raises(CheckpointError) as caught:
        load_published(model, state)
    assert "2 missing: " in str(caught.value)
    assert "2 unexpected: " in str(caught.value)
    assert "1 of another shape: decoder.lateral.1.weight (8, 3, 3, 3) instead of (8, 128, 3, 3)" in str(caught.value)
    for key in ("decoder.fusion.1.skip_unit.conv2.bias", "encoder.backbone.conv1.weight", "scratch.extra.weight", "fc.weight"):
        assert key in str(caught.value)
    assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_files_from_before_batch_counters_load():
    state = {key: x for key, x in _midas_resnet18().state_dict().items() if not key.endswith("num_batches_tracked")}
    load_published(midas_timm("resnet18.tv_in1k", pretrained=False, features=8), state)


def test_an_unknown_source_is_answered_with_the_known_ones():
    model = midas_timm("test_resnet", pretrained=False, features=8)
    with pytest.raises(CheckpointError, match=r"expected a source among depth_anything, .*midas, .*; got 'midas_v7'"):
        load_published(model, {}, source="midas_v7")
