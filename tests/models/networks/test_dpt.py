"""Laws of the DPT networks: what they are made of, their sizes, and what they refuse."""

import pytest
import timm
import torch
from torch import nn
from torch.testing import assert_close

from depthkit.errors import CheckpointError, RecipeError, ShapeError
from depthkit.losses.functional import feature_alignment_loss
from depthkit.models import (
    DPTDecoder,
    TimmEncoder,
    ViTEncoder,
    dpt_dinov2_base,
    dpt_dinov2_large,
    dpt_dinov2_small,
    dpt_timm,
    encoder_state_dict,
    export_encoder,
    read_weights,
)
from depthkit.models.encoders.vit import resample_positions
from depthkit.models.networks.dpt import SigmoidDepthHead
from depthkit.types import Representation

VIT = "test_vit"  # timm's own test network: 6 blocks of 64 channels, patches of 16 px, trained on 10x10 of them


@pytest.mark.parametrize(
    ("network", "published", "v1", "v2"),
    [
        (dpt_dinov2_small, 24_785_089, (8, 9, 10, 11), (2, 5, 8, 11)),
        (dpt_dinov2_base, 97_470_785, (8, 9, 10, 11), (2, 5, 8, 11)),
        (dpt_dinov2_large, 335_315_649, (20, 21, 22, 23), (4, 11, 17, 23)),
    ],
)
def test_has_the_published_number_of_parameters_and_hooks(network, published, v1, v2):
    with torch.device("meta"):
        model, second = network(pretrained=False), network(pretrained=False, hooks="v2", max_depth=20.0)
    mask_token = model.encoder.channels[0]  # counted there, used in training by masking only, not in timm
    assert sum(p.numel() for p in model.parameters()) + mask_token == published
    assert model.encoder.hooks == v1
    assert second.encoder.hooks == v2
    assert (model.size_multiple, model.encoder.patch_size) == (14, 14)
    assert (model.representation, second.representation) == (Representation.DISPARITY, Representation.DEPTH)
    assert model.state_dict().keys() == second.state_dict().keys()


def test_only_the_unit_that_never_runs_is_frozen():
    model = dpt_timm(VIT, pretrained=False, features=16)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {name for name, _ in model.named_parameters() if name.startswith("decoder.fusion.0.skip_unit.")}
    early = ViTEncoder(VIT, pretrained=False, hooks=(0, 1, 2, 3))
    assert {name.split(".")[2] for name, p in early.named_parameters() if not p.requires_grad} == {"4", "5"}


@pytest.mark.parametrize(
    ("name", "options"),  # class token; registers without norm; registers with norm; a norm before the blocks, as CLIP's
    [(VIT, {}), ("test_vit2", {}), ("test_vit3", {}), (VIT, {"pre_norm": True})],
)
@pytest.mark.parametrize("hooks", ["v1", "v2", (1, 3, 4, 5)])
def test_features_are_the_normalised_tokens_of_its_blocks(name, options, hooks):
    encoder = ViTEncoder(name, pretrained=False, hooks=hooks, position_interpolation="timm", options=options).eval()
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.2)
    image = torch.randn(2, 3, 96, 128)
    expected = encoder.backbone.forward_intermediates(image, list(encoder.hooks), norm=True, intermediates_only=True)
    for found, wanted in zip(encoder(image), expected, strict=True):
        assert_close(found, wanted)
    assert found.shape == (2, encoder.channels[3], 6, 8)


def test_gradient_checkpointing_changes_no_gradient():
    encoder = ViTEncoder(VIT, pretrained=False)
    image = torch.randn(1, 3, 32, 48)
    gradients = []
    for keep_less in (False, True):
        encoder.backbone.set_grad_checkpointing(keep_less)
        encoder.zero_grad()
        sum(x.square().mean() for x in encoder(image)).backward()
        gradients.append([p.grad.clone() for p in encoder.parameters() if p.grad is not None])
    for found, expected in zip(*gradients, strict=True):
        assert_close(found, expected)


@pytest.mark.parametrize("rule", ["transformers", "timm", "dinov2"])
def test_positions_keep_prefix_trained_grid_and_constants(rule):
    positions = torch.randn(1, 2 + 20, 3)
    assert torch.equal(resample_positions(positions, (4, 5), (4, 5), 2, rule), positions)
    other = resample_positions(positions, (7, 3), (4, 5), 2, rule)
    assert other.shape == (1, 2 + 21, 3)
    assert torch.equal(other[:, :2], positions[:, :2])
    assert_close(resample_positions(torch.ones(1, 20, 3), (8, 9), (4, 5), 0, rule), torch.ones(1, 72, 3))


