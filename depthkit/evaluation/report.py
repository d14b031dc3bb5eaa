"""What an evaluation found: numbers with the protocol they were computed under, as text, JSON and one HTML page."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from depthkit import __version__
from depthkit.errors import LabelError, RecipeError, ShardError
from depthkit.evaluation.crops import Crop
from depthkit.evaluation.page.maps import Maps
from depthkit.evaluation.page.scores import scores_page
from depthkit.evaluation.protocol import Protocol
from depthkit.evaluation.protocols.benchmark_data import command_for
from depthkit.evaluation.protocols.tables import images_of
from depthkit.evaluation.render import picture_strip
from depthkit.writing import replacing

_SHOWN = 3  # reasons that are printed


@dataclass(frozen=True)
class Report:
    """The numbers of one model under one protocol.

    Attributes:
        protocol: how they were computed.
        model: name of what was evaluated.
        summary: each metric over all scored images.
        per_image: one row per image: ``key``, ``input`` (height x width of the network's input), every metric (NaN if
            left out), ``scale`` if the protocol fits one alone (what the image itself asks for), ``pixels`` that label and
            protocol leave to score, ``left_out``, ``why`` (the reason, None if scored), ``degenerate``.
        pictures: small copies of some images with their maps, by key: the best, median and worst by the first metric.
        beside: further results under the same protocol, such as baselines, by name.
        broken: samples that could not be read, a sentence each. A published test without them is another test.
        uncertainty: curves of sparsification and calibration, if the uncertainty was scored, too.
        maps: file of the copies of all images, if one was written.
    """

    protocol: Protocol
    model: str
    summary: Mapping[str, float]
    per_image: Sequence[Mapping[str, Any]]
    pictures: Mapping[str, Maps] = field(default_factory=dict, repr=False)
    beside: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    broken: Sequence[str] = ()
    uncertainty: Mapping[str, Any] = field(default_factory=dict)
    maps: Path | None = None

    @property
    def n_images(self) -> int:
        """Images scored."""
        return len(self.per_image) - self.left_out

    @property
    def left_out(self) -> int:
        """Count images with too few valid pixels to score."""
        return sum(row["left_out"] for row in self.per_image)

    @property
    def published_images(self) -> int | None:
        """How many images the protocol's source scored; None where it does not say."""
        return images_of(self.protocol.name)

    @property
    def degenerate(self) -> int:
        """Images whose prediction determines no scale (a constant, say); they are scored, as the best constant."""
        return sum(row["degenerate"] for row in self.per_image)

    @property
    def scale(self) -> tuple[float, float] | None:
        """Median over images of the factor that a prediction lacks, and the standard deviation of the factors over that median.

        The second is 0 for a model whose predictions all have the same unit. None if the protocol fits no factor alone, or no
        image has one.
        """
        scales = np.array([row.get("scale", np.nan) for row in self.per_image])
        scales = scales[np.isfinite(scales)]
        if not scales.size:
            return None
        median = float(np.median(scales))
        return median, float((scales / median).std())

    @property
    def inputs(self) -> list[str]:
        """Sizes of the network's input, height x width, in order of appearance."""
        return list(dict.fromkeys(row["input"] for row in self.per_image))

    @property
    def rows(self) -> dict[str, Mapping[str, float]]:
        """Metrics by model: this one, those beside it, and the figures that the protocol's source published."""
        published = {f"{name} (published)": figures for name, figures in self.protocol.published.items()}
        return {self.model: self.summary, **self.beside, **published}

    @property
    def facts(self) -> dict[str, str]:
        """What belongs with every number."""
        inputs = self.inputs
        counts = f"{len(self.per_image)} read, {len(self.broken)} broken"
        counts = f"{counts}; {self.n_images} scored, {self.left_out} left out, {self.degenerate} without a scale"
        sizes = ", ".join(inputs[:3]) + (f" and {len(inputs) - 3} more" if len(inputs) > 3 else "")
        facts = {**describe(self.protocol), "images": counts, "network input": sizes}
        if self.published_images not in (None, self.n_images):
            facts["not the test"] = (
                f"the published numbers are of {self.published_images} images, these of {self.n_images}: not comparable."
            )
        if self.broken:
            facts["broken"] = _first(self.broken)
        if self.left_out:
            facts["left out"] = _first([f"{row['key']}: {row['why']}" for row in self.per_image if row["left_out"]])
        if not self.n_images:
            facts["hint"] = (
                "no image was scored. Labels in millimetres or in other units than the protocol's are the usual reason: write "
                "the shards again with the depth_scale that makes metres of them, such as 0.001."
            )
        if self.scale is not None:
            facts["scale"] = "median {:.4g} over images, standard deviation {:.4f} of it".format(*self.scale)
        return facts

    def check_complete(self) -> None:
        """Refuse a result of only a part of the samples, or of none.

        Raises:
            ShardError: samples could not be read.
            LabelError: no image was scored.
        """
        name = self.protocol.name
        if self.broken:
            raise ShardError(
                f"expected all samples of the test {name!r}; {len(self.broken)} of {len(self.broken) + len(self.per_image)} "
                f"could not be read, so the numbers are not those of the test. {_first(self.broken)} Repair the shards."
            )
        if not self.n_images:
            raise LabelError(f"expected at least one image to score under {name!r}; {self.facts['hint']}")

    def compared_with(self, *others: "Report") -> "Report":
        """Copy the report with other models' numbers beside it.

        Raises:
            RecipeError: they were computed under another protocol.
        """
        for other in others:
            if other.protocol != self.protocol:
                raise RecipeError(
                    f"expected reports under protocol {self.protocol.name!r}; {other.model!r} was scored under "
                    f"{other.protocol.name!r}. Numbers of two protocols are not comparable."
                )
        return replace(self, beside={**self.beside, **{other.model: other.summary for other in others}})

    def table(self) -> str:
        """Write the numbers as text, under the protocol's name and facts.

        Columns are the metrics, rows the models; the arrow points to better.
        """
        return "\n".join([*(f"{name}: {fact}" for name, fact in self.facts.items()), "", table_of(self.rows)])

    def __str__(self) -> str:
        return self.table()

    def to_json(self, path: str | Path) -> Path:
        """Write everything but the pictures; NaN becomes null."""
        content = {
            "depthkit": __version__,
            "model": self.model,
            "maps": None if self.maps is None else os.path.relpath(self.maps, Path(path).parent),
            "facts": self.facts,
            "summary": _finite(self.summary),
            "beside": {name: _finite(figures) for name, figures in self.beside.items()},
            "published": self.protocol.published,
            **({"uncertainty": _finite_lists(self.uncertainty)} if self.uncertainty else {}),
            "n_read": len(self.per_image),
            "broken": list(self.broken),
            "n_images": self.n_images,
            "n_published": self.published_images,
            "left_out": self.left_out,
            "degenerate": self.degenerate,
            "scale": None if self.scale is None else dict(zip(("median", "deviation"), self.scale, strict=True)),
            "per_image": [_finite(row) for row in self.per_image],
        }
        return _write(path, json.dumps(content, indent=1, default=dict, allow_nan=False))

    def to_html(self, path: str | Path) -> Path:
        """Write one self-contained page: table, counts, how each metric is spread, images with their errors, facts."""
        return scores_page(path, {self.model: self})

    def strip(self, height: int = 192) -> np.ndarray:
        """All pictures in one, one row per image: image | prediction | label, uint8 ``(H, W, 3)``."""
        return picture_strip([maps.pictures for maps in self.pictures.values()], height=height)


