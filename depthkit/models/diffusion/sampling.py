"""How a latent diffusion model predicts: steps, noise and members of an ensemble."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from depthkit.errors import RecipeError


@dataclass(frozen=True)
class Sampling:
    """How a latent diffusion model predicts when it is called as any other network is.

    Attributes:
        steps: calls of the UNet.
        noise: what they start from: "gaussian", or "zeros" for a model fine-tuned end to end from zeros.
        members: predictions from different noise, reduced to one in y; 2 are as good as 1.
        reduction: to their "median" or "mean". In y, as the mean of depths in metres lies too far off.
        seed: of the noise, which is the same for every image of a size, so that neither the batch nor the order matters.

    Raises:
        RecipeError: fewer than one step or member, an unknown noise or reduction, or several members from zeros, which
            are all the same.
    """

    steps: int = 1
    noise: Literal["gaussian", "zeros"] = "gaussian"
    members: int = 1
    reduction: Literal["median", "mean"] = "median"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.noise not in ("gaussian", "zeros"):
            raise RecipeError(f"expected noise to be gaussian or zeros; got {self.noise!r}.")
        if self.reduction not in ("median", "mean"):
            raise RecipeError(f"expected reduction to be median or mean; got {self.reduction!r}.")
        if self.steps < 1 or self.members < 1:
            raise RecipeError(f"expected one step and one member or more; got {self.steps} and {self.members}.")
        if self.members > 1 and self.noise == "zeros":
            raise RecipeError("expected one member from zeros, as all would be the same; set noise to gaussian for several.")

    def latents(self, shape: tuple[int, ...]) -> Tensor:
        """Where to start, ``shape``, on the CPU."""
        if self.noise == "zeros":
            return torch.zeros(shape)
        return torch.ops.depthkit.seeded_normal(shape, self.seed)

    def reduce(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Members ``(B, members, 1, H, W)`` as one map, and their median distance from it, ``(B, 1, H, W)`` each."""
        one = y.mean(1) if self.reduction == "mean" else _median(y)
        return one, _median((y - one[:, None]).abs())


def _median(x: Tensor) -> Tensor:
    """Over the second axis; the mean of the two middle values of an even number."""
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