def test_positions_of_the_authors_are_sampled_a_little_nearer_to_the_corner():
    ramp = torch.arange(20.0).view(1, 1, 20).expand(1, 20, 20).reshape(1, 400, 1)
    plain, shifted = (resample_positions(ramp, (40, 40), (20, 20), 0, rule) for rule in ("transformers", "dinov2"))
    inside = (slice(4, -4), slice(4, -4))
    distance = (plain - shifted).view(40, 40)[inside]
    assert (distance > 0).all()
    assert (distance < 40 * 0.1 / 40 / 2 + 1e-3).all()  # (i + 1/2) (20/40 - 20/40.1) for i < 40


def test_decoding_what_encode_gave_is_the_prediction_and_alignment_starts_at_0():
    model = dpt_timm(VIT, pretrained=False, features=16).eval()
    image = torch.rand(2, 3, 32, 48)
    features = model.encode(image)
    assert torch.equal(model.decode(features), model(image))
    assert torch.equal(feature_alignment_loss(features[-1], features[-1]), torch.zeros(2))


def test_a_pyramid_is_fused_as_it_comes():
    model = dpt_timm("test_resnet", pretrained=False, features=16)
    assert isinstance(model.encoder, TimmEncoder)
    assert len(model.decoder.reassemble) == 0
    levels = model.decoder.levels(model.encode(torch.rand(1, 3, 64, 96)))
    assert [tuple(x.shape[2:]) for x in levels] == [(2, 3), (4, 6), (8, 12), (16, 24), (32, 48)]


def test_odd_grids_come_out_at_the_image_size():
    model = dpt_timm(VIT, pretrained=False, features=16)
    levels = model.decoder.levels(model.encode(torch.rand(1, 3, 5 * 16, 3 * 16)))
    assert [tuple(x.shape[2:]) for x in levels] == [(3, 2), (5, 3), (10, 6), (20, 12), (40, 24)]
    assert model(torch.rand(1, 3, 5 * 16, 3 * 16)).shape == (1, 1, 80, 48)


@pytest.mark.parametrize("max_depth", [20.0, 80.0])
def test_metric_depth_lies_between_0_and_its_greatest(max_depth):
    model = dpt_timm(VIT, pretrained=False, features=16, max_depth=max_depth)
    depth = model(torch.rand(1, 3, 32, 32))
    assert ((depth > 0) & (depth < max_depth)).all()
    nn.init.constant_(model.head.output.bias, 1e3)
    assert_close(model(torch.rand(1, 3, 32, 32)), torch.full((1, 1, 32, 32), max_depth))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hooks": "v3"}, r"expected hooks v1, v2 or numbers of blocks; got 'v3'"),
        ({"hooks": (2, 3, 4, 6)}, r"rising numbers of the 6 blocks of test_vit, from 0; got \(2, 3, 4, 6\)"),
        ({"hooks": (3, 2, 4, 5)}, r"rising numbers of the 6 blocks"),
        ({"hooks": (3, 4, 5)}, r"expected four maps of stride 16 and four out_channels; got 3 maps"),
        ({"out_channels": (8, 8)}, r"four out_channels; got 4 maps and out_channels \(8, 8\)"),
        ({"position_interpolation": "hf"}, r"one of transformers, timm, dinov2; got 'hf'"),
        ({"max_depth": 0.0}, r"expected max_depth > 0 m; got 0\.0"),
        ({"max_depth": 20.0, "output_activation": "softplus"}, r"expected no output_activation beside max_depth=20\.0"),
    ],
)
def test_a_wrong_recipe_is_refused(options, message):
    with pytest.raises(RecipeError, match=message):
        dpt_timm(VIT, pretrained=False, features=16, **options)


def test_a_pyramid_takes_no_out_channels_and_a_transformer_encoder_no_convolutions():
    with pytest.raises(RecipeError, match=r"expected no out_channels for an encoder with maps of strides \(4, 8, 16, 32\)"):
        DPTDecoder([8, 8, 8, 8], [4, 8, 16, 32], out_channels=(8, 8, 8, 8))
    with pytest.raises(RecipeError, match=r"expected a VisionTransformer of timm; got test_resnet\. Use TimmEncoder"):
        ViTEncoder("test_resnet", pretrained=False)


