"""``depthkit benchmark``: a paper's whole table, ours beside the paper's."""

import hashlib
import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from rich.console import Console

from depthkit import __version__
from depthkit.checks import check_device
from depthkit.cli.options import shown_name
from depthkit.cli.scoring.evaluate import evaluation_samples
from depthkit.errors import RecipeError, ShardError
from depthkit.evaluation import FULL, Protocol, evaluate, find_table, table_of
from depthkit.evaluation.protocols.benchmark_data import Place, place_of
from depthkit.evaluation.protocols.tables import Column, Table, mean_improvement, mean_rank
from depthkit.evaluation.report import Report
from depthkit.inference.stored import StoredPredictions
from depthkit.inference.teacher import weights_sha256
from depthkit.models import flip_averaged, from_pretrained
from depthkit.shards import ShardIndex
from depthkit.types import Ambiguity, Representation
from depthkit.writing import replacing


@dataclass
class _Row:
    """One network's numbers of a table: a report, or why there is none, per column."""

    name: str
    model: str
    weights: str
    paper: str
    reports: list[Report | None] = field(default_factory=list)
    why: list[str] = field(default_factory=list)

    def values(self, columns: Sequence[Column]) -> list[float | None]:
        """Return the number of each column; None without one."""
        pairs = zip(self.reports, columns, strict=True)
        found = [None if report is None else report.summary[column.metric] for report, column in pairs]
        return [None if value is None or value != value else value for value in found]


@dataclass(frozen=True)
class _Source:
    """What is scored: a network, or maps that are stored."""

    name: str
    model: str
    weights: str
    representation: Representation
    ambiguity: Ambiguity
    score: Callable[[Protocol, Place], Report | None]


def benchmark(
    models: list[str],
    *,
    table: str,
    shards: Path,
    out: Path = Path("benchmark.json"),
    row: str | None = None,
    flip: bool | None = None,
    num_workers: int = 0,
    device: str = "cpu",
    allow: list[str] | None = None,
    predictions: Path | None = None,
    representation: Literal["depth", "disparity", "log_depth", "log_disparity"] | None = None,
    ambiguity: Literal["metric", "scale", "shift_scale"] | None = None,
    scale: float | None = None,
) -> None:
    """Score networks on all tests of a paper's table; print ours beside the paper's, and write a ledger.

    Args:
        models: checkpoints, folders, or names that `depthkit models` lists.
        table: such as midas_11, gp2_3, monodepth2_1, depth_anything_2, marigold_1; a wrong one is answered with all there are.
        shards: folder with a folder of shards for each dataset; what is missing is named with the command that writes it.
        out: JSON file of the ledger: weights, protocols, counts, our numbers, the paper's, versions.
        row: the paper's row to compare with, for networks that are none of the paper's.
        flip: also predict each mirrored image and average the two; by default as the network's authors do.
        num_workers: processes that read and decode.
        device: where the networks run, such as `cuda`.
        allow: beginnings of further Python names that may be imported to build a checkpoint's network.
        predictions: folder with a folder of KEY.npy or KEY.png for each folder of shards, under its name; they are scored, and
            the one model is what the table calls them.
        representation: of predictions that do not say it themselves.
        ambiguity: of predictions that do not say it themselves.
        scale: codes per unit of 16-bit PNG that do not say it themselves, such as 256.

    Raises:
        RecipeError: there is no such table, or no such row in it.
        ShardError: none of the tests' shards is there.
    """
    console, rules = Console(soft_wrap=True, highlight=False), find_table(table)
    figures = rules.figures
    if row is not None and row not in figures:
        raise RecipeError(f"expected a row of table {table}, {', '.join(figures)}; got {row!r}.")
    places = {name: place_of(name, shards, column.images) for column in rules.columns for name in column.protocols}
    missing = {name: place for name, place in places.items() if place is None or not _is_there(place)}
    lines = list(dict.fromkeys(f"missing: {_remedy(name, place)}" for name, place in missing.items()))
    for line in lines:
        console.print(line, markup=False)
    if len(missing) == len(places):
        raise ShardError(f"expected shards for a test of table {table} in {shards}; got none. The commands above write them.")
    options: dict[str, Any] = {"num_workers": num_workers, "flip": flip}
    sources: list[_Source]
    if predictions is not None:
        stated: dict[str, Any] = {"representation": representation, "ambiguity": ambiguity, "scale": scale}
        sources = [_stored(models, predictions, stated, **options)]
    else:
        sources = [_network(model, device=device, allow=allow or (), **options) for model in models]
    found = []
    for source in sources:
        paper = row or rules.models.get(source.model.partition("=")[0], "")
        paper = f"{paper} + flip" if source.name.endswith(" + flip") and f"{paper} + flip" in figures else paper
        ours = _Row(source.name, source.model, source.weights, paper)
        reports: dict[str, Report | None] = {}
        for column in rules.columns:
            protocol = column.protocol_for(source.representation, source.ambiguity)
            if protocol is None or protocol.name in missing:
                ours.reports.append(None)
                ours.why.append("no test resolves what the network leaves open" if protocol is None else "no shards")
                continue
            if protocol.name not in reports:
                place = places[protocol.name]
                assert place is not None
                reports[protocol.name] = source.score(protocol, place)
            ours.reports.append(reports[protocol.name])
            ours.why.append("" if reports[protocol.name] is not None else "no stored predictions")
        found.append(ours)
    console.print(f"\n{rules.source}\n\n{_printed(rules, found)}\n", markup=False)
    for warning in _warnings(rules, found):
        console.print(warning, markup=False)
    with replacing(out) as part:
        part.write_text(json.dumps(_ledger(rules, found, places), indent=1, allow_nan=False), encoding="utf-8")
    console.print(f"wrote {out}", markup=False)


