"""Multi-objective descent: the min-norm point of several gradients (MGDA; Sener & Koltun 2018, Desideri 2012)."""

from collections.abc import Sequence
from enum import StrEnum
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from depthkit.devices import sent
from depthkit.errors import DepthKitError
from depthkit.masked import per_image
from depthkit.paradigms.terms.labels import mean_over_ranks
from depthkit.precision import in_float32


class Normalisation(StrEnum):
    """Divisors of each gradient before the min-norm point is found: its norm, its loss, or both."""

    NONE = "none"
    L2 = "l2"
    LOSS = "loss"
    LOSS_PLUS = "loss+"


def pareto_weights(gram: Tensor, *, tolerance: float = 1e-6, max_iterations: int = 10_000) -> Tensor:
    """Find the weights ``a`` on the simplex that minimise ``|sum_k a_k g_k|^2`` (Sener & Koltun, eq. 3).

    For up to eight objectives every face of the simplex is solved, which is exact however the gradients conflict. For more,
    Frank-Wolfe with pairwise steps moves weight from the objective whose gradient agrees most with the current combination
    to the one that agrees least; if it does not reach ``tolerance``, its last point, the best so far, is returned.

    Args:
        gram: inner products ``g_i . g_j`` of the gradients, ``(K, K)``, symmetric positive semi-definite.
        tolerance: stop Frank-Wolfe within this fraction of the largest ``|g_k|^2`` of the minimum; inner products in float32
            carry no more.
        max_iterations: of Frank-Wolfe.

    Returns:
        Weights in float64 on the device of ``gram``, ``(K,)``, non-negative with sum 1.

    Raises:
        DepthKitError: ``gram`` is not square, or not finite.

    Example:
        >>> pareto_weights(torch.tensor([[1.0, 0.0], [0.0, 100.0]]))  # min-norm favours the small gradient
        tensor([0.9901, 0.0099], dtype=torch.float64)
    """
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1] or not len(gram):
        raise DepthKitError(f"expected gram of shape (K, K), K >= 1; got {tuple(gram.shape)}.")
    if not gram.isfinite().all():
        raise DepthKitError("expected finite inner products of gradients; got NaN or infinity. Leave such objectives out.")
    matrix = gram.detach().to("cpu", torch.float64)
    solved = _by_faces(matrix) if len(matrix) <= _FACES else _frank_wolfe(matrix, tolerance, max_iterations)
    return solved.to(gram.device)


_FACES = 8
"""Objectives up to which all 2^K - 1 faces of the simplex are solved."""


def _by_faces(matrix: Tensor) -> Tensor:
    """Solve every face of the simplex at once and return the best of the points."""
    count, scale = len(matrix), matrix.diagonal().max()
    if not scale > 0:
        return torch.full((count,), 1 / count, dtype=torch.float64)
    faces = torch.tensor(list(product((False, True), repeat=count))[1:])  # (F, K)
    inside = faces[:, :, None] & faces[:, None, :]
    system = torch.zeros(len(faces), count + 1, count + 1, dtype=torch.float64)  # stationarity and sum 1 on each face
    system[:, :count, :count] = torch.where(inside, matrix / scale, torch.diag_embed((~faces).double()))
    system[:, :count, count] = system[:, count, :count] = faces.double()
    right = torch.zeros(len(faces), count + 1, 1, dtype=torch.float64)
    right[:, count] = 1
    points = (torch.linalg.pinv(system, hermitian=True) @ right)[:, :count, 0].where(faces, 0)
    solved = (points.sum(1) - 1).abs() < 1e-6
    points = points.clamp_min(0)  # of a face whose least point lies outside, some point of the simplex, and no better
    points = points / points.sum(1, keepdim=True).clamp_min(1e-12)
    norms = torch.einsum("fi,ij,fj->f", points, matrix / scale, points).where(solved, torch.inf)
    return points[norms.argmin()]


