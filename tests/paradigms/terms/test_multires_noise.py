from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from depthkit.errors import RecipeError
from depthkit.paradigms import MultiResolutionNoise

STRATEGIES = ["original", "every_layer", "power_of_two", "random_step"]
LATENTS = torch.zeros(8, 4, 32, 48)


def low_frequency_share(noise: Tensor) -> Tensor:
    """Share of each row's power that survives averaging over 8x8 cells, ``(B,)``; 1/64 for white noise."""
    coarse = torch.nn.functional.avg_pool2d(noise, 8)
    return coarse.square().flatten(1).mean(1) / noise.square().flatten(1).mean(1)


def test_it_has_unit_deviation_over_the_batch_and_grows_with_time() -> None:
    noise = MultiResolutionNoise()(LATENTS, torch.tensor([0.0] * 4 + [1.0] * 4))
    assert_close(noise.std(), torch.tensor(1.0))
    assert noise[:4].std() < 0.97 < 1.03 < noise[4:].std()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_it_has_more_power_at_low_frequencies_than_white_noise(strategy: Any) -> None:
    white = low_frequency_share(MultiResolutionNoise(0.0)(LATENTS, torch.ones(8)))
    assert_close(white.mean(), torch.tensor(1 / 64), atol=0.004, rtol=0)
    assert (low_frequency_share(MultiResolutionNoise(strategy=strategy)(LATENTS, torch.ones(8))) > 3 / 64).all()


@pytest.mark.parametrize("strategy", ["original", "power_of_two"])
def test_annealed_noise_is_white_at_time_zero_and_unannealed_is_not(strategy: Any) -> None:
    mixed = torch.tensor([0.0] * 4 + [1.0] * 4)
    share = low_frequency_share(MultiResolutionNoise(strategy=strategy)(LATENTS, mixed))
    assert (share[:4] < 2 / 64).all()
    assert (share[4:] > 3 / 64).all()
    assert (low_frequency_share(MultiResolutionNoise(annealed=False, strategy=strategy)(LATENTS, mixed)) > 3 / 64).all()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_seed_repeats_it_and_torchs_own_chance_is_left_alone(strategy: Any) -> None:
    noise, time = MultiResolutionNoise(strategy=strategy), torch.rand(8)
    before = torch.get_rng_state()
    first, again, other = (noise(LATENTS, time, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_latents_of_any_size_and_type_have_noise_in_float32(strategy: Any) -> None:
    for size in ((1, 1), (1, 7), (5, 3)):
        noise = MultiResolutionNoise(strategy=strategy)(torch.zeros(2, 4, *size, dtype=torch.bfloat16), torch.ones(2))
        assert noise.shape[-2:] == size
        assert noise.dtype == torch.float32
        assert noise.isfinite().all()


@pytest.mark.parametrize(
    ("strategy", "sides"),
    [("every_layer", [32, 16, 8, 4, 2, 1]), ("power_of_two", [64, 32, 8, 1])],
)
def test_levels_shrink_as_their_strategy_says(strategy: Any, sides: list[int]) -> None:
    found = list(MultiResolutionNoise(strategy=strategy)._sizes(64, 96, None))
    assert found == [(side, max(1, side * 96 // 64)) for side in sides]
    assert len(list(MultiResolutionNoise(strategy=strategy)._sizes(10**9, 10**9, None))) <= 10


def test_drawn_ratios_lie_between_2_and_4() -> None:
    sizes = [list(MultiResolutionNoise()._sizes(1000, 1000, None)) for _ in range(200)]
    assert all(first == (1000, 1000) for first, *_ in sizes)
    ratios = torch.tensor([1000 / second[0] for _, second, *_ in sizes])
    assert 2 <= ratios.min() < 2.1
    assert 3.9 < ratios.max() < 4.02


def test_what_is_no_noise_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"strength of noise in \[0, 1\]; got 1.5"):
        MultiResolutionNoise(1.5)
    with pytest.raises(RecipeError, match="strategy to be one of original, every_layer"):
        MultiResolutionNoise(strategy="pyramid")  # type: ignore[arg-type]
