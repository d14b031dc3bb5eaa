"""How a number came about, as data: what is aligned, masked, cropped, clamped, resized and averaged, and in which order."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from depthkit.alignment import Alignment, Degrees, apply_scale_shift
from depthkit.checks import check_choice, check_map, check_valid
from depthkit.errors import LabelError, PredictionError, RecipeError
from depthkit.evaluation.crops import FULL, Crop
from depthkit.masked import masked_count, masked_range, per_image
from depthkit.metrics import Formula, Reduction
from depthkit.precision import in_float32, where_float64_exists
from depthkit.representation import check_convertible, clamp_depth, convert, convert_label, convert_rows, depth_limits
from depthkit.resize import InputResize, OutputResize, check_finite
from depthkit.types import AMBIGUITIES, REPRESENTATIONS, Ambiguity, Batch, LabelKind, Representation


class Step(StrEnum):
    """An operation between a prediction and its score."""

    RESIZE = "resize"
    MASK = "mask"
    CROP = "crop"
    ALIGN = "align"
    CLAMP = "clamp"


class ScaleOf(StrEnum):
    """What one fitted scale holds for: an image, or the whole set."""

    IMAGE = "image"
    SET = "set"


STEPS = tuple(Step)
_INVERSES = (Representation.DISPARITY, Representation.LOG_DISPARITY)
_SIGNED = (Representation.LOG_DEPTH, Representation.LOG_DISPARITY)


def kinds(*ambiguities: Ambiguity) -> frozenset[LabelKind]:
    """Labels of these ambiguities in whatever representation they were stored."""
    return frozenset(LabelKind(a, r) for a in ambiguities for r in REPRESENTATIONS)


class Comparison(NamedTuple):
    """What the metrics of a protocol read: prediction and label after its last step.

    Attributes:
        pred: in the protocol's space, ``(B, 1, H, W)``; any value where not valid.
        target: label in the same space, ``(B, 1, H, W)``; any value where not valid.
        valid: pixels that are scored, bool ``(B, 1, H, W)``; all False in an image that is left out.
        pairs: ordinal label, ``(B, P, 5)``.
        labelled: number of pixels that the label, its range, the crop and what was shown leave to score, int64 ``(B,)``.
        degenerate: the alignment found no scale, bool ``(B,)``: the image is scored as its best constant map, or NaN.
        scale: the factor that fits each image, float64 ``(B,)``; 1 if the protocol fits none, NaN where none exists.
        edges: where the label jumps, bool ``(B, 1, H, W)``; None if that is not known.
    """

    pred: Tensor
    target: Tensor
    valid: Tensor
    pairs: Tensor
    labelled: Tensor
    degenerate: Tensor
    scale: Tensor
    edges: Tensor | None = None


@dataclass(frozen=True)
class Protocol:
    """A named, cited way of scoring predictions.

    Attributes:
        name: how reports and recipes call it.
        source: citation.
        accepts: label kinds it can score.
        metrics: formula of each number, by name. Those of depth read ``space``; that of point pairs reads ``pairs``, those of
            edges the whole prediction and ``Batch.edges``.
        alignment: what may be wrong with a prediction, fitted per image in ``alignment.space``; None: nothing may.
        scale_of: ``"image"``: each image is scored with its own fit; ``"set"``: with the median of the scales of all images,
            which ``evaluate`` finds in a pass of its own before it scores.
        space: what predictions and labels are when they are compared.
        unit_labels: labels are moved and scaled to [0, 1] per image before the fit, for their unit shall not matter; needs an
            alignment of scale and shift in ``space``.
        min_depth: predictions are raised to it [m]; 0 does not.
        max_depth: predictions are lowered to it [m]; an aligned disparity below ``1 / max_depth``, also a negative one,
            becomes it.
        label_range: labels between these depths are scored, both excluded [m].
        crop: rectangle that is scored.
        shown: rectangle of the image that the network sees; the rest of the image has no prediction and is not scored.
        input: how what is shown is resized for the network.
        output: how the prediction is resized to the label; in the model's ``resize_space`` unless it states a space.
        order: order of the operations, each of ``STEPS`` once. A fit sees the pixels and values that the steps before it left.
        reduction: ``"image"``: mean over images of per-image values; ``"pixel"``: pixels of all images pooled.
        coarse_labels: labels may have fewer pixels than their images; else both must be of one size.
        min_valid: images with fewer scored pixels are left out and counted, as are those without a scored point pair.
        published: figures of the source by model, for printing beside; same units as ``metrics``.

    Raises:
        RecipeError: the parts contradict each other.
        LabelError: an accepted label has no value in ``space``.
    """

    name: str
    source: str
    accepts: frozenset[LabelKind]
    metrics: Mapping[str, Formula]
    alignment: Alignment | None = None
    scale_of: ScaleOf | str = ScaleOf.IMAGE
    space: Representation = Representation.DEPTH
    unit_labels: bool = False
    min_depth: float = 0.0
    max_depth: float = torch.inf
    label_range: tuple[float, float] = (0.0, torch.inf)
    crop: Crop = FULL
    shown: Crop = FULL
    input: InputResize = field(default_factory=InputResize)
    output: OutputResize = field(default_factory=OutputResize)
    order: tuple[Step | str, ...] = STEPS
    reduction: Reduction | str = Reduction.IMAGE
    coarse_labels: bool = False
    min_valid: int = 10
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.metrics:
            raise RecipeError(f"protocol {self.name!r}: expected at least one metric.")
        if sorted(self.order) != sorted(STEPS):
            raise RecipeError(
                f"protocol {self.name!r}: expected order to hold each of {', '.join(STEPS)} once; got {self.order}."
            )
        object.__setattr__(self, "order", tuple(Step(step) for step in self.order))
        object.__setattr__(self, "scale_of", check_choice("scale_of", self.scale_of, ScaleOf))
        object.__setattr__(self, "reduction", check_choice("reduction", self.reduction, Reduction))
        if self.order.index(Step.RESIZE) > self.order.index(Step.ALIGN):
            raise RecipeError(f"protocol {self.name!r}: expected resize before align, which needs both maps at one size.")
        if not 0 <= self.min_depth < self.max_depth:
            raise RecipeError(
                f"protocol {self.name!r}: expected 0 <= min_depth < max_depth; got {self.min_depth}, {self.max_depth}."
            )
        one_scale = self.alignment is not None and self.alignment.degrees == Degrees.SCALE
        if self.scale_of == ScaleOf.SET and (not one_scale or self._without_unit()):
            raise RecipeError(
                f"protocol {self.name!r}: expected an alignment of scale, and metric labels alone, for scale_of='set'; labels "
                "of unknown scale have no factor in common."
            )
        affine = self.alignment is not None and self.alignment.degrees == Degrees.SCALE_SHIFT
        if self.unit_labels and not (affine and self.alignment is not None and self.alignment.space == self.space):
            raise RecipeError(
                f"protocol {self.name!r}: expected an alignment of scale and shift in {self.space} for unit_labels."
            )
        for kind in self.accepts:
            if kind.ambiguity != Ambiguity.ORDINAL:
                check_convertible(kind, self.space)
        if self.alignment is None:
            return
        inverted = self.alignment.space in _INVERSES and self.alignment.space != self.space
        if self.alignment.degrees == Degrees.SCALE_SHIFT and inverted and self.max_depth == torch.inf:
            raise RecipeError(
                f"protocol {self.name!r}: expected a finite max_depth: a shift fitted in {self.alignment.space} can leave "
                "pixels beyond infinity."
            )

    def _without_unit(self) -> bool:
        return any(kind.ambiguity != Ambiguity.METRIC for kind in self.accepts)

    @property
    def ordinal(self) -> bool:
        """Whether it scores the order of point pairs instead of dense labels."""
        return any(kind.ambiguity == Ambiguity.ORDINAL for kind in self.accepts)

    def input_size(self, height: int, width: int, multiple: int = 1) -> tuple[int, int]:
        """(height, width) [px] of the network's input for an image of this size; ``multiple`` as in ``InputResize.size``."""
        top, bottom, left, right = self.shown.box(height, width)
        return self.input.size(bottom - top, right - left, multiple)

    def resize_input(self, image: Tensor, multiple: int = 1) -> Tensor:
        """Crop images ``(B, 3, H, W)`` in [0, 1] to what is shown, at the size for a network with this ``size_multiple``."""
        top, bottom, left, right = self.shown.box(image.shape[-2], image.shape[-1])
        return self.input(image[..., top:bottom, left:right], multiple)

    def check_prediction(self, representation: Representation, ambiguity: Ambiguity | None) -> None:
        """Check that a model that leaves this much undetermined can be scored.

        What is known up to shift and scale is depth or disparity, also where a model predicts its logarithm.

        Raises:
            LabelError: the protocol resolves less, or resolves it in another representation.
        """
        if self.ordinal or ambiguity in (None, Ambiguity.METRIC):
            return
        if self.alignment is not None:
            affine = Representation.DISPARITY if representation in _INVERSES else Representation.DEPTH
            fits_shift = self.alignment.degrees == Degrees.SCALE_SHIFT and self.alignment.space == affine
            if ambiguity == Ambiguity.SCALE or (ambiguity == Ambiguity.SHIFT_SCALE and fits_shift):
                return
        resolves = f"{self.alignment.degrees} in {self.alignment.space}" if self.alignment else "nothing"
        raise LabelError(
            f"protocol {self.name!r} aligns {resolves}; the model predicts {representation} with ambiguity {ambiguity}. "
            "Choose a protocol that aligns what the model leaves open."
        )

    def score(
        self,
        pred: Tensor,
        representation: Representation,
        target: Tensor,
        valid: Tensor,
        *,
        kind: LabelKind,
        scale: float | None = None,
        resize_space: Representation | None = None,
    ) -> dict[str, Tensor]:
        """Every metric of each image, and what became of it.

        Args:
            pred: prediction in ``representation``, ``(B, 1, h, w)``, at any size.
            representation: what its numbers are.
            target: dense label, ``(B, 1, H, W)``; any value where not valid.
            valid: bool, ``(B, 1, H, W)``.
            kind: what the label leaves undetermined and what its numbers are.
            scale: of the whole set, for ``scale_of="set"``; None for every other protocol.
            resize_space: in which the model wants its predictions resized, where ``output`` states no space.

        Returns:
            The values by the names of ``metrics``, float64 ``(B,)``, NaN in an image left out; ``scale``, the factor that fits
            the image, float64 ``(B,)``; and bool ``left_out`` and ``degenerate`` ``(B,)``.

        Raises:
            LabelError: the protocol does not score such labels.
            PredictionError: the prediction is not finite, or not positive where depth and disparity convert.
            RecipeError: ``scale`` is missing, or given to a protocol that fits each image.
            ShapeError: shapes do not fit together.
        """
        self.check_label(kind)
        self.check_scale(scale)
        check_map("target", target)
        check_valid(valid, target)
        target, valid = convert_label(target, valid, kind.representation, self.space)
        pairs = torch.zeros(len(pred), 0, 5, dtype=torch.int64)
        comparison = self._compare(pred, representation, target, valid, pairs, scale, resize_space)
        sums = self.sums(comparison)
        values = {name: self.metrics[name].value(*parts) for name, parts in sums.items()}
        found = {"scale": comparison.scale, "left_out": ~_scored(sums), "degenerate": comparison.degenerate}
        return values | found

    def compare(
        self,
        pred: Tensor,
        representation: Representation,
        batch: Batch,
        *,
        scale: float | None = None,
        resize_space: Representation | None = None,
    ) -> Comparison:
        """Take prediction ``(B, 1, h, w)`` and label of each row of a batch through all steps; options, errors as ``score``."""
        self.check_scale(scale)
        codes = (batch.on_host(x).tolist() for x in (batch.ambiguity, batch.representation))
        for key, ambiguity, stored in zip(batch.keys, *codes, strict=True):
            self.check_label(LabelKind(AMBIGUITIES[ambiguity], REPRESENTATIONS[stored]), key)
        target, valid = convert_rows(batch.target, batch.valid, batch.representation, self.space)
        found = self._compare(pred, representation, target, valid, batch.pairs, scale, resize_space)
        return found._replace(edges=batch.edges.to(found.pred.device) if batch.edges.shape[1] else None)

    def sums(self, comparison: Comparison) -> dict[str, tuple[Tensor, Tensor]]:
        """Compute the additive sums and the count of each metric, as ``depthkit.metrics.Formula.sums``."""
        return {name: formula.sums(*self._read_by(formula, comparison)) for name, formula in self.metrics.items()}

    def _read_by(self, formula: Formula, comparison: Comparison) -> tuple[Tensor, ...]:
        if self.ordinal:
            return comparison.pred, comparison.pairs
        if not formula.reads_edges:
            return comparison.pred, comparison.target, comparison.valid
        if comparison.edges is None:
            raise LabelError(
                f"protocol {self.name!r}: expected labelled edges, which the samples do not have. Write the shards of a "
                "dataset that marks them, such as ibims, and pass whole batches of them."
            )
        return comparison.pred, comparison.edges

    def check_label(self, kind: LabelKind, key: str = "the label") -> None:
        """Check that a label is of an accepted kind.

        Raises:
            LabelError: it is not.
        """
        if kind not in self.accepts:
            accepted = ", ".join(dict.fromkeys(str(k.ambiguity) for k in sorted(self.accepts)))
            raise LabelError(
                f"{key}: expected a label that protocol {self.name!r} can score ({accepted}); got {kind}. "
                "Choose a protocol for such labels or leave the sample out."
            )

    def check_scale(self, scale: float | None) -> None:
        """Check that the scale of the set is given exactly if the protocol needs it.

        Raises:
            RecipeError: it is not.
        """
        if self.scale_of == ScaleOf.SET and scale is None:
            raise RecipeError(
                f"protocol {self.name!r} has one scale for the whole set, which is not known before every image was seen. "
                "Score with `depthkit evaluate` or depthkit.evaluation.evaluate, or validate under a protocol with a scale per "
                "image."
            )
        if self.scale_of == ScaleOf.IMAGE and scale is not None:
            raise RecipeError(f"protocol {self.name!r} fits each image; got scale={scale}. Leave it out.")

    @in_float32
    @torch.no_grad()
    def _compare(
        self,
        pred: Tensor,
        representation: Representation,
        target: Tensor,
        valid: Tensor,
        pairs: Tensor,
        scale_of_set: float | None,
        resize_space: Representation | None,
    ) -> Comparison:
        check_map("pred", pred)
        check_finite(pred)
        pred, target, valid, pairs = where_float64_exists(pred, target, valid, pairs)
        x, space = pred, Representation(representation)
        degenerate = torch.zeros(len(pred), dtype=torch.bool, device=pred.device)
        scale = torch.ones(len(pred), dtype=torch.float64, device=pred.device)
        for step in self.order if not self.ordinal else (Step.RESIZE,):
            if step == Step.RESIZE:
                x, space = _express(x, space, self.output.space or space, None), self.output.space or space
                x, shown = self.place(x, target.shape[-2], target.shape[-1], space, resize_space)
                valid = valid & shown
            elif step == Step.MASK:
                low, high = depth_limits(self.space, *self.label_range)
                valid = valid & (target > low) & (target < high)
            elif step == Step.CROP:
                valid = valid & self.crop.mask(target.shape[-2], target.shape[-1], device=valid.device)
            elif step == Step.ALIGN and self.alignment is not None:
                x, space = _express(x, space, self.alignment.space, valid), self.alignment.space
                target = _in_unit_range(target, valid) if self.unit_labels else target
                fit = self.alignment.fit(x, convert(target, self.space, space), valid)
                degenerate, scale = fit.degenerate, fit.scale
                x = apply_scale_shift(x, scale if scale_of_set is None else torch.full_like(scale, scale_of_set), fit.shift)
            elif step == Step.CLAMP:
                x = clamp_depth(x, space, self.min_depth, self.max_depth)
        labelled = masked_count(valid)
        valid = valid & per_image(labelled >= self.min_valid, valid)
        degenerate = degenerate & (masked_count(valid) > 0)
        return Comparison(_express(x, space, self.space, valid), target, valid, pairs, labelled, degenerate, scale)

    def place(
        self, x: Tensor, height: int, width: int, space: Representation | None, resize_space: Representation | None
    ) -> tuple[Tensor, Tensor]:
        """Resize a prediction to the label, its border repeated over what was not shown; mark what was, bool ``(H, W)``."""
        top, bottom, left, right = self.shown.box(height, width)
        size = bottom - top, right - left
        x = self.output(x, size, space, resize_space, margins=self.input.margins(*size))
        if size != (height, width):
            x = F.pad(x, (left, width - right, top, height - bottom), mode="replicate")
        return x, self.shown.mask(height, width, device=x.device)


def _scored(sums: Mapping[str, tuple[Tensor, Tensor]]) -> Tensor:
    return next(iter(sums.values()))[1] > 0


def _in_unit_range(target: Tensor, valid: Tensor) -> Tensor:
    """Move and scale the valid pixels of each image to [0, 1]; a constant label becomes 0."""
    low, high = masked_range(target, valid)
    span = (high - low).where(high > low, 1)
    return (target - per_image(low, target)) / per_image(span, target)


def _express(x: Tensor, source: Representation, target: Representation, valid: Tensor | None) -> Tensor:
    """``x`` in another representation; where it is read (everywhere, or where valid) it must have a value there."""
    if source == target:
        return x
    if source not in _SIGNED:
        read = x if valid is None else x.where(valid, 1)
        if (bad := int((read <= 0).sum())) > 0:
            raise PredictionError(
                f"expected a positive {source} to express as {target}; got {bad} pixels of zero or less. "
                f"An affine {source} has no {target} before it is aligned: choose a protocol that aligns in {source}."
            )
    return convert(x, source, target)
