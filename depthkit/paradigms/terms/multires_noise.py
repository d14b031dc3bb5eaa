"""Annealed multi-resolution noise, with which Marigold trains (Ke et al. 2024, section 3.2)."""

from collections.abc import Iterator
from typing import Literal, get_args

import torch
from torch import Generator, Tensor
from torch.nn.functional import interpolate

from depthkit.errors import RecipeError
from depthkit.masked import per_image
from depthkit.precision import in_float32

Strategy = Literal["original", "every_layer", "power_of_two", "random_step"]
_LEVELS = 10


class MultiResolutionNoise:
    r"""White noise plus coarser white noise, scaled up and ever weaker; images differ from noise at low frequencies, too.

    .. math:: \epsilon = \Big(n_0 + \sum_i s^i\, \mathrm{up}(n_i)\Big) / \sigma

    with sigma the standard deviation over the whole batch: rows early in the diffusion come out below unit deviation, late ones
    above.

    Args:
        strength: s in [0, 1]; 0 is plain white noise.
        annealed: s falls in proportion to the time of each row, down to 0 for an image without noise, where ``original`` and
            ``power_of_two`` are white.
        strategy: by what the sides of level i are those of the one before divided: ``r**i`` with r drawn from [2, 4) at each
            (``original``; level 0 is at full resolution once more), ``2**i`` (``power_of_two``), 2 (``every_layer``) or r
            (``random_step``).

    Raises:
        RecipeError: a strength outside [0, 1], or an unknown strategy.

    Example:
        >>> noise = MultiResolutionNoise()(torch.zeros(2, 4, 16, 24), torch.tensor([0.1, 0.9]))
        >>> bool((noise.std() - 1).abs() < 1e-5)
        True
    """

    def __init__(self, strength: float = 0.9, *, annealed: bool = True, strategy: Strategy = "original") -> None:
        if not 0 <= strength <= 1:
            raise RecipeError(f"expected a strength of noise in [0, 1]; got {strength}.")
        if strategy not in get_args(Strategy):
            raise RecipeError(f"expected a strategy of noise among {', '.join(get_args(Strategy))}; got {strategy!r}.")
        self.strength, self.annealed, self.strategy = strength, annealed, strategy

    @in_float32
    def __call__(self, like: Tensor, time: Tensor, generator: Generator | None = None) -> Tensor:
        """Noise of the shape of ``like``.

        Args:
            like: latents ``(B, C, h, w)``.
            time: share of the diffusion that each row has gone through, in [0, 1], ``(B,)``.
            generator: where chance comes from, on the device of ``like``; None for torch's own.
        """
        noise = torch.randn(like.shape, generator=generator, device=like.device)
        if not self.strength:
            return noise
        weight = per_image(
            self.strength * time.to(noise) if self.annealed else torch.full_like(time, self.strength).to(noise), noise
        )
        height, width = like.shape[-2:]
        for level, size in enumerate(self._sizes(height, width, like.device, generator)):
            coarse = torch.randn(*like.shape[:2], *size, generator=generator, device=like.device)
            noise = noise + weight**level * interpolate(coarse, (height, width), mode="bilinear", align_corners=False)
        return noise / noise.std()

    def _sizes(self, height: int, width: int, device: torch.device, generator: Generator | None) -> Iterator[tuple[int, int]]:
        """Sizes of the levels, down to one with a side of 1."""
        fixed, cumulative = self.strategy in ("every_layer", "power_of_two"), self.strategy in ("original", "power_of_two")
        for level in range(_LEVELS):
            ratio = 2.0 if fixed else 2 + 2 * float(torch.rand((), generator=generator, device=device))
            ratio = ratio**level if cumulative else ratio
            height, width = max(1, int(height / ratio)), max(1, int(width / ratio))
            yield height, width
            if min(height, width) == 1:
                return
