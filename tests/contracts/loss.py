"""What every loss owes its caller; a loss's own file holds only its own laws.

A new loss on labels adds itself to ``ALL_LOSSES``, one that learns without them to ``UNLABELLED_LOSSES``.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from depthkit import losses
from depthkit.losses import functional

MapLoss = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class LossCase:
    """A loss with its options: the function, and the module that must agree with it."""

    function: Callable[..., Tensor]
    module: type[nn.Module]
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return "-".join([self.module.__name__, *(f"{name}={value}" for name, value in self.options.items())])

    @property
    def call(self) -> MapLoss:
        """The function on ``pred, target, valid``."""
        return self._on_maps(partial(self.function, **self.options))

    @property
    def twin(self) -> MapLoss:
        """The module on ``pred, target, valid``."""
        return self._on_maps(self.module(**self.options))

    def _on_maps(self, loss: Callable[..., Tensor]) -> MapLoss:
        if self.module is losses.OrdinalLoss:
            return drawing_alike(loss)
        return on_maps(loss, ordinal=self.module is losses.RankingLoss)


def drawing_alike(loss: Callable[..., Tensor]) -> MapLoss:
    """A loss that draws, which draws the same at every call."""

    def call(pred: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            return loss(pred, target, valid)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return loss(pred, target, valid)

    return call


def on_maps(loss: Callable[..., Tensor], *, ordinal: bool) -> MapLoss:
    """An ordinal loss reads each pixel and its right neighbour as a pair ordered by the label, where both are valid."""
    if not ordinal:
        return loss

    def call(pred: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        batch, _, height, width = target.shape
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width - 1), indexing="ij")
        pairs = torch.stack([rows, columns, rows, columns + 1], -1).flatten(0, 1).expand(batch, -1, 4)
        both = (valid[..., 1:] & valid[..., :-1]).flatten(1)
        step = (target[..., :-1] - target[..., 1:]).flatten(1).where(both, 0)
        return loss(pred, pairs.where(both[..., None], -1), step.where(step.abs() > 0.1, 0).sign().long())

    return call


SSI = partial(LossCase, functional.ssi_loss, losses.SSILoss)
GRADIENT = partial(LossCase, functional.gradient_matching_loss, losses.GradientMatchingLoss)
POINTWISE = partial(LossCase, functional.pointwise_loss, losses.PointwiseLoss)

ALL_LOSSES = [
    SSI(),
    SSI({"penalty": "l2"}),
    SSI({"trim": 0.3, "require_positive_scale": True}),
    SSI({"align": "median"}),
    SSI({"align": "median", "trim": 0.2}),
    SSI({"align": None, "trim": 0.2, "penalty": "l2"}),
    SSI({"align": "scale", "penalty": "l2"}),
    GRADIENT(),
    GRADIENT({"align": "least_squares", "divisor": "image"}),
    GRADIENT({"align": "median", "scales": 2}),
    GRADIENT({"align": "scale"}),
    POINTWISE(),
    POINTWISE({"norm": "l2"}),
    POINTWISE({"scale_invariant": True}),
    POINTWISE({"norm": "l2", "scale_invariant": True}),
    LossCase(functional.pairwise_l1_si_loss, losses.PairwiseL1SILoss),
    LossCase(functional.pairwise_l1_ssi_loss, losses.PairwiseL1SSILoss),
    LossCase(functional.pairwise_l2_si_loss, losses.PairwiseL2SILoss),
    LossCase(functional.silog_loss, losses.SILogLoss),
    LossCase(functional.silog_loss, losses.SILogLoss, {"variance_focus": 0.5}),
    LossCase(functional.silog_loss, losses.SILogLoss, {"root": True, "factor": 10.0}),
    LossCase(functional.ranking_loss, losses.RankingLoss),
    LossCase(functional.ordinal_loss, losses.OrdinalLoss),
    LossCase(functional.normalised_gradient_loss, losses.NormalisedGradientLoss),
]


@dataclass(frozen=True)
class UnlabelledCase:
    """A loss, or an error per pixel, on images or features: arguments are drawn in float64, one row per image."""

    function: Callable[..., Tensor]
    module: type[nn.Module]
    arguments: Callable[[], tuple[Tensor, ...]]
    options: dict[str, Any] = field(default_factory=dict)
    given: dict[str, Any] = field(default_factory=dict)  # to each call

    def __str__(self) -> str:
        options = (f"{name}={value}" for name, value in (self.options | self.given).items())
        return "-".join([self.module.__name__, *options])

    def call(self, *arguments: Tensor) -> Tensor:
        """The function on its arguments."""
        return self.function(*arguments, **self.options, **self.given)

    def twin(self, *arguments: Tensor) -> Tensor:
        """The module on its arguments."""
        return self.module(**self.options)(*arguments, **self.given)


def _images(*shape: int) -> Tensor:
    return torch.rand(3, *shape, 3, 6, 7, dtype=torch.float64)


def _maps() -> tuple[Tensor, ...]:
    return 0.1 + torch.rand(3, 1, 6, 7, dtype=torch.float64), _images()


def _two_sources() -> tuple[Tensor, ...]:
    return _images(), _images(2), _images(2)


def _three_maps() -> tuple[Tensor, ...]:
    return _maps()[0], _maps()[0], _maps()[0]


def _tokens() -> tuple[Tensor, ...]:
    return torch.randn(3, 6, 4, dtype=torch.float64), torch.randn(3, 6, 4, dtype=torch.float64)


PHOTOMETRIC = partial(UnlabelledCase, functional.photometric_error, losses.PhotometricError, lambda: (_images(), _images()))
REPROJECTION = partial(UnlabelledCase, functional.min_reprojection_loss, losses.MinReprojectionLoss, _two_sources)
ALIGNMENT = partial(UnlabelledCase, functional.feature_alignment_loss, losses.FeatureAlignmentLoss, _tokens)

UNLABELLED_LOSSES = [
    PHOTOMETRIC(),
    PHOTOMETRIC({"ssim_weight": 0}),
    REPROJECTION({"automask": False}),
    REPROJECTION({"automask": False, "reduction": "mean"}),
    UnlabelledCase(functional.edge_aware_smoothness_loss, losses.EdgeAwareSmoothnessLoss, _maps),
    UnlabelledCase(functional.depth_consistency_loss, losses.DepthConsistencyLoss, _three_maps),
    ALIGNMENT(),
    ALIGNMENT({"margin": 0.3, "divisor": "all"}),
]


def random_pair(batch: int = 3, height: int = 12, width: int = 15, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    """Positive maps that resemble each other, and a mask that keeps about two thirds."""
    target = 0.5 + torch.rand(batch, 1, height, width, dtype=dtype)
    pred = target * (0.8 + 0.4 * torch.rand_like(target)) + 0.2
    return pred, target, torch.rand(batch, 1, height, width) < 0.66


def value_and_gradient(loss: MapLoss, pred: Tensor, target: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """The loss per image, ``(B,)``, and the gradient of its sum with respect to ``pred``."""
    torch.manual_seed(0)
    pred = pred.detach().clone().requires_grad_()
    value = loss(pred, target, valid)
    return value.detach(), torch.autograd.grad(value.sum(), pred)[0]
