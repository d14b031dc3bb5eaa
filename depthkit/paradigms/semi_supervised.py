"""Depth Anything (Yang et al. 2024): a student learns from labels, pseudo-labels and a frozen encoder's features."""

from collections.abc import Sequence
from copy import deepcopy
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from depthkit.checks import check_choice
from depthkit.devices import sent
from depthkit.errors import LabelError, RecipeError
from depthkit.losses import FeatureAlignmentLoss, SSILoss
from depthkit.models import DepthNet, from_pretrained
from depthkit.paradigms.base import DepthModule
from depthkit.paradigms.terms.cutmix import CutMix
from depthkit.paradigms.terms.labels import DENSE, check_affine, has_label, labels, readable
from depthkit.paradigms.terms.term import Term
from depthkit.precision import at_least_float32
from depthkit.representation import convert_rows
from depthkit.resize import InputResize, multiple_of, native_map, not_finite
from depthkit.types import AMBIGUITIES, REPRESENTATIONS, Ambiguity, Batch, LabelKind, Representation


class FeatureImages(StrEnum):
    """Images whose features are aligned with the frozen encoder's."""

    UNLABELLED = "unlabelled"
    LABELLED = "labelled"
    ALL = "all"


class Outside(NamedTuple):
    """Networks that teach and are not trained: they are in no state dict, no optimizer and no DDP bucket.

    Attributes:
        teacher: labels images without a label; None if there are no such images.
        frozen: encoder with which the student's features are aligned; None if they are not, or after loading a checkpoint.
    """

    teacher: Any
    frozen: Any


class StrongView(NamedTuple):
    """Strongly augmented images for the student: unlabelled ones recoloured and mixed.

    Attributes:
        image: of every row, ``(B, 3, H, W)``; labelled ones are unchanged.
        kept: mask of the region in which a row shows its own image, bool ``(B, 1, H, W)``.
        donor: row whose image fills the other region, int64 ``(B,)``.
    """

    image: Tensor
    kept: Tensor
    donor: Tensor


