"""Maps of successive frames without flicker, whatever network predicts them one by one."""

from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np
import torch

from depthkit.geometry.flow import LEAST_SEEN, Motion, small_size
from depthkit.inference.prediction import Prediction
from depthkit.representation import convert
from depthkit.types import Ambiguity, Representation

_DRIFT = 1e-3
"""Variance of how fast a film's scale drifts, in units of that of its jitter; the filter then looks back some ten frames."""
_UNKNOWN = 0.1
"""Variance of the drift before anything is seen, in the same units."""
_CARRIED, _TREND = 0.6, 0.1
"""Of a pixel: greatest weight of the frames before, and share of what is new that counts as steady change."""
_OUTLIER = 2.5
"""Differences from the frame before, in standard deviations, at which its weight has fallen to a quarter."""
_STEPS = 5  # of reweighted least squares
_POINTS = 2048
"""Most points of a frame through which the line is fitted: flicker is two numbers, and the time of a frame counts."""


class Line(NamedTuple):
    """``y = scale * x + shift``."""

    scale: float
    shift: float


class Stabiliser:
    """Take the flicker out of maps, one frame after the other, from nothing but the frames before.

    A network that sees frames one by one predicts the same scene with a scale, and where its ambiguity leaves one open a shift,
    that jitters. Both are found by a robust line from the map before, followed along the optical flow so that a moving camera
    is no flicker. Of a prediction up to scale and shift the line is fitted to what the network outputs; of depth (metric, or up
    to scale) to depth, where motion along the axis is the line's shift and only its scale is flicker. What drifts steadily is
    kept (a constant-velocity Kalman filter follows it), what jitters about it is taken out; so metres stay metres.

    What is left in single pixels is averaged with the frame before along the flow, and its steady change, less the more the
    two differ. At a cut,
    where flow there and back agrees nowhere, everything begins anew.

    Example:
        ``stabiliser = Stabiliser(); stable = [stabiliser(prediction, motion) for prediction, motion in ...]``
    """

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._raw: np.ndarray | None = None
        self._stable: np.ndarray | None = None
        self._trend: np.ndarray | None = None
        self._applied = Line(1.0, 0.0)
        self._paths = _Path(), _Path()

    def __call__(self, prediction: Prediction, motion: Motion | None) -> Prediction:
        """Return the prediction without flicker.

        Args:
            prediction: of the frame after the one of the call before.
            motion: from that frame; None at the first frame and where there is none.
        """
        affine = prediction.ambiguity == Ambiguity.SHIFT_SCALE
        values = np.ascontiguousarray(prediction.map, np.float32)
        height, width = small_size(*values.shape)
        raw = cv2.resize(values, (width, height), interpolation=cv2.INTER_AREA)
        raw = raw if affine else _as_depth(raw, prediction.representation)
        if self._raw is None or motion is None or raw.shape != self._raw.shape or motion.seen.mean() < LEAST_SEEN:
            self._begin()
            self._raw, self._stable, self._trend = raw, raw, np.zeros_like(raw)
            return prediction
        assert self._stable is not None
        assert self._trend is not None
        before, stable, trend = motion.bring(self._raw, self._stable, self._trend)
        usable = motion.seen & np.isfinite(before) & np.isfinite(raw)
        usable &= (before > 0) & (raw > 0) if not affine else True
        points = np.flatnonzero(usable)
        points = points[:: max(-(-len(points) // _POINTS), 1)]
        seen = before.ravel()[points].astype(np.float64)
        line = robust_line(seen, raw.ravel()[points].astype(np.float64), relative=not affine)
        if line is None:  # a constant map, or one that turned over: nothing to follow
            self._begin()
            self._raw, self._stable, self._trend = raw, raw, np.zeros_like(raw)
            return prediction
        applied = self._correction(line, seen, affine=affine)
        corrected = applied.scale * raw + applied.shift
        expected = _through(stable, self._applied, line, applied)
        expected = expected + trend if affine else expected * np.exp(trend)
        local = _local(corrected, expected, usable, points, relative=not affine)
        self._raw, self._applied, self._trend = raw, applied, usable * (trend - _TREND / _CARRIED * local)
        self._stable = corrected + local if affine else corrected * np.exp(local)
        if affine:
            map_ = cv2.scaleAdd(values, applied.scale, _enlarged(local + applied.shift, values))
            return replace(prediction, map=map_)
        return replace(prediction, map=_multiplied(values, local + np.log(applied.scale), prediction.representation))

    def _correction(self, line: Line, before: np.ndarray, *, affine: bool) -> Line:
        """Find what brings this frame's values to where the film's scale, without its jitter, is now."""
        scale = float(np.exp(-self._paths[0].jitter(np.log(line.scale))))
        if not affine:
            return Line(scale, 0.0)
        centre, spread = float(np.median(before)), float(np.subtract(*np.percentile(before, (75, 25)))) or 1.0
        here = line.scale * centre + line.shift
        drifted = self._paths[1].jitter((here - centre) / spread) * spread
        return Line(scale, here - drifted - scale * here)


class _Path:
    """A number that is known by its changes: a Kalman filter with constant velocity tells its drift from its jitter."""

    def __init__(self) -> None:
        self.observed = 0.0
        self.state = np.zeros(2)  # level, velocity
        self.covariance = np.diag([1.0, _UNKNOWN])

    def jitter(self, change: float) -> float:
        """Follow one change; return how far the number now is from its drift."""
        self.observed += change
        step = np.array([[1.0, 1.0], [0.0, 1.0]])
        state, covariance = step @ self.state, step @ self.covariance @ step.T + np.diag([0.0, _DRIFT])
        gain = covariance[:, 0] / (covariance[0, 0] + 1.0)
        self.state = state + gain * (self.observed - state[0])
        self.covariance = covariance - np.outer(gain, covariance[0])
        return float(self.observed - self.state[0])


def robust_line(x: np.ndarray, y: np.ndarray, *, relative: bool = False) -> Line | None:
    """Fit a line through points with errors in both coordinates, of which a minority may lie anywhere.

    Reweighted least squares (Geman-McClure) of y on x and of x on y; the scale is the geometric mean of both, since either
    alone is too flat where both coordinates have noise.

    Args:
        x: ``(N,)``.
        y: ``(N,)``.
        relative: errors grow with the values, which are positive.

    Returns:
        The line; None if there are fewer than 16 points, or they determine no line that rises.
    """
    if len(x) < 16:
        return None
    forth, back = _regressed(x, y, relative=relative), _regressed(y, x, relative=relative)
    if forth is None or back is None:
        return None
    scale = (forth.scale / back.scale) ** 0.5
    weight = _weights(x, y, forth, relative=relative)
    return Line(scale, float(np.average(y - scale * x, weights=weight)))


def _regressed(x: np.ndarray, y: np.ndarray, *, relative: bool) -> Line | None:
    ratio = float(np.median(y / x)) if relative else 1.0
    line = Line(ratio, 0.0 if relative else float(np.median(y) - np.median(x)))
    for _ in range(_STEPS):
        weight = _weights(x, y, line, relative=relative)
        total = weight.sum()
        mean_x, mean_y = (weight @ x) / total, (weight @ y) / total
        spread = weight @ (x - mean_x) ** 2
        if not spread > 1e-12 * (weight @ x**2):
            return None
        scale = float(weight @ ((x - mean_x) * (y - mean_y)) / spread)
        if not scale > 0:
            return None
        line = Line(scale, float(mean_y - scale * mean_x))
    return line


def _weights(x: np.ndarray, y: np.ndarray, line: Line, *, relative: bool) -> np.ndarray:
    size = x + y if relative else np.ones_like(x)
    residual = np.abs(y - line.scale * x - line.shift) / size
    width = 3 * 1.48 * float(np.median(residual)) + 1e-9 * (1 + np.abs(y).max())
    return _kept(residual / width) / (size * size)


def _kept(ratio: np.ndarray) -> np.ndarray:
    """Weigh differences in units of that at which a quarter of the weight is left (Geman and McClure)."""
    near = 1 / (1 + ratio * ratio)
    return near * near


def _through(stable: np.ndarray, earlier: Line, line: Line, applied: Line) -> np.ndarray:
    """Predict a frame's corrected values from the corrected ones before: back to what was output, along the line, corrected."""
    output = line.scale * (stable - earlier.shift) / earlier.scale + line.shift
    return applied.scale * output + applied.shift


def _local(
    corrected: np.ndarray, expected: np.ndarray, usable: np.ndarray, points: np.ndarray, *, relative: bool
) -> np.ndarray:
    """Find what to add to each pixel, or to its logarithm if ``relative``, to bring it nearer to the frame before."""
    usable = usable & (expected > 0) if relative else usable
    with np.errstate(invalid="ignore", divide="ignore"):
        difference = np.log(expected / corrected) if relative else expected - corrected
    difference = np.where(usable, difference, 0).astype(np.float32)
    width = np.float32(_OUTLIER * 1.48 * float(np.median(np.abs(difference.ravel()[points]))) + 1e-12)
    return cv2.blur(np.float32(_CARRIED) * _kept(difference / width) * difference, (3, 3))


def _as_depth(values: np.ndarray, source: Representation) -> np.ndarray:
    found: np.ndarray = convert(torch.from_numpy(values), source, Representation.DEPTH).numpy()
    return found


def _multiplied(values: np.ndarray, gain: np.ndarray, representation: Representation) -> np.ndarray:
    """Multiply the depth of a map in any representation by the exponential of a smaller map."""
    sign = 1 if representation in (Representation.DEPTH, Representation.LOG_DEPTH) else -1
    if representation in (Representation.DEPTH, Representation.DISPARITY):
        return values * _enlarged(np.exp(sign * gain), values)
    return values + _enlarged(sign * gain, values)


def _enlarged(small: np.ndarray, like: np.ndarray) -> np.ndarray:
    return cv2.resize(small.astype(np.float32), like.shape[::-1], interpolation=cv2.INTER_LINEAR)
