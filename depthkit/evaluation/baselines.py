"""The best predictor that does not look at the image: one disparity per image row, the same for every image.

Floors are near at the bottom and far towards the horizon, so much of a benchmark's score can be had without seeing
anything. What a network adds is the distance to this baseline.
"""

from collections.abc import Iterable
from dataclasses import replace
from enum import StrEnum
from typing import Self

import numpy as np
import torch
from torch import Tensor

from depthkit.checks import check_choice
from depthkit.errors import LabelError
from depthkit.evaluation.evaluate import batches, evaluate
from depthkit.evaluation.protocol import Protocol
from depthkit.evaluation.report import Report
from depthkit.representation import check_convertible, convert_label
from depthkit.resize import interpolate
from depthkit.types import AMBIGUITIES, REPRESENTATIONS, Ambiguity, Batch, LabelKind, Representation, Sample

_SWEEPS = 30


class Statistic(StrEnum):
    """What ``RowBaseline.fit`` fits a profile by."""

    MEDIAN = "median"
    LEAST_SQUARES = "least_squares"


class RowBaseline:
    """Predicts a disparity that depends on the relative height in the image alone.

    Args:
        profile: disparity from the top row to the bottom row, up to scale and shift, ``(R,)``; interpolated to any height.

    Example:
        >>> RowBaseline(torch.tensor([0.0, 1.0]))(torch.rand(1, 3, 4, 2))[0, 0, :, 0]
        tensor([0.0000, 0.2500, 0.7500, 1.0000])
    """

    representation = Representation.DISPARITY
    ambiguity = Ambiguity.SHIFT_SCALE

    def __init__(self, profile: Tensor):
        self.profile = profile

    @classmethod
    def fit(
        cls,
        samples: Iterable[Sample | Batch],
        *,
        statistic: Statistic | str = Statistic.LEAST_SQUARES,
        rows: int = 64,
        label_range: tuple[float, float] = (0.0, torch.inf),
    ) -> Self:
        """Fit the profile to the labels' disparities, each image scaled and shifted as suits it.

        Args:
            samples: densely labelled samples or batches, metric or up to scale.
            statistic: ``"least_squares"`` minimises the squared difference over profile and scales and shifts together (by
                turns, from the median); ``"median"`` takes the median over images of normalised row means.
            rows: length of the profile; images are pooled to as many bands.
            label_range: labels between these depths are read [m], as in a protocol; sky is not.

        Raises:
            LabelError: a label has no depth, or no image has one in two bands.
        """
        return cls(_fit(*_bands(samples, rows, *label_range), check_choice("statistic", statistic, Statistic)))

    def __call__(self, image: Tensor) -> Tensor:
        """Disparity up to scale and shift for images ``(B, 3, H, W)``, ``(B, 1, H, W)``."""
        batch, _, height, width = image.shape
        column = interpolate(self.profile.to(image.device)[None, None, :, None], (height, 1), "bilinear")
        return column.expand(batch, 1, height, width)


def best_row_baseline(
    train: Iterable[Sample | Batch],
    test: Iterable[Sample | Batch],
    protocol: Protocol,
    *,
    metric: str = "abs_rel",
    rows: int = 64,
    progress: bool = False,
) -> Report:
    """Find the row baseline hardest to beat: the lowest ``metric`` on ``test`` of all that this module can make.

    Candidates are both statistics, each fitted on ``train`` and, with a knowledge no model has, on the labels of ``test``
    itself. Being chosen on the test set favours the baseline, never the model compared with it.

    Args:
        train: labelled samples or batches.
        test: labelled samples or batches, read several times: a sequence or a loader, not an iterator.
        protocol: how to score; must align scale and shift in disparity.
        metric: that decides, lower is better.
        rows: length of the profiles.
        progress: show progress bars.

    Returns:
        The winner's report; all candidates stand in ``beside``.
    """
    bands = {
        name: _bands(samples, rows, *protocol.label_range)
        for name, samples in (("training labels", train), ("test labels", test))
    }
    fitted = {f"rows, {s} of {name}": RowBaseline(_fit(*known, s)) for s in Statistic for name, known in bands.items()}
    reports = [
        evaluate(baseline, test, protocol, name=name, pictures=0, progress=progress) for name, baseline in fitted.items()
    ]
    best = min(reports, key=lambda report: report.summary[metric])
    return replace(best, beside={report.model: report.summary for report in reports if report is not best})


def _bands(samples: Iterable[Sample | Batch], rows: int, near: float, far: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean disparity and number of valid pixels of each band of rows, float64 ``(images, rows)`` each."""
    means, counts = [], []
    for batch in batches(samples):
        for row in range(len(batch)):
            kind = LabelKind(AMBIGUITIES[int(batch.ambiguity[row])], REPRESENTATIONS[int(batch.representation[row])])
            check_convertible(kind, Representation.DEPTH)
            target, valid = batch.target[row : row + 1], batch.valid[row : row + 1]
            depth, valid = convert_label(target, valid, kind.representation, Representation.DEPTH)
            label, valid = 1 / depth, valid & (depth > near) & (depth < far)
            height = label.shape[-2]
            band, zeros = torch.arange(height) * rows // height, torch.zeros(rows, dtype=torch.float64)
            count = zeros.index_add(0, band, valid[0, 0].sum(1).double())
            total = zeros.index_add(0, band, label[0, 0].where(valid[0, 0], 0).double().sum(1))
            means.append((total / count.clamp_min(1)).numpy())
            counts.append(count.numpy())
    if not means:
        raise LabelError("expected at least one labelled image to fit the baseline on; got none.")
    return np.stack(means), np.stack(counts)


def _fit(d: np.ndarray, n: np.ndarray, statistic: Statistic) -> Tensor:
    """Fit the profile of disparities ``d`` known from ``n`` pixels, ``(images, rows)`` each."""
    centre = (d * n).sum(1, keepdims=True) / n.sum(1, keepdims=True).clip(1)
    spread = np.sqrt((n * (d - centre) ** 2).sum(1, keepdims=True) / n.sum(1, keepdims=True).clip(1))
    varied = spread[:, 0] > 1e-6 * np.abs(centre[:, 0])
    if not varied.any():
        raise LabelError("expected images whose disparity varies from row to row; got none. Fit on more or other samples.")
    d, n = ((d - centre) / spread.clip(1e-12))[varied], n[varied]
    profile, known = np.full(d.shape[1], np.nan), (n > 0).any(0)
    profile[known] = np.nanmedian(np.where(n > 0, d, np.nan)[:, known], 0)
    profile = _filled(profile)
    for _ in range(_SWEEPS if statistic == Statistic.LEAST_SQUARES else 0):
        weight = n / n.sum(1, keepdims=True)
        mean = (weight * profile).sum(1, keepdims=True)
        x = profile - mean
        scale = (weight * x * d).sum(1, keepdims=True) / (weight * x * x).sum(1, keepdims=True)
        # each image's fit is d ~ scale * (profile - mean): its own mean is 0 already
        energy = (weight * scale**2).sum(0)
        best = (weight * scale * (d + scale * mean)).sum(0) / np.where(energy > 0, energy, 1)
        profile = _filled(np.where(energy > 0, best, np.nan))
        profile = (profile - profile.mean()) / profile.std()
    return torch.from_numpy(profile).float()


def _filled(profile: np.ndarray) -> np.ndarray:
    """NaN replaced by interpolation between the rows that have a value."""
    known, where = ~np.isnan(profile), np.arange(len(profile))
    return np.interp(where, where[known], profile[known])
