"""The numbers of a protocol over a stream of batches, exact on any number of processes."""

from typing import Any

from torch import Tensor

from depthkit.devices import sent
from depthkit.errors import ShapeError
from depthkit.evaluation.protocol import Comparison, Protocol
from depthkit.metrics import Reduction
from depthkit.metrics.exact import ExactSums
from depthkit.resize import in_metres
from depthkit.types import Batch, Representation

COUNTS = ("images", "left_out", "degenerate")


def maps_in_metres(
    maps: Tensor, model: Any, representation: Representation, batch: Batch, protocol: Protocol, seen: tuple[int, int]
) -> Tensor:
    """Convert maps of a network with a canonical focal length to metres by each sample's camera; those of others stay.

    Args:
        maps: ``(B, 1, h, w)``.
        model: that predicted them.
        representation: of them.
        batch: their samples.
        protocol: by which the network was shown the images.
        seen: what ``Protocol.input_size`` gave.

    Raises:
        GeometryError: the camera of a sample is not known.
    """
    top, bottom, left, right = protocol.shown.box(batch.image.shape[-2], batch.image.shape[-1])
    size, rule = (bottom - top, right - left), protocol.input
    return in_metres(maps, model, representation, batch.intrinsics, size=size, seen=seen, margins=rule.margins(*size))


class ProtocolMetrics(ExactSums):
    """All metrics of one protocol: the one way from predictions to numbers, in validation, tests and reports.

    Args:
        protocol: how to score.
        prefix: of the names that ``compute`` returns, such as ``"val/"``.
        scale: of the whole set, for a protocol with ``scale_of="set"``; None for every other.

    Raises:
        RecipeError: ``scale`` is missing, or given to a protocol that fits each image.

    Attributes:
        last: what the metrics read in the latest ``update``; of this process.
        last_left_out: images of the latest ``update`` that had too few valid pixels, bool ``(B,)``.
        last_values: values per image of the latest ``update``, float64 ``(B,)``, NaN in an image left out.

    Sums are float64 and counts int64, whatever the surrounding module is cast to; neither the batching nor the number of
    processes changes a result beyond the order of a float64 sum.
    """

    full_state_update = False
    last: Comparison
    last_left_out: Tensor
    last_values: dict[str, Tensor]
    images: Tensor
    left_out: Tensor
    degenerate: Tensor

    def __init__(self, protocol: Protocol, prefix: str = "", *, scale: float | None = None) -> None:
        super().__init__()
        protocol.check_scale(scale)
        self.protocol, self.prefix, self.scale = protocol, prefix, scale
        for name, formula in protocol.metrics.items():
            width = 1 if protocol.reduction == Reduction.IMAGE else formula.n_sums
            self.add_sum(f"sum_{name}", width)
            self.add_count(f"count_{name}")
        for count in COUNTS:
            self.add_count(count)

    def update(
        self, pred: Tensor, representation: Representation, batch: Batch, *, resize_space: Representation | None = None
    ) -> None:
        """Score one batch; rows that only pad an evaluation (``batch.real``) count for nothing.

        Args:
            pred: predictions in ``representation``, ``(B, 1, h, w)``, at network resolution.
            representation: what their numbers are.
            batch: the labels.
            resize_space: in which the model wants its predictions resized, where the protocol says nothing of it.

        Raises:
            LabelError: the protocol does not score such labels.
            PredictionError: a prediction is not finite, or not positive where depth and disparity convert.
            ShapeError: as many predictions as rows are expected.
        """
        if len(pred) != len(batch):
            raise ShapeError(f"expected one prediction per row of the batch, {len(batch)}; got {len(pred)}.")
        real = batch.rows(batch.real)
        kept = batch.on_host(batch.real)
        scored_pred = pred if kept.all() else pred[sent(kept.nonzero()[:, 0], pred.device)]
        self.last = self.protocol.compare(scored_pred, representation, real, scale=self.scale, resize_space=resize_space)
        self.last_values = {}
        for name, (sums, count) in self.protocol.sums(self.last).items():
            formula, scored = self.protocol.metrics[name], count > 0
            self.last_values[name] = formula.value(sums, count)
            if self.protocol.reduction == Reduction.IMAGE:
                sums, count = self.last_values[name].where(scored, 0)[:, None], scored
            self.accumulate(f"sum_{name}", sums.sum(0))
            self.accumulate(f"count_{name}", count.sum())
        self.last_left_out = ~scored  # every metric counts the same images
        self.accumulate("images", scored.sum())
        self.accumulate("left_out", self.last_left_out.sum())
        self.accumulate("degenerate", self.last.degenerate.sum())

    def compute(self) -> dict[str, Tensor]:
        """Every metric over everything seen, NaN if no image was scored, and how many images were scored, left out
        (too few valid pixels), and scored as a constant because the alignment found no scale; float64 scalars.
        """  # noqa: D205
        values = {}
        for name, formula in self.protocol.metrics.items():
            total, count = getattr(self, f"sum_{name}"), getattr(self, f"count_{name}")
            values[name] = total[0] / count if self.protocol.reduction == Reduction.IMAGE else formula.value(total, count)
        counts = {name: getattr(self, name).double() for name in COUNTS}
        return {self.prefix + name: value for name, value in (values | counts).items()}
