"""Two reports on the same images, and whether their difference is more than luck."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from depthkit.checks import first_line
from depthkit.errors import RecipeError
from depthkit.evaluation.protocols.tables import higher_is_better

_CELLS = 2_000_000  # drawn at a time


@dataclass(frozen=True)
class PairedMetric:
    """One metric of two networks on the images that both were scored on.

    Attributes:
        first: mean over these images of the first network.
        second: of the second one.
        interval: of the mean of the differences, second minus first, under redrawing of the images.
        wins: share of images on which the second is better; equal ones count half.
    """

    first: float
    second: float
    interval: tuple[float, float]
    wins: float

    @property
    def difference(self) -> float:
        """Second minus first."""
        return self.second - self.first

    @property
    def significant(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.interval[0] > 0 or self.interval[1] < 0


@dataclass(frozen=True)
class PairedReport:
    """What ``compare_reports`` found.

    Attributes:
        names: of the two networks.
        protocol: under which both were scored.
        images: scored in both reports.
        unpaired: images in one report alone, or left out in one.
        confidence: of the intervals.
        metrics: by name.
    """

    names: tuple[str, str]
    protocol: str
    images: int
    unpaired: int
    confidence: float
    metrics: Mapping[str, PairedMetric]

    def table(self) -> str:
        """Return the numbers as text, a line per metric."""
        head = ["", *self.names, "difference", f"{self.confidence:.0%} interval", "second better", ""]
        lines = [head]
        for name, found in self.metrics.items():
            better = found.difference > 0 if higher_is_better(name) else found.difference < 0
            verdict = f"{self.names[better]} is better" if found.significant else "not told apart"
            low, high = found.interval
            lines.append(
                [name, f"{found.first:.4f}", f"{found.second:.4f}", f"{found.difference:+.4f}", f"{low:+.4f} to {high:+.4f}",
                 f"{found.wins:.0%}", verdict]
            )  # fmt: skip
        widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
        body = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
        counted = f"{self.images} images in both" + (f", {self.unpaired} in one alone or left out" if self.unpaired else "")
        return "\n".join([f"protocol: {self.protocol}", f"images: {counted}", "", *body])


def read_report(path: str | Path) -> dict[str, Any]:
    """Return the content of a report that ``Report.to_json`` wrote.

    Raises:
        RecipeError: it is none.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        names = {row["key"] for row in content["per_image"]} and content["facts"]["protocol"] and content["summary"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecipeError(
            f"expected a report of `depthkit evaluate --out` at {path}; it cannot be read ({first_line(error)})."
        ) from error
    if not names:
        raise RecipeError(f"expected a report with images and metrics at {path}; it has none.")
    return dict(content)


def compare_reports(
    first: str | Path, second: str | Path, *, confidence: float = 0.95, draws: int = 5000, seed: int = 0
) -> PairedReport:
    """Compare two reports image by image.

    The interval is the percentile bootstrap's: images are redrawn with replacement, both networks on the same ones.

    Args:
        first: report of ``depthkit evaluate --out``, JSON.
        second: another one, under the same protocol on the same images.
        confidence: of the intervals.
        draws: how often images are redrawn.
        seed: of the draws.

    Raises:
        RecipeError: a file is no report, or the two have another protocol or no common image.
    """
    if not 0 < confidence < 1:
        raise RecipeError(f"expected a confidence between 0 and 1; got {confidence}.")
    one, two = read_report(first), read_report(second)
    protocols = one["facts"]["protocol"], two["facts"]["protocol"]
    if protocols[0] != protocols[1]:
        raise RecipeError(
            f"expected two reports under one protocol; got {protocols[0]} and {protocols[1]}. Numbers of two protocols are not "
            "comparable: evaluate both under one."
        )
    rows = [{row["key"]: row for row in content["per_image"]} for content in (one, two)]
    both = [key for key in rows[0] if key in rows[1] and not (rows[0][key]["left_out"] or rows[1][key]["left_out"])]
    if not both:
        raise RecipeError(f"expected images in both {first} and {second}; there are none. Evaluate both on the same shards.")
    metrics = {}
    for name in one["summary"]:
        if name in two["summary"] and name in rows[0][both[0]]:
            values = [np.array([np.nan if x[key][name] is None else x[key][name] for key in both], float) for x in rows]
            metrics[name] = _paired(name, *values, confidence=confidence, draws=draws, seed=seed)
    names = (one["model"], two["model"])
    if names[0] == names[1]:
        names = (f"{names[0]} (first)", f"{names[1]} (second)")
    return PairedReport(names, protocols[0], len(both), len(rows[0].keys() | rows[1].keys()) - len(both), confidence, metrics)


def _paired(name: str, a: np.ndarray, b: np.ndarray, *, confidence: float, draws: int, seed: int) -> PairedMetric:
    finite = np.isfinite(a) & np.isfinite(b)
    a, b = a[finite], b[finite]
    if not len(a):
        nan = float("nan")
        return PairedMetric(nan, nan, (nan, nan), nan)
    gap = b - a
    wins = (gap > 0) if higher_is_better(name) else (gap < 0)
    tail = (1 - confidence) / 2
    low, high = np.quantile(_means(gap, draws, np.random.default_rng(seed)), (tail, 1 - tail)).tolist()
    return PairedMetric(float(a.mean()), float(b.mean()), (low, high), float((wins + 0.5 * (gap == 0)).mean()))


def _means(values: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Means of redrawn values, ``(draws,)``; memory holds a part of the draws."""
    step, found = max(1, _CELLS // len(values)), list[np.ndarray]()
    for start in range(0, draws, step):
        count = min(step, draws - start)
        found.append(values[rng.integers(0, len(values), (count, len(values)))].mean(1))
    return np.concatenate(found)
