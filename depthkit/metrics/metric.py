"""The accumulating half of every metric."""

import re
from typing import Any, Literal

from torch import Tensor

from depthkit.errors import RecipeError
from depthkit.metrics.alignment import Alignment
from depthkit.metrics.exact import ExactSums
from depthkit.metrics.formula import Formula

Reduction = Literal["image", "pixel"]


class FormulaMetric(ExactSums):
    """A formula summed over a stream of images; a metric is a subclass that names its formula.

    ``reduction="image"`` is the mean over images of the per-image value, the convention of the field.
    ``reduction="pixel"`` pools all pixels of all images and takes roots at the end: images with more labels weigh more, and
    the two differ (by 14 % for RMSE on KITTI in one published case), so it is named.

    Attributes:
        n_images: images scored, int64.
        n_left_out: images left out because nothing in them was valid, int64.
        n_pixels: valid pixels (or point pairs) scored, int64.

    The sum is float64 and the counts int64 of fixed shape, whatever precision the surrounding module is cast to, so a result
    depends neither on batching nor on the number of processes. ``compute`` gives float64; NaN if no image was scored, or if
    a prediction was NaN in any valid pixel. Counts read outside ``sync_context()`` are those of this process.
    """

    full_state_update = False
    higher_is_better = False
    n_images: Tensor
    n_left_out: Tensor
    n_pixels: Tensor

    def __init__(self, formula: Formula, *, reduction: Reduction = "image", alignment: Alignment | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        if reduction not in ("image", "pixel"):
            raise RecipeError(
                f"{type(self).__name__}: expected reduction 'image' (mean over images) or 'pixel' (pooled); got {reduction!r}."
            )
        if alignment is not None and not isinstance(alignment, Alignment):
            raise RecipeError(
                f"{type(self).__name__}: expected alignment as a depthkit.metrics.Alignment or None; got {alignment!r}. "
                "Name the fit as in Alignment('scale_shift', method='least_squares')."
            )
        self.formula, self.reduction, self.alignment = formula, reduction, alignment
        # MetricCollection lets metrics share one state for good if names and values of their states agree after the first
        # batch, and values agree by chance (no valid pixel; delta_1 = delta_2 = 1). So the name says what is summed.
        self._total = re.sub(r"\W+", "_", f"total of {formula!r} per {reduction} after {alignment!r}")
        width = 1 if reduction == "image" else formula.n_sums
        self.add_sum(self._total, width)
        for count in ("n_images", "n_left_out", "n_pixels"):
            self.add_count(count)

    def add(self, sums: Tensor, count: Tensor) -> None:
        """Accumulate what ``Formula.sums`` returned for a batch."""
        scored = count > 0
        if self.reduction == "image":
            sums = self.formula.value(sums, count).where(scored, 0)[:, None]
        self.accumulate(self._total, sums.sum(0))
        self.accumulate("n_images", scored.sum())
        self.accumulate("n_left_out", (~scored).sum())
        self.accumulate("n_pixels", count.sum())

    def compute(self) -> Tensor:
        """The metric over everything seen, float64 scalar."""
        total = getattr(self, self._total)
        return total[0] / self.n_images if self.reduction == "image" else self.formula.value(total, self.n_pixels)


class DepthMetric(FormulaMetric):
    """A metric of depth maps [m].

    Args:
        formula: what is summed per image, and the number made of it.
        reduction: ``"image"`` or ``"pixel"``.
        alignment: fitted per image before scoring; None scores the prediction as it is.

    Raises:
        RecipeError: any other reduction.
    """

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
        if self.alignment is not None:
            preds = self.alignment(preds, target, valid)
        self.add(*self.formula.sums(preds, target, valid))
