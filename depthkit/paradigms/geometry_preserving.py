"""GP2: one network for labels of known and of unknown shift (Romanov et al. 2020, arXiv 2009.12419)."""

from typing import Any

import torch
from torch import Tensor, nn

from depthkit.errors import LabelError, PredictionError, RecipeError
from depthkit.losses import PairwiseL1SILoss, PairwiseL1SSILoss
from depthkit.masked import masked_range, per_image
from depthkit.models import DepthNet
from depthkit.paradigms.base import DepthModule
from depthkit.paradigms.terms.labels import DENSE, check_affine, check_states, has_label, labels, readable
from depthkit.paradigms.terms.term import Term
from depthkit.precision import at_least_float32
from depthkit.representation import convert
from depthkit.types import Ambiguity, Batch, LabelKind, Representation


class GeometryPreservingModule(DepthModule):
    """Learn depth up to scale from labels with known and with unknown shift: L_SI where the shift is known, L_SSI everywhere.

    Per image, ``L = I * geometric_loss + affine_loss`` (eq. 3) with I = 1 for metric and up-to-scale labels, 0 for disparity
    up to shift and scale. The few images of the first kind teach the shift that all others lack, so predictions are depth up to
    one factor, and their points keep the angles of the scene.

    Args:
        model: network that outputs log-disparity; log-depth, positive disparity and positive depth are converted to it.
        geometric_loss: loss per image on labels of known geometry, in its own representation; default ``PairwiseL1SILoss()``.
            The paper's table 2 compares ``PairwiseL2SILoss`` and the four of ``PointwiseLoss``; a loss that accepts metric
            labels only trains a metric network.
        affine_loss: loss per image on all labels, in disparity; default ``PairwiseL1SSILoss()``; MiDaS's is ``SSILoss``.
        geometric_weight: factor of ``geometric_loss``; 0 trains a network whose shift is undetermined, too.
        affine_weight: factor of ``affine_loss``; 0 learns from labels of known geometry only.
        kwargs: see ``DepthModule``.

    Raises:
        RecipeError: both weights are 0, or one is negative.
        LabelError: ``geometric_loss`` is shift-invariant, ``affine_loss`` is not, or either lacks ``representation`` or
            ``accepts``.
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
        """Ambiguity of a trained model: the least that its geometric loss accepts."""
        if not self.geometric_weight:
            return Ambiguity.SHIFT_SCALE
        return Ambiguity.SCALE if Ambiguity.SCALE in self.geometric else Ambiguity.METRIC

    def losses(self, batch: Batch) -> dict[str, Term]:
        """Compare log-disparity where the geometry is known and disparity everywhere, per labelled image (eq. 3).

        Raises:
            PredictionError: the network outputs disparity or depth, and not a positive one, which alone has a logarithm.
        """
        prediction = at_least_float32(self.model(batch.image))
        if self.model.representation in (Representation.DEPTH, Representation.DISPARITY):
            least = prediction.detach().min()
            self.expect(least > 0, lambda: _not_positive(self.model.representation, least))
        log_disparity = convert(prediction, self.model.representation, Representation.LOG_DISPARITY)
        terms = {}
        labelled = self._labelled(batch)
        if self.geometric_weight:
            terms["geometric"] = Term(self.geometric_losses(log_disparity, batch), labelled, self.geometric_weight)
        if self.affine_weight:
            terms["affine"] = Term(self.affine_losses(log_disparity, batch), labelled, self.affine_weight)
        mean_output = prediction.detach().mean((1, 2, 3))  # free to drift
        return terms | {"mean_output": Term(mean_output, torch.ones_like(labelled), weight=0.0)}

    def _labelled(self, batch: Batch) -> Tensor:
        """Tell which images have a label that one of the losses reads, bool ``(B,)``: those that the mean of eq. 3 counts."""
        read = DENSE if self.affine_weight else self.geometric
        compared = Representation.DISPARITY if self.affine_weight else self.geometric_loss.representation
        return has_label(labels(batch, compared, read)[1])

    def geometric_losses(self, log_disparity: Tensor, batch: Batch) -> Tensor:
        """Compute L_SI of each image, ``(B,)``; 0 where the geometry is not known."""
        compared = self.geometric_loss.representation
        target, valid = labels(batch, compared, self.geometric)
        values: Tensor = self.geometric_loss(convert(log_disparity, Representation.LOG_DISPARITY, compared), target, valid)
        return values

    def affine_losses(self, log_disparity: Tensor, batch: Batch) -> Tensor:
        """Compute L_SSI of each image, ``(B,)``."""
        target, valid = labels(batch, Representation.DISPARITY, DENSE)
        _, nearest = masked_range(log_disparity.detach(), valid)  # the loss is scale invariant, and exp shall not overflow
        disparity = (log_disparity - per_image(nearest, log_disparity)).where(valid, 0).exp()
        values: Tensor = self.affine_loss(disparity, target, valid)
        return values


def _not_positive(representation: Representation, least: Tensor) -> PredictionError:
    return PredictionError(
        f"expected a positive {representation}, for GP2 compares logarithms; the network predicts {float(least):.3g}. "
        "Give its head output_activation: softplus, or let it output log_disparity."
    )


def _check_losses(geometric: Any, affine: Any) -> None:
    """Check that the first is sensitive to a shift of disparity and the second is not."""
    check_states("geometric_loss", geometric)
    check_states("affine_loss", affine)
    if Ambiguity.METRIC not in geometric.accepts or Ambiguity.SHIFT_SCALE in geometric.accepts:
        raise LabelError(
            f"expected geometric_loss to tell a wrong shift of disparity; {type(geometric).__name__} accepts "
            f"{', '.join(sorted(geometric.accepts))} labels. Choose PairwiseL1SILoss, PairwiseL2SILoss or PointwiseLoss, "
            "or give it as affine_loss."
        )
    check_affine("affine_loss", affine)