def table_of(rows: Mapping[str, Mapping[str, float | None]]) -> str:
    """Print numbers as text: a line per row, a column per metric of the first row; None stays blank, counts are whole.

    Example:
        >>> print(table_of({"a": {"abs_rel": 0.1}, "b": {"abs_rel": 0.25}}))
           abs_rel
        -  -------
        a   0.1000
        b   0.2500
    """
    names = list(next(iter(rows.values()), {}))
    head = ["", *names]
    body = [[row, *(_figure(figures.get(name)) for name in names)] for row, figures in rows.items()]
    widths = [max(len(line[i]) for line in (head, *body)) for i in range(len(head))]
    return "\n".join([_line(head, widths), "  ".join("-" * width for width in widths), *(_line(line, widths) for line in body)])


def describe(protocol: Protocol) -> dict[str, str]:
    """Put a protocol in words, the facts without which its numbers cannot be compared."""
    fit = protocol.alignment
    low, high = protocol.label_range
    per = {"image": "per image", "set": "of the set, the median of those per image"}[protocol.scale_of]
    over = ", over positive predictions" if fit and fit.positive else ""
    data = {"data": command} if (command := command_for(protocol.name)) else {}
    if protocol.ordinal:
        return {
            "protocol": protocol.name,
            "source": protocol.source,
            **data,
            "scored": "order of annotated point pairs",
            "resize of the image": str(protocol.input),
            "resize of the prediction": str(protocol.output),
        }
    return {
        "protocol": protocol.name,
        "source": protocol.source,
        **data,
        "alignment": f"{fit.degrees.replace('_', ' and ')} {per} by {fit.method}, in {fit.space}{over}" if fit else "none",
        "scored": f"{protocol.space} where the label is between {low:g} and {high:g} m",
        "crop": _rectangle(protocol.crop),
        "shown to the network": _rectangle(protocol.shown),
        "prediction clamped to": f"{protocol.min_depth:g} to {protocol.max_depth:g} m",
        "resize of the image": str(protocol.input),
        "resize of the prediction": str(protocol.output),
        "order": ", ".join(protocol.order),
        "averaged over": {"image": "images", "pixel": "pixels of all images"}[protocol.reduction],
    }


def _rectangle(crop: Crop) -> str:
    rows, columns = (f"{edges[0]:g} to {edges[1]:g}" for edges in (crop.rows, crop.columns))
    whole = f"{crop.window[0]}x{crop.window[1]} px at the bottom and centre" if crop.window else "the image"
    return f"{crop.name}: rows {rows}, columns {columns} {'px' if crop.size else f'of {whole}'} ({crop.source})"


def _first(sentences: Sequence[str]) -> str:
    """Join the first sentences of a list, and say how many follow."""
    more = f" And {len(sentences) - _SHOWN} more." if len(sentences) > _SHOWN else ""
    return "; ".join(sentences[:_SHOWN]) + more


def _figure(value: float | None) -> str:
    return "" if value is None else str(value) if isinstance(value, int) else f"{value:.4f}"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join([cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))]).rstrip()


def _finite(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()}


def _finite_lists(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, dict[str, list[float | None]]]:
    return {
        curve: {name: [x if math.isfinite(x) else None for x in values] for name, values in lines.items()}
        for curve, lines in curves.items()
    }


def _write(path: str | Path, text: str) -> Path:
    path = Path(path)
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")
    return path
