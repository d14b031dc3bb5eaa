"""Sampling of a latent diffusion model: steps, noise and members of an ensemble."""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor

from depthkit.checks import check_choice, optional_import
from depthkit.errors import RecipeError


class StartNoise(StrEnum):
    """Latents that denoising starts from."""

    GAUSSIAN = "gaussian"
    ZEROS = "zeros"


class EnsembleReduction(StrEnum):
    """Reductions of an ensemble's members to one map."""

    MEDIAN = "median"
    MEAN = "mean"


@dataclass(frozen=True)
class Sampling:
    """Settings with which a latent diffusion model predicts when it is called.

    Attributes:
        steps: calls of the UNet.
        noise: latents to start from: "gaussian", or "zeros" for a model fine-tuned end to end from zeros.
        members: number of predictions from different noise, reduced to one in y; 2 metric ones are as good as 1.
        reduction: "median" or "mean" of the members. In y, since the mean of depths in metres is too far.
        seed: of the noise, which is the same for every image of a size, so that neither the batch nor the order matters.

    Raises:
        RecipeError: fewer than one step or member, an unknown noise or reduction, or several members from zeros, which
            would all be the same.
    """

    steps: int = 1
    noise: StartNoise | str = StartNoise.GAUSSIAN
    members: int = 1
    reduction: EnsembleReduction | str = EnsembleReduction.MEDIAN
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "noise", check_choice("noise", self.noise, StartNoise))
        object.__setattr__(self, "reduction", check_choice("reduction", self.reduction, EnsembleReduction))
        if self.steps < 1 or self.members < 1:
            raise RecipeError(f"expected one step and one member or more; got {self.steps} and {self.members}.")
        if self.members > 1 and self.noise == StartNoise.ZEROS:
            raise RecipeError("expected one member from zeros, as all would be the same; set noise to gaussian for several.")

    def facts(self) -> dict[str, Any]:
        """Return the settings as plain values, for checkpoints and folders."""
        return {name: str(value) if isinstance(value, str) else value for name, value in asdict(self).items()}

    def latents(self, shape: tuple[int, ...]) -> Tensor:
        """Draw the latents to start from, of ``shape``, on the CPU."""
        if self.noise == StartNoise.ZEROS:
            return torch.zeros(shape)
        return torch.ops.depthkit.seeded_normal(shape, self.seed)

    def reduce(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Reduce members ``(B, members, 1, H, W)`` to one map and their median distance from it, ``(B, 1, H, W)`` each."""
        one = y.mean(1) if self.reduction == EnsembleReduction.MEAN else _median(y)
        return one, _median((y - one[:, None]).abs())


def fitted_together(y: Tensor, reduction: EnsembleReduction | str) -> tuple[Tensor, Tensor]:
    """Fit each image's members in scale and shift to each other and reduce them to one map, which then fills [-1, 1].

    Args:
        y: members in [-1, 1], ``(B, members, 1, H, W)``.
        reduction: of the members.

    Returns:
        The map and the members' spread, ``(B, 1, H, W)`` each.

    Raises:
        MissingPackageError: diffusers, which fits them, or scipy, with which it does, is not installed.
    """
    fit = optional_import("diffusers", "diffusion").MarigoldDepthPipeline.ensemble_depth
    optional_import("scipy", "diffusion")
    pairs = [fit((one + 1) / 2, output_uncertainty=True, reduction=str(reduction)) for one in y]
    maps, spreads = (torch.cat(part) for part in zip(*pairs, strict=True))
    return 2 * maps - 1, 2 * spreads


def _median(x: Tensor) -> Tensor:
    """Compute the median over the second axis; of an even number the mean of the two middle values."""
    ascending, count = x.sort(1).values, x.shape[1]
    return (ascending[:, (count - 1) // 2] + ascending[:, count // 2]) / 2


# an operator, so that torch.compile sees one graph: it takes no generator
torch.library.define("depthkit::seeded_normal", "(SymInt[] shape, int seed) -> Tensor")


@torch.library.impl("depthkit::seeded_normal", "CompositeExplicitAutograd")
def _(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@torch.library.register_fake("depthkit::seeded_normal")
def _(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.empty(shape)
