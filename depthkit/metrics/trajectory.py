"""Odometry: how far the camera of a short snippet strays from its true path, after the best scale."""

from enum import StrEnum
from typing import Any

import torch
from torch import Tensor

from depthkit.checks import check_choice
from depthkit.errors import RecipeError, ShapeError
from depthkit.geometry import chain_poses, invert_pose
from depthkit.metrics.exact import ExactSums
from depthkit.precision import in_float32, where_float64_exists


class Chaining(StrEnum):
    """Which positions a snippet has; see ``trajectory_error``."""

    PUBLISHED = "published"
    CAMERA = "camera"


@in_float32
@torch.no_grad()
def trajectory_error(
    pred: Tensor, target: Tensor, *, frames: int = 5, chaining: Chaining | str = Chaining.PUBLISHED, partial: bool = True
) -> Tensor:
    r"""Absolute trajectory error of every snippet of a sequence, in the unit of ``target`` (Zhou et al. 2017; Monodepth2).

    A snippet starts at a frame and holds its next ``frames - 1`` motions. Its N positions ``p`` and ``g`` start at the origin,
    the prediction is scaled as best fits, and the error is the root of a sum, not of a mean, over N:

    .. math:: \frac1N\sqrt{\sum_i \|s\,p_i - g_i\|^2}, \qquad s = \frac{\sum_i g_i\cdot p_i}{\sum_i \|p_i\|^2}

    ==============  ================================================================================================
    chaining        positions
    ==============  ================================================================================================
    ``published``   translations of ``T1 T2 .. Tk`` with ``Tk = next_from_current``, as in the code behind every
                    published figure; it is the path of a camera only where nothing turns, for the order is reversed
    ``camera``      where the camera is: translations of ``inv(T1) inv(T2) .. inv(Tk)``, as in ``chain_poses``
    ==============  ================================================================================================

    Args:
        pred: predicted motions ``next_from_current`` of N + 1 successive frames in any unit, ``(..., N, 4, 4)``.
        target: true motions in the same direction, same shape.
        frames: positions of a snippet; KITTI odometry is scored with 5.
        chaining: a row of the table.
        partial: also score the shorter snippets at the end, as published; else only whole ones.

    Returns:
        float64 ``(..., N)``, or ``(..., N - frames + 2)`` without ``partial``; one number per snippet. A prediction that never
        moves has no scale and needs none: its positions are 0.

    Raises:
        ShapeError: the two are not motions of one shape, or fewer than ``frames - 1`` without ``partial``.
        RecipeError: fewer than 2 frames, or another ``chaining``.

    Example:
        >>> motions = torch.eye(4).repeat(6, 1, 1)
        >>> motions[:, 2, 3] = -torch.arange(1.0, 7.0)
        >>> scaled = motions.clone()
        >>> scaled[:, :3, 3] *= 0.1
        >>> bool(trajectory_error(scaled, motions).max() < 1e-6)
        True
    """
    chaining = _check_options(frames, chaining)
    _check_motions(pred, target, frames, partial)
    pred, target = where_float64_exists(pred, target)
    motions = torch.stack([pred, target]).double()
    count = motions.shape[-3]
    motions = invert_pose(motions) if chaining == Chaining.CAMERA else motions
    starts = count if partial else count - frames + 2
    index = torch.arange(starts, device=pred.device)[:, None] + torch.arange(frames - 1, device=pred.device)
    inside = index < count
    snippets = motions[..., index.clamp(max=count - 1), :, :]
    positions = chain_poses(snippets)[..., 1:, :3, 3]  # the first is the origin of both and adds nothing
    p, g = positions.where(inside[..., None], 0)
    energy = (p * p).sum((-2, -1))
    scale = ((g * p).sum((-2, -1)) / energy).where(energy != 0, 0)
    residual = scale[..., None, None] * p - g
    return (residual**2).sum((-2, -1)).sqrt() / (1 + inside.sum(-1))


class TrajectoryError(ExactSums):
    """Mean and standard deviation over snippets of ``trajectory_error``, in the unit of the true motions.

    Args:
        frames: positions of a snippet.
        chaining: see ``trajectory_error``.
        partial: see ``trajectory_error``.

    ``compute`` gives ``trajectory_error`` and ``trajectory_error_std`` (of the snippets, not of their mean), float64;
    NaN if no snippet was scored. Sums are float64 and counts int64, so neither the batching of sequences nor the number of
    processes changes a result; snippets reach over the motions of one ``update``, so a sequence must come in one piece.

    Raises:
        RecipeError: fewer than 2 frames, or another ``chaining``.
    """

    full_state_update = False
    higher_is_better = False
    total: Tensor
    total_of_squares: Tensor
    n_snippets: Tensor

    def __init__(self, *, frames: int = 5, chaining: Chaining | str = Chaining.PUBLISHED, partial: bool = True) -> None:
        super().__init__()
        self.frames, self.chaining, self.partial = frames, _check_options(frames, chaining), partial
        for name in ("total", "total_of_squares"):
            self.add_sum(name)
        self.add_count("n_snippets")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add one sequence, or several of one length; arguments and errors as in ``trajectory_error``."""
        options: dict[str, Any] = {"frames": self.frames, "chaining": self.chaining, "partial": self.partial}
        errors = trajectory_error(preds, target, **options)
        self.accumulate("total", errors.sum())
        self.accumulate("total_of_squares", (errors**2).sum())
        self.accumulate("n_snippets", errors.numel())

    def compute(self) -> dict[str, Tensor]:
        """Mean and standard deviation over everything seen."""
        mean = self.total / self.n_snippets
        variance = self.total_of_squares / self.n_snippets - mean**2
        return {"trajectory_error": mean, "trajectory_error_std": variance.clamp_min(0).sqrt()}


def _check_motions(pred: Tensor, target: Tensor, frames: int, partial: bool) -> None:
    if pred.shape != target.shape or pred.ndim < 3 or tuple(pred.shape[-2:]) != (4, 4) or not pred.shape[-3]:
        raise ShapeError(
            "expected predicted and true motions of one shape (..., N, 4, 4), N at least 1; "
            f"got {tuple(pred.shape)} and {tuple(target.shape)}."
        )
    if not partial and pred.shape[-3] < frames - 1:
        raise ShapeError(
            f"expected at least {frames - 1} motions for snippets of {frames} frames; got {pred.shape[-3]}. "
            "Score longer sequences, shorter snippets, or partial ones."
        )


def _check_options(frames: int, chaining: Chaining | str) -> Chaining:
    if frames < 2:
        raise RecipeError(f"expected snippets of at least 2 frames; got {frames}.")
    return check_choice("chaining", chaining, Chaining)
