"""F-score of point clouds: how much of each of two clouds lies near the other."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from depthkit.alignment import Alignment
from depthkit.errors import RecipeError
from depthkit.geometry import unproject
from depthkit.masked import masked_count, masked_median
from depthkit.metrics.formula import Formula, map_pair
from depthkit.metrics.metric import AlignedMetric, Caps, Reduction

_ROWS, _COLUMNS = 512, 32_768  # points compared at once


@dataclass(frozen=True)
class PointCloudFScoreFormula(Formula):
    """Harmonic mean of the shares of predicted points near a labelled one, and of labelled points near a predicted one."""

    n_sums: ClassVar[int] = 2
    threshold: float = 0.1
    relative: bool = False

    def __post_init__(self) -> None:
        if not self.threshold > 0:
            raise RecipeError(f"PointCloudFScore: expected a threshold above 0; got {self.threshold}.")

    def sums(self, pred: Tensor, target: Tensor, valid: Tensor, intrinsics: Tensor) -> tuple[Tensor, Tensor]:
        """Count the predicted and the labelled points with a neighbour in the other cloud, and of points in each."""
        pred, target = map_pair(pred, target, valid)
        near = self.threshold * (masked_median(target, valid) if self.relative else target.new_ones(len(target)))
        unknown = (valid & (pred + target).isnan()).flatten(1).any(1)
        clouds = []
        for depth in (pred, target):
            there = valid & depth.isfinite() & (depth > 0)  # a depth that is not positive has no point, and is near none
            points = unproject(depth.where(there, 1), intrinsics.double()).movedim(1, -1)
            clouds.append([xyz[on[0]] for xyz, on in zip(points, there, strict=True)])
        hits = torch.stack([torch.stack(_near(a, b, r)) for a, b, r in zip(*clouds, near, strict=True)])
        return hits.double().where(~unknown[:, None], torch.nan), masked_count(valid)

    def finish(self, sums: Tensor, count: Tensor) -> Tensor:
        """Twice the product over the sum of precision and recall."""
        total = sums.sum(-1)
        return 2 * sums.prod(-1) / total.where(total != 0, 1) / count


def _near(a: Tensor, b: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    """How many points of ``a`` ``(N, 3)`` have one of ``b`` ``(M, 3)`` closer than ``radius``, and the other way round.

    Exact. Both are sorted along the widest axis, so that each run of ``a`` meets the slab of ``b`` within reach only.
    """
    if not len(a) or not len(b):
        return torch.zeros((), dtype=torch.int64, device=a.device), torch.zeros((), dtype=torch.int64, device=a.device)
    axis = int((b.amax(0) - b.amin(0)).argmax())
    a, b = (x[x[:, axis].argsort()] for x in (a, b))
    starts = a[::_ROWS, axis] - radius
    ends = torch.cat([a[_ROWS - 1 :: _ROWS, axis], a[-1:, axis]])[: len(starts)] + radius
    along = b[:, axis].contiguous()
    spans = torch.stack([torch.searchsorted(along, starts), torch.searchsorted(along, ends)], 1).tolist()
    a_hit, b_hit = (torch.zeros(len(x), dtype=torch.bool, device=x.device) for x in (a, b))
    for run, hit, (first, last) in zip(a.split(_ROWS), a_hit.split(_ROWS), spans, strict=True):
        for slab, slab_hit in zip(b[first:last].split(_COLUMNS), b_hit[first:last].split(_COLUMNS), strict=True):
            within = torch.cdist(run, slab) < radius
            hit |= within.any(1)
            slab_hit |= within.any(0)
    return a_hit.sum(), b_hit.sum()


def point_cloud_fscore(
    pred: Tensor, target: Tensor, valid: Tensor, intrinsics: Tensor, *, threshold: float = 0.1, relative: bool = False
) -> Tensor:
    """F-score of the predicted point cloud of each image [1], higher is better (Knapitsch et al. 2017).

    Precision is the share of predicted points with a labelled point closer than the threshold, recall the share of labelled
    points with a predicted one closer; the score is their harmonic mean. Spencer et al. 2022 judge single-image depth by it
    at 0.05, 0.1 and 0.2 m. It is 1 for the truth; a factor on both maps changes nothing if ``relative``.

    Args:
        pred: predicted depth [m], ``(B, 1, H, W)``; a pixel that is not positive or not finite has no point and counts as
            missed, NaN makes the result NaN.
        target: labelled depth [m], ``(B, 1, H, W)``; any value where not valid.
        valid: bool, ``(B, 1, H, W)``.
        intrinsics: ``(B, 3, 3)`` [px].
        threshold: distance [m], or share of the median labelled depth of the image if ``relative``.
        relative: for labels up to scale, and scenes of unlike size.

    Returns:
        float64 ``(B,)`` in [0, 1]; NaN for an image without a valid pixel. Time grows with the square of the number of
        points, over the extent of the scene in thresholds: score at the size of the network rather than of the sensor.

    Raises:
        ShapeError: shapes do not fit together.
        GeometryError: unknown intrinsics.
        RecipeError: a threshold that is not positive.

    Example:
        >>> depth, camera = torch.full((1, 1, 4, 4), 2.0), torch.eye(3)[None]
        >>> [point_cloud_fscore(depth + e, depth, depth > 0, camera).item() for e in (0.0, 0.5)]
        [1.0, 0.0]
    """
    return PointCloudFScoreFormula(threshold, relative)(pred, target, valid, intrinsics)


class PointCloudFScore(AlignedMetric):
    """F-score of point clouds [1], higher is better; see ``point_cloud_fscore``."""

    higher_is_better = True

    def __init__(
        self,
        *,
        threshold: float = 0.1,
        relative: bool = False,
        reduction: Reduction | str = Reduction.IMAGE,
        alignment: Alignment | None = None,
        caps: Caps | None = None,
    ) -> None:
        super().__init__(PointCloudFScoreFormula(threshold, relative), reduction=reduction, alignment=alignment, caps=caps)

    def update(self, preds: Tensor, target: Tensor, valid: Tensor, intrinsics: Tensor) -> None:
        """Add a batch; arguments as in ``point_cloud_fscore``."""
        self.score(self.finished(preds, target, valid), target, valid, intrinsics)
