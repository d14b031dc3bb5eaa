"""GP2: one network for labels of known and of unknown shift (Romanov et al. 2020, arXiv 2009.12419)."""

from typing import Any

import torch
from torch import Tensor, nn

from depthkit.errors import LabelError, PredictionError, RecipeError
from depthkit.losses import PairwiseL1SILoss, PairwiseL1SSILoss
from depthkit.masked import masked_range, per_image
from depthkit.models import DepthNet
from depthkit.paradigms.base import DepthModule
from depthkit.paradigms.terms.labels import DENSE, check_affine, check_states, has_label, labels, mean_over_images, readable
from depthkit.representation import convert
from depthkit.types import Ambiguity, Batch, LabelKind, Representation


class GeometryPreservingModule(DepthModule):
    """A scale-invariant loss where the geometry is known plus a scale-and-shift-invariant one everywhere (eq. 3).

    Per image, ``L = I * geometric_loss + affine_loss`` with I = 1 for metric and up-to-scale labels, 0 for disparity up to
    shift and scale. The few images of the first kind teach the shift that all others leave open, so predictions are depth up
    to one factor, and their points keep the angles of the scene.

    Args:
        model: network that outputs log-disparity; log-depth, or positive disparity or depth, are read as it.
        geometric_loss: loss per image on labels of known geometry, in the representation it names; default
            ``PairwiseL1SILoss()``. The paper's table 2 compares it with ``PairwiseL2SILoss`` and the four of
            ``PointwiseLoss``; one that accepts metric labels only trains a metric network.
        affine_loss: loss per image on all labels, in disparity; default ``PairwiseL1SSILoss()``; MiDaS's is ``SSILoss``.
        geometric_weight: factor of ``geometric_loss``; 0 trains a network that leaves the shift open, too.
        affine_weight: factor of ``affine_loss``; 0 learns from labels of known geometry only.
        kwargs: see ``DepthModule``.

    Raises:
        RecipeError: both weights are 0, or one is negative.
        LabelError: ``geometric_loss`` ignores a shift of disparity, ``affine_loss`` does not, or one says not what it reads.
    """

    def __init__(
        self,
        model: DepthNet,
        *,
        geometric_loss: nn.Module | None = None,
        affine_loss: nn.Module | None = None,
        geometric_weight: float = 1.0,
        affine_weight: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(model, **kwargs)
        if min(geometric_weight, affine_weight) < 0 or geometric_weight + affine_weight == 0:
            raise RecipeError(
                f"expected weights of 0 or more that are not both 0; got geometric_weight={geometric_weight}, "
                f"affine_weight={affine_weight}."
            )
        self.geometric_loss: Any = geometric_loss or PairwiseL1SILoss()
        self.affine_loss: Any = affine_loss or PairwiseL1SSILoss()
        _check_losses(self.geometric_loss, self.affine_loss)
        self.geometric_weight, self.affine_weight = geometric_weight, affine_weight

    @property
    def geometric(self) -> frozenset[Ambiguity]:
        """Labels that ``geometric_loss`` reads."""
        return frozenset(self.geometric_loss.accepts) if self.geometric_weight else frozenset()

    @property
    def accepts(self) -> frozenset[LabelKind]:
        """Labels that one of the two losses reads."""
        return readable(self.geometric | (DENSE if self.affine_weight else frozenset()))

    @property
    def ambiguity(self) -> Ambiguity:
        """What a trained model leaves undetermined: the least that its geometric loss does."""
        if not self.geometric_weight:
            return Ambiguity.SHIFT_SCALE
        return Ambiguity.SCALE if Ambiguity.SCALE in self.geometric else Ambiguity.METRIC

    def geometric_losses(self, log_disparity: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """L_SI of each image, ``(B,)``, and which images have a label of known geometry, bool ``(B,)``."""
        compared = self.geometric_loss.representation
        target, valid = labels(batch, compared, self.geometric)
        pred = convert(log_disparity, Representation.LOG_DISPARITY, compared)
        return self.geometric_loss(pred, target, valid), has_label(valid)

    def affine_losses(self, log_disparity: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """L_SSI of each image, ``(B,)``, and which images have a label, bool ``(B,)``."""
        target, valid = labels(batch, Representation.DISPARITY, DENSE)
        _, nearest = masked_range(log_disparity.detach(), valid)  # the loss is scale invariant, and exp shall not overflow
        disparity = (log_disparity - per_image(nearest, log_disparity)).clamp_max(0).exp()
        return self.affine_loss(disparity, target, valid), has_label(valid)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One step on the mean over the labelled images of all ranks of eq. 3.

        Raises:
            PredictionError: the network outputs disparity or depth, and not a positive one, which alone has a logarithm.
        """
        prediction = self.model(batch.image).float()
        if self.model.representation in (Representation.DEPTH, Representation.DISPARITY) and (prediction <= 0).any():
            raise PredictionError(
                f"expected a positive {self.model.representation}, for GP2 compares logarithms; the network predicts "
                f"{prediction.min():.3g}. Give its head output_activation: softplus, or let it output log_disparity."
            )
        log_disparity = convert(prediction, self.model.representation, Representation.LOG_DISPARITY)
        loss, counted = log_disparity.sum((1, 2, 3)) * 0, torch.zeros_like(batch.real)
        for name, weight, term in (
            ("geometric", self.geometric_weight, self.geometric_losses),
            ("affine", self.affine_weight, self.affine_losses),
        ):
            if weight:
                part, read = term(log_disparity, batch)
                loss, counted = loss + weight * part, counted | read
                self._log_mean(name, part.detach(), read)
        self.log("train/mean_output", prediction.detach().mean(), sync_dist=True, batch_size=len(batch))  # free to drift
        return self._log_mean("loss", loss, counted, prog_bar=True)

    def _log_mean(self, name: str, per_image_loss: Tensor, counted: Tensor, **options: Any) -> Tensor:
        mean, some = mean_over_images(per_image_loss, counted)
        self.log(f"train/{name}", mean.detach().where(some, torch.nan), sync_dist=True, batch_size=len(counted), **options)
        return mean


def _check_losses(geometric: Any, affine: Any) -> None:
    """The first tells a wrong shift of disparity, the second cannot."""
    check_states("geometric_loss", geometric)
    check_states("affine_loss", affine)
    if Ambiguity.METRIC not in geometric.accepts or Ambiguity.SHIFT_SCALE in geometric.accepts:
        raise LabelError(
            f"expected geometric_loss to tell a wrong shift of disparity; {type(geometric).__name__} accepts "
            f"{', '.join(sorted(geometric.accepts))} labels. Choose PairwiseL1SILoss, PairwiseL2SILoss or PointwiseLoss, "
            "or give it as affine_loss."
        )
    check_affine("affine_loss", affine)
