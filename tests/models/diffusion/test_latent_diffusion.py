import json
import shutil
import sys

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from depthkit.errors import CheckpointError, DepthKitError, PredictionError, RecipeError, ShapeError
from depthkit.models import (
    AffineDepth,
    LatentDiffusionDepth,
    LinearDepth,
    LogDepth,
    Sampling,
    build,
    latent_diffusion,
    latent_diffusion_of,
    latent_diffusion_tiny,
)
from depthkit.models.diffusion.latent_diffusion import widen_first_layer
from depthkit.types import Ambiguity, Representation
from tests.contracts.model import ModelContract

pytest.importorskip("diffusers")


class TestLatentDiffusion(ModelContract):
    @pytest.fixture
    def model(self):
        return latent_diffusion_tiny(codec=LogDepth(1, 3), unet_channels=(16, 16), vae_channels=(8, 8)).eval()

    test_exported_program_predicts_the_same = None  # as slow to trace as to compile, and it sees the same graph

    def test_normalises_its_own_input_with_what_the_encoder_publishes(self, model, image):
        seen = []
        model.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        model(image)
        assert_close(seen[0], 2 * image - 1)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(1)
    return latent_diffusion_tiny().eval()


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    pytest.importorskip("transformers")
    return model.save_pretrained(tmp_path_factory.mktemp("saved"))


def test_the_widened_layer_gives_for_the_same_latent_twice_what_it_gave_for_one(model):
    unet = _unet_of_four_channels(model)
    before, z = unet.conv_in, torch.randn(2, 4, 8, 8)
    for halve_bias in (False, True):
        unet.conv_in = before
        widen_first_layer(unet, halve_bias=halve_bias)
        assert unet.config.in_channels == unet.conv_in.in_channels == 8
        bias = before.bias / 2 if halve_bias else before.bias
        assert_close(unet.conv_in.bias, bias)
        without = (before.bias - bias).view(-1, 1, 1)
        assert_close(unet.conv_in(torch.cat([z, z], 1)), before(z) - without, rtol=1e-4, atol=1e-5)


def test_a_unet_of_one_latent_is_widened_and_one_of_two_is_kept(model):
    narrow = _unet_of_four_channels(model)
    weight = narrow.conv_in.weight.detach().clone()
    made = LatentDiffusionDepth(narrow, model.vae, model.scheduler, model.text_embedding, LogDepth())
    assert_close(made.unet.conv_in.weight, weight.repeat(1, 2, 1, 1) / 2)
    again = LatentDiffusionDepth(made.unet, model.vae, model.scheduler, model.text_embedding, LogDepth())
    assert_close(again.unet.conv_in.weight, weight.repeat(1, 2, 1, 1) / 2)
    assert again.unet.conv_in.weight.requires_grad


def test_latents_are_the_mode_of_the_encoder_times_the_scaling_factor(model):
    image = torch.rand(2, 3, 16, 24)
    moments = model.vae.quant_conv(model.vae.encoder(2 * image - 1))
    assert_close(model.encode_image(image), moments[:, :4] * model.vae.config.scaling_factor)
    depth, valid = 1 + torch.rand(2, 1, 16, 24), torch.rand(2, 1, 16, 24) > 0.1
    y = model.codec.encode(depth, valid).repeat(1, 3, 1, 1)
    assert_close(model.encode_depth(depth, valid), model.encode_image((y + 1) / 2), rtol=1e-4, atol=1e-5)


def test_a_decoded_latent_is_the_mean_of_three_channels_clipped(model):
    latent = torch.randn(2, 4, 2, 3)
    decoded = model.vae.decode(latent / model.vae.config.scaling_factor).sample
    assert_close(model.decode_latent(latent), decoded.mean(1, keepdim=True).clamp(-1, 1))
    assert model.decode_latent(1e3 * latent).abs().max() <= 1


def test_what_is_clipped_still_has_a_gradient():
    model, latent = latent_diffusion_tiny(), torch.randn(1, 4, 2, 2).requires_grad_()
    model.vae.decoder.conv_out.weight *= 100
    y = model.decode_latent(latent)
    assert (y.abs() == 1).any()
    (gradient,) = torch.autograd.grad(y[y.abs() == 1].sum(), latent)
    assert gradient.abs().sum() > 0


def test_gradients_of_depth_reach_the_unet_and_never_the_vae(model):
    model = build(model.config)
    model(torch.rand(1, 3, 16, 16)).log().mean().backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in model.unet.parameters())
    assert all(x.grad is None and not x.requires_grad for x in model.vae.parameters())