def _network(model: str, *, device: str, allow: Sequence[str], num_workers: int, flip: bool) -> _Source:
    network: Any = from_pretrained(model, allow=allow)
    scored: Any = flip_averaged(network, flip).to(check_device(device))
    name = f"{shown_name(model)} + flip" if scored is not network else shown_name(model)

    def score(protocol: Protocol, place: Place) -> Report:
        rule = network.input_rule if getattr(network, "fixed_size", None) else protocol.input
        samples = evaluation_samples(place.folder, place.split, num_workers=num_workers)
        kept = replace(protocol, input=rule)
        return evaluate(scored, samples, kept, ambiguity=network.ambiguity, name=name, pictures=0)

    return _Source(name, model, _weights(model, network), network.representation, network.ambiguity, score)


def _stored(models: Sequence[str], folder: Path, stated: dict[str, Any], *, num_workers: int, flip: bool) -> _Source:
    """Score maps in a folder per set of shards.

    Raises:
        RecipeError: they have more than one name, or are to be mirrored.
    """
    if len(models) != 1 or flip:
        raise RecipeError(f"expected one name for the maps in {folder}, and no --flip; got {', '.join(models)}.")
    known = StoredPredictions(folder, shown=FULL, **stated)

    def score(protocol: Protocol, place: Place) -> Report | None:
        maps = folder / place.folder.name
        if not maps.is_dir():
            return None
        stored = StoredPredictions(maps, shown=protocol.shown, **stated)
        samples = stored.of(evaluation_samples(place.folder, place.split, num_workers=num_workers))
        return evaluate(stored, samples, protocol, ambiguity=stored.ambiguity, name=models[0], pictures=0)

    return _Source(models[0], models[0], "", known.representation, known.ambiguity, score)


def _is_there(place: Place) -> bool:
    return (place.folder / "index.json").is_file() and place.split in ShardIndex.load(place.folder).splits


def _remedy(protocol: str, place: Place | None) -> str:
    return f"{protocol}: no converter writes its test data" if place is None else f"{protocol}: {place.command}"


def _weights(model: str, network: Any) -> str:
    """SHA-256 of a program's file, else over the weights in whatever file they came."""
    if Path(model).is_file() and not network.state_dict():
        return hashlib.sha256(Path(model).read_bytes()).hexdigest()
    return weights_sha256(network)


