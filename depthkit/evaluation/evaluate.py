"""The loop that evaluates any model on any samples."""

from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from depthkit.alignment import Degrees
from depthkit.data.stream.collate import collate, to_float
from depthkit.errors import RecipeError, ShapeError, ShardError
from depthkit.evaluation.protocol import Protocol, ScaleOf
from depthkit.evaluation.render import colourise, shown
from depthkit.evaluation.report import Report
from depthkit.evaluation.scores import COUNTS, ProtocolMetrics
from depthkit.resize import as_maps, multiple_of, representation_of, resize_space_of, shown_part
from depthkit.types import REPRESENTATIONS, Ambiguity, Batch, Representation, Sample

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
    pictures: int = 8,
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
        pictures: number of images to keep for the report, spread evenly.
        progress: show a progress bar.

    Raises:
        LabelError: the representation is unknown, or protocol, labels and prediction do not fit each other.
        RecipeError: one scale for the set, and samples that can be read only once or give no scale; or a predictor, which
            resizes images itself, instead of its network.
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
    kept, rows, scale = _Kept(pictures), [], None
    broken: dict[str, None] = {}

    def score(metrics: ProtocolMetrics, title: str) -> Iterator[tuple[Batch, str]]:
        for batch in batches(_progress(samples, title, progress), coarse_labels=protocol.coarse_labels, broken=broken):
            batch = batch.to(place)
            image = protocol.resize_input(batch.image, multiple)
            size = protocol.input_size(batch.image.shape[-2], batch.image.shape[-1], multiple)
            maps = as_maps(predict(image), len(batch), batch.keys[0])
            maps = shown_part(maps, (image.shape[-2], image.shape[-1]), size).to(place)
            metrics.update(maps, representation, batch, resize_space=space)
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
        for batch, size in score(metrics, protocol.name):
            rows += _rows(metrics, batch, size)
            for index, key in enumerate(batch.keys):
                if kept.wants():
                    kept.pictures[key] = _pictures(batch, metrics, index)
    if not rows and broken:
        raise ShardError(f"expected a sample that can be read; all {len(broken)} are broken. The first: {next(iter(broken))}")
    if not rows:
        raise ShapeError("expected at least one sample to evaluate; got none. Check the split and the path of the shards.")
    summary = {metric: float(value) for metric, value in metrics.compute().items() if metric not in COUNTS}
    return Report(protocol, name or _name_of(predict), summary, rows, kept.pictures, broken=tuple(broken))


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


def _rows(metrics: ProtocolMetrics, batch: Batch, size: str) -> list[dict[str, Any]]:
    values = {name: x.tolist() for name, x in metrics.last_values.items()}
    left_out, degenerate = metrics.last_left_out.tolist(), metrics.last.degenerate.tolist()
    fit = metrics.protocol.alignment
    if fit is not None and fit.degrees == Degrees.SCALE:
        values["scale"] = metrics.last.scale.where(~metrics.last_left_out, torch.nan).tolist()
    return [
        {"key": key, "input": size, **{name: x[i] for name, x in values.items()}}
        | {"left_out": left_out[i], "why": _why(metrics, batch, i) if left_out[i] else None, "degenerate": degenerate[i]}
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


def _pictures(batch: Batch, metrics: ProtocolMetrics, index: int) -> tuple[np.ndarray, ...]:
    """Image, prediction and label as they were scored, the maps on the label's colour scale."""
    last, space = metrics.last, metrics.protocol.space
    image = (batch.image[index].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    if metrics.protocol.ordinal:
        return image, colourise(last.pred[index], representation=space)
    values = shown(last.target[index], space)[last.valid[index, 0].cpu().numpy()]
    low, high = np.percentile(values, (2, 98)).tolist() if values.size else (None, None)
    pred = colourise(last.pred[index], representation=space, low=low, high=high)
    return image, pred, colourise(last.target[index], representation=space, valid=last.valid[index], low=low, high=high)


class _Kept:
    """Pictures spread evenly over a stream of unknown length: when there are too many, every other one is dropped."""

    def __init__(self, limit: int):
        self.limit, self.stride, self.seen = limit, 1, 0
        self.pictures: dict[str, tuple[np.ndarray, ...]] = {}

    def wants(self) -> bool:
        """Whether the next image of the stream is to be kept; makes room for it."""
        index, self.seen = self.seen, self.seen + 1
        if not self.limit or index % self.stride:
            return False
        if len(self.pictures) == self.limit:
            self.pictures = dict(list(self.pictures.items())[::2])
            self.stride *= 2
        return index % self.stride == 0


def _progress(samples: Iterable[Any], title: str, shown: bool) -> Iterator[Any]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=not shown) as bar:
        total = len(samples) if isinstance(samples, Sized) else None
        yield from bar.track(samples, total=total, description=title)
