"""The loop that evaluates any model on any samples."""

from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from depthkit.alignment import Degrees
from depthkit.data.stream.collate import collate, to_float
from depthkit.errors import RecipeError, ShapeError, ShardError
from depthkit.evaluation.flicker import FlickerScores
from depthkit.evaluation.page.colours import unit_of
from depthkit.evaluation.page.maps import Maps, MapsFile, extremes, small_maps
from depthkit.evaluation.protocol import Protocol, ScaleOf
from depthkit.evaluation.protocols.tables import higher_is_better
from depthkit.evaluation.report import Report
from depthkit.evaluation.scores import COUNTS, ProtocolMetrics, maps_in_metres
from depthkit.evaluation.trust import TrustScores
from depthkit.resize import as_maps, multiple_of, network_map, representation_of, resize_space_of, shown_part
from depthkit.types import AMBIGUITIES, REPRESENTATIONS, Ambiguity, Batch, Representation, Sample

Predict = Callable[[Tensor], Any]
"""RGB in [0, 1], float32 ``(1, 3, H, W)``, to a map: tensor or array ``(1, 1, h, w)``, ``(1, h, w)`` or ``(h, w)``."""


def evaluate(
    predict: Predict,
    samples: Iterable[Sample | Batch],
    protocol: Protocol,
    *,
    representation: Representation | None = None,
    ambiguity: Ambiguity | None = None,
    size_multiple: int | None = None,
    device: torch.device | str | None = None,
    name: str | None = None,
    uncertainty: bool = False,
    flicker: bool = False,
    pictures: int = 8,
    maps: str | Path | None = None,
    progress: bool = True,
) -> Report:
    """Score a model, whoever made it, under a protocol.

    Args:
        predict: called on each image, resized as the protocol says; a network is put in evaluation mode for the time.
        samples: labelled samples, or batches of an evaluation loader (then ``predict`` gets ``(B, 3, H, W)``). Under a
            protocol with one scale for the set they are read, and predicted, twice. What a loader could not read is named in
            the report; ``Report.check_complete`` refuses a test in part.
        protocol: how to score.
        representation: what the predicted numbers are; default ``predict.representation``.
        ambiguity: what the prediction leaves undetermined, to refuse protocols that do not fit it; default
            ``predict.ambiguity`` if there is one, else not checked.
        size_multiple: image sides must be multiples of it; default ``predict.size_multiple``, else 1.
        device: where ``predict`` runs; default where its parameters are, else the CPU.
        name: of the model in the report; default its class or function name.
        uncertainty: also score what ``predict.with_uncertainty`` says of each pixel, see ``TrustScores``; any network can
            be made to say it by ``depthkit.models.uncertain``.
        flicker: also score how much successive frames contradict each other, see ``FlickerScores``; samples are in the order of
            time.
        pictures: number of images to show in the report: the best, those about the median and the worst by the first metric.
        maps: file for small copies of all images with their maps, from which ``compare_reports`` draws; none is written
            without it.
        progress: show a progress bar.

    Raises:
        LabelError: the representation is unknown, or protocol, labels and prediction do not fit each other.
        RecipeError: one scale for the set, and samples that can be read only once or give no scale; or a predictor, which
            resizes images itself, instead of its network; or an uncertainty that it does not give; or no frames for flicker.
        PredictionError: a prediction is not finite, or not positive where depth and disparity convert.
        ShapeError: a prediction is not one map per image, or there are no samples.

    Example:
        >>> from depthkit.evaluation import PROTOCOLS
        >>> depth = np.linspace(1, 5, 64 * 64, dtype=np.float32).reshape(64, 64)
        >>> sample = Sample("a", np.zeros((64, 64, 3), np.uint8), depth, depth > 0, Ambiguity.METRIC, Representation.DEPTH)
        >>> report = evaluate(lambda image: 3 / depth + 1, [sample], PROTOCOLS["synthetic_affine"],
        ...                   representation=Representation.DISPARITY, progress=False)
        >>> report.summary["abs_rel"] < 1e-5, report.summary["delta1"]
        (True, 1.0)
    """
    if not isinstance(predict, nn.Module) and isinstance(getattr(predict, "model", None), nn.Module):
        raise RecipeError(
            f"expected a network, or a function of images at the protocol's size; got {type(predict).__name__}, which resizes "
            "them itself. Pass its .model, with representation= and ambiguity= if that does not state them."
        )
    representation = representation_of(predict, representation)
    ambiguity = getattr(predict, "ambiguity", None) if ambiguity is None else ambiguity
    protocol.check_prediction(representation, ambiguity)
    multiple, space = multiple_of(predict) if size_multiple is None else size_multiple, resize_space_of(predict)
    place = torch.device(device) if device is not None else _device_of(predict)
    rows: list[dict[str, Any]] = []
    scale, first = None, next(iter(protocol.metrics))
    trust: TrustScores | None = None
    if uncertainty:
        if not getattr(predict, "gives_uncertainty", False):
            raise RecipeError(
                f"expected a network that gives its uncertainty; {name or _name_of(predict)} does not. Pass it through "
                "depthkit.models.uncertain, or leave out uncertainty."
            )
        trust = TrustScores(protocol, representation, Ambiguity.METRIC if ambiguity is None else ambiguity).to(place)
    films = FlickerScores(protocol, representation) if flicker else None
    broken: dict[str, None] = {}

    def score(metrics: ProtocolMetrics, title: str) -> Iterator[tuple[Batch, str]]:
        for batch in batches(_progress(samples, title, progress), coarse_labels=protocol.coarse_labels, broken=broken):
            batch = batch.to(place)
            image = protocol.resize_input(batch.image, multiple)
            size = protocol.input_size(batch.image.shape[-2], batch.image.shape[-1], multiple)
            if trust is None:
                maps = as_maps(predict(image), len(batch), batch.keys[0])
                maps, spread = shown_part(maps, (image.shape[-2], image.shape[-1]), size).to(place), None
            else:
                maps, spread = network_map(predict, image, size)
            maps = maps_in_metres(maps, predict, representation, batch, protocol, size)
            metrics.update(maps, representation, batch, resize_space=space)
            if trust is not None and spread is not None and metrics.protocol is protocol:
                trust.update(metrics, spread)
            if films is not None and metrics.protocol is protocol:
                films.update(maps, batch, resize_space=space)
            yield batch, f"{image.shape[-2]}x{image.shape[-1]}"

    with torch.inference_mode(), _evaluation_mode(predict):
        if protocol.scale_of == ScaleOf.SET:
            if iter(samples) is samples:
                raise RecipeError(
                    f"protocol {protocol.name!r} has one scale for the whole set and reads it twice; got an iterator, which is "
                    "read only once. Pass a list or a loader."
                )
            fitted = ProtocolMetrics(replace(protocol, scale_of=ScaleOf.IMAGE)).to(place)
            found = (fitted.last.scale[~fitted.last_left_out] for _ in score(fitted, f"{protocol.name}: scale"))
            scale = median_of_ranks([x for scales in found for x in scales.tolist()], protocol)
        metrics = ProtocolMetrics(protocol, scale=scale).to(place)
        with MapsFile.writing(None if maps is None else Path(maps)) as kept:
            for batch, size in score(metrics, protocol.name):
                rows += _rows(metrics, batch, size, {} if trust is None else trust.last)
                for index, key in enumerate(batch.keys if pictures or maps else ()):
                    kept.add(key, _maps(batch, metrics, index))
            chosen = extremes(rows, first, pictures, higher=higher_is_better(first))
            shown = {key: kept[key] for keys in chosen.values() for key in keys}
    if not rows and broken:
        raise ShardError(f"expected a sample that can be read; all {len(broken)} are broken. The first: {next(iter(broken))}")
    if not rows:
        raise ShapeError("expected at least one sample to evaluate; got none. Check the split and the path of the shards.")
    summary = {metric: float(value) for metric, value in metrics.compute().items() if metric not in COUNTS}
    summary |= ({} if trust is None else trust.summary()) | ({} if films is None else films.summary())
    return Report(
        protocol,
        name or _name_of(predict),
        summary,
        rows,
        shown,
        broken=tuple(broken),
        uncertainty={} if trust is None else trust.facts(),
        maps=None if maps is None else Path(maps),
    )