def _printed(table: Table, rows: Sequence[_Row]) -> str:
    """Ours beside the paper's with the difference, then the paper's other rows."""
    columns, figures, shown = table.columns, table.figures, dict[str, dict[str, float | None]]()
    for ours in rows:
        values = ours.values(columns)
        others = {name: x for name, x in figures.items() if name != ours.paper}
        theirs = figures.get(ours.paper)
        reference = figures.get(table.reference) or theirs
        shown[ours.name] = _cells(table, values) | {
            "mean rank": mean_rank(values, others, columns),
            "mean gain": mean_improvement(values, reference, columns) if reference else None,
        }
        if theirs is not None:
            shown[f"  paper: {ours.paper}"] = _cells(table, theirs)
            gaps = [None if a is None or b is None else a - b for a, b in zip(values, theirs, strict=True)]
            shown[f"  {ours.name} - paper"] = dict(zip((column.label for column in columns), gaps, strict=True))
    taken = {ours.paper for ours in rows}
    shown |= {f"{name} (paper)": _cells(table, x) for name, x in figures.items() if name not in taken}
    return table_of(shown)


def _cells(table: Table, values: Sequence[float | None]) -> dict[str, float | None]:
    labels, reference = [column.label for column in table.columns], table.figures.get(table.reference)
    if not table.relative or reference is None:
        return dict(zip(labels, values, strict=True))
    pairs = zip(values, reference, strict=True)
    return dict(zip(labels, [None if x is None or not base else 100 * (x / base - 1) for x, base in pairs], strict=True))


def _warnings(table: Table, rows: Sequence[_Row]) -> list[str]:
    """Say why a number differs from the paper's."""
    found = []
    for ours in rows:
        for column, report, why in zip(table.columns, ours.reports, ours.why, strict=True):
            if why and why != "no shards":
                found.append(f"{ours.name}: {column.label} has no number: {why}.")
            elif report is not None and column.images not in (None, report.n_images):
                found.append(
                    f"{ours.name}: {column.label} was scored on {report.n_images} images, by the paper on {column.images}."
                )
        if not ours.paper:
            found.append(f"{ours.name}: none of the paper's networks; name a row by --row to compare with it.")
    return list(dict.fromkeys(found))


def _ledger(table: Table, rows: Sequence[_Row], places: dict[str, Place | None]) -> dict[str, Any]:
    content = []
    for ours in rows:
        values, theirs = ours.values(table.columns), table.figures.get(ours.paper) or [None] * len(table.columns)
        others = {name: x for name, x in table.figures.items() if name != ours.paper}
        reference = table.figures.get(table.reference) or theirs
        cells = []
        for column, report, value, figure, why in zip(table.columns, ours.reports, values, theirs, ours.why, strict=True):
            place = None if report is None else places[report.protocol.name]
            cells.append(
                {
                    "column": column.label,
                    "metric": column.metric,
                    "protocol": None if report is None else report.protocol.name,
                    "facts": None if report is None else report.facts,
                    "shards": None if place is None else str(place.folder),
                    "digest": None if place is None else ShardIndex.load(place.folder).digest,
                    "images": None if report is None else report.n_images,
                    "left_out": None if report is None else report.left_out,
                    "paper_images": column.images,
                    "ours": value,
                    "paper": figure,
                    "difference": None if value is None or figure is None else value - figure,
                    "without": why or None,
                }
            )
        numbers = mean_rank(values, others, table.columns), mean_improvement(values, reference, table.columns)
        rank, gain = (None if x != x else x for x in numbers)
        content.append(
            {"name": ours.name, "model": ours.model, "weights_sha256": ours.weights or None, "paper_row": ours.paper or None}
            | {"mean_rank": rank, "mean_relative_improvement": gain, "columns": cells}
        )
    versions = {
        "depthkit": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    written = datetime.now(UTC).isoformat(timespec="seconds")
    return {"table": table.name, "source": table.source, "written": written, "versions": versions, "networks": content}
