"""Predictions: a map with its representation, ambiguity, image and camera."""

import json
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from depthkit.checks import check_choice
from depthkit.errors import DepthKitError, GeometryError, LabelError, PredictionError, RecipeError, ShapeError
from depthkit.evaluation.render import colourise, shown_span
from depthkit.geometry import depth_to_points
from depthkit.images import PREDICTION_KEY, opened, plain_array
from depthkit.inference.clouds import across_edges, write_point_cloud
from depthkit.inference.exr import exr_bytes
from depthkit.representation import convert
from depthkit.types import Ambiguity, Representation
from depthkit.writing import png_bytes, replacing

_LEVELS = 2**16 - 1


class MapFormat(StrEnum):
    """Formats in which maps are written, as suffixes: 16-bit PNG, or float32 of NumPy."""

    PNG = ".png"
    NPY = ".npy"


class Unit(StrEnum):
    """Units of the codes of a 16-bit PNG: a step of the map's own range, a millimetre, or 1/256 m as in KITTI's benchmark."""

    RELATIVE = "relative"
    MM = "mm"
    KITTI = "256"


SUFFIXES = (".png", ".npy", ".exr", ".jpg", ".jpeg", ".webp")
"""Suffixes of the files that ``Prediction.save`` writes."""
_PER_METRE = {Unit.MM: 1000, Unit.KITTI: 256}


