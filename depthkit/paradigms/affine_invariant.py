"""MiDaS: affine-invariant supervision on mixed datasets (Ranftl et al. 2022, arXiv 1907.01341)."""

from typing import Any

from torch import nn

from depthkit.errors import RecipeError
from depthkit.losses import GradientMatchingLoss, SSILoss
from depthkit.masked import masked_range
from depthkit.models import DepthNet
from depthkit.paradigms.base import DepthModule
from depthkit.paradigms.terms.combination import Combination, EqualWeights
from depthkit.paradigms.terms.labels import DENSE, check_affine, has_label, labels, readable, unit_range
from depthkit.paradigms.terms.term import Term
from depthkit.types import Ambiguity, Batch, LabelKind, Representation


class AffineInvariantModule(DepthModule):
    """Learn disparity up to scale and shift from mixed datasets, combined by equal weights or Pareto (MGDA).

    Each dataset ``l`` has the loss ``L_l``, the mean over its images of ``loss + gradient_weight * gradient_loss``
    (eq. 12), on labels as disparity in [0, 1]. ``combine=EqualWeights()`` minimises their mean over the datasets in the batch;
    ``combine=MinNorm()`` steps along the min-norm combination of their gradients (section 4). An image whose label is constant
    determines no scale and is not counted.

    Args:
        model: network that outputs disparity.
        loss: data term per image, in disparity.
        gradient_loss: regulariser per image, in disparity; default ``GradientMatchingLoss`` with the alignment of ``loss``.
        gradient_weight: alpha of eq. 12; 0 leaves the regulariser out.
        combine: how the datasets' losses become one step; default ``EqualWeights()``.
        freeze_batch_norm: normalise with the network's running statistics, kept fixed, instead of those of the mixed batch.
        kwargs: see ``DepthModule``.

    Raises:
        LabelError: a loss does not accept disparity up to shift and scale.
        RecipeError: the model does not output disparity.
    """

    def __init__(
        self,
        model: DepthNet,
        *,
        loss: nn.Module | None = None,
        gradient_loss: nn.Module | None = None,
        gradient_weight: float = 0.5,
        combine: Combination | None = None,
        freeze_batch_norm: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(model, combine=combine or EqualWeights(), **kwargs)
        if model.representation != Representation.DISPARITY:
            raise RecipeError(f"AffineInvariantModule needs a model that outputs disparity; got {model.representation}.")
        self.loss = loss or SSILoss(align="median", penalty="l1", trim=0.2)
        self.gradient_loss = gradient_loss or GradientMatchingLoss(align=getattr(self.loss, "align", "median"))
        check_affine("loss", self.loss)
        if gradient_weight:
            check_affine("gradient_loss", self.gradient_loss)
        self.gradient_weight = gradient_weight
        self.freeze_batch_norm = freeze_batch_norm
        self.train()  # the trainer keeps the modes it finds

    @property
    def accepts(self) -> frozenset[LabelKind]:
        """Dense labels, used as disparity up to scale and shift."""
        return readable(DENSE)

    @property
    def ambiguity(self) -> Ambiguity:
        """Disparity up to scale and shift."""
        return Ambiguity.SHIFT_SCALE

    def train(self, mode: bool = True) -> "AffineInvariantModule":
        """Set the mode as in torch, but keep frozen batch normalisation in evaluation mode."""
        super().train(mode)
        if self.freeze_batch_norm:
            for module in self.model.modules():
                if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm):
                    module.eval()
        return self

    def losses(self, batch: Batch) -> dict[str, Term]:
        """Compare disparity with each label moved and scaled to [0, 1] (eq. 12)."""
        target, valid = labels(batch, Representation.DISPARITY, DENSE)
        low, high = masked_range(target, valid)
        target, prediction = unit_range(target, valid), self.model(batch.image)
        loss = self.loss(prediction, target, valid)
        if self.gradient_weight:
            loss = loss + self.gradient_weight * self.gradient_loss(prediction, target, valid)
        return {"affine": Term(loss, has_label(valid) & (high > low))}
