"""The MiDaS networks: published sizes, and laws of their blocks."""

import pytest
import torch
from torch.testing import assert_close

from depthkit.models import midas_resnext101, midas_small, midas_timm
from depthkit.models.networks.midas import FusionBlock, ResidualConvUnit
from depthkit.types import Representation


def _millions(model: torch.nn.Module) -> float:
    return sum(p.numel() for p in model.parameters()) / 1e6


def test_the_paper_network_has_the_published_number_of_parameters():
    with torch.device("meta"):
        model = midas_resnext101(pretrained=False)
    assert _millions(model) == pytest.approx(105.363, abs=1e-3)
    assert _millions(model.encoder) == pytest.approx(86.742, abs=1e-3)
    assert model.representation is Representation.DISPARITY


@pytest.mark.parametrize(
    ("backbone", "millions"),
    [
        ("resnet50.tv_in1k", 42.1),
        ("resnet101.tv_in1k", 61.1),
        ("densenet161.tv_in1k", 48.9),
        ("resnext101_32x8d.tv_in1k", 105.4),
    ],
)
def test_the_papers_other_encoders_fit_the_same_decoder(backbone, millions):
    with torch.device("meta"):
        model = midas_timm(backbone, pretrained=False)
    assert _millions(model) == pytest.approx(millions, abs=0.05)


def test_the_small_network_has_the_published_number_of_parameters():
    with torch.device("meta"):
        model = midas_small(pretrained=False)
    assert _millions(model) == pytest.approx(21.32, abs=0.01)
    assert model.head(
        model.decoder([torch.zeros(1, c, 8 // 2**k, 8 // 2**k, device="meta") for k, c in enumerate(model.encoder.channels)])
    ).shape == (1, 1, 32, 32)


def test_only_the_skip_unit_that_never_runs_is_frozen():
    model = midas_timm("test_resnet", pretrained=False, features=8)
    frozen = {name.rsplit(".", 2)[0] for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"decoder.fusion.0.skip_unit"}


@pytest.mark.parametrize("backbone", ["resnet18", "tf_efficientnet_lite0", "mobilenetv2_035"])
def test_a_fresh_network_is_alive(backbone):
    model = midas_timm(backbone, pretrained=False, features=64)
    assert (model(torch.rand(2, 3, 64, 64)) > 0).float().mean() > 0.9


@pytest.mark.parametrize("rectified", [True, False])
def test_a_residual_unit_of_zero_weights_is_its_identity_branch(rectified):
    unit = ResidualConvUnit(4, rectified_identity=rectified)
    for parameter in unit.parameters():
        torch.nn.init.zeros_(parameter)
    x = torch.randn(1, 4, 5, 6)
    assert_close(unit(x), x.relu() if rectified else x)


def test_a_fusion_block_leaves_its_inputs_as_they_were():
    block = FusionBlock(4, None, rectified_identity=True, has_skip=True)
    x, skip = torch.randn(2, 1, 4, 5, 6)
    before = x.clone(), skip.clone()
    block(x, skip)
    assert_close((x, skip), before)


def test_fusion_keeps_the_corner_pixels_in_the_corners():
    block = FusionBlock(2, None, rectified_identity=False, has_skip=False)
    for parameter in block.parameters():
        torch.nn.init.zeros_(parameter)
    x = torch.randn(1, 2, 4, 6)
    corners = (..., slice(None, None, 3), slice(None, None, 5))
    assert_close(block(x)[..., ::7, ::11], x[corners])


def test_softplus_is_positive_everywhere_where_relu_may_be_zero():
    relu = midas_timm("test_resnet", pretrained=False, features=8).eval()
    softplus = midas_timm("test_resnet", pretrained=False, features=8, output_activation="softplus").eval()
    softplus.load_state_dict(relu.state_dict())
    with torch.no_grad():
        for model in (relu, softplus):
            model.head.output.bias.fill_(-10)
    image = torch.rand(1, 3, 32, 32)
    assert (relu(image) == 0).all()
    assert (softplus(image) > 0).all()