def test_an_image_off_the_patches_is_refused_with_the_next_size():
    with torch.device("meta"):
        model = dpt_dinov2_small(pretrained=False)
    with pytest.raises(ShapeError, match=r"multiples of 14; got 480x640\. Resize or pad it to 490x644"):
        model(torch.rand(1, 3, 480, 640))


def test_without_a_network_the_weights_are_named_with_a_way_out(monkeypatch):
    def unreachable(*_args, **_kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", unreachable)
    with pytest.raises(
        CheckpointError, match=r"download the weights of vit_small_patch14_dinov2\.lvd142m; .* Pass pretrained="
    ):
        dpt_dinov2_small()


@pytest.mark.parametrize("name", [VIT, "test_vit2", "test_resnet", "tf_efficientnet_lite0.in1k"])
def test_the_exported_encoder_is_timms_own_network(name, tmp_path):
    model = dpt_timm(name, pretrained=False, features=16).eval()
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    model = model.to(memory_format=torch.channels_last)
    export_encoder(model, tmp_path / "encoder.safetensors")
    exported = read_weights(tmp_path / "encoder.safetensors")
    assert exported.keys() == encoder_state_dict(model).keys()
    whole = timm.create_model(name, num_classes=0).eval()
    absent = whole.load_state_dict(exported, strict="efficientnet" not in name)
    assert {key.split(".")[0] for key in absent.missing_keys} <= {"conv_head", "bn2"}
    assert not absent.unexpected_keys
    image = torch.randn(1, 3, 160, 160, dtype=torch.float64)  # in double precision, so that the order of a sum decides nothing
    model, whole = model.double(), whole.double()
    if isinstance(model.encoder, ViTEncoder):
        found = whole.forward_intermediates(image, list(model.encoder.hooks), norm=True, intermediates_only=True)
    else:
        found = [x for x in whole.forward_intermediates(image, intermediates_only=True) if 160 // x.shape[-1] > 2]
    for ours, theirs in zip(model.encoder(image), found, strict=True):
        assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    again = dpt_timm(name, pretrained=tmp_path / "encoder.safetensors", features=16).eval().double()
    for ours, theirs in zip(model.encode(image), again.encode(image), strict=True):
        assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_an_encoder_is_exported_to_a_safetensors_file_in_a_folder_that_exists(tmp_path):
    model = dpt_timm(VIT, pretrained=False, features=16)
    for wrong in ("encoder.pth", "none/encoder.safetensors"):
        with pytest.raises(CheckpointError, match=r"expected a path that ends in \.safetensors, in a folder that exists; got"):
            export_encoder(model, tmp_path / wrong)


def test_the_file_of_dinov2s_authors_starts_the_encoder(tmp_path):
    weights = timm.create_model(VIT, num_classes=0).state_dict()
    torch.save(weights | {"mask_token": torch.zeros(1, 64)}, tmp_path / "dinov2.pth")
    encoder = ViTEncoder(VIT, pretrained=tmp_path / "dinov2.pth")
    assert all(torch.equal(x, weights[key]) for key, x in encoder.backbone.state_dict().items())


def test_four_maps_have_one_two_four_and_eight_times_three_quarters_of_the_features():
    decoder = DPTDecoder((8,) * 4, (16,) * 4, features=16)
    assert [part.project.out_channels for part in decoder.reassemble] == [12, 24, 48, 96]


def test_metric_depth_is_at_least_a_millionth_of_its_greatest():
    head = SigmoidDepthHead(4, 1, max_depth=20.0)
    nn.init.constant_(head.output.bias, -100.0)
    assert_close(head(torch.zeros(1, 4, 2, 2)), torch.full((1, 1, 2, 2), 2e-5))


def test_an_exponential_gives_depth_that_starts_about_1():
    model = dpt_timm(VIT, pretrained=False, features=16, output_activation="exp").eval()
    with torch.inference_mode():
        image = torch.rand(1, 3, 32, 48)
        features = model.encode(image)
        found, linear = model.decode(features), model.head.output(model.head.hidden(model.fused(features)))
    assert model.representation == Representation.DEPTH
    assert_close(found.log(), linear)
    assert 0.2 < found.min() < found.max() < 5
