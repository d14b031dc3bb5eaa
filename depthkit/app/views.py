"""What the page shows of a prediction: colours under a bar, values under the pointer, points, files."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from depthkit.errors import RecipeError
from depthkit.evaluation.page.colours import ColourScale, unit_of
from depthkit.evaluation.page.html import embedded, filled
from depthkit.geometry import intrinsics_from_field_of_view
from depthkit.inference.clouds import write_point_cloud
from depthkit.inference.prediction import Prediction
from depthkit.types import Ambiguity, Representation

NO_VALUE = 2**16 - 1
"""Code of a pixel without a value."""
_WIDEST = 1280  # px of pictures that are sent to the browser
_POINTS = 200_000  # that a browser turns smoothly
_INVERSE = (Representation.DISPARITY, Representation.LOG_DISPARITY)


@dataclass(frozen=True)
class Look:
    """How a prediction is looked at.

    Attributes:
        low: percentile of the values where the colours begin; points below have no place in the cloud.
        high: percentile where they end.
        scale: factor on depth.
        ratio: how many times as far as the nearest the farthest is taken to be, for networks that leave a shift open.
        field_of_view: from left to right [degrees], for points.
        max_edge: points that are this many times as far as a neighbour are dropped; 1 drops none.
    """

    low: float = 2.0
    high: float = 98.0
    scale: float = 1.0
    ratio: float = 10.0
    field_of_view: float = 60.0
    max_edge: float = 1.1

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= 100:
            raise RecipeError(f"expected the range to begin before it ends; got {self.low:g} to {self.high:g} %.")


def scaled(prediction: Prediction, factor: float) -> Prediction:
    """Multiply the depth of a prediction by a factor; one up to scale and shift stays, for its depth is not known."""
    if factor == 1 or prediction.ambiguity == Ambiguity.SHIFT_SCALE:
        return prediction
    change = 1 / factor if prediction.representation in _INVERSE else factor
    logarithm = prediction.representation in (Representation.LOG_DEPTH, Representation.LOG_DISPARITY)
    values = prediction.map + np.log(change) if logarithm else prediction.map * change
    return replace(prediction, map=values.astype(np.float32))


def shown_values(prediction: Prediction) -> tuple[np.ndarray, Representation, str]:
    """Return depth where there is one, else the map itself; with what its numbers are, and their unit."""
    if prediction.ambiguity == Ambiguity.SHIFT_SCALE:
        return prediction.map, prediction.representation, unit_of(prediction.representation, prediction.ambiguity)
    return prediction.depth(), Representation.DEPTH, unit_of(Representation.DEPTH, prediction.ambiguity)


def colour_scale(prediction: Prediction, look: Look) -> ColourScale:
    """Return the colours between the two percentiles of what is shown."""
    values, representation, unit = shown_values(scaled(prediction, look.scale))
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, (look.low, look.high)).tolist() if finite.size else (1.0, 1.0)
    return ColourScale(low, high, unit, representation)


def view(prediction: Prediction, look: Look, title: str = "depth") -> str:
    """Write the coloured map with its bar as HTML; the page's script reads from it the value under the pointer."""
    values, representation, unit = shown_values(scaled(prediction, look.scale))
    scale = colour_scale(prediction, look)
    codes, low, step = coded(_shrunk(values))
    depth = representation == Representation.DEPTH
    return filled(
        "view.html",
        title=title,
        picture=embedded(scale.colour(_shrunk(values))),
        codes=embedded(codes, exact=True),
        low=low,
        step=step,
        unit=("" if depth else f"{representation.replace('_', ' ')}, ") + unit,
        scale=scale,
        hint=f"point at the picture: {'depth' if depth else representation.replace('_', ' ')} [{unit}]",
    )


def plain(image: np.ndarray, title: str = "image") -> str:
    """Write an image as HTML, uint8 ``(H, W, 3)``; pointing at it reads the maps beside it."""
    return filled(
        "view.html", title=title, picture=embedded(_shrunk(image)), codes="", low=0, step=0, unit="", scale=None, hint=""
    )


