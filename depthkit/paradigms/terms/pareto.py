"""Multi-objective descent: the min-norm point of several gradients (MGDA; Sener & Koltun 2018, Desideri 2012)."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from depthkit.errors import DepthKitError
from depthkit.masked import per_image
from depthkit.paradigms.terms.labels import mean_over_ranks
from depthkit.precision import in_float32

Normalisation = Literal["none", "l2", "loss", "loss+"]


def pareto_weights(gram: Tensor, *, tolerance: float = 1e-6, max_iterations: int = 10_000) -> Tensor:
    """Weights ``a`` on the simplex that minimise ``|sum_k a_k g_k|^2`` (Sener & Koltun, eq. 3).

    Frank-Wolfe with pairwise steps: each iteration moves weight from the objective whose gradient agrees most with the
    current combination to the one that agrees least, exactly as far as helps. Two objectives take one step, the closed form
    ``a_1 = clip((g_2 - g_1) . g_2 / |g_1 - g_2|^2, 0, 1)``.

    Args:
        gram: inner products ``g_i . g_j`` of the gradients, ``(K, K)``, symmetric positive semi-definite.
        tolerance: stop when the objective is within this fraction of the largest ``|g_k|^2`` of its minimum; inner products
            in float32 carry no more.
        max_iterations: give up after so many steps.

    Returns:
        Weights in float64 on the device of ``gram``, ``(K,)``, non-negative with sum 1.

    Raises:
        DepthKitError: ``gram`` is not square, not finite, or the iteration does not converge.

    Example:
        >>> pareto_weights(torch.tensor([[1.0, 0.0], [0.0, 100.0]]))  # min-norm favours the small gradient
        tensor([0.9901, 0.0099], dtype=torch.float64)
    """
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1] or not len(gram):
        raise DepthKitError(f"expected gram of shape (K, K), K >= 1; got {tuple(gram.shape)}.")
    if not gram.isfinite().all():
        raise DepthKitError("expected finite inner products of gradients; got NaN or infinity. Leave such objectives out.")
    values, vectors = torch.linalg.eigh(gram.detach().to("cpu", torch.float64))
    matrix = vectors * values.clamp_min(0) @ vectors.T  # inner products in float32 may be negative where they should be zero
    largest = matrix.diagonal().max()
    weights = torch.full((len(matrix),), 1 / len(matrix), dtype=torch.float64)
    for _ in range(max_iterations):
        slope = matrix @ weights
        into = int(slope.argmin())
        if weights @ slope - slope[into] <= tolerance * largest:
            return weights.to(gram.device)
        out = int(slope.where(weights > 0, -torch.inf).argmax())
        curvature = matrix[into, into] + matrix[out, out] - 2 * matrix[into, out]
        step = min(weights[out], (slope[out] - slope[into]) / curvature) if curvature > 0 else weights[out]
        weights[into] += step
        weights[out] -= step
    raise DepthKitError(f"the min-norm point of {len(gram)} gradients was not found in {max_iterations} steps.")


def flat_gradient(loss: Tensor, parameters: Sequence[nn.Parameter], *, retain_graph: bool = False) -> Tensor:
    """Gradient of one objective with respect to all parameters, in float32 and one row ``(P,)``, averaged over ranks.

    It bypasses DDP's hooks, so ranks average here: the Gram matrix must be that of the averaged gradients.
    """
    gradients = torch.autograd.grad(loss, parameters, retain_graph=retain_graph, materialize_grads=True)
    return mean_over_ranks(torch.cat([g.flatten().float() for g in gradients]))


@in_float32
def min_norm_combination(
    gradients: Tensor, losses: Tensor, present: Tensor, normalisation: Normalisation = "none"
) -> tuple[Tensor, Tensor]:
    """Min-norm weights of the present objectives.

    Args:
        gradients: one row per objective, ``(K, P)``.
        losses: their values, ``(K,)``.
        present: bool ``(K,)``; an objective that is absent, or whose gradient is not finite, gets weight 0.
        normalisation: what each gradient is divided by before the weights are found: its norm (``l2``), its loss (``loss``),
            both (``loss+``). The min-norm point favours small gradients, so their scale decides the weights.

    Returns:
        Weights ``(K,)`` in the dtype of ``gradients``, and the objectives that took part, bool ``(K,)``.
    """
    gram = gradients @ gradients.T
    taking_part = present & gram.diagonal().isfinite() & losses.isfinite()
    weights = torch.zeros_like(losses)
    if taking_part.any():
        scale = torch.ones_like(losses)
        if normalisation in ("l2", "loss+"):
            scale = scale * gram.diagonal().sqrt()
        if normalisation in ("loss", "loss+"):
            scale = scale * losses.detach()
        scale = scale.where(scale > 0, 1)[taking_part]
        chosen = gram[taking_part][:, taking_part] / scale[:, None] / scale
        weights[taking_part] = pareto_weights(chosen).to(weights)
    return weights, taking_part


@in_float32
def combine(weights: Tensor, values: Tensor) -> Tensor:
    """``sum_k weights_k values_k`` over the first axis; what has weight 0 takes no part, be it NaN or infinite.

    Args:
        weights: ``(K,)``.
        values: one per objective, ``(K, ...)``: its loss, or its gradient.
    """
    return torch.tensordot(weights, values.where(per_image(weights, values) != 0, 0), 1)


class _Carry(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, flat: Tensor, *parameters: Tensor) -> Tensor:
        ctx.gradients = [g.view_as(p) for g, p in zip(flat.split([p.numel() for p in parameters]), parameters, strict=True)]
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(outputs[0] * g for g in ctx.gradients)


def carry_gradient(value: Tensor, flat: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:
    """A scalar that equals ``value`` and whose gradient with respect to ``parameters`` is ``flat`` ``(P,)``.

    Returned from ``training_step`` it hands an already computed gradient to Lightning's automatic optimisation, so that
    accumulation, clipping, loss scaling and DDP work as for any other loss.
    """
    result: Tensor = _Carry.apply(value.detach(), flat, *parameters)
    return result