def median_of_ranks(scales: list[float], protocol: Protocol) -> float:
    """Take the median of the scales of all images of a set, which may be spread over processes.

    Raises:
        RecipeError: there is none.
    """
    if dist.is_available() and dist.is_initialized():
        parts: list[list[float]] = [[] for _ in range(dist.get_world_size())]
        dist.all_gather_object(parts, scales)
        scales = [scale for part in parts for scale in part]
    exist = [scale for scale in scales if scale == scale]
    if not exist:
        raise RecipeError(
            f"protocol {protocol.name!r}: expected at least one image that determines a scale; got none of {len(scales)}. "
            "Check that the labels have valid pixels within the protocol's range and crop."
        )
    return float(np.median(exist))


def batches(
    samples: Iterable[Sample | Batch], *, coarse_labels: bool = False, broken: dict[str, None] | None = None
) -> Iterator[Batch]:
    """Make batches of one of samples, at the size they have, and drop the rows that only pad batches.

    Args:
        samples: samples or batches.
        coarse_labels: labels may have fewer pixels than their images.
        broken: takes up what could not be read, a sentence per sample.

    Raises:
        ShapeError: an image is not RGB; or image and label differ in size, and labels may not be coarse.
    """
    for item in samples:
        if isinstance(item, Batch):
            if broken is not None:
                broken.update(dict.fromkeys(item.broken))
            if item.real.any():
                yield item if item.real.all() else item.rows(item.real)
            continue
        if item.image.ndim != 3 or item.image.shape[-1] != 3 or not item.image.size:
            raise ShapeError(
                f"{item.key}: expected an RGB image (H, W, 3) with pixels; got one of shape {item.image.shape}. "
                "Repeat a grey one: np.repeat(image[..., None], 3, 2)."
            )
        if coarse_labels and item.label is not None and item.valid is not None:
            batch = to_float(collate([item.replace(label=None, valid=None, sky=None)], [0]))
            target, valid = (torch.from_numpy(np.ascontiguousarray(x))[None, None] for x in (item.label, item.valid))
            yield replace(batch, target=target, valid=valid, sky=torch.zeros_like(valid))
            continue
        if item.label is not None and item.label.shape != item.size:
            raise ShapeError(
                f"{item.key}: expected image and label of one size; got {item.size} and {item.label.shape}. "
                "Scale the image to the label, never the label."
            )
        yield to_float(collate([item], [0]))


