"""Two reports on the same images, and whether their difference is more than luck."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from depthkit.checks import first_line, garbled
from depthkit.errors import RecipeError
from depthkit.evaluation.page.paired import Pairs, paired_page
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
        unpaired_keys: images in one report alone, or left out in one.
        confidence: of the intervals.
        metrics: by name.
        pairs: both values of each metric, by image; None where not finite.
        maps: files of small maps beside the reports; None where there is none.
    """

    names: tuple[str, str]
    protocol: str
    images: int
    unpaired_keys: Sequence[str]
    confidence: float
    metrics: Mapping[str, PairedMetric]
    pairs: Mapping[str, Pairs] = field(repr=False)
    maps: tuple[Path | None, Path | None] = (None, None)

    @property
    def unpaired(self) -> int:
        """Count images in one report alone, or left out in one."""
        return len(self.unpaired_keys)

    def verdict(self, metric: str) -> str:
        """Say which network is better by a metric, if that can be told."""
        found = self.metrics[metric]
        better = found.difference > 0 if higher_is_better(metric) else found.difference < 0
        return f"{self.names[better]} is better" if found.significant else "not told apart"

    def to_html(self, path: str | Path, *, pictures: int = 8) -> Path:
        """Write one self-contained page: the table, every image, and maps of those that changed most by the first metric.

        Args:
            path: of the page.
            pictures: how many of those are drawn.

        Raises:
            RecipeError: the maps beside the reports do not read, or have other labels.
        """
        return paired_page(path, self, maps=self.maps, count=pictures)

    def table(self) -> str:
        """Return the numbers as text, a line per metric."""
        head = ["", *self.names, "difference", f"{self.confidence:.0%} interval", "second better", ""]
        lines = [head]
        for name, found in self.metrics.items():
            low, high = found.interval
            lines.append(
                [name, f"{found.first:.4f}", f"{found.second:.4f}", f"{found.difference:+.4f}", f"{low:+.4f} to {high:+.4f}",
                 f"{found.wins:.0%}", self.verdict(name)]
            )  # fmt: skip
        widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
        body = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
        counted = f"{self.images} images in both" + (f", {self.unpaired} in one alone or left out" if self.unpaired else "")
        return "\n".join([f"protocol: {self.protocol}", f"images: {counted}", "", *body])


def report_file(path: str | Path) -> Path:
    """Find the one report in a folder; a file is itself.

    Raises:
        RecipeError: the folder holds none, or several.
    """
    if not (folder := Path(path)).is_dir():
        return folder
    found = sorted(folder.glob("*.json"))
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise RecipeError(f"expected one report of `depthkit evaluate --out` in {path}; got {names}. Name the file.")
    return found[0]


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
        first: report of ``depthkit evaluate --out``, JSON, or the folder that holds it alone.
        second: another one, under the same protocol on the same images.
        confidence: of the intervals.
        draws: how often images are redrawn.
        seed: of the draws.

    Raises:
        RecipeError: a file is no report, or the two have another protocol, no common image, or other labels.
    """
    if not 0 < confidence < 1:
        raise RecipeError(f"expected a confidence between 0 and 1; got {confidence}.")
    first, second = report_file(first), report_file(second)
    one, two = read_report(first), read_report(second)
    with garbled(f"two reports of `depthkit evaluate` in {first} and {second}", RecipeError, "Evaluate again."):
        return _compared(first, second, one, two, confidence, draws, seed)


def _compared(
    first: Path, second: Path, one: Mapping[str, Any], two: Mapping[str, Any], confidence: float, draws: int, seed: int
) -> PairedReport:
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
    for key in both:
        if rows[0][key].get("pixels") != rows[1][key].get("pixels"):
            counts = " and ".join(str(x[key].get("pixels")) for x in rows)
            raise RecipeError(
                f"expected two reports of the same images; {key!r} has {counts} pixels to score in {first} and {second}. "
                "Evaluate both on the same shards."
            )
    names_of = [name for name in one["summary"] if name in two["summary"] and name in rows[0][both[0]]]
    pairs: dict[str, Pairs] = {key: {name: (rows[0][key][name], rows[1][key][name]) for name in names_of} for key in both}
    metrics = {}
    for name in names_of:
        a, b = (np.array([np.nan if (x := pairs[key][name][i]) is None else x for key in both], float) for i in (0, 1))
        with np.errstate(over="ignore", invalid="ignore"):  # numbers that no metric has are shown as they are
            metrics[name] = _paired(name, a, b, confidence=confidence, draws=draws, seed=seed)
    names = (one["model"], two["model"])
    if names[0] == names[1]:
        names = (f"{names[0]} (first)", f"{names[1]} (second)")
    unpaired = [key for key in {**rows[0], **rows[1]} if key not in pairs]
    maps = _maps_of(Path(first), one), _maps_of(Path(second), two)
    return PairedReport(names, protocols[0], len(both), unpaired, confidence, metrics, pairs, maps)


def _maps_of(report: Path, content: Mapping[str, Any]) -> Path | None:
    """Return the file of maps that a report names, if it is still there."""
    name = content.get("maps")
    try:
        return report.parent / name if name and (report.parent / name).is_file() else None
    except OSError:  # it is no name of a file
        return None


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
