"""MiDaS: learn disparity up to shift and scale from many datasets at once (Ranftl et al. 2022, arXiv 1907.01341v3)."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from depthkit.errors import RecipeError
from depthkit.losses import GradientMatchingLoss, SSILoss
from depthkit.models import DepthNet
from depthkit.paradigms.base import DepthModule
from depthkit.paradigms.terms.labels import (
    DENSE,
    check_affine,
    has_label,
    labels,
    mean_over_ranks,
    mean_per_group,
    readable,
    unit_range,
)
from depthkit.paradigms.terms.pareto import Normalisation, carry_gradient, combine, flat_gradient, min_norm_combination
from depthkit.types import Ambiguity, Batch, LabelKind, Representation


class AffineInvariantModule(DepthModule):
    """Per-dataset scale-and-shift-invariant loss plus gradient matching, combined by equal weights or Pareto (MGDA).

    Each dataset ``l`` has the loss ``L_l``, the mean over its images of ``loss + gradient_weight * gradient_loss``
    (eq. 12), on labels as disparity in [0, 1]. ``combine="equal"`` minimises their mean over the datasets in the batch;
    ``combine="pareto"`` steps along the min-norm combination of their gradients (section 4). MGDA-UB is not
    offered: it needs one input for all objectives.

    Args:
        model: network that outputs disparity.
        loss: data term per image, in disparity.
        gradient_loss: regulariser per image, in disparity.
        gradient_weight: alpha of eq. 12; 0 leaves the regulariser out.
        combine: how the datasets' losses become one step.
        gradient_scope: ``all`` takes the min-norm point over all trainable parameters (exact); ``last_shared_layer`` over
            ``model.last_layer`` only, a heuristic for one extra tiny backward per dataset.
        normalisation: what each gradient is divided by before the min-norm point is found.
        batch_norm: ``mixed`` normalises over the whole mixed batch; ``frozen`` uses the running statistics (and leaves
            them); ``per_dataset`` normalises each dataset's rows alone under Pareto. With ``frozen`` and ``per_dataset`` each
            dataset runs its own rows only, so an exact Pareto step costs about one ordinary step instead of one per dataset.
        kwargs: see ``DepthModule``.

    Raises:
        LabelError: a loss says that it cannot read disparity up to shift and scale.
        RecipeError: the model does not output disparity, or a combination of options has no meaning.
    """

    def __init__(
        self,
        model: DepthNet,
        *,
        loss: nn.Module | None = None,
        gradient_loss: nn.Module | None = None,
        gradient_weight: float = 0.5,
        combine: Literal["equal", "pareto"] = "equal",
        gradient_scope: Literal["all", "last_shared_layer"] = "all",
        normalisation: Normalisation = "none",
        batch_norm: Literal["mixed", "frozen", "per_dataset"] = "mixed",
        **kwargs: Any,
    ) -> None:
        super().__init__(model, **kwargs)
        if model.representation != Representation.DISPARITY:
            raise RecipeError(f"AffineInvariantModule needs a model that outputs disparity; got {model.representation}.")
        if batch_norm == "per_dataset" and (combine, gradient_scope) != ("pareto", "all"):
            raise RecipeError(
                "batch_norm='per_dataset' needs combine='pareto' and gradient_scope='all'; use 'mixed' or 'frozen'."
            )
        self.loss = loss or SSILoss(align="median", penalty="l1", trim=0.2)
        self.gradient_loss = gradient_loss or GradientMatchingLoss(align="median")
        check_affine("loss", self.loss)
        if gradient_weight:
            check_affine("gradient_loss", self.gradient_loss)
        self.gradient_weight = gradient_weight
        self.combine = combine
        self.gradient_scope = gradient_scope
        self.normalisation: Normalisation = normalisation
        self.batch_norm = batch_norm
        self.train()  # the trainer keeps the modes it finds

    @property
    def accepts(self) -> frozenset[LabelKind]:
        """Dense labels; what they know beyond disparity up to scale and shift is not used."""
        return readable(DENSE)

    @property
    def ambiguity(self) -> Ambiguity:
        """Disparity up to scale and shift."""
        return Ambiguity.SHIFT_SCALE

    def setup(self, stage: str) -> None:
        """As in ``DepthModule``.

        Raises:
            RecipeError: Pareto steps in float16, whose gradients need a loss scale that this combination does not have.
        """
        super().setup(stage)
        if self.combine == "pareto" and "16" in str(self.trainer.precision) and "bf16" not in str(self.trainer.precision):
            raise RecipeError(
                f"combine='pareto' takes gradients without a loss scale, so float16 would lose them; got precision "
                f"{self.trainer.precision}. Use trainer.precision=bf16-mixed."
            )

    def train(self, mode: bool = True) -> "AffineInvariantModule":
        """As in torch, but frozen batch normalisation stays in evaluation mode."""
        super().train(mode)
        if self.batch_norm == "frozen":
            for module in self.model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def per_image_loss(self, prediction: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss of each image, ``(B,)``, and which images have a label, bool ``(B,)``. Override to change the objective."""
        target, valid = labels(batch, Representation.DISPARITY, DENSE)
        target = unit_range(target, valid)
        loss = self.loss(prediction, target, valid)
        if self.gradient_weight:
            loss = loss + self.gradient_weight * self.gradient_loss(prediction, target, valid)
        return loss, has_label(valid)

    def dataset_losses(self, prediction: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean loss of each dataset over all ranks, ``(K,)``, and which datasets are present, bool ``(K,)``."""
        loss, counted = self.per_image_loss(prediction, batch)
        return mean_per_group(loss, counted, batch.dataset, len(self.dataset_names))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One step along the combined gradient of the datasets' losses."""
        if self.combine == "pareto" and self.gradient_scope == "all":
            losses, present, total = self._exact_pareto(batch)
        else:
            losses, present = self.dataset_losses(self.model(batch.image), batch)
            total = combine(self._weights(losses, present), losses)
        self.log("train/loss", total.detach(), prog_bar=True, sync_dist=True, batch_size=len(batch))
        for name, loss, here in zip(self.dataset_names, losses.detach(), present, strict=True):
            self.log(f"train/{name}", loss.where(here, torch.nan), sync_dist=True, batch_size=len(batch))
        return total

    def _weights(self, losses: Tensor, present: Tensor) -> Tensor:
        if self.combine == "equal":
            return present / present.sum().clamp_min(1)
        layer = [p for p in self.model.last_layer.parameters() if p.requires_grad]
        rows = torch.stack([flat_gradient(loss, layer, retain_graph=True) for loss in losses])
        return self._min_norm(rows, mean_over_ranks(losses.detach()), present)

    def _exact_pareto(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        parameters = [p for p in self.parameters() if p.requires_grad]
        count = len(self.dataset_names)
        if self.batch_norm == "mixed":
            losses, present = self.dataset_losses(self.model(batch.image), batch)
            rows = torch.stack([flat_gradient(losses[k], parameters, retain_graph=k + 1 < count) for k in range(count)])
        else:
            rows, losses, present = self._one_forward_per_dataset(batch, parameters)
        losses = mean_over_ranks(losses.detach())
        weights = self._min_norm(rows, losses, present)
        return losses, present, carry_gradient(combine(weights, losses), combine(weights, rows), parameters)

    def _one_forward_per_dataset(self, batch: Batch, parameters: list[nn.Parameter]) -> tuple[Tensor, Tensor, Tensor]:
        rows, losses, present = [], [], []
        for k in range(len(self.dataset_names)):
            part = batch.rows(batch.dataset == k)
            prediction = self.model(part.image) if len(part) else sum(p.sum() for p in parameters) * part.target
            loss, here = self.dataset_losses(prediction, part)
            rows.append(flat_gradient(loss[k], parameters))
            losses.append(loss[k])
            present.append(here[k])
        return torch.stack(rows), torch.stack(losses), torch.stack(present)

    def _min_norm(self, rows: Tensor, losses: Tensor, present: Tensor) -> Tensor:
        weights, taking_part = min_norm_combination(rows, losses, present, self.normalisation)
        for name, weight in zip(self.dataset_names, weights, strict=True):
            self.log(f"pareto/{name}", weight, batch_size=1)
        self.log("pareto/non_finite", (present & ~taking_part).sum().float(), reduce_fx="sum", batch_size=1)
        return weights
