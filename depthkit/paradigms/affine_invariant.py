"""MiDaS: affine-invariant supervision on mixed datasets (Ranftl et al. 2022, arXiv 1907.01341)."""

from typing import Any

from torch import Tensor, nn

from depthkit.errors import LabelError, PredictionError, RecipeError
from depthkit.losses import GradientMatchingLoss, SSILoss
from depthkit.masked import masked_range
from depthkit.models import DepthNet
from depthkit.paradigms.base import DepthModule
from depthkit.paradigms.terms.combination import Combination, EqualWeights
from depthkit.paradigms.terms.labels import DENSE, check_affine, check_states, has_label, labels, readable, unit_range
from depthkit.paradigms.terms.term import Term
from depthkit.representation import convert
from depthkit.types import Ambiguity, Batch, LabelKind, Representation


class AffineInvariantModule(DepthModule):
    """Learn disparity up to scale and shift from mixed datasets, combined by equal weights or Pareto (MGDA).

    Each dataset ``l`` has the loss ``L_l``, the mean over its images of ``loss + gradient_weight * gradient_loss``
    (eq. 12), on labels as disparity in [0, 1]. ``combine=EqualWeights()`` minimises their mean over the datasets in the batch;
    ``combine=MinNorm()`` steps along the min-norm combination of their gradients (section 4). An image whose label is constant
    determines no scale and is not counted.

    Figure 3 of the paper compares losses; those that leave a shift open need nothing else:

    =========  ===================================================  ===================  =======
    published  ``loss``                                             ``gradient_weight``  ``far``
    =========  ===================================================  ===================  =======
    ord        ``OrdinalLoss()``                                    0
    silog      ``SILogLoss(variance_focus=1, factor=0.5)``          0.5                  above 0
    nmg        ``NormalisedGradientLoss()``                         0
    simse      ``SSILoss(align="scale", penalty="l2")``             0.5                  0
    ssimse     ``SSILoss(align="least_squares", penalty="l2")``     0 or 0.5
    ssimae     ``SSILoss(align="median", penalty="l1")``            0.5
    ssitrim    ``SSILoss(align="median", penalty="l1", trim=0.2)``  0.5
    =========  ===================================================  ===================  =======

    Args:
        model: network that outputs disparity.
        loss: data term per image, in disparity.
        gradient_loss: regulariser per image, in disparity; default ``GradientMatchingLoss`` with the alignment of ``loss``, or
            of log-disparity beside a loss that reads another representation.
        gradient_weight: alpha of eq. 12; 0 leaves the regulariser out.
        far: disparity of the farthest labelled pixel, where the nearest has 1. It makes up the shift that labels lack, so that
            losses which know a shift can be compared with those that do not, and in their own representation; a positive
            disparity is then needed (``output_activation: softplus``). None, the default, makes up nothing.
        combine: how the datasets' losses become one step; default ``EqualWeights()``.
        freeze_batch_norm: normalise with the network's running statistics, kept fixed, instead of those of the mixed batch.
        kwargs: see ``DepthModule``.

    Raises:
        LabelError: a loss does not accept disparity up to shift and scale, and ``far`` is None.
        RecipeError: the model does not output disparity, or ``far`` is not in [0, 1), or 0 for a loss that reads depth or
            logarithms.
    """

    def __init__(
        self,
        model: DepthNet,
        *,
        loss: nn.Module | None = None,
        gradient_loss: nn.Module | None = None,
        gradient_weight: float = 0.5,
        far: float | None = None,
        combine: Combination | None = None,
        freeze_batch_norm: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(model, combine=combine or EqualWeights(), **kwargs)
        if model.representation != Representation.DISPARITY:
            raise RecipeError(f"AffineInvariantModule needs a model that outputs disparity; got {model.representation}.")
        self.loss: Any = loss or SSILoss(align="median", penalty="l1", trim=0.2)
        self.gradient_loss: Any = gradient_loss or _gradient_loss_beside(self.loss)
        self.gradient_weight, self.far = gradient_weight, far
        for name, each in [("loss", self.loss), *([("gradient_loss", self.gradient_loss)] if gradient_weight else [])]:
            if far is None:
                check_affine(name, each)
            else:
                _check_definite(name, each, far)
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
        if self.far is not None:
            target = self.far + (1 - self.far) * target
        with self.step_rng():  # of a loss that draws
            loss = self._compared(self.loss, prediction, target, valid)
            if self.gradient_weight:
                loss = loss + self.gradient_weight * self._compared(self.gradient_loss, prediction, target, valid)
        return {"affine": Term(loss, has_label(valid) & (high > low))}

    def _compared(self, loss: Any, prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """Compare two disparities in the representation of a loss, ``(B,)``."""
        reads = getattr(loss, "representation", Representation.DISPARITY)
        if reads != Representation.DISPARITY:
            least = prediction.detach().min()
            self.expect(least > 0, lambda: _not_positive(loss, reads, least))
        prediction, target = (convert(x, Representation.DISPARITY, reads) for x in (prediction, target))
        values: Tensor = loss(prediction, target, valid)
        return values


def _gradient_loss_beside(loss: Any) -> GradientMatchingLoss:
    """Compare slopes of what the data term compares."""
    if getattr(loss, "representation", Representation.DISPARITY) == Representation.DISPARITY:
        return GradientMatchingLoss(align=getattr(loss, "align", "median"))
    return GradientMatchingLoss(representation=Representation.LOG_DISPARITY)


def _check_definite(name: str, loss: Any, far: float) -> None:
    """Check that a loss can read labels between ``far`` and 1."""
    check_states(name, loss)
    if Ambiguity.METRIC not in loss.accepts:
        raise LabelError(f"expected {name} on dense labels; {type(loss).__name__} accepts {', '.join(loss.accepts)}.")
    if not 0 <= far < 1 or (far == 0 and loss.representation != Representation.DISPARITY):
        raise RecipeError(
            f"expected far in [0, 1), and above 0 for {name}, {type(loss).__name__}, which reads {loss.representation}; "
            f"got {far}."
        )


def _not_positive(loss: Any, reads: Representation, least: Tensor) -> PredictionError:
    return PredictionError(
        f"expected a positive disparity for {type(loss).__name__}, which reads {reads}; the network predicts "
        f"{float(least):.3g}. Give its head output_activation: softplus."
    )
