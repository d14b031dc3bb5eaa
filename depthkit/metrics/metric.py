"""Accumulate a formula over a stream of images: what every metric does."""

import inspect
import re
from enum import StrEnum
from typing import Any

from torch import Tensor

from depthkit.alignment import Alignment
from depthkit.checks import check_choice
from depthkit.errors import RecipeError
from depthkit.metrics.exact import ExactSums
from depthkit.metrics.formula import Formula
from depthkit.precision import in_float32, where_float64_exists
from depthkit.representation import clamp_depth, convert
from depthkit.types import Representation

Caps = tuple[float, float]
"""Nearest and farthest depth of a prediction [m], as a protocol states them."""


class Reduction(StrEnum):
    """What a metric averages over: images, or the pixels of all images."""

    IMAGE = "image"
    PIXEL = "pixel"


_SHARED = {
    "reduction": 'what is averaged: ``"image"``, values of images, or ``"pixel"``, the pixels of all images.',
    "alignment": "a ``depthkit.alignment.Alignment``, fitted per image before scoring; None scores predictions as they are.",
    "caps": "nearest and farthest depth [m] that a prediction, once aligned, is raised and lowered to; None does not cap.",
}
"""What the arguments are that metrics share."""


class FormulaMetric(ExactSums):
    """A formula summed over a stream of images; a metric is a subclass that names its formula.

    ``reduction="image"`` is the mean over images of the per-image value, the convention of the field.
    ``reduction="pixel"`` pools all pixels of all images and takes roots at the end: images with more labels weigh more, and
    the two differ (by 14 % for RMSE on KITTI in one published case), so it is named.

    Args:
        formula: what is summed per image, and the number made of it.
        reduction: ``"image"`` or ``"pixel"``.
        treatment: what a subclass does to predictions first; metrics that differ in it share no state.

    Attributes:
        n_images: images scored, int64.
        n_left_out: images left out because nothing in them was valid, int64.
        n_pixels: valid pixels (or point pairs) scored, int64.

    Raises:
        RecipeError: any other reduction.

    The sum is float64 and the counts int64 of fixed shape, whatever precision the surrounding module is cast to, so a result
    depends neither on batching nor on the number of processes. ``compute`` gives float64; NaN if no image was scored, or if
    a prediction was NaN in any valid pixel. Counts read outside ``sync_context()`` are those of this process. The options of
    torchmetrics, such as ``sync_on_compute``, are attributes to set.
    """

    full_state_update = False
    higher_is_better = False
    n_images: Tensor
    n_left_out: Tensor
    n_pixels: Tensor

    def __init_subclass__(cls, **options: Any) -> None:
        """Describe the arguments in the docstring of a metric that leaves that to its base, for ``help`` of it alone."""
        super().__init_subclass__(**options)
        own = inspect.cleandoc(cls.__doc__ or "")
        if "Args:" not in own and "__init__" in vars(cls):
            names = [name for name in inspect.signature(cls).parameters if name != "self"]
            lines = [f"    {name}: {_SHARED.get(name, 'as of the function.')}" for name in names]
            cls.__doc__ = "\n".join([own, "", "Args:", *lines])

    def __init__(self, formula: Formula, *, reduction: Reduction | str = Reduction.IMAGE, treatment: str = "") -> None:
        super().__init__()
        self.formula, self.reduction = formula, check_choice("reduction", reduction, Reduction)
        # MetricCollection lets metrics share one state for good if names and values of their states agree after the first
        # batch, and values agree by chance (no valid pixel; delta_1 = delta_2 = 1). So the name says what is summed.
        self._total = re.sub(r"\W+", "_", f"total of {formula!r} per {self.reduction} {treatment}")
        width = 1 if self.reduction == Reduction.IMAGE else formula.n_sums
        self.add_sum(self._total, width)
        for count in ("n_images", "n_left_out", "n_pixels"):
            self.add_count(count)

    def score(self, *inputs: Any) -> None:
        """Add a batch, given as the inputs of ``Formula.sums``."""
        sums, count = self.formula.sums(*where_float64_exists(*inputs))
        scored = count > 0
        if self.reduction == Reduction.IMAGE:
            sums = self.formula.value(sums, count).where(scored, 0)[:, None]
        self.accumulate(self._total, sums.sum(0))
        self.accumulate("n_images", scored.sum())
        self.accumulate("n_left_out", (~scored).sum())
        self.accumulate("n_pixels", count.sum())

    def compute(self) -> Tensor:
        """Compute the metric over everything seen, float64 scalar."""
        total = getattr(self, self._total)
        return total[0] / self.n_images if self.reduction == Reduction.IMAGE else self.formula.value(total, self.n_pixels)


class AlignedMetric(FormulaMetric):
    """A metric of depth maps [m] that are aligned and capped before. Subclasses give ``update``.

    Args:
        formula: what is summed per image, and the number made of it.
        reduction: ``"image"`` or ``"pixel"``.
        alignment: fitted per image before scoring; None scores the prediction as it is.
        caps: nearest and farthest depth [m] that a prediction, once aligned, is raised and lowered to; 0 and infinity do not
            cap. A shift fitted in disparity can leave pixels beyond infinity, which become negative depths unless capped.

    Raises:
        RecipeError: any other reduction, no such alignment, or caps that are not 0 <= near < far.
    """

    def __init__(
        self,
        formula: Formula,
        *,
        reduction: Reduction | str = Reduction.IMAGE,
        alignment: Alignment | None = None,
        caps: Caps | None = None,
    ) -> None:
        if alignment is not None and not isinstance(alignment, Alignment):
            raise RecipeError(
                f"{type(self).__name__}: expected alignment as a depthkit.alignment.Alignment or None; got {alignment!r}. "
                "Name the fit as in Alignment('scale_shift', method='least_squares')."
            )
        if caps is not None and not 0 <= caps[0] < caps[1]:
            raise RecipeError(f"{type(self).__name__}: expected caps as 0 <= near < far in metres; got {caps}.")
        super().__init__(formula, reduction=reduction, treatment=f"after {alignment!r} within {caps}")
        self.alignment, self.caps = alignment, caps

    @in_float32
    def finished(self, preds: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """Align and cap predicted depth [m], ``(B, 1, H, W)``."""
        space = Representation.DEPTH if self.alignment is None else self.alignment.space
        if self.alignment is not None:
            preds, label = (convert(x.where(valid, 1), Representation.DEPTH, space) for x in (preds, target))
            preds = self.alignment.apply(preds, *self.alignment.fit(preds, label, valid))
        if self.caps is not None:
            preds = clamp_depth(preds, space, *self.caps)
        return convert(preds, space, Representation.DEPTH)


class DepthMetric(AlignedMetric):
    """A metric of predicted and labelled depth [m]; arguments and errors of ``AlignedMetric``."""

    def update(self, preds: Tensor, target: Tensor, valid: Tensor) -> None:
        """Add a batch.

        Args:
            preds: predicted depth [m], ``(B, 1, H, W)``. Where valid it is scored as it is: NaN makes the result NaN.
            target: labelled depth [m], ``(B, 1, H, W)``; any value where not valid. Sky and other pixels without a finite
                positive depth must not be valid: they make the result NaN.
            valid: bool, ``(B, 1, H, W)``.

        Raises:
            ShapeError: the three do not fit together.
        """
        self.score(self.finished(preds, target, valid), target, valid)
