import copy

import pytest
import torch
from torch.testing import assert_close

from depthkit.errors import RecipeError
from depthkit.models import NoiseSchedule
from depthkit.models.diffusion.noise_schedule import SD2_SCHEDULE

KINDS = ["v_prediction", "epsilon", "sample"]


def schedule(**changes):
    return NoiseSchedule({**SD2_SCHEDULE, **changes})


@pytest.mark.parametrize("kind", KINDS)
def test_the_clean_latent_comes_back_from_the_target_at_every_timestep(kind):
    found = schedule(prediction_type=kind)
    clean, noise = torch.randn(2, 1000, 4, 2, 2, dtype=torch.float64)
    timestep = torch.arange(1000)
    noisy = found.add_noise(clean, noise, timestep)
    assert_close(found.clean(found.target(clean, noise, timestep), noisy, timestep), clean, rtol=1e-4, atol=1e-4)


def test_the_three_targets_are_one_another():
    v, epsilon, sample = (schedule(prediction_type=kind) for kind in KINDS)
    clean, noise, timestep = torch.randn(5, 4, 2, 2), torch.randn(5, 4, 2, 2), torch.tensor([0, 10, 400, 800, 999])
    noisy = v.add_noise(clean, noise, timestep)
    z0 = v.clean(v.target(clean, noise, timestep), noisy, timestep)
    assert_close(z0, sample.target(clean, noise, timestep), rtol=1e-4, atol=1e-4)
    assert_close(epsilon.clean(epsilon.target(clean, noise, timestep), noisy, timestep), z0, rtol=1e-4, atol=1e-3)
    signal, rest = (x.view(-1, 1, 1, 1) for x in (v.alphas_cumprod[timestep].sqrt(), (1 - v.alphas_cumprod[timestep]).sqrt()))
    assert_close(v.target(clean, noise, timestep), signal * noise - rest * clean)
    assert_close(signal * v.target(clean, noise, timestep) + rest * noisy, noise, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("timestep", [0, 400, 999])
def test_one_timestep_for_all_is_the_same_as_one_for_each(timestep):
    found, output, noisy = schedule(), torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2)
    assert_close(found.clean(output, noisy, timestep), found.clean(output, noisy, torch.full((3,), timestep)))


def test_zero_terminal_snr_leaves_noise_alone_at_the_end_and_the_beginning_as_it_was():
    plain, rescaled = schedule(), schedule(rescale_betas_zero_snr=True)
    assert float(plain.alphas_cumprod[-1]) == pytest.approx(0.00466, abs=1e-5)
    assert float(rescaled.alphas_cumprod[-1]) == 0
    assert_close(rescaled.alphas_cumprod[0], plain.alphas_cumprod[0])
    assert (rescaled.alphas_cumprod.diff() < 0).all()
    clean, noise, last = torch.randn(1, 4, 2, 2), torch.randn(1, 4, 2, 2), torch.tensor([999])
    assert_close(rescaled.add_noise(clean, noise, last), noise)
    assert_close(rescaled.target(clean, noise, last), -clean)


@pytest.mark.parametrize("kind", ["v_prediction", "sample"])
def test_a_perfect_network_reaches_the_clean_latent_in_any_number_of_steps(kind):
    ends = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "set_alpha_to_one": True}
    found = schedule(prediction_type=kind, **ends)
    clean = torch.randn(2, 4, 3, 3)
    for steps in (1, 2, 10):
        latent = noise = torch.randn(2, 4, 3, 3)
        for t in found.timesteps(steps):
            latent = found.step(found.target(clean, noise, torch.tensor([t, t])), latent, t, steps)
        assert_close(latent, clean, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_goes_to_the_noisy_latent_of_the_next_timestep(kind):
    found, clean, noise = schedule(prediction_type=kind, timestep_spacing="trailing"), *torch.randn(2, 2, 4, 3, 3)
    now, following = torch.tensor([749, 749]), torch.tensor([499, 499])
    latent = found.step(found.target(clean, noise, now), found.add_noise(clean, noise, now), 749, 4)
    assert_close(latent, found.add_noise(clean, noise, following), rtol=1e-4, atol=1e-4)


def test_a_clipped_sample_is_clipped_before_noise_is_added_again():
    found = schedule(prediction_type="sample", clip_sample=True, clip_sample_range=0.5, set_alpha_to_one=True)
    noisy = torch.zeros(1, 1, 1, 2)
    latent = found.step(torch.tensor([0.2, 3.0]).view(1, 1, 1, 2), noisy, 100, 10)
    plain = schedule(prediction_type="sample", set_alpha_to_one=True)
    loose = plain.step(torch.tensor([0.2, 3.0]).view(1, 1, 1, 2), noisy, 100, 10)
    assert_close(latent[..., 0], loose[..., 0])
    assert_close(
        loose[..., 1] - latent[..., 1], torch.full((1, 1, 1), 2.5 * found.alphas_cumprod[0].sqrt().item()), rtol=0.01, atol=0
    )


def test_without_alpha_set_to_one_a_residue_of_noise_stays():
    found = schedule(timestep_spacing="trailing")
    clean, noise, last = torch.zeros(1, 4, 2, 2), torch.ones(1, 4, 2, 2), torch.tensor([999])
    latent = found.step(found.target(clean, noise, last), found.add_noise(clean, noise, last), 999, 1)
    assert_close(latent, torch.full_like(latent, 0.02915), rtol=1e-3, atol=0)


def test_spacing_is_what_it_is_called():
    assert schedule(timestep_spacing="trailing").timesteps(1) == [999]
    assert schedule(timestep_spacing="trailing").timesteps(4) == [999, 749, 499, 249]
    assert schedule(timestep_spacing="leading").timesteps(4) == [751, 501, 251, 1]
    assert schedule(timestep_spacing="linspace").timesteps(2) == [999, 0]


@pytest.mark.parametrize("spacing", ["leading", "linspace"])
def test_a_single_step_that_begins_without_noise_is_refused(spacing):
    with pytest.raises(RecipeError, match=rf"as {spacing} ones do not begin with noise alone .* timestep_spacing to trailing"):
        schedule(timestep_spacing=spacing).timesteps(1)


def test_a_copy_is_the_same_schedule():
    assert torch.equal(copy.deepcopy(schedule()).alphas_cumprod, schedule().alphas_cumprod)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prediction_type": "x0"}, "expected prediction_type to be one of v_prediction, epsilon, sample; got 'x0'"),
        ({"timestep_spacing": "random"}, "expected timestep_spacing to be one of trailing, leading, linspace; got 'random'"),
        ({"prediction_type": "epsilon", "rescale_betas_zero_snr": True}, "expected v_prediction or sample .* got epsilon"),
        ({"thresholding": True}, "without dynamic thresholding"),
        ({"beta_schedule": "squaredcos_cap_v2"}, "beta_schedule to be one of linear, scaled_linear; got 'squaredcos_cap_v2'"),
    ],
)
def test_a_schedule_that_cannot_be_followed_is_refused(changes, message):
    with pytest.raises(RecipeError, match=message):
        schedule(**changes)


@pytest.mark.parametrize("steps", [0, 1001])
def test_more_steps_than_timesteps_are_refused(steps):
    with pytest.raises(RecipeError, match=f"expected between 1 and 1000 steps; got {steps}"):
        schedule().timesteps(steps)
