"""Optimizers: how a recipe gives one, and those that papers name and torch lacks."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import Optimizer, RAdam

from depthkit.errors import RecipeError

OptimizerFactory = Callable[[Iterable[Any]], Optimizer]
"""Builds an optimizer from parameter groups; in a recipe, ``{class_path: torch.optim.Adam, init_args: {lr: 1.0e-4}}``."""


def adam(parameters: Iterable[Any]) -> Optimizer:
    """Build Adam with learning rate 1e-4, the optimizer of MiDaS."""
    return torch.optim.Adam(parameters, lr=1e-4)


def build_optimizer(factory: OptimizerFactory, groups: Sequence[Mapping[str, Any]], lr: float | None = None) -> Optimizer:
    """Build the optimizer of all groups that have parameters; on CUDA its fused kernel, if it has one and the recipe is silent.

    Args:
        factory: builds it.
        groups: parameters, and what they have of their own.
        lr: learning rate of groups that have none; None for the factory's.

    Raises:
        RecipeError: the optimizer refuses its settings, or the parameters.
    """
    try:
        rate = {} if lr is None else {"lr": lr}
        optimizer = factory([{**rate, **group} for group in groups if group["params"]])
    except ValueError as error:
        raise RecipeError(f"expected settings that the optimizer takes; it says: {error}. Mend model.optimizer.") from error
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    undecided = all(group.get("fused", False) is None and group.get("foreach") is None for group in optimizer.param_groups)
    if undecided and all(weight.device.type == "cuda" for weight in weights):
        for group in optimizer.param_groups:  # one kernel for all weights, and no step count to wait for
            group["fused"] = True
    return optimizer


class LookaheadRAdam(RAdam):
    """RAdam inside Lookahead (Zhang et al. 2019), the optimizer of GP2 (Romanov et al. 2020), with its betas and eps.

    RAdam steps the fast weights; every ``k`` steps the slow weights, which start where training does, move towards them and
    replace them. The slow weights are the result: ``LookaheadWeights`` puts them in place for validation and at the end of
    each epoch. A checkpoint within an epoch (``every_n_train_steps`` not a multiple of ``k``) holds fast ones.

    Args:
        params: parameters or groups of them.
        lr: learning rate.
        betas: decay rates of RAdam's running averages.
        eps: term added to RAdam's denominator.
        weight_decay: decoupled from the gradient, times ``lr``.
        alpha: fraction of the way from the slow to the fast weights that each move covers.
        k: steps between two moves.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.95, 0.999),
        eps: float = 1e-5,
        weight_decay: float = 0.0,
        alpha: float = 0.5,
        k: int = 6,
    ) -> None:
        if not 0 <= alpha <= 1 or k < 1:
            raise ValueError(f"Invalid Lookahead: alpha {alpha} is not in [0, 1], or k {k} is below 1")
        super().__init__(params, lr, (betas[0], betas[1]), eps, weight_decay, decoupled_weight_decay=True)
        lookahead = {"lookahead_alpha": alpha, "lookahead_k": k, "lookahead_step": 0}
        self.defaults.update(lookahead)
        for group in self.param_groups:
            group.update(lookahead | group)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Step the fast weights; every ``k`` steps move the slow weights to meet them."""
        fresh = [group for group in self.param_groups if not group["lookahead_step"]]
        start = {parameter: parameter.detach().clone() for group in fresh for parameter in group["params"]}
        loss = super().step(closure)
        for parameter, weights in start.items():
            if state := self.state.get(parameter):  # it has been stepped
                state["slow"] = weights
        for group in self.param_groups:
            group["lookahead_step"] += 1
            if group["lookahead_step"] % group["lookahead_k"] == 0:
                self._move(group)
        return loss

    @torch.no_grad()
    def sync_lookahead(self) -> None:
        """Move the slow weights towards the fast ones and put them in place; needs no gradients."""
        for group in self.param_groups:
            self._move(group)

    def _move(self, group: dict[str, Any]) -> None:
        for parameter in group["params"]:
            if state := self.state.get(parameter):
                slow = state.setdefault("slow", parameter.detach().clone())
                parameter.copy_(slow.lerp_(parameter, group["lookahead_alpha"]))


class LookaheadWeights(Callback):
    """Put Lookahead's slow weights in place for validation, and for the end of each epoch and its checkpoint."""

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Synchronise before validation."""
        self._synchronise(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Synchronise before the checkpoint of the epoch."""
        self._synchronise(trainer)

    @staticmethod
    def _synchronise(trainer: Trainer) -> None:
        for optimizer in trainer.optimizers:
            if hasattr(optimizer, "sync_lookahead"):
                optimizer.sync_lookahead()
