"""The page of a comparison: differences with their intervals, and the images that changed most, both maps beside the truth."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from depthkit.errors import RecipeError
from depthkit.evaluation.page.html import Panel, embedded, histogram, write_page
from depthkit.evaluation.page.maps import Maps, MapsFile, error_scale
from depthkit.evaluation.page.scores import error_title
from depthkit.evaluation.protocols.tables import higher_is_better

Pairs = Mapping[str, tuple[float | None, float | None]]
"""The two values of an image, by metric."""


def paired_page(path: str | Path, found: Any, *, maps: tuple[Path | None, Path | None], count: int = 8) -> Path:
    """Write the page of a ``PairedReport``.

    Args:
        path: of the page.
        found: the comparison.
        maps: files of maps that the two evaluations wrote; None where there is none.
        count: images to show, half of those that improved most and half of those that got worse.

    Raises:
        RecipeError: the maps are of other images or labels.
        PredictionError: the page cannot be written.
    """
    main = next(iter(found.metrics))
    changes = _changes(found.pairs, main)
    sign = -1 if higher_is_better(main) else 1
    ordered = sorted(changes, key=lambda key: sign * changes[key])
    better = [key for key in ordered[: (count + 1) // 2] if sign * changes[key] < 0]
    worse = [key for key in ordered[::-1][: count // 2] if sign * changes[key] > 0]
    groups, missing = {}, None
    if maps[0] is None or maps[1] is None:
        missing = "No maps are shown: at least one report has none beside it. Evaluate with --out and --pictures above 0."
    else:
        groups = _groups(
            {f"Improved most by {main}": better, f"Got worse most by {main}": worse}, found, main, (maps[0], maps[1])
        )
    return write_page(
        path,
        "compare.html",
        title=f"{found.names[0]} and {found.names[1]} under {found.protocol}",
        lead=f"{found.images} images in both; {len(found.unpaired_keys)} in one alone, or left out in one.",
        names=found.names,
        confidence=found.confidence,
        metrics=found.metrics,
        verdicts={name: found.verdict(name) for name in found.metrics},
        plot=histogram(f"{main}: second minus first", np.array(list(changes.values()), float)),
        groups=groups,
        missing=missing,
        images=[
            {"key": key, "pairs": {name: (*pair, _difference(*pair)) for name, pair in pairs.items()}}
            for key, pairs in found.pairs.items()
        ],
        unpaired=found.unpaired_keys,
    )


def _difference(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else b - a


def _changes(pairs: Mapping[str, Pairs], metric: str) -> dict[str, float]:
    found = {key: _difference(*values[metric]) for key, values in pairs.items()}
    return {key: change for key, change in found.items() if change is not None}


def _groups(keys: Mapping[str, Sequence[str]], found: Any, metric: str, files: tuple[Path, Path]) -> dict[str, list[Any]]:
    with MapsFile.reading(files[0]) as one, MapsFile.reading(files[1]) as two:
        wanted = [key for group in keys.values() for key in group if key in one.keys & two.keys]
        shown = {key: (one[key], two[key]) for key in wanted}
    for key, (a, b) in shown.items():
        if a.target.shape != b.target.shape or not np.allclose(a.target, b.target, rtol=1e-2, equal_nan=True):
            raise RecipeError(
                f"expected two reports of the same images; the labels of {key!r} in {files[0]} and {files[1]} differ. "
                "Evaluate both on the same shards."
            )
    errors = error_scale([maps for pair in shown.values() for maps in pair])
    return {
        group: [_figure(key, found, metric, shown[key], errors) for key in members if key in shown]
        for group, members in keys.items()
    }


def _figure(key: str, found: Any, metric: str, maps: tuple[Maps, Maps], errors: Any) -> dict[str, Any]:
    one, two = found.pairs[key][metric]
    scale, title = maps[0].scale, error_title(maps[0])
    panels = [
        Panel("image", embedded(maps[0].image)),
        *[Panel(name, embedded(scale.colour(x.pred)), scale) for name, x in zip(found.names, maps, strict=True)],
    ]
    if np.isfinite(maps[0].target).any():
        panels.append(Panel("label", embedded(scale.colour(maps[0].target)), scale))
        named = zip(found.names, maps, strict=True)
        panels += [Panel(f"{name}: {title}", embedded(errors.colour(x.error)), errors) for name, x in named]
    return {"key": key, "caption": f"{metric} {one:.4f} → {two:.4f} ({two - one:+.4f})", "panels": panels}
