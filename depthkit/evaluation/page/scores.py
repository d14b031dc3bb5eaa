"""The page of an evaluation: table, counts, distributions, the best, median and worst images."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from depthkit.evaluation.page.html import Histogram, LinePlot, Panel, embedded, figure, histogram, write_page
from depthkit.evaluation.page.maps import Maps, error_scale, extremes
from depthkit.evaluation.protocols.tables import higher_is_better


def scores_page(path: str | Path, reports: Mapping[str, Any]) -> Path:
    """Write one page about one model on one or more datasets.

    Args:
        path: of the page.
        reports: a ``Report`` for each dataset, by its name; all under one protocol.

    Raises:
        PredictionError: the page cannot be written.
    """
    first = next(iter(reports.values()))
    metrics = list(first.summary)
    return write_page(
        path,
        "scores.html",
        title=f"{first.model} under {first.protocol.name}",
        lead="Colours of prediction and label span the 2nd to the 98th percentile of the label; grey has no value.",
        metrics=metrics,
        datasets=[_dataset(name, report, metrics) for name, report in reports.items()],
    )


def _dataset(name: str, report: Any, metrics: Sequence[str]) -> dict[str, Any]:
    rows = {row["key"]: row for row in report.per_image}
    main, shown = metrics[0], report.pictures
    groups = extremes(report.per_image, main, len(shown), higher=higher_is_better(main))
    errors = error_scale(list(shown.values()))
    hidden = ("broken", "left out", "images")  # which have a place of their own
    plots = [histogram(metric, _values(report.per_image, metric)) for metric in metrics]
    return {
        "name": name,
        "main": main,
        "read": len(report.per_image),
        "scored": report.n_images,
        "left_out": report.left_out,
        "degenerate": report.degenerate,
        "broken": report.broken,
        "why": {key: row["why"] for key, row in rows.items() if row["left_out"]},
        "rows": {model: {k: _known(v) for k, v in figures.items()} for model, figures in report.rows.items()},
        "plots": [plot for plot in plots if isinstance(plot, Histogram)],
        "trust": trust_plots(report.uncertainty),
        "groups": {
            group: [_figure(key, rows[key], metrics, shown[key], errors) for key in keys if key in shown]
            for group, keys in groups.items()
        },
        "images": [{**row, **{metric: _known(row.get(metric)) for metric in metrics}} for row in report.per_image],
        "facts": {fact: text for fact, text in report.facts.items() if fact not in hidden},
    }


def _figure(key: str, row: Mapping[str, Any], metrics: Sequence[str], maps: Maps, errors: Any) -> dict[str, Any]:
    caption = ", ".join(f"{metric} {figure(row.get(metric))}" for metric in metrics)
    return {"key": key, "caption": caption, "panels": panels_of(maps, errors)}


def panels_of(maps: Maps, errors: Any) -> list[Panel]:
    """List image, prediction, label and error of one image; without a dense label only the first two."""
    image, pred, target = (embedded(picture) for picture in maps.pictures)
    found = [Panel("image", image), Panel("prediction", pred, maps.scale)]
    if np.isfinite(maps.target).any():
        error = embedded(errors.colour(maps.error))
        found += [Panel("label", target, maps.scale), Panel(error_title(maps), error, errors)]
    return found


def trust_plots(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> list[LinePlot]:
    """Plot the curves of a report's uncertainty; what no image was scored for has none."""
    plots = []
    for name, lines in curves.items():
        if not all(np.isfinite(values).all() for values in lines.values()):
            continue
        if name == "calibration":
            promised = lines["promised"]
            drawn, across = {"found": lines["found"], "promised": promised}, "share promised within an interval"
            plots.append(LinePlot("calibration_error", across, promised, drawn))
        else:
            error = name.removeprefix("sparsification_")
            drawn = {"by uncertainty": lines["by_uncertainty"], "best": lines["best"]}
            plots.append(LinePlot(f"ause_{error}", "share of pixels left out", lines["left_out"], drawn))
    return plots


def error_title(maps: Maps) -> str:
    """Say what the picture of errors shows."""
    return "relative error" if maps.error_unit == "%" else "error"


def _values(rows: Sequence[Mapping[str, Any]], metric: str) -> np.ndarray:
    return np.array([math.nan if (x := row.get(metric)) is None else x for row in rows], float)


def _known(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value
