"""Optimizers that papers name and torch lacks."""

from collections.abc import Iterable
from typing import Any

import torch
from timm.optim import Lookahead


class LookaheadRAdam(Lookahead):
    """RAdam inside Lookahead, the optimizer of GP2 (Romanov et al. 2020, section 4), with the reference's betas and eps.

    The weights that count are Lookahead's slow ones. ``DepthModule`` brings the fast ones to them before each validation and at
    the end of each epoch, so that validated and saved weights are the slow ones; a checkpoint within an epoch
    (``every_n_train_steps`` no multiple of ``k``) holds fast ones.

    Args:
        params: parameters or groups of them.
        lr: learning rate.
        betas: as in ``torch.optim.RAdam``.
        eps: likewise.
        weight_decay: decoupled from the gradient, times ``lr``.
        alpha: how far slow weights move towards the fast ones.
        k: steps between such moves.
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
        decay: dict[str, Any] = {"weight_decay": weight_decay, "decoupled_weight_decay": True}
        super().__init__(torch.optim.RAdam(params, lr=lr, betas=(betas[0], betas[1]), eps=eps, **decay), alpha=alpha, k=k)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Step the fast weights; every ``k`` steps move the slow ones, which start where training does, towards them."""
        fresh = [group for group in self.param_groups if not group["lookahead_step"]]
        start = {parameter: parameter.detach().clone() for group in fresh for parameter in group["params"]}
        loss = self._base_optimizer.step(closure)
        for parameter, weights in start.items():
            if state := self._base_optimizer.state.get(parameter):  # it has been stepped
                state["lookahead_slow_buff"] = weights
        for group in self.param_groups:
            group["lookahead_step"] += 1
            if group["lookahead_step"] % group["lookahead_k"] == 0:
                self.update_slow(group)
        return loss

    @torch.no_grad()
    def update_slow(self, group: dict[str, Any]) -> None:
        """Move the slow weights towards the fast ones, and these to them; also between steps, when there are no gradients."""
        for parameter in group["params"]:
            if state := self._base_optimizer.state.get(parameter):
                slow = state.setdefault("lookahead_slow_buff", parameter.detach().clone())
                parameter.copy_(slow.lerp_(parameter, group["lookahead_alpha"]))
