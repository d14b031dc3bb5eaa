"""Latent diffusion against ``diffusers.MarigoldDepthPipeline`` with the same random parts."""

from itertools import product

import pytest
import torch
from torch.testing import assert_close

from depthkit.models import AffineDepth, LogDepth, NoiseSchedule, Sampling, latent_diffusion, latent_diffusion_tiny

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")


def pipeline_of(model, spacing="trailing"):
    config = {**model.scheduler.config, "timestep_spacing": spacing}
    pipeline = diffusers.MarigoldDepthPipeline(
        model.unet, model.vae, diffusers.DDIMScheduler.from_config(config), None, None, prediction_type="depth"
    )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.empty_text_embedding = model.text_embedding
    return pipeline


@pytest.mark.quick(steps=["1", "4"])
@pytest.mark.parametrize("prediction_type", ["v_prediction", "sample", "epsilon"])
@pytest.mark.parametrize("steps", [1, 4, 50])
@torch.no_grad()
def test_it_predicts_what_the_pipeline_does_from_the_same_latents(steps, prediction_type):
    zero_snr = prediction_type != "epsilon"
    changes = {"prediction_type": prediction_type, "rescale_betas_zero_snr": zero_snr, "set_alpha_to_one": zero_snr}
    model = latent_diffusion_tiny(codec=AffineDepth(), scheduler=changes).eval()
    image, latents = torch.rand(2, 3, 32, 48), torch.randn(2, 4, 4, 6)
    theirs = pipeline_of(model)(
        image, num_inference_steps=steps, latents=latents, processing_resolution=0, output_type="pt", batch_size=2,
        output_latent=True,
    )  # fmt: skip
    ours = model.denoise(model.encode_image(image), latents, steps=steps)
    assert_close(ours, theirs.latent, rtol=1e-5, atol=1e-5)
    assert_close(model.codec.decode(model.decode_latent(ours)), theirs.prediction, rtol=0, atol=1e-5)


@torch.no_grad()
def test_called_as_a_network_it_is_the_pipeline_from_its_own_noise():
    model = latent_diffusion_tiny(codec=AffineDepth(), sampling=Sampling(steps=2, seed=3)).eval()
    image = torch.rand(2, 3, 32, 48)
    latents = model.sampling.latents((1, 4, 4, 6)).repeat(2, 1, 1, 1)
    theirs = pipeline_of(model)(image, num_inference_steps=2, latents=latents, processing_resolution=0, output_type="pt")
    assert_close(model(image), theirs.prediction, rtol=0, atol=1e-5)


@torch.no_grad()
def test_members_up_to_scale_and_shift_are_fitted_to_each_other(monkeypatch):
    """The pipeline's fit; it searches by differences of float32 numbers, which only members that agree let repeat."""
    model = latent_diffusion_tiny(codec=AffineDepth(), sampling=Sampling(members=3)).eval()
    one = torch.rand(2, 1, 1, 32, 48) - 0.5
    one[..., 30:, :] = 9  # below the image
    copies = torch.cat([scale * one + shift for scale, shift in ((1, 0), (0.5, 0.3), (0.8, -0.2))], 1)
    each = iter(copies.split(1, 1))
    monkeypatch.setattr(model, "members", lambda *_, **__: next(each))
    depth, spread = model.with_uncertainty(torch.rand(2, 3, 32, 48), (30, 48))
    shown = one[:, 0, :, :30]
    low, high = shown.amin((1, 2, 3), True), shown.amax((1, 2, 3), True)
    assert_close(depth, (shown - low) / (high - low), rtol=0, atol=1e-3)
    assert spread.max() < 1e-3


@pytest.mark.parametrize("codec", [LogDepth(0.5, 80), AffineDepth()])
@torch.no_grad()
def test_a_saved_model_opens_in_the_pipeline_and_here(tmp_path, codec):
    model = latent_diffusion_tiny(codec=codec, sampling=Sampling(steps=3, seed=5)).eval()
    assert model.save_pretrained(tmp_path / "saved") == tmp_path / "saved"
    image, latents = torch.rand(1, 3, 32, 48), torch.randn(1, 4, 4, 6)
    pipeline = diffusers.MarigoldDepthPipeline.from_pretrained(tmp_path / "saved")
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline.scale_invariant == (codec == AffineDepth())
    theirs = pipeline(image, latents=latents, processing_resolution=0, output_type="pt").prediction
    y = model.decode_latent(model.denoise(model.encode_image(image), latents, steps=3))
    assert_close((y + 1) / 2, theirs, rtol=0, atol=1e-5)
    assert_close(pipeline.empty_text_embedding, model.text_embedding, rtol=1e-5, atol=1e-6)
    again = latent_diffusion(pretrained=tmp_path / "saved").eval()
    assert (again.codec, again.sampling) == (codec, model.sampling)
    assert model.scheduler.config.items() <= again.scheduler.config.items()
    assert_close(again.state_dict(), model.state_dict(), rtol=0, atol=0)
    assert_close(again(image), model(image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("steps", "spacing"),
    [
        (1, "trailing"),
        *product([*range(2, 51), 999, 1000], ["trailing", "leading", "linspace"]),
    ],  # one of the others is refused
)
def test_timesteps_and_noise_are_those_of_ddim(steps, spacing):
    config = {"timestep_spacing": spacing, "rescale_betas_zero_snr": steps % 2 == 0, "prediction_type": "v_prediction"}
    config = {**NoiseSchedule().config, **config}
    ours, theirs = NoiseSchedule(config), diffusers.DDIMScheduler.from_config(config)
    theirs.set_timesteps(steps)
    assert ours.timesteps(steps) == theirs.timesteps.tolist()
    clean, noise, timestep = torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2), torch.tensor([0, 500, 999])
    assert_close(ours.add_noise(clean, noise, timestep), theirs.add_noise(clean, noise, timestep), rtol=1e-5, atol=1e-6)
    assert_close(ours.target(clean, noise, timestep), theirs.get_velocity(clean, noise, timestep), rtol=1e-5, atol=1e-6)


def test_the_unet_of_stable_diffusion_2_has_its_published_size():
    with torch.device("meta"):
        model = latent_diffusion(pretrained=False)
    assert sum(x.numel() for x in model.unet.parameters()) == 865_922_244
    assert sum(x.numel() for x in model.vae.parameters()) == 83_653_863
    assert not any(x.requires_grad for x in model.vae.parameters())
    assert model.size_multiple == 8