class SemiSupervisedModule(DepthModule):
    """Learn from labels, from pseudo-labels of strongly augmented images, and from features of a frozen encoder.

    ``(labelled_weight L_l + unlabelled_weight L_u + feature_weight L_feat) / 3`` with each term the mean over its images
    (section 3). Unlabelled rows are those without a label, which ``teacher`` labels on the fly from the clean image, and those
    of the datasets in ``pseudo_labelled``, which have stored pseudo-labels. Teacher and frozen encoder are no part of the
    module: no optimizer, no DDP bucket and no checkpoint holds them.

    Args:
        model: the student; outputs disparity and publishes ``encode``.
        teacher: a network that states its ``representation``, such as one of transformers from
            ``models.weights.transformers_hub.load_depth``, or a MODEL; None with stored pseudo-labels or for
            labels alone (training the teacher).
        pseudo_labelled: names of datasets whose labels are pseudo-labels.
        loss: per image, in disparity; default eqs 1-3, ``SSILoss(align="median", halved=False)``.
        feature_loss: compares the coarsest maps of the encoder and the frozen encoder; default ``FeatureAlignmentLoss()``.
        feature_images: images that ``feature_loss`` compares: unlabelled, labelled or all.
        augment: recolours unlabelled images for the student, ``(N, 3, H, W)`` to the same; default strong jitter and blur.
            ``torch.nn.Identity()`` switches it off.
        cutmix: mixes unlabelled images for the student, whose regions are aligned separately; ``CutMix(0)`` switches it off.
        labelled_weight: factor of L_l.
        unlabelled_weight: factor of L_u; 0 switches it off.
        feature_weight: factor of L_feat; 0 switches it off and keeps no frozen encoder.
        kwargs: see ``DepthModule``.

    Raises:
        LabelError: the loss does not accept disparity up to shift and scale.
        RecipeError: a weight is negative, the model does not output disparity, ``feature_images`` is unknown, or the teacher
            does not state its representation.
    """

    def __init__(
        self,
        model: DepthNet,
        *,
        teacher: nn.Module | str | Path | None = None,
        pseudo_labelled: Sequence[str] = (),
        loss: nn.Module | None = None,
        feature_loss: nn.Module | None = None,
        feature_images: FeatureImages | str = FeatureImages.UNLABELLED,
        augment: nn.Module | None = None,
        cutmix: CutMix | None = None,
        labelled_weight: float = 1.0,
        unlabelled_weight: float = 1.0,
        feature_weight: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(model, **kwargs)
        weights = (labelled_weight, unlabelled_weight, feature_weight)
        if min(weights) < 0 or not any(weights):
            raise RecipeError(f"expected weights of 0 or more that are not all 0; got {weights}.")
        if model.representation != Representation.DISPARITY:
            raise RecipeError(
                f"expected a model that outputs disparity; got {model.representation}. Give its head representation disparity."
            )
        self.pseudo_labelled = tuple(pseudo_labelled)
        self.loss: Any = SSILoss(align="median", halved=False) if loss is None else loss
        check_affine("loss", self.loss)
        self.feature_loss: Any = feature_loss or FeatureAlignmentLoss()
        self.feature_images = check_choice("feature_images", feature_images, FeatureImages)
        self.augment: Any = strong_colours() if augment is None else augment
        self.cutmix = cutmix or CutMix()
        self.labelled_weight, self.unlabelled_weight, self.feature_weight = weights
        if isinstance(teacher, str | Path):
            teacher = from_pretrained(teacher)
        if teacher is not None and getattr(teacher, "representation", None) not in REPRESENTATIONS:
            raise RecipeError(
                f"expected a teacher that states its representation; {type(teacher).__name__} does not. Give it an attribute "
                "`representation: Representation`: disparity taken for depth would turn near and far around."
            )
        frozen = deepcopy(model.encoder) if feature_weight else None
        self.outside = Outside(teacher, frozen)  # a tuple hides modules from state, optimizer and DDP
        for part in (teacher, frozen):
            if part is not None:
                part.eval().requires_grad_(False)

    @property
    def accepts(self) -> frozenset[LabelKind]:
        """Dense labels; with a teacher also images without a label."""
        none = {LabelKind(Ambiguity.UNLABELLED, r) for r in Representation}
        return readable(DENSE) | (none if self.outside.teacher is not None or not self.unlabelled_weight else frozenset())

    @property
    def ambiguity(self) -> Ambiguity:
        """Disparity up to scale and shift."""
        return Ambiguity.SHIFT_SCALE

    def setup(self, stage: str) -> None:
        """Set up as ``DepthModule`` does, and check the names of the pseudo-labelled sets.

        Raises:
            RecipeError: one is not the name of a training set.
        """
        super().setup(stage)
        if stage == "fit" and (unknown := set(self.pseudo_labelled) - set(self.dataset_names)):
            raise RecipeError(
                f"expected pseudo_labelled to name training sets, {', '.join(self.dataset_names)}; got "
                f"{', '.join(sorted(unknown))}."
            )

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load as ``DepthModule`` does; without ``model`` there is no frozen encoder and training cannot continue."""
        module = super().load_from_checkpoint(checkpoint_path, *args, **kwargs)
        if "model" not in kwargs:  # the copy of an encoder with random weights
            module.outside = module.outside._replace(frozen=None)
        return module

    def on_fit_start(self) -> None:
        """Start as ``DepthModule`` does, and move teacher and frozen encoder to the module's device.

        Raises:
            RecipeError: the frozen encoder is missing.
        """
        super().on_fit_start()
        if self.feature_weight and self.outside.frozen is None:
            raise RecipeError(
                "expected the frozen encoder; no checkpoint holds it. To go on with a run, repeat its recipe and give the "
                "trainer its checkpoint; or pass model= with the weights that its encoder began with, or feature_weight=0."
            )
        for part in self.outside:
            if part is not None:
                self.trainer.precision_plugin.convert_module(part.to(self.device))

    def networks(self) -> list[nn.Module]:
        """Return the student and what teaches it."""
        return [self.model, *(part for part in self.outside if part is not None)]

    def unlabelled(self, batch: Batch) -> Tensor:
        """Tell which rows have no label or a pseudo-label, bool ``(B,)``, on the CPU."""
        rows = self._without_label(batch)
        for position, name in enumerate(self.dataset_names):
            if name in self.pseudo_labelled:
                rows = rows | (batch.on_host(batch.dataset) == position)
        return rows

    @staticmethod
    def _without_label(batch: Batch) -> Tensor:
        return batch.on_host(batch.ambiguity) == AMBIGUITIES.index(Ambiguity.UNLABELLED)

    def strongly_perturbed(self, batch: Batch, unlabelled: Tensor) -> StrongView:
        """Recolour and mix the unlabelled rows, bool ``(B,)`` on the CPU (eqs 4 and 5). No image is mixed with itself."""
        image, chosen = batch.image, unlabelled.nonzero()[:, 0]
        kept, rows = torch.ones_like(image[:, :1], dtype=torch.bool), sent(chosen, image.device)
        donor = torch.arange(len(batch))
        if len(chosen):
            image = image.clone()
            image[rows] = self.augment(image[rows])
        if len(chosen) > 1:
            circle = chosen[torch.randperm(len(chosen))]
            donor[circle] = circle.roll(1)
            kept[rows] = self.cutmix.masks(len(chosen), (image.shape[-2], image.shape[-1]), image.device)
        donor = sent(donor, image.device)
        return StrongView(torch.where(kept, image, image[donor]), kept, donor)

    @torch.no_grad()
    def pseudo_labels(self, batch: Batch, unlabelled: Tensor) -> tuple[Tensor, Tensor]:
        """Read disparity and mask of every row, ``(B, 1, H, W)``, or label the clean image by the teacher.

        ``unlabelled``, bool ``(B,)`` on the CPU, are the rows that may be labelled.

        Raises:
            LabelError: a row has no label, and there is no teacher.
        """
        target, valid = labels(batch, Representation.DISPARITY, DENSE)
        chosen = (unlabelled & self._without_label(batch)).nonzero()[:, 0]
        if not len(chosen):
            return target, valid
        teacher = self.outside.teacher
        if teacher is None:
            raise LabelError(
                f"sample {batch.keys[int(chosen[0])]!r} has no label and there is no teacher. "
                "Give one, or shards written by `depthkit label`, or set unlabelled_weight to 0."
            )
        rows = sent(chosen, batch.image.device)
        native = InputResize(rule="native", multiple=multiple_of(teacher))
        found = native_map(teacher, batch.image[rows], native, intrinsics=batch.intrinsics[rows], checked=False).map
        self.expect(found.isfinite().all(), lambda: not_finite(found))
        code = torch.full_like(rows, REPRESENTATIONS.index(teacher.representation))
        found, exists = convert_rows(found, torch.ones_like(found, dtype=torch.bool), code, Representation.DISPARITY)
        target, valid = target.clone(), valid.clone()
        target[rows], valid[rows] = found.to(target.dtype), exists
        return target, valid

    def regional_losses(self, prediction: Tensor, target: Tensor, valid: Tensor, seen: StrongView) -> Tensor:
        """Compare each region with the label of its own image, aligned alone, weighted by area (eqs 6 to 8), ``(B,)``."""
        own = seen.kept.flatten(1).float().mean(1)
        inside = self.loss(prediction, target, valid & seen.kept)
        outside = self.loss(prediction, target[seen.donor], valid[seen.donor] & ~seen.kept)
        return own * inside + (1 - own) * outside

    def feature_losses(self, features: Sequence[Tensor], image: Tensor, rows: Tensor) -> Tensor:
        """Compare features with the frozen encoder's (eq. 9), ``(B,)``; 0 where not ``rows``, bool ``(B,)`` on the CPU."""
        last = features[-1]
        chosen, losses = sent(rows.nonzero()[:, 0], last.device), 0 * last.flatten(1).sum(1)
        if not len(chosen):
            return losses
        with torch.no_grad():
            frozen = self.outside.frozen((image[chosen] - self.model.mean) / self.model.std)[-1]
        return losses.index_add(0, chosen, self.feature_loss(last[chosen], frozen).to(losses.dtype))

    def losses(self, batch: Batch) -> dict[str, Term]:
        """Compare with labels, with pseudo-labels of each region, and with the features of the frozen encoder (section 3)."""
        unlabelled = self.unlabelled(batch)
        perturbed = unlabelled & bool(self.unlabelled_weight or self.feature_weight)
        with self.step_rng():
            seen = self.strongly_perturbed(batch, perturbed)
        features = self.model.encode(seen.image)
        prediction = at_least_float32(self.model.decode(features))
        target, valid = self.pseudo_labels(batch, unlabelled & bool(self.unlabelled_weight))
        terms, third, there = {}, 1 / 3, sent(unlabelled, prediction.device)
        if self.labelled_weight:
            counted = ~there & has_label(valid)
            terms["labelled"] = Term(self.loss(prediction, target, valid), counted, self.labelled_weight * third)
        if self.unlabelled_weight:
            losses = self.regional_losses(prediction, target, valid, seen)
            terms["unlabelled"] = Term(losses, there, self.unlabelled_weight * third)
        if self.feature_weight:
            rows = {"unlabelled": unlabelled, "labelled": ~unlabelled, "all": torch.ones_like(unlabelled)}[self.feature_images]
            losses = self.feature_losses(features, seen.image, rows)
            terms["feature"] = Term(losses, sent(rows, losses.device), self.feature_weight * third)
        return terms


def strong_colours() -> nn.Module:
    """Build colour jitter and blur as strong as UniMatch's, by the same authors; Depth Anything states no magnitudes."""
    from kornia.augmentation import AugmentationSequential, ColorJitter, RandomGaussianBlur

    return AugmentationSequential(
        ColorJitter(0.5, 0.5, 0.5, 0.25, p=0.8), RandomGaussianBlur((13, 13), (0.1, 2.0), p=0.5), data_keys=["input"]
    )