def test_the_unet_sees_the_image_first_and_the_noisy_latent_second(model):
    seen = []
    handle = model.unet.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    image, noisy = torch.randn(2, 4, 4, 4), torch.randn(2, 4, 4, 4)
    model.predict(noisy, image, torch.tensor([3, 900]))
    handle.remove()
    assert torch.equal(seen[0][0], torch.cat([image, noisy], 1))
    assert torch.equal(seen[0][1], torch.tensor([3, 900]))


@torch.no_grad()
def test_one_step_from_zeros_is_the_clean_latent_that_one_output_tells(model):
    other = latent_diffusion_tiny(sampling=Sampling(noise="zeros")).eval()
    image = torch.rand(2, 3, 16, 24)
    latent, nothing = other.encode_image(image), torch.zeros(2, 4, 2, 3)
    clean = other.clean(other.predict(nothing, latent, 999), nothing, 999)
    assert_close(other(image), other.codec.decode(other.decode_latent(clean)))


@torch.no_grad()
def test_a_prediction_is_the_same_at_every_call_whatever_else_is_in_the_batch_and_another_with_another_seed(model):
    image = torch.rand(3, 3, 16, 24)
    model.sampling = Sampling(steps=2, seed=1)
    first = model(image)
    torch.rand(7)
    assert_close(model(image), first, rtol=0, atol=0)
    assert_close(model(image[2:]), first[2:], rtol=1e-4, atol=1e-5)
    model.sampling = Sampling(steps=2, seed=2)
    assert not torch.allclose(model(image), first, rtol=1e-3)
    model.sampling = Sampling()


@torch.no_grad()
def test_the_members_of_an_ensemble_vote_by_their_median_in_y(model):
    image = torch.rand(2, 3, 16, 24)
    model.sampling = Sampling(members=3)
    latents, shape = model.sampling.latents((3, 4, 2, 3)), (2, 3, 1, 16, 24)
    members = [model.denoise(model.encode_image(image), x.expand(2, -1, -1, -1), steps=1) for x in latents]
    y = torch.stack([model.decode_latent(x) for x in members], 1)
    assert y.shape == shape
    assert_close(model(image), model.codec.decode(y.median(1).values), rtol=1e-4, atol=1e-5)
    model.sampling = Sampling()


@pytest.mark.parametrize("codec", [LogDepth(0.5, 20), LinearDepth(1, 30), AffineDepth(fill="near")], ids=str)
@torch.no_grad()
def test_settings_travel_in_the_config(codec):
    made = latent_diffusion_tiny(codec=codec, sampling=Sampling(steps=3, members=3, seed=9), processing_size=96).eval()
    again = build(json.loads(json.dumps(made.config)))
    assert (again.codec, again.sampling, again.scheduler.config) == (made.codec, made.sampling, made.scheduler.config)
    assert again.processing_size == 96
    assert (again.ambiguity, again.representation) == (codec.kind.ambiguity, Representation.DEPTH)
    depth = made(torch.rand(1, 3, 16, 16))
    assert depth.min() >= (0 if again.ambiguity == Ambiguity.SHIFT_SCALE else codec.d_min * 0.999)
    assert depth.max() <= (1 if again.ambiguity == Ambiguity.SHIFT_SCALE else codec.d_max * 1.001)


@pytest.mark.parametrize(("reduction", "one", "spread"), [("median", 1.5, 1.0), ("mean", 2.5, 2.0)])
def test_the_spread_of_an_ensemble_is_the_members_median_distance_from_the_one_map(reduction, one, spread):
    members = torch.tensor([0.0, 1.0, 2.0, 7.0]).view(1, 4, 1, 1, 1)
    found = Sampling(members=4, reduction=reduction).reduce(members)
    assert_close(torch.cat(found).flatten(), torch.tensor([one, spread]))


def test_the_config_is_that_of_the_parts_as_they_are():
    made = latent_diffusion_tiny(vae_channels=(8, 8))
    made.vae.register_to_config(scaling_factor=3.0)
    made.sampling = Sampling(noise="zeros")
    again = build(made.config)
    assert (again.vae.config.scaling_factor, again.sampling.noise) == (3.0, "zeros")


@torch.no_grad()
def test_a_folder_without_a_codec_takes_the_one_given(saved, tmp_path, model):
    plain = _without(saved, tmp_path / "plain", "depthkit.json")
    assert latent_diffusion(pretrained=plain).codec == AffineDepth()  # as of a published Marigold
    made = latent_diffusion(pretrained=plain, codec=LogDepth(1, 10), sampling=Sampling(noise="zeros")).eval()
    assert (made.codec, made.sampling.noise) == (LogDepth(1, 10), "zeros")
    assert latent_diffusion(pretrained=saved).codec == model.codec