def _frank_wolfe(matrix: Tensor, tolerance: float, max_iterations: int) -> Tensor:
    largest = matrix.diagonal().max()
    weights = torch.full((len(matrix),), 1 / len(matrix), dtype=torch.float64)
    for _ in range(max_iterations):
        slope = matrix @ weights
        into = int(slope.argmin())
        if weights @ slope - slope[into] <= tolerance * largest:
            break
        out = int(slope.where(weights > 0, -torch.inf).argmax())
        curvature = matrix[into, into] + matrix[out, out] - 2 * matrix[into, out]
        step = min(weights[out], (slope[out] - slope[into]) / curvature) if curvature > 0 else weights[out]
        weights[into] += step
        weights[out] -= step
    return weights


def flat_gradient(loss: Tensor, parameters: Sequence[nn.Parameter], *, retain_graph: bool = False) -> Tensor:
    """Return the gradient of one objective with respect to all parameters, averaged over ranks, float32 ``(P,)``.

    It bypasses DDP's hooks, so ranks average here: the Gram matrix must be that of the averaged gradients.
    """
    gradients = torch.autograd.grad(loss, parameters, retain_graph=retain_graph, materialize_grads=True)
    return mean_over_ranks(torch.cat([g.flatten().float() for g in gradients]))


@in_float32
def min_norm_combination(
    gradients: Tensor, losses: Tensor, present: Tensor, normalisation: Normalisation | str = Normalisation.NONE
) -> tuple[Tensor, Tensor]:
    """Find the min-norm weights of the present objectives.

    Args:
        gradients: one row per objective, ``(K, P)``.
        losses: their values, ``(K,)``.
        present: bool ``(K,)``; an objective that is absent, or whose gradient is not finite, gets weight 0.
        normalisation: divisor of each gradient before the weights are found: its norm (``l2``), its loss (``loss``), both
            (``loss+``). The min-norm point favours small gradients, so their scale decides the weights.

    Returns:
        Weights ``(K,)`` in the dtype of ``gradients``, and the objectives that took part, bool ``(K,)``.
    """
    # The weights are found on the CPU: the one place of a step that waits for the device, after the backward passes.
    known = torch.cat([gradients @ gradients.T, losses.detach()[None], present[None].to(losses.dtype)]).cpu()
    gram, losses, present = known[:-2], known[-2], known[-1] > 0
    taking_part = present & gram.diagonal().isfinite() & losses.isfinite()
    weights = torch.zeros_like(losses)
    if taking_part.any():
        scale = torch.ones_like(losses)
        if normalisation in (Normalisation.L2, Normalisation.LOSS_PLUS):
            scale = scale * gram.diagonal().sqrt()
        if normalisation in (Normalisation.LOSS, Normalisation.LOSS_PLUS):
            scale = scale * losses
        scale = scale.where(scale > 0, 1)[taking_part]
        chosen = gram[taking_part][:, taking_part] / scale[:, None] / scale
        weights[taking_part] = pareto_weights(chosen).to(weights)
    return sent(weights, gradients.device), sent(taking_part, gradients.device)


@in_float32
def combine(weights: Tensor, values: Tensor) -> Tensor:
    """Sum ``weights_k values_k`` over the first axis; values of weight 0 may be NaN or infinite.

    Args:
        weights: ``(K,)``.
        values: one per objective, ``(K, ...)``: its loss, or its gradient.
    """
    return torch.tensordot(weights.to(values.dtype), values.where(per_image(weights, values) != 0, 0), 1)


class _Carry(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, flat: Tensor, *parameters: Tensor) -> Tensor:
        ctx.gradients = [g.view_as(p) for g, p in zip(flat.split([p.numel() for p in parameters]), parameters, strict=True)]
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(outputs[0] * g for g in ctx.gradients)


def carry_gradient(value: Tensor, flat: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:
    """Return a scalar that equals ``value`` and has the gradient ``flat``, ``(P,)``, with respect to ``parameters``.

    Returned from ``training_step`` it hands an already computed gradient to Lightning's automatic optimisation, so that
    accumulation, clipping, loss scaling and DDP work as for any other loss.
    """
    result: Tensor = _Carry.apply(value.detach(), flat, *parameters)
    return result