def _device_of(predict: Predict) -> torch.device:
    parameters = predict.parameters() if isinstance(predict, nn.Module) else iter(())
    return next((p.device for p in parameters), torch.device("cpu"))


def _name_of(predict: Predict) -> str:
    return getattr(predict, "__name__", None) or type(predict).__name__


@contextmanager
def _evaluation_mode(predict: Predict) -> Iterator[None]:
    training = [m for m in predict.modules() if m.training] if isinstance(predict, nn.Module) else []
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _rows(metrics: ProtocolMetrics, batch: Batch, size: str, trust: dict[str, Tensor]) -> list[dict[str, Any]]:
    values = {name: x.tolist() for name, x in (metrics.last_values | trust).items()}
    left_out, degenerate = metrics.last_left_out.tolist(), metrics.last.degenerate.tolist()
    pixels, fit = metrics.last.labelled.tolist(), metrics.protocol.alignment
    if fit is not None and fit.degrees == Degrees.SCALE:
        values["scale"] = metrics.last.scale.where(~metrics.last_left_out, torch.nan).tolist()
    return [
        {"key": key, "input": size, **{name: x[i] for name, x in values.items()}}
        | {
            "pixels": pixels[i],
            "left_out": left_out[i],
            "why": _why(metrics, batch, i) if left_out[i] else None,
            "degenerate": degenerate[i],
        }
        for i, key in enumerate(batch.keys)
    ]


def _why(metrics: ProtocolMetrics, batch: Batch, index: int) -> str:
    """Say why an image was left out."""
    protocol, labelled = metrics.protocol, batch.valid[index]
    if protocol.ordinal:
        return "no point pair to score"
    if not labelled.any():
        return "no labelled pixel"
    scored, stored = int(metrics.last.labelled[index]), REPRESENTATIONS[int(batch.representation[index])]
    reason = f"{scored} of {int(labelled.sum())} labelled pixels can be scored, {protocol.min_valid} are needed"
    label = batch.target[index][labelled]
    if stored != Representation.DEPTH:
        return f"{reason} (the label, {stored}, is {float(label.min()):.4g} to {float(label.max()):.4g})"
    near, far = protocol.label_range
    span = f"{float(label.min()):.4g} to {float(label.max()):.4g} m"
    return f"{reason} (the label is {span}, the test takes {near:g} to {far:g} m in the crop {protocol.crop.name!r})"


def _maps(batch: Batch, metrics: ProtocolMetrics, index: int) -> Maps:
    """Copy an image, its prediction and its label as they were scored."""
    protocol = metrics.protocol
    unit = unit_of(protocol.space, AMBIGUITIES[int(batch.ambiguity[index])])
    unit = "of the label's range" if protocol.unit_labels else unit
    return small_maps(batch.image[index], metrics.last, index, representation=protocol.space, unit=unit)


def _progress(samples: Iterable[Any], title: str, shown: bool) -> Iterator[Any]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=not shown) as bar:
        total = len(samples) if isinstance(samples, Sized) else None
        yield from bar.track(samples, total=total, description=title)