def test_a_model_for_images_becomes_one_for_depth(model, tmp_path):
    transformers = pytest.importorskip("transformers")
    from depthkit.models.diffusion.folders import diffusers

    narrow = _unet_of_four_channels(model)
    narrow.save_pretrained(tmp_path / "unet")
    model.vae.save_pretrained(tmp_path / "vae")
    diffusers().DDIMScheduler.from_config({**model.scheduler.config, "timestep_spacing": "leading"}).save_pretrained(
        tmp_path / "scheduler"
    )
    with pytest.raises(CheckpointError, match=r"expected text_encoder/ and tokenizer/, or empty_text_embedding"):
        latent_diffusion(pretrained=tmp_path)
    encoder = _clip(transformers, tmp_path)
    made = latent_diffusion(pretrained=tmp_path)
    assert made.codec == LogDepth()
    assert made.unet.conv_in.in_channels == 8
    assert_close(made.unet.conv_in.weight[:, :4], narrow.conv_in.weight / 2)
    assert (made.scheduler.zero_snr, made.scheduler.spacing) == (True, "trailing")
    kept = latent_diffusion(pretrained=tmp_path, scheduler={"rescale_betas_zero_snr": False}, tokens=77)
    assert not kept.scheduler.zero_snr
    assert_close(made.text_embedding, encoder(torch.tensor([[0, 1]]))[0])
    assert_close(kept.text_embedding, encoder(torch.tensor([[0] + [1] * 76]))[0], rtol=1e-4, atol=1e-5)
    kept.save_pretrained(tmp_path / "again")
    assert_close(latent_diffusion(pretrained=tmp_path / "again").text_embedding, kept.text_embedding)
    with pytest.raises(CheckpointError, match=r"expected an embedding of 2 tokens in .* it has 77"):
        latent_diffusion(pretrained=tmp_path / "again", tokens=2)


def test_a_folder_that_is_no_latent_diffusion_model_is_named(tmp_path, saved):
    with pytest.raises(
        CheckpointError, match=r"expected a latent diffusion model at .*scheduler/scheduler_config\.json is missing"
    ):
        latent_diffusion(pretrained=tmp_path)
    with pytest.raises(CheckpointError, match=r"expected a folder of diffusers at .*nowhere.* there is no such folder"):
        latent_diffusion(pretrained=tmp_path / "nowhere")
    other = _without(saved, tmp_path / "other", "unet/config.json")
    (other / "unet" / "config.json").write_text('{"_class_name": "SD3Transformer2DModel"}')
    with pytest.raises(CheckpointError, match=r"expected a UNet2DConditionModel in .*; it holds a SD3Transformer2DModel"):
        latent_diffusion(pretrained=other)
    empty = _without(saved, tmp_path / "empty", "vae/diffusion_pytorch_model.safetensors")
    with pytest.raises(CheckpointError, match=r"expected weights of AutoencoderKL in .*vae"):
        latent_diffusion(pretrained=empty)
    wide = _without(saved, tmp_path / "wide", "unet/config.json")
    config = json.loads((saved / "unet" / "config.json").read_text()) | {"in_channels": 9}
    (wide / "unet" / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="expected weights of UNet2DConditionModel"):
        latent_diffusion(pretrained=wide)


def test_a_published_model_takes_the_steps_that_its_folder_states(saved, tmp_path):
    plain = _without(saved, tmp_path / "plain", "depthkit.json")
    _change(plain / "scheduler" / "scheduler_config.json", timestep_spacing="leading")
    _change(plain / "model_index.json", default_denoising_steps=10, default_processing_resolution=512)
    found = latent_diffusion(pretrained=plain)
    assert (found.sampling, found.processing_size) == (Sampling(steps=10), 512)
    assert latent_diffusion(pretrained=plain, processing_size=0).processing_size == 0
    _change(plain / "model_index.json", default_denoising_steps=None)
    with pytest.raises(RecipeError, match="expected several steps, as leading ones do not begin with noise alone"):
        latent_diffusion(pretrained=plain)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("model_index.json", {"prediction_type": "normals"}, "a model for images or for depth at .*; it predicts normals"),
        ("model_index.json", {"prediction_type": "disparity"}, "it predicts disparity"),
        ("scheduler/scheduler_config.json", {"_class_name": "LCMScheduler"}, r"by DDIM at .*; it is distilled for a LCMSch"),
        ("scheduler/scheduler_config.json", None, r"expected JSON in .*scheduler_config\.json; .*Get the folder again"),
    ],
)
def test_a_model_that_would_be_misread_is_refused(saved, tmp_path, file, changes, message):
    other = tmp_path / "other"
    shutil.copytree(saved, other)
    if changes:
        _change(other / file, **changes)
    else:
        (other / file).write_text("{")
    with pytest.raises(CheckpointError, match=message):
        latent_diffusion(pretrained=other)


