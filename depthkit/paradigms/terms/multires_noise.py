"""Annealed multi-resolution noise, with which Marigold trains (Ke et al. 2024, section 3.2)."""

from collections.abc import Iterator
from enum import StrEnum

import torch
from torch import Generator, Tensor
from torch.nn.functional import interpolate

from depthkit.checks import check_choice
from depthkit.errors import RecipeError
from depthkit.masked import per_image
from depthkit.precision import in_float32

_LEVELS = 10


class Strategy(StrEnum):
    """Rules for the sizes of the levels; see ``MultiResolutionNoise``."""

    ORIGINAL = "original"
    EVERY_LAYER = "every_layer"
    POWER_OF_TWO = "power_of_two"
    RANDOM_STEP = "random_step"


class MultiResolutionNoise:
    r"""White noise plus ever weaker coarse noise, so that low frequencies of images are learnt, too.

    .. math:: \epsilon = \Big(n_0 + \sum_i s^i\, \mathrm{up}(n_i)\Big) / \sigma

    with sigma the standard deviation over the whole batch: rows early in the diffusion get less than unit deviation, late rows
    more.

    Args:
        strength: s in [0, 1]; 0 is plain white noise.
        annealed: make s proportional to the time of each row, down to 0 for an image without noise, where ``original`` and
            ``power_of_two`` are white.
        strategy: divisor of the sides from level i - 1 to level i: ``r**i`` with r drawn from [2, 4) at each level
            (``original``; level 0 has full resolution again), ``2**i`` (``power_of_two``), 2 (``every_layer``) or r
            (``random_step``).

    Raises:
        RecipeError: the strength is outside of [0, 1], or the strategy is unknown.

    Example:
        >>> noise = MultiResolutionNoise()(torch.zeros(2, 4, 16, 24), torch.tensor([0.1, 0.9]))
        >>> bool((noise.std() - 1).abs() < 1e-5)
        True
    """

    def __init__(self, strength: float = 0.9, *, annealed: bool = True, strategy: Strategy | str = Strategy.ORIGINAL) -> None:
        if not 0 <= strength <= 1:
            raise RecipeError(f"expected a strength of noise in [0, 1]; got {strength}.")
        self.strength, self.annealed = strength, annealed
        self.strategy = check_choice("strategy", strategy, Strategy)

    @in_float32
    def __call__(self, like: Tensor, time: Tensor, generator: Generator | None = None) -> Tensor:
        """Draw noise of the shape of ``like``.

        Args:
            like: latents ``(B, C, h, w)``.
            time: time of each row in the diffusion, in [0, 1], ``(B,)``.
            generator: on the device of ``like``; None for torch's global ones, of which the CPU's draws the levels' sizes.
        """
        noise = torch.randn(like.shape, generator=generator, device=like.device)
        if not self.strength:
            return noise
        weight = per_image(
            self.strength * time.to(noise) if self.annealed else torch.full_like(time, self.strength).to(noise), noise
        )
        height, width = like.shape[-2:]
        for level, size in enumerate(self._sizes(height, width, generator)):
            coarse = torch.randn(*like.shape[:2], *size, generator=generator, device=like.device)
            noise = noise + weight**level * interpolate(coarse, (height, width), mode="bilinear", align_corners=False)
        return noise / noise.std()

    def _sizes(self, height: int, width: int, generator: Generator | None) -> Iterator[tuple[int, int]]:
        """Draw the sizes of the levels, down to one with a side of 1; by the CPU's generator unless one is given."""
        fixed = self.strategy in (Strategy.EVERY_LAYER, Strategy.POWER_OF_TWO)
        cumulative = self.strategy in (Strategy.ORIGINAL, Strategy.POWER_OF_TWO)
        drawn_on = "cpu" if generator is None else generator.device
        for level in range(_LEVELS):
            ratio = 2.0 if fixed else 2 + 2 * float(torch.rand((), generator=generator, device=drawn_on))
            ratio = ratio**level if cumulative else ratio
            height, width = max(1, int(height / ratio)), max(1, int(width / ratio))
            yield height, width
            if min(height, width) == 1:
                return