@dataclass(frozen=True)
class Prediction:
    """The predicted map of one image.

    Attributes:
        map: float32 in ``representation``, ``(H, W)``, the size of the source.
        representation: of the map.
        ambiguity: what the map leaves undetermined.
        image: uint8 RGB, ``(H, W, 3)``; None after loading from a file.
        intrinsics: ``(3, 3)`` [px] of ``image``, if known.
        name: of the source.
        uncertainty: float32 ``(H, W)``, if the predictor was asked for one, see ``uncertainty_unit``; written by
            ``save_confidence`` alone.
    """

    map: np.ndarray
    representation: Representation
    ambiguity: Ambiguity
    image: np.ndarray | None = None
    intrinsics: np.ndarray | None = None
    name: str = "prediction"
    uncertainty: np.ndarray | None = None

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.map, dtype)

    def colour(self, **options: Any) -> np.ndarray:
        """Colour the map, near is warm, uint8 RGB ``(H, W, 3)``; options as of ``depthkit.evaluation.colourise``."""
        return colourise(self.map, representation=self.representation, **options)

    def save(self, path: str | Path, *, unit: Unit | str = Unit.RELATIVE, span: tuple[float, float] | None = None) -> Path:
        """Write the map under a temporary name, which then becomes its own; the suffix says how.

        ``.png``: 16 bits, linear from the smallest to the largest value of this map; the file also holds the step, the
        representation and the ambiguity, and ``load_prediction`` is exact to half a step.
        ``.npy``: the float32 values, and the facts in a ``.depthkit.json`` beside it; ``load_prediction`` is exact.
        ``.exr``: the float32 values as the channel Z, and the facts in its header.
        ``.jpg``, ``.webp``: the coloured picture, to look at (``save_colour`` writes it as PNG).

        Args:
            path: of the file; its folder is made.
            unit: of a PNG's codes. Millimetres and 1/256 m need a metric prediction; 0 then says that there is no depth, or
                one that 16 bits cannot hold, beyond 65.5 or 256 m.
            span: smallest and largest value of the codes of a relative PNG, and of the colours, so that all files of a folder
                have one scale; values outside become its ends.

        Raises:
            PredictionError: the map is not finite, or the file cannot be written.
            ShapeError: an unknown suffix.
            RecipeError: an unknown unit, or one of another format.
            LabelError: metres are wanted of a prediction that has none.
        """
        path, unit = Path(path), check_choice("unit", unit, Unit)
        if not np.isfinite(self.map).all():
            raise PredictionError(f"expected a finite map to save as {path}; got NaN or infinity.")
        facts: dict[str, Any] = {
            "representation": str(self.representation), "ambiguity": str(self.ambiguity), "name": self.name,
        }  # fmt: skip
        if self.intrinsics is not None:
            facts["intrinsics"] = np.asarray(self.intrinsics, np.float64).tolist()
        suffix = path.suffix.lower()
        if suffix not in SUFFIXES:
            raise ShapeError(f"expected a suffix of {', '.join(SUFFIXES)} to save as; got {path}.")
        if unit != Unit.RELATIVE and suffix != ".png":
            raise RecipeError(f"expected a .png for the unit {unit}; got {path.name}. Others hold the values themselves.")
        with replacing(path) as part:
            if suffix == ".png":
                codes, stored = self._codes(span) if unit == Unit.RELATIVE else self._codes_in(unit)
                part.write_bytes(png_bytes(codes, {PREDICTION_KEY: json.dumps({**facts, **stored})}))
            elif suffix == ".npy":
                with replacing(facts_beside(path)) as beside:
                    beside.write_text(json.dumps(facts), encoding="utf-8")
                with part.open("wb") as file:
                    np.save(file, self.map.astype(np.float32), allow_pickle=False)
            elif suffix == ".exr":
                part.write_bytes(exr_bytes(self.map, {PREDICTION_KEY: json.dumps(facts)}))
            else:
                Image.fromarray(self._coloured(span)).save(part, format="webp" if suffix == ".webp" else "jpeg")
        return path

    def _codes(self, span: tuple[float, float] | None) -> tuple[np.ndarray, dict[str, Any]]:
        """Codes linear in the values, uint16 ``(H, W)``, and what they mean."""
        low, high = (float(self.map.min()), float(self.map.max())) if span is None else span
        step = (high - low) / _LEVELS
        codes = np.zeros(self.map.shape) if step == 0 else (self.map.astype(np.float64) - low) / step
        return codes.round().clip(0, _LEVELS).astype(np.uint16), {"value": "low + step * code", "low": low, "step": step}

    def save_kitti(self, path: str | Path) -> Path:
        """Write depth as KITTI's benchmark takes it: 16-bit PNG of 1/256 m, clipped to what it holds, 1/256 to 256 m.

        0 says that there is no depth, so it is written only where the prediction has none.

        Args:
            path: of the file; its folder is made.

        Raises:
            LabelError: the prediction is not metric.
            PredictionError: the file cannot be written.
        """
        path = Path(path)
        self._check_metric(Unit.KITTI)
        metres = self.depth().astype(np.float64)
        codes = np.nan_to_num((metres * _PER_METRE[Unit.KITTI]).round().clip(1, _LEVELS), nan=0.0).astype(np.uint16)
        with replacing(path) as part:
            part.write_bytes(png_bytes(codes))
        return path

    def _codes_in(self, unit: Unit) -> tuple[np.ndarray, dict[str, Any]]:
        """Codes of metres, uint16 ``(H, W)``, and what they mean."""
        self._check_metric(unit)
        codes = (self.depth().astype(np.float64) * _PER_METRE[unit]).round()
        codes[~(codes <= _LEVELS)] = 0  # also where there is no depth
        value = f"metres * {_PER_METRE[unit]}; 0: none"
        facts = {"value": value, "representation": "depth", "low": 0.0, "step": 1 / _PER_METRE[unit], "none": 0}
        return codes.astype(np.uint16), facts

    def _check_metric(self, unit: Unit) -> None:
        if self.ambiguity != Ambiguity.METRIC:
            raise LabelError(
                f"expected a metric prediction for the unit {unit}; this one is {self.ambiguity} {self.representation}. "
                f"Choose unit {Unit.RELATIVE}, or a network that predicts metres."
            )

    def save_colour(self, path: str | Path, *, span: tuple[float, float] | None = None) -> Path:
        """Write the coloured picture as PNG, marked as a picture of a prediction; ``span`` as of ``save``."""
        path = Path(path)
        with replacing(path) as part:
            part.write_bytes(
                png_bytes(self._coloured(span), {PREDICTION_KEY: json.dumps({"picture": str(self.representation)})})
            )
        return path

    def _coloured(self, span: tuple[float, float] | None) -> np.ndarray:
        if span is None:
            return self.colour()
        low, high = shown_span(span, self.representation)
        return self.colour(low=low, high=high)

    @property
    def uncertainty_unit(self) -> str:
        """What 1 of the uncertainty is, in words."""
        inverse = self.representation in (Representation.DISPARITY, Representation.LOG_DISPARITY)
        if self.ambiguity == Ambiguity.SHIFT_SCALE:
            return f"a unit of the {'disparity' if inverse else 'depth'} predicted"
        return "the depth of the pixel"

    @property
    def confidence(self) -> np.ndarray:
        """Confidence 1 / (1 + u), float32 ``(H, W)``: 1 is certain, 0.5 is as uncertain as the map is large.

        u is the uncertainty as a fraction of depth; of a map up to scale and shift as a fraction of the mean distance of its
        disparity (depth) from the median.

        Raises:
            PredictionError: there is no uncertainty.
        """
        if self.uncertainty is None:
            raise PredictionError("expected a prediction with an uncertainty; this has none. Give the predictor uncertainty=.")
        u = self.uncertainty.astype(np.float64)
        if self.ambiguity == Ambiguity.SHIFT_SCALE:
            logarithm = self.representation in (Representation.LOG_DEPTH, Representation.LOG_DISPARITY)
            x = np.exp(self.map.astype(np.float64)) if logarithm else self.map.astype(np.float64)
            spread = np.abs(x - np.median(x)).mean()
            u = u / spread if spread > 0 else np.where(u > 0, np.inf, 0)
        found: np.ndarray = (1 / (1 + u)).astype(np.float32)
        return found

    def save_confidence(self, path: str | Path) -> Path:
        """Write the confidence, from 0 to 1, under a temporary name, which then becomes its own.

        ``.png``: 16 bits, code / 65535, with a text in the file that says so; ``.npy`` and ``.exr``: the float32 values.

        Raises:
            PredictionError: there is no uncertainty, or the file cannot be written.
            ShapeError: an unknown suffix.
        """
        path, values = Path(path), self.confidence
        if path.suffix.lower() not in SUFFIXES[:3]:
            raise ShapeError(f"expected a suffix of {', '.join(SUFFIXES[:3])} to save confidence as; got {path}.")
        relative = "the mean distance of the map from its median" if self.ambiguity == Ambiguity.SHIFT_SCALE else "depth"
        facts = {"confidence": "1 / (1 + u)", "u": f"uncertainty as a fraction of {relative}", "name": self.name}
        with replacing(path) as part:
            if path.suffix.lower() == ".png":
                codes = (values * _LEVELS).round().astype(np.uint16)
                part.write_bytes(png_bytes(codes, {PREDICTION_KEY: json.dumps({**facts, "value": "code / 65535"})}))
            elif path.suffix.lower() == ".npy":
                with part.open("wb") as file:
                    np.save(file, values, allow_pickle=False)
            else:
                part.write_bytes(exr_bytes(values, {PREDICTION_KEY: json.dumps(facts)}))
        return path

    def depth(self, *, scale: float = 1.0, shift: float | None = None) -> np.ndarray:
        """Convert to depth, float32 ``(H, W)``: in metres if the prediction is metric, else up to a factor; NaN without depth.

        Args:
            scale: factor on the prediction (on the exponential of a logarithm).
            shift: added after scaling. Disparity up to scale and shift needs one: ``1 / (a x + b)`` depends on b.

        Raises:
            LabelError: the shift is needed and not given.
        """
        if self.ambiguity == Ambiguity.SHIFT_SCALE and shift is None:
            raise LabelError(
                f"a {self.representation} known up to scale and shift has no depth: a wrong shift turns walls and floors. "
                "Pass scale= and shift=, fitted to known depth with depthkit.alignment.fit_scale_shift, or use a model that "
                "predicts up to scale."
            )
        inverse = self.representation in (Representation.DISPARITY, Representation.LOG_DISPARITY)
        linear = Representation.DISPARITY if inverse else Representation.DEPTH
        x = scale * convert(torch.from_numpy(self.map.astype(np.float64)), self.representation, linear) + (shift or 0.0)
        depth: np.ndarray = convert(x.where(x > 0, torch.nan), linear, Representation.DEPTH).float().numpy()
        return depth

    def to_point_cloud(
        self,
        intrinsics: np.ndarray | Tensor | None = None,
        *,
        scale: float = 1.0,
        shift: float | None = None,
        max_edge: float | None = None,
        far: float | None = None,
        span: tuple[float, float] | None = None,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Convert to points in the camera's frame: x right, y down, z forward.

        Args:
            intrinsics: ``(3, 3)`` [px] of the image; default those of the prediction.
            scale: as in ``depth``.
            shift: as in ``depth``.
            max_edge: drop the points of pixels that are more than this many times as far as a neighbour, or as near: they hang
                in the air between two surfaces. About 1.1; None drops none. Floors near the horizon thin out, too.
            far: drop the points of pixels that are more than this many times as far as the median pixel, such as 10: sky and
                the horizon, which networks see somewhere far. None drops none.
            span: drop the points of pixels whose predicted value is outside.

        Returns:
            Points, float32 ``(N, 3)`` [m, or up to a factor], and their colours, uint8 ``(N, 3)``, None without an image.
            Pixels without a positive depth have no point.

        Raises:
            GeometryError: no intrinsics, some that no camera of this image's size has, or ``max_edge`` or ``far`` not above 1.
            LabelError: the prediction is known up to scale and shift, and no shift is given.
        """
        depth = self.depth(scale=scale, shift=shift)
        camera = self.intrinsics if intrinsics is None else intrinsics
        if camera is None:
            raise GeometryError(
                "expected intrinsics for a point cloud; got none. Pass fx, fy, cx, cy [px] as a 3x3 matrix, or "
                "depthkit.geometry.intrinsics_from_field_of_view(size, degrees)."
            )
        matrix = _checked_camera(camera, depth.shape)
        valid = np.isfinite(depth)
        if max_edge is not None:
            valid &= ~across_edges(depth, max_edge)
        if far is not None:
            if not far > 1:
                raise GeometryError(f"expected far above 1, a multiple of the median depth such as 10; got {far}.")
            valid &= depth <= far * (np.nanmedian(depth) if valid.any() else 1)
        if span is not None:
            valid &= (self.map >= span[0]) & (self.map <= span[1])
        z = torch.from_numpy(np.where(valid, depth, 1))[None, None]
        points = depth_to_points(z, matrix[None], torch.from_numpy(valid)[None, None])[0]
        return points.numpy(), None if self.image is None else self.image[valid]

    def save_point_cloud(
        self,
        path: str | Path,
        intrinsics: np.ndarray | Tensor | None = None,
        *,
        scale: float = 1.0,
        shift: float | None = None,
        max_edge: float | None = None,
        far: float | None = None,
        span: tuple[float, float] | None = None,
    ) -> Path:
        """Write the scene as a coloured point cloud, ``.ply`` (camera axes) or ``.glb`` (y up, z backward).

        Arguments and errors are those of ``to_point_cloud`` and ``depthkit.inference.write_point_cloud``. The file states its
        unit: metre for a metric prediction that is neither scaled nor shifted; otherwise unknown.
        """
        points = self.to_point_cloud(intrinsics, scale=scale, shift=shift, max_edge=max_edge, far=far, span=span)
        metric = self.ambiguity == Ambiguity.METRIC and scale == 1 and not shift
        return write_point_cloud(path, *points, unit="metre" if metric else "unknown")


_WIDEST = 0.1
"""Least focal length in units of the image's longer side: below it a picture would span 157 degrees."""


def _checked_camera(camera: np.ndarray | Tensor, size: tuple[int, ...]) -> Tensor:
    """Return intrinsics as float32 ``(3, 3)``.

    Raises:
        GeometryError: no camera of images of this size has them.
    """
    matrix = torch.as_tensor(np.asarray(camera), dtype=torch.float32)
    height, width = size
    fine = matrix.shape == (3, 3) and bool(matrix.isfinite().all())
    if fine:
        fx, fy, cx, cy = (float(matrix[place]) for place in ((0, 0), (1, 1), (0, 2), (1, 2)))
        fine = min(fx, fy) > _WIDEST * max(height, width) and 0 <= cx <= width and 0 <= cy <= height
    if not fine:
        raise GeometryError(
            f"expected intrinsics [px] of an image of {height}x{width}, with its centre inside and a focal length like its "
            f"sides; got {matrix.tolist()}. Give pixels of this very image: multiply fractions by its width and height."
        )
    return matrix


def load_prediction(path: str | Path) -> Prediction:
    """Read a file of ``Prediction.save``, ``.png`` (to half a step) and ``.npy`` (exactly).

    Raises:
        ShapeError: the file does not exist, or ``Prediction.save`` did not write it.
    """
    path = Path(path)
    try:
        if path.suffix.lower() == ".npy":
            facts = json.loads(facts_beside(path).read_text(encoding="utf-8"))
            values = plain_array(path.read_bytes())
        else:
            with opened(path, str(path)) as file:
                facts = json.loads(getattr(file, "text", {})[PREDICTION_KEY])
                codes = np.asarray(file, np.float64)
                values = (facts["low"] + facts["step"] * codes).astype(np.float32)
                values[codes == facts.get("none", -1)] = np.nan
        camera = None if facts.get("intrinsics") is None else np.asarray(facts["intrinsics"], np.float64)
        kind = Representation(facts["representation"]), Ambiguity(facts["ambiguity"])
        return Prediction(values, *kind, intrinsics=camera, name=facts["name"])
    except DepthKitError:
        raise
    except Exception as error:  # parsers of damaged heads have classes of their own
        raise ShapeError(
            f"expected a map written by Prediction.save at {path}; got {type(error).__name__}: {error}. "
            "A coloured picture cannot be turned back into numbers."
        ) from error


def facts_beside(path: Path) -> Path:
    """Name the file that says what a ``.npy`` holds."""
    return path.with_suffix(f".{PREDICTION_KEY}.json")