def test_weights_that_are_missing_are_named(tmp_path, saved):
    from safetensors.torch import load_file, save_file

    other = _without(saved, tmp_path / "other", "unet/diffusion_pytorch_model.safetensors")
    weights = load_file(saved / "unet" / "diffusion_pytorch_model.safetensors")
    del weights["conv_out.bias"]
    save_file(weights, other / "unet" / "diffusion_pytorch_model.safetensors")
    with pytest.raises(CheckpointError, match=r"1 are missing or too many, such as conv_out\.bias"):
        latent_diffusion(pretrained=other)


def test_without_a_connection_the_offline_way_is_named(monkeypatch):
    import huggingface_hub

    def unreachable(*args, **kwargs):
        raise ConnectionError("no route to the hub\nand more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(
        CheckpointError, match=r"at prs-eth/marigold-depth-v1-1; it cannot be had \(no route to the hub\)\. With"
    ):
        latent_diffusion(pretrained="prs-eth/marigold-depth-v1-1")


def test_without_diffusers_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(DepthKitError, match=r"expected the package diffusers; .* pip install 'depthkit\[diffusion\]'"):
        latent_diffusion_tiny()


@pytest.mark.parametrize("what", ["encode", "decode"])
def test_a_vae_that_overflows_in_half_precision_is_named(what):
    model = latent_diffusion_tiny().eval()
    model.vae.half()
    for convolution in (model.vae.encoder.conv_out, model.vae.decoder.conv_out):
        nn.init.constant_(convolution.weight, 6e4)
    with pytest.raises(
        PredictionError, match=rf"expected finite numbers from {what[:-1]}ing by the VAE; in float16 it overflowed"
    ):
        model.encode_image(torch.rand(1, 3, 16, 16)) if what == "encode" else model.decode_latent(torch.randn(1, 4, 2, 2))


def test_the_vae_leaves_autocast_and_keeps_its_own_precision(model):
    image, depth = torch.rand(1, 3, 16, 16), 1 + torch.rand(1, 1, 16, 16)
    everywhere = torch.ones_like(depth, dtype=torch.bool)
    latents = model.encode_image(image), model.encode_depth(depth, everywhere), model.decode_latent(torch.ones(1, 4, 2, 2))
    with torch.autocast("cpu", torch.bfloat16):
        again = model.encode_image(image), model.encode_depth(depth, everywhere), model.decode_latent(torch.ones(1, 4, 2, 2))
    for one, other in zip(latents, again, strict=True):
        assert_close(one, other, rtol=0, atol=0)


def test_depth_whose_sides_do_not_divide_is_refused(model):
    depth = torch.ones(1, 1, 20, 24)
    with pytest.raises(ShapeError, match=r"multiples of 8; got 20x24\. Resize or pad it to 24x24"):
        model.encode_depth(depth, torch.ones_like(depth, dtype=torch.bool))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sampling(steps=0), "expected one step and one member or more; got 0 and 1"),
        (lambda: Sampling(noise="pink"), "expected noise to be one of gaussian, zeros; got 'pink'"),
        (lambda: Sampling(members=3, noise="zeros"), "expected one member from zeros"),
        (lambda: latent_diffusion_tiny(sampling=Sampling(steps=2000)), "expected between 1 and 1000 steps; got 2000"),
        (lambda: latent_diffusion_of({**_SMALL, "in_channels": 5}, _VAE), r"expected a UNet from 8 channels .* got one from 5"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(make, message):
    with pytest.raises(RecipeError, match=message):
        make()


_SMALL = {
    "block_out_channels": [8, 8],
    "norm_num_groups": 4,
    "cross_attention_dim": 8,
    "attention_head_dim": 4,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
}
_VAE = {"block_out_channels": [8], "norm_num_groups": 4}


def _unet_of_four_channels(model):
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel.from_config({**model.config["unet"], "in_channels": 4})


def _change(file, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def _without(folder, copy, file):
    shutil.copytree(folder, copy)
    (copy / file).unlink()
    return copy


def _clip(transformers, root):
    """A small text encoder and a tokenizer of two words, in a folder."""
    config = transformers.CLIPTextConfig(
        vocab_size=2, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=77, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    encoder = transformers.CLIPTextModel(config).eval()
    encoder.save_pretrained(root / "text_encoder")
    (root / "vocab.json").write_text('{"<|startoftext|>": 0, "<|endoftext|>": 1}')
    (root / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer.from_pretrained(root, pad_token="<|endoftext|>", model_max_length=77)
    tokenizer.save_pretrained(root / "tokenizer")
    return encoder
