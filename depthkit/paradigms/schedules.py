"""Learning-rate schedules by optimizer step; each multiplies the rate of every parameter group by one factor."""

import math
from collections.abc import Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


class Schedule:
    """Constant rate after an optional linear warm-up; the other schedules refine what follows the warm-up.

    Args:
        warmup: steps over which the factor rises linearly to 1.
    """

    def __init__(self, warmup: int = 0) -> None:
        self.warmup = warmup

    def factor(self, progress: float) -> float:
        """Factor on the rate when the share ``progress`` in [0, 1] of the steps after the warm-up is done."""
        return 1.0

    def __call__(self, optimizer: Optimizer, total_steps: int) -> LambdaLR:
        """The scheduler for a run of ``total_steps`` optimizer steps."""

        def at(step: int) -> float:
            if step < self.warmup:
                return (step + 1) / self.warmup
            return self.factor(min(1.0, (step - self.warmup) / max(1, total_steps - self.warmup)))

        return LambdaLR(optimizer, at)


class LinearDecay(Schedule):
    """From 1 to ``final`` in a straight line."""

    def __init__(self, warmup: int = 0, *, final: float = 0.0) -> None:
        super().__init__(warmup)
        self.final = final

    def factor(self, progress: float) -> float:
        """See ``Schedule.factor``."""
        return 1 + (self.final - 1) * progress


class CosineDecay(Schedule):
    """From 1 to ``final`` along half a cosine, after staying at 1 for the share ``flat`` of the steps."""

    def __init__(self, warmup: int = 0, *, final: float = 0.0, flat: float = 0.0) -> None:
        super().__init__(warmup)
        self.final, self.flat = final, flat

    def factor(self, progress: float) -> float:
        """See ``Schedule.factor``."""
        bent = max(0.0, progress - self.flat) / (1 - self.flat) if self.flat < 1 else 0.0
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * bent)) / 2


class StepDecay(Schedule):
    """Times ``gamma`` at each share of the run named in ``milestones``."""

    def __init__(self, warmup: int = 0, *, milestones: Sequence[float] = (0.5, 0.75), gamma: float = 0.1) -> None:
        super().__init__(warmup)
        self.milestones, self.gamma = tuple(milestones), gamma

    def factor(self, progress: float) -> float:
        """See ``Schedule.factor``."""
        return self.gamma ** sum(progress >= share for share in self.milestones)


class ExponentialDecay(Schedule):
    """From 1 to ``final`` by the same factor every step, within the share ``until`` of the steps; from there on ``final``."""

    def __init__(self, warmup: int = 0, *, final: float = 0.01, until: float = 1.0) -> None:
        super().__init__(warmup)
        self.final, self.until = final, until

    def factor(self, progress: float) -> float:
        """See ``Schedule.factor``."""
        return self.final ** min(1.0, progress / self.until)
