"""DepthNet: parts, facts and what recipes can name."""

from functools import partial

import pytest
import torch
from jsonargparse import ArgumentParser
from torch import nn
from torch.testing import assert_close

from depthkit.errors import CheckpointError, RecipeError
from depthkit.models import DepthNet, LogDisparityHead, MidasDecoder, MidasHead, TimmEncoder, build, midas_timm
from depthkit.types import Representation


@pytest.fixture
def encoder() -> TimmEncoder:
    return TimmEncoder("test_efficientnet", pretrained=False)


def test_a_ready_decoder_and_a_callable_for_one_make_the_same_network(encoder):
    decoder = MidasDecoder(encoder.channels, encoder.strides, features=8)
    ready = DepthNet(encoder, decoder, MidasHead(decoder.channels, decoder.stride))
    built = DepthNet(encoder, partial(MidasDecoder, features=8), MidasHead)
    built.load_state_dict(ready.state_dict())
    image = torch.rand(1, 3, 64, 64)
    assert_close(built.eval()(image), ready.eval()(image))


def test_a_users_own_encoder_needs_only_the_four_facts():
    class Patches(nn.Conv2d):
        channels, strides, mean, std = (4, 6), (6, 12), (0.0,) * 3, (1.0,) * 3

        def __init__(self) -> None:
            super().__init__(3, 4, 6, 6)
            self.coarse = nn.Conv2d(4, 6, 2, 2)

        def forward(self, x):
            fine = super().forward(x)
            return [fine, self.coarse(fine)]

    model = DepthNet(Patches(), partial(MidasDecoder, features=8), MidasHead)
    assert model.size_multiple == 12
    assert model(torch.rand(1, 3, 24, 36)).shape == (1, 1, 24, 36)


def test_a_head_that_does_not_state_its_representation_is_refused(encoder):
    with pytest.raises(RecipeError, match="head that states its representation; Conv2d does not"):
        DepthNet(encoder, partial(MidasDecoder, features=8), nn.Conv2d(8, 1, 1))


def test_a_decoder_that_doubles_sizes_refuses_maps_of_one_stride():
    with pytest.raises(RecipeError, match=r"strides double .* for MidasDecoder; got \(16, 16\)"):
        MidasDecoder((8, 8), (16, 16))


@pytest.mark.parametrize("representation", [Representation.LOG_DEPTH, Representation.LOG_DISPARITY])
def test_a_logarithm_is_not_clipped_at_zero(representation):
    with pytest.raises(RecipeError, match=f"can be negative for {representation}; got output_activation='relu'"):
        MidasHead(8, 2, representation=representation)


def test_an_unknown_activation_is_refused():
    with pytest.raises(RecipeError, match="relu, softplus, exp, none; got 'sigmoid'"):
        MidasHead(8, 2, output_activation="sigmoid")


@pytest.mark.parametrize("size", [(32, 32), (64, 96)])
def test_a_constant_map_stays_constant_through_the_log_disparity_head(size):
    out = LogDisparityHead(4, 2)(torch.full((1, 4, *size), 3.0))
    assert out.shape == (1, 1, 2 * size[0], 2 * size[1])
    assert_close(out, out[..., :1, :1].expand_as(out))


def test_a_recipe_can_name_an_architecture_or_its_parts():
    parser = ArgumentParser()
    parser.add_argument("--model", type=DepthNet)
    whole = {
        "class_path": "depthkit.models.midas_timm",
        "init_args": {"backbone": "test_resnet", "pretrained": False, "features": 8},
    }
    parts = {
        "class_path": "depthkit.models.DepthNet",
        "init_args": {
            "encoder": {"class_path": "depthkit.models.TimmEncoder", "init_args": {"name": "test_resnet", "pretrained": False}},
            "decoder": {"class_path": "depthkit.models.MidasDecoder", "init_args": {"features": 8}},
            "head": {"class_path": "depthkit.models.MidasHead", "init_args": {"output_activation": "softplus"}},
        },
    }
    instantiate = getattr(parser, "instantiate", parser.instantiate_classes)  # renamed in jsonargparse 4.49
    models = [instantiate(parser.parse_object({"model": model})).model for model in (whole, parts)]
    assert models[0].state_dict().keys() == models[1].state_dict().keys()
    assert models[0].config["backbone"] == "test_resnet"


def test_a_config_holds_plain_values_and_never_downloads():
    model = midas_timm("test_resnet", pretrained=False, features=8, representation=Representation.DEPTH)
    config = model.config
    assert {type(value) for value in config.values()} <= {str, int, float, bool}
    assert config["pretrained"] is False
    assert build(config).representation is Representation.DEPTH


def test_a_config_that_this_version_cannot_build_is_refused():
    with pytest.raises(CheckpointError, match=r"expected an architecture among .*midas_timm.*; got 'midas_v9'"):
        build({"architecture": "midas_v9"})
    with pytest.raises(CheckpointError, match=r"expected arguments of midas_small .*'depth'"):
        build({"architecture": "midas_small", "depth": 3})


def test_an_encoder_says_which_strides_a_backbone_has():
    with pytest.raises(
        RecipeError, match=r"one feature map of resnet18 at each stride of \(4, 64\); its maps have strides \(2, 4, 8, 16, 32\)"
    ):
        TimmEncoder("resnet18", pretrained=False, strides=(4, 64))


def test_an_unknown_backbone_is_refused():
    with pytest.raises(RecipeError, match="expected the name of a timm model; got 'resnet19'"):
        TimmEncoder("resnet19", pretrained=False)


def test_blocks_of_a_vit_come_by_position_at_its_patch_size():
    encoder = TimmEncoder("test_vit", pretrained=False, out_indices=(0, 2), options={"dynamic_img_size": True})
    assert (encoder.strides, encoder.patch_size) == ((16, 16), 16)
    assert [tuple(x.shape) for x in encoder(torch.rand(1, 3, 32, 48))] == [(1, 64, 2, 3)] * 2


def test_published_channels_and_strides_are_those_of_the_maps(encoder):
    maps = encoder(torch.rand(1, 3, 64, 96))
    assert tuple(x.shape[1] for x in maps) == encoder.channels
    assert tuple(64 // x.shape[2] for x in maps) == encoder.strides == (4, 8, 16, 32)
    assert encoder.patch_size is None
