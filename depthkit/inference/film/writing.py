"""Coloured films of predicted depth, with what their colours mean."""

import json
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from depthkit.checks import first_line, optional_import
from depthkit.errors import PredictionError, ShapeError
from depthkit.evaluation.render import shown, shown_span
from depthkit.images import PREDICTION_KEY
from depthkit.inference.prediction import Prediction, facts_beside
from depthkit.writing import replacing, unfinished

_CLOCK = 90_000  # ticks per second
_FOLLOWS = 0.1  # of the running range per frame
_CODECS = ("libx264", "mpeg4")


class FilmWriter:
    """Write predictions as the coloured frames of an mp4 file, and ``NAME.depthkit.json``, which says what the colours mean.

    The range of the colours is fixed by ``span``, or runs: it follows the 2nd and 98th percentile of the frames, slowly, so
    that it does not flicker itself; then its ends at each frame are in the JSON. Until ``close`` the file has a temporary name;
    what was stopped half way is kept as ``NAME.partial.mp4`` until the film is whole.

    Args:
        path: of the film.
        span: predicted values of the coldest and the warmest colour, as of ``Prediction.save``; None for a running range.
        facts: further facts for the JSON.
    """

    format = "mp4"

    def __init__(self, path: Path, *, span: tuple[float, float] | None = None, **facts: Any) -> None:
        self.path, self.span, self.facts = Path(path), span, facts
        self.lows: list[float] = []
        self.highs: list[float] = []
        self.times: dict[str, float] = {}
        self._container: Any = None
        self._until_closed = ExitStack()
        self._first = 0.0
        self._last = -1

    def write(self, prediction: Prediction, _names: Any = None) -> None:
        """Add a frame, whose time ``times`` tells by its name.

        Raises:
            ShapeError: it is not of the size of the first.
            PredictionError: the file cannot be written.
        """
        time = self.times.pop(prediction.name)
        low, high = self._range(prediction)
        picture = prediction.colour(low=low, high=high)
        try:
            if self._container is None:
                self._begin(prediction, time)
            if picture.shape[:2] != self._size:
                raise ShapeError(
                    f"{prediction.name}: expected {self._size[0]}x{self._size[1]} pixels, as the film begins; "
                    f"got {picture.shape[0]}x{picture.shape[1]}. Predict images of one size as a film, or choose format png."
                )
            frame = self._av.VideoFrame.from_ndarray(_even(picture), format="rgb24")
            frame.pts, frame.time_base = max(round((time - self._first) * _CLOCK), self._last + 1), Fraction(1, _CLOCK)
            self._last = frame.pts
            self._container.mux(self._stream.encode(frame))
        except OSError as error:
            raise PredictionError(f"expected to write {self.path}; got: {first_line(error)}. Choose another folder.") from error
        self.lows.append(low)
        self.highs.append(high)

    def _begin(self, prediction: Prediction, time: float) -> None:
        self._av = optional_import("av", "video")
        self._part = self._until_closed.enter_context(unfinished(self.path))
        codec = next(name for name in _CODECS if name in self._av.codecs_available)
        self._container = self._av.open(str(self._part), "w", format="mp4")
        self._container.metadata["comment"] = f"{PREDICTION_KEY}: coloured {prediction.representation}"
        self._stream = self._container.add_stream(codec, rate=25)
        height, width = prediction.map.shape
        self._size = (height, width)
        self._stream.height, self._stream.width = height + height % 2, width + width % 2
        self._stream.pix_fmt, self._stream.codec_context.time_base = "yuv420p", Fraction(1, _CLOCK)
        self._first, self._last = time, -1
        self.facts |= {
            "picture": str(prediction.representation), "ambiguity": str(prediction.ambiguity), "size": [height, width],
        }  # fmt: skip

    def _range(self, prediction: Prediction) -> tuple[float, float]:
        if self.span is not None:
            return shown_span(self.span, prediction.representation)
        values = shown(prediction.map[::4, ::4], prediction.representation)
        values = values[np.isfinite(values)]
        low, high = np.percentile(values, (2, 98)).tolist() if values.size else (0.0, 1.0)
        if not self.lows:
            return low, high
        return self.lows[-1] + _FOLLOWS * (low - self.lows[-1]), self.highs[-1] + _FOLLOWS * (high - self.highs[-1])

    def close(self, *, whole: bool = True) -> Path | None:
        """End the film and give it its name; return it, None if no frame was written.

        Args:
            whole: every frame that there is was offered; else the film becomes ``NAME.partial.mp4``.
        """
        if self._container is None:
            return None
        partial = self.path.with_suffix(".partial.mp4")
        path = self.path if whole else partial
        logarithm = self.facts["picture"].startswith("log")
        fixed = self.span is not None
        legend = {
            **self.facts,
            "frames": len(self.lows),
            "colours": "Spectral_r, larger disparity warmer",
            "range": "fixed" if fixed else "running",
            "range_of": "logarithm of disparity" if logarithm else "disparity (1 / depth)",
            "low": self.lows[0] if fixed else self.lows,
            "high": self.highs[0] if fixed else self.highs,
        }
        try:
            with self._until_closed:
                self._container.mux(self._stream.encode())
                self._container.close()
                with replacing(facts_beside(path)) as part:
                    part.write_text(json.dumps(legend), encoding="utf-8")
                self._part.replace(path)
                if whole and facts_beside(partial).is_file():  # of a run that was stopped
                    partial.unlink(missing_ok=True)
                    facts_beside(partial).unlink()
        except OSError as error:
            raise PredictionError(f"expected to write {path}; got: {first_line(error)}. Choose another folder.") from error
        return path


def _even(picture: np.ndarray) -> np.ndarray:
    """Repeat the last row and column where a side is odd: films have one colour for two pixels."""
    height, width = picture.shape[:2]
    return np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
