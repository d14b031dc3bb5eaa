"""Learning-rate schedules by optimizer step; each multiplies the rate of every parameter group by one factor."""

import math
from collections.abc import Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from depthkit.errors import RecipeError


class Schedule:
    """Constant rate after an optional linear warm-up; other schedules change the rate after the warm-up.

    Args:
        warmup: steps over which the factor rises linearly to 1.

    Raises:
        RecipeError: an argument of this or another schedule is out of its range.
    """

    def __init__(self, warmup: int = 0) -> None:
        _require(warmup >= 0, f"warmup of 0 steps or more; got {warmup}")
        self.warmup = warmup

    def factor(self, progress: float) -> float:
        """Compute the factor on the rate at ``progress``, the share in [0, 1] of the steps after the warm-up."""
        return 1.0

    def __call__(self, optimizer: Optimizer, total_steps: float) -> LambdaLR:
        """Build the scheduler of a run of ``total_steps`` optimizer steps, infinite if only time limits the run.

        Raises:
            RecipeError: the run has no known end, and the schedule is not constant.
        """
        if math.isinf(total_steps) and type(self) is not Schedule:
            raise RecipeError(
                f"expected a run with a known end for {type(self).__name__}; got neither trainer.max_epochs nor "
                "trainer.max_steps. Set one of them, or leave the schedule out."
            )

        def at(step: int) -> float:
            if step < self.warmup:
                return (step + 1) / self.warmup
            return self.factor(min(1.0, (step - self.warmup) / max(1, total_steps - self.warmup)))

        return LambdaLR(optimizer, at)


class LinearDecay(Schedule):
    """Linear fall from 1 to ``final``, or by another ``power`` of the share of steps left."""

    def __init__(self, warmup: int = 0, *, final: float = 0.0, power: float = 1.0) -> None:
        super().__init__(warmup)
        _require(final >= 0, f"final of 0 or more, a factor on the rate; got {final}")
        _require(power > 0, f"power above 0; got {power}")
        self.final, self.power = final, power

    def factor(self, progress: float) -> float:
        """See ``Schedule.factor``."""
        return self.final + (1 - self.final) * (1 - progress) ** self.power


class CosineDecay(Schedule):
    """Fall from 1 to ``final`` along half a cosine, after a constant share ``flat`` of the steps."""

    def __init__(self, warmup: int = 0, *, final: float = 0.0, flat: float = 0.0) -> None:
        super().__init__(warmup)
        _require(final >= 0, f"final of 0 or more, a factor on the rate; got {final}")
        _require(0 <= flat < 1, f"flat from 0 to below 1, a share of the run; got {flat}")
        self.final, self.flat = final, flat

    def factor(self, progress: float) -> float:
        """See ``Schedule.factor``."""
        bent = max(0.0, progress - self.flat) / (1 - self.flat)
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * bent)) / 2


class StepDecay(Schedule):
    """Factor ``gamma`` at each of the ``milestones``, shares of the run."""

    def __init__(self, warmup: int = 0, *, milestones: Sequence[float] = (0.5, 0.75), gamma: float = 0.1) -> None:
        super().__init__(warmup)
        _require(all(0 <= share <= 1 for share in milestones), f"milestones from 0 to 1, shares of the run; got {milestones}")
        _require(gamma >= 0, f"gamma of 0 or more, a factor on the rate; got {gamma}")
        self.milestones, self.gamma = tuple(milestones), gamma

    def factor(self, progress: float) -> float:
        """See ``Schedule.factor``."""
        return self.gamma ** sum(progress >= share for share in self.milestones)


class ExponentialDecay(Schedule):
    """Fall from 1 to ``final`` by the same factor every step within the share ``until`` of the steps, then ``final``."""

    def __init__(self, warmup: int = 0, *, final: float = 0.01, until: float = 1.0) -> None:
        super().__init__(warmup)
        _require(final > 0, f"final above 0, a factor on the rate; got {final}")
        _require(0 < until <= 1, f"until from above 0 to 1, a share of the run; got {until}")
        self.final, self.until = final, until

    def factor(self, progress: float) -> float:
        """See ``Schedule.factor``."""
        return self.final ** min(1.0, progress / self.until)


def _require(holds: bool, expectation: str) -> None:
    if not holds:
        raise RecipeError(f"expected {expectation}.")
