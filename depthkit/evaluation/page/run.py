"""The page of a training run: curves, last scores, last pictures."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from depthkit.evaluation.page.html import embedded, write_page
from depthkit.evaluation.scores import COUNTS
from depthkit.writing import replacing

Curve = Sequence[tuple[int, float]]
"""Steps and values."""
_COLUMNS = 3
CURVES, PAGE = "curves.png", "report.html"
"""Names of the files in a run's folder."""


def run_page(
    folder: str | Path,
    title: str,
    curves: Mapping[str, Curve],
    *,
    pictures: Mapping[str, tuple[int, np.ndarray, str]] | None = None,
    facts: Mapping[str, str] | None = None,
) -> Path:
    """Write ``report.html`` and ``curves.png`` into a run's folder; return the page.

    Args:
        folder: of the run.
        title: of the page.
        curves: what was logged, by name; ``val/SET/METRIC`` are the scores of a set.
        pictures: step, picture uint8 ``(H, W, 3)`` and what its columns are, by name.
        facts: further lines.

    Raises:
        PredictionError: a file cannot be written.
    """
    folder, drawn = Path(folder), plotted(curves)
    if drawn is not None:
        with replacing(folder / CURVES) as part:
            Image.fromarray(drawn).save(part, format="png")
    scores: dict[str, dict[str, float]] = {}
    for name, curve in curves.items():
        kind, _, rest = name.partition("/")
        if kind == "val" and "/" in rest and curve and math.isfinite(curve[-1][1]):
            (name_of, _, metric), value = rest.rpartition("/"), curve[-1][1]
            if metric not in COUNTS:
                scores.setdefault(name_of, {})[metric] = value
            elif value:  # nothing left out is not worth a column
                scores.setdefault(name_of, {})[metric] = int(value)
    steps = max((curve[-1][0] for curve in curves.values() if curve), default=0)
    return write_page(
        folder / PAGE,
        "run.html",
        title=title,
        lead=f"{steps} steps",
        scores=scores,
        metrics=list(dict.fromkeys(metric for figures in scores.values() for metric in figures)),
        curves=None if drawn is None else embedded(drawn, exact=True),
        pictures={
            name: {"step": step, "picture": embedded(picture), "caption": caption}
            for name, (step, picture, caption) in (pictures or {}).items()
        },
        values=[_row(name, curve) for name, curve in sorted(curves.items()) if curve],
        facts=facts or {},
    )


def plotted(curves: Mapping[str, Curve]) -> np.ndarray | None:
    """Draw curves, uint8 ``(H, W, 3)``: one plot for the losses of training, one for each metric with a line per set.

    What never changes, such as counts, is not drawn. None if nothing does.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # drawing dependencies, not ones of every evaluation
    from matplotlib.figure import Figure

    plots: dict[str, dict[str, Curve]] = {}
    for name, curve in curves.items():
        finite = [(step, value) for step, value in curve if math.isfinite(value)]
        if len({value for _, value in finite}) > 1:
            kind, _, rest = name.partition("/")
            plot, line = (rest.rpartition("/")[2], rest.rpartition("/")[0]) if kind == "val" else (kind, rest or name)
            if finite not in plots.setdefault(plot, {}).values():  # of one dataset, loss and total are one line
                plots[plot][line or kind] = finite
    if not plots:
        return None
    rows, columns = -(-len(plots) // _COLUMNS), min(len(plots), _COLUMNS)
    width, height = 4.2 * columns, 2.9 * rows
    canvas = FigureCanvasAgg(figure := Figure(figsize=(width, height), dpi=100))
    figure.subplots_adjust(0.6 / width, 0.5 / height, 1 - 0.1 / width, 1 - 0.3 / height, wspace=0.2, hspace=0.4)
    for number, (plot, lines) in enumerate(sorted(plots.items(), key=lambda pair: pair[0] != "train"), 1):
        axes = figure.add_subplot(rows, columns, number)
        for line, curve in lines.items():
            axes.plot(*zip(*curve, strict=True), label=line, linewidth=1.2, marker="." if len(curve) < 20 else "")
        axes.set_title(plot, fontsize=10)
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


def _row(name: str, curve: Curve) -> dict[str, Any]:
    finite = [(value, step) for step, value in curve if math.isfinite(value)] or [(math.nan, 0)]
    least, greatest = min(finite), max(finite)
    return {"name": name, "points": len(curve), "figures": [curve[0][1], curve[-1][1], *least, *greatest]}