def coded(values: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Write values ``(H, W)`` as 16-bit codes in the red and green of a picture.

    Returns:
        The picture, uint8 ``(H, W, 3)``, and low and step: a value is ``low + step * (256 red + green)``.

    Example:
        >>> picture, low, step = coded(np.array([[1.0, 2.0, np.nan]]))
        >>> low + step * (256.0 * picture[..., 0] + picture[..., 1]), NO_VALUE
        (array([[1.        , 2.        , 2.00001526]]), 65535)
    """
    drawn = np.isfinite(values)
    low, high = (float(values[drawn].min()), float(values[drawn].max())) if drawn.any() else (0.0, 0.0)
    step = (high - low) / (NO_VALUE - 1)
    codes = np.full(values.shape, NO_VALUE, np.uint16)
    codes[drawn] = 0 if step == 0 else ((values[drawn].astype(np.float64) - low) / step).round()
    return np.stack([codes >> 8, codes & 255, np.zeros_like(codes)], -1).astype(np.uint8), low, step


def assumed(prediction: Prediction, look: Look) -> tuple[float, float | None]:
    """Return the scale and shift with which ``Prediction.depth`` makes depth of a prediction.

    Where a shift is open, the nearest depth (but for 2 % of the pixels) becomes the look's scale, and the farthest its ratio
    times that.
    """
    if prediction.ambiguity != Ambiguity.SHIFT_SCALE:
        return 1.0, None
    low, high = np.percentile(prediction.map, (2, 98)).tolist()
    inverse = prediction.representation in _INVERSE
    if prediction.representation in (Representation.LOG_DEPTH, Representation.LOG_DISPARITY):
        low, high = np.exp(low), np.exp(high)
    first, last = (1 / look.ratio, 1.0) if inverse else (1.0, look.ratio)
    slope = (last - first) / (high - low) if high > low else 1.0
    unit = 1 / look.scale if inverse else look.scale
    return unit * slope, unit * (first - slope * low)


def cloud(prediction: Prediction, look: Look) -> tuple[np.ndarray, np.ndarray | None]:
    """Make points ``(N, 3)`` and their colours of the pixels within the range of the look."""
    scale, shift = assumed(prediction, look)
    moved = scaled(prediction, look.scale)
    values, *_ = shown_values(moved)
    ends = colour_scale(prediction, look)
    inside = (values >= ends.low) & (values <= ends.high)
    camera = prediction.intrinsics
    if camera is None:
        camera = intrinsics_from_field_of_view((values.shape[0], values.shape[1]), look.field_of_view)
    edge = look.max_edge if look.max_edge > 1 else None
    depth = moved.depth(scale=scale, shift=shift)
    made = replace(
        moved,
        map=np.where(inside, depth, np.nan).astype(np.float32),
        representation=Representation.DEPTH,
        ambiguity=Ambiguity.SCALE,
    )
    return made.to_point_cloud(camera, max_edge=edge)


def write_shown_cloud(prediction: Prediction, look: Look, folder: Path) -> Path | None:
    """Write a .glb with no more points than a browser turns smoothly; None if no pixel is within the range."""
    points, colours = cloud(prediction, look)
    if not len(points):
        return None
    if len(points) > _POINTS:
        kept = np.random.default_rng(0).choice(len(points), _POINTS, replace=False)
        points, colours = points[kept], None if colours is None else colours[kept]
    centred = points - np.median(points, 0)  # a viewer turns about the origin
    return write_point_cloud(folder / "shown.glb", centred, colours)


def downloads(prediction: Prediction, look: Look, folder: Path) -> dict[str, Path]:
    """Write the files that the page offers, by the names of their buttons.

    Args:
        prediction: of the network.
        look: as chosen on the page; its scale holds for all files, its range for colours and points.
        folder: to write into.
    """
    moved, ends = scaled(prediction, look.scale), colour_scale(prediction, look)
    stem = Path(prediction.name).stem or "depth"
    files = {"16-bit PNG": moved.save(folder / f"{stem}.png"), "EXR": moved.save(folder / f"{stem}.exr")}
    picture = folder / f"{stem}.colour.png"
    span = (ends.low, ends.high)
    if moved.representation in _INVERSE and ends.representation == Representation.DEPTH:
        span = (1 / ends.high, 1 / ends.low)
    if moved.representation in (Representation.LOG_DEPTH, Representation.LOG_DISPARITY):
        span = (float(np.log(span[0])), float(np.log(span[1])))
    files["picture"] = moved.save_colour(picture, span=span) if span[0] < span[1] else moved.save_colour(picture)
    points, colours = cloud(prediction, look)
    if len(points):
        for suffix in ("ply", "glb"):
            files[suffix.upper()] = write_point_cloud(folder / f"{stem}.{suffix}", points, colours)
    return files


def _shrunk(values: np.ndarray) -> np.ndarray:
    step = -(-max(values.shape[:2]) // _WIDEST)
    return values[::step, ::step]
