"""From a template and what it shows to a page that needs no other file."""

import base64
import math
from collections.abc import Mapping, Sequence
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
from PIL import Image

from depthkit import __version__
from depthkit.evaluation.page.colours import ColourScale
from depthkit.writing import replacing

_BINS = 24


class Panel(NamedTuple):
    """A picture with its title and, of a map, the bar of its colours."""

    title: str
    picture: str
    bar: ColourScale | None = None


class Histogram(NamedTuple):
    """How the values of one metric are spread over images.

    Attributes:
        name: of the metric.
        counts: images in each bin; the last one also holds those beyond.
        low: where the first bin begins.
        high: where the last bin ends.
        beyond: whether some values are above ``high``.
        quartiles: of all finite values.
    """

    name: str
    counts: list[int]
    low: float
    high: float
    beyond: bool
    quartiles: tuple[float, float, float]


class LinePlot(NamedTuple):
    """Lines over one axis from 0 to 1; the area between the first two is shaded.

    Attributes:
        name: of the metric that is their area.
        across: what the axis is.
        x: from 0 to 1.
        lines: values by title, none below 0.
    """

    name: str
    across: str
    x: Sequence[float]
    lines: Mapping[str, Sequence[float]]

    @property
    def high(self) -> float:
        """Upper end of the plot."""
        return max(max(values) for values in self.lines.values()) or 1.0

    def points(self, title: str, *, backwards: bool = False) -> str:
        """Place a line in a drawing of 240 by 80, as SVG's ``points``."""
        placed = [f"{12 + 240 * x:.2f},{100 - 80 * y / self.high:.2f}" for x, y in zip(self.x, self.lines[title], strict=True)]
        return " ".join(reversed(placed) if backwards else placed)


def write_page(path: str | Path, template: str, **shown: Any) -> Path:
    """Fill a template; the page has its name when it is whole.

    Args:
        path: of the page; its folder is made.
        template: name of a file in ``templates``.
        shown: what the template names.

    Raises:
        PredictionError: the page cannot be written.
    """
    path, text = Path(path), filled(template, **shown)
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")
    return path


def filled(template: str, **shown: Any) -> str:
    """Fill a template, also one of a part of a page."""
    return _templates().get_template(template).render(version=__version__, **shown)


@cache
def _templates() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    found = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    found.filters["figure"] = figure
    return found


def figure(value: float | None) -> str:
    """Write a number as tables do; None and what is not finite as a dash."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.4f}"


def embedded(picture: np.ndarray, *, exact: bool = False) -> str:
    """Encode a picture, uint8 ``(H, W, 3)``, as an address that holds it: PNG if exact, else the smaller WebP."""
    file = BytesIO()
    if exact:
        Image.fromarray(picture).save(file, format="png")
    else:
        Image.fromarray(picture).save(file, format="webp", quality=90)
    return f"data:image/{'png' if exact else 'webp'};base64,{base64.b64encode(file.getvalue()).decode()}"


def histogram(name: str, values: np.ndarray) -> Histogram | None:
    """Count the finite values in bins; a long tail falls into the last one. None if there are no values."""
    values = values[np.isfinite(values)]
    if not values.size:
        return None
    low, high = float(values.min()), float(values.max())
    usual = float(np.percentile(values, 95))
    if high - low > 2 * (usual - low) > 0:
        high = low + 1.5 * (usual - low)
    beyond = bool(values.max() > high)
    if high - low <= 1e-9 + 1e-6 * abs(low):  # too little for bins
        high = low + 1e-8 + abs(low) * 1e-3
    counts, _ = np.histogram(values.clip(low, high), _BINS, (low, high))
    first, median, third = np.percentile(values, (25, 50, 75)).tolist()
    return Histogram(name, counts.tolist(), low, high, beyond, (first, median, third))
