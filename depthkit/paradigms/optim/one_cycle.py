"""The one-cycle schedule (Smith and Topin 2018), with which ZoeDepth trains."""

import math
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from depthkit.errors import RecipeError
from depthkit.paradigms.optim.schedules import Schedule


class OneCycle(Schedule):
    """torch's ``OneCycleLR``: the rate rises and falls along cosines, Adam's momentum falls and rises.

    Args:
        rise: share of the steps in which the factor on the rate rises to 1; in the others it falls to ``final``.
        start: first factor; 1 as in ZoeDepth has no rise.
        final: last factor.
        momentum: least and greatest value of SGD's momentum or Adam's first beta; None keeps the optimizer's.
    """

    def __init__(
        self,
        *,
        rise: float = 0.3,
        start: float = 0.04,
        final: float = 4e-6,
        momentum: tuple[float, float] | None = (0.85, 0.95),
    ) -> None:
        super().__init__()
        if not 0 < rise < 1 or not 0 < final <= start <= 1:
            raise RecipeError(f"expected 0 < rise < 1 and 0 < final <= start <= 1; got {rise}, {final} and {start}.")
        self.rise, self.start, self.final, self.momentum = rise, start, final, momentum

    def __call__(self, optimizer: Optimizer, total_steps: float) -> Any:
        """Build the scheduler of a run of ``total_steps`` optimizer steps.

        Raises:
            RecipeError: the optimizer has no momentum to change, or the run has no known end.
        """
        if math.isinf(total_steps):
            raise RecipeError(
                "expected a run with a known end for OneCycle; got neither trainer.max_epochs nor trainer.max_steps. "
                "Set one of them."
            )
        if self.momentum is not None and not {"momentum", "betas"} & optimizer.defaults.keys():
            raise RecipeError(
                f"expected an optimizer with momentum; got {type(optimizer).__name__}. Set OneCycle's momentum to null."
            )
        least, greatest = self.momentum or (0.0, 0.0)
        return OneCycleLR(
            optimizer,
            [group["lr"] for group in optimizer.param_groups],
            int(total_steps),
            pct_start=self.rise,
            div_factor=1 / self.start,
            final_div_factor=self.start / self.final,
            cycle_momentum=self.momentum is not None,
            base_momentum=least,
            max_momentum=greatest,
        )
