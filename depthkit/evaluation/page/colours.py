"""Colour scales: which values the colours of a map span, and the bar that says so in their unit."""

from dataclasses import dataclass

import numpy as np

from depthkit.evaluation.render import GREY, colour_table, colourise
from depthkit.types import Ambiguity, Representation

_UNITS = {
    Representation.DEPTH: "m",
    Representation.DISPARITY: "1/m",
    Representation.LOG_DEPTH: "ln m",
    Representation.LOG_DISPARITY: "-ln m",
}
_STOPS = 16  # of a gradient
_NEAR_IS_WARM = "Spectral_r"


def unit_of(representation: Representation, ambiguity: Ambiguity) -> str:
    """Write the unit of a map's numbers.

    Example:
        >>> unit_of(Representation.DEPTH, Ambiguity.METRIC), unit_of(Representation.DISPARITY, Ambiguity.SHIFT_SCALE)
        ('m', 'up to scale and shift')
    """
    if ambiguity == Ambiguity.METRIC:
        return _UNITS[representation]
    return {Ambiguity.SCALE: "up to scale", Ambiguity.SHIFT_SCALE: "up to scale and shift"}.get(ambiguity, "no unit")


@dataclass(frozen=True)
class ColourScale:
    """The colours between two values.

    Depth is coloured by disparity, as everywhere in depthkit, so that near is warm and the far is not all of the picture.

    Attributes:
        low: value of the one end, in the map's own numbers.
        high: of the other; above ``low``, or equal to it for a constant map.
        unit: of the values.
        representation: of the map; None for other numbers, such as errors, whose colours are linear.
        cmap: a colour map of matplotlib.

    Example:
        >>> scale = ColourScale(1.0, 4.0, "m", Representation.DEPTH)
        >>> [text for _, text in scale.ticks()]
        ['1', '1.2', '1.6', '2.3', '4']
    """

    low: float
    high: float
    unit: str
    representation: Representation | None = None
    cmap: str = _NEAR_IS_WARM

    @classmethod
    def of(cls, values: np.ndarray, unit: str, representation: Representation) -> "ColourScale":
        """Span the 2nd to the 98th percentile of the finite values; of depth, of the positive ones."""
        finite = values[np.isfinite(values)]
        finite = finite[finite > 0] if representation == Representation.DEPTH else finite
        low, high = np.percentile(finite, (2, 98)).tolist() if finite.size else (1.0, 1.0)
        return cls(low, high, unit, representation)

    def colour(self, values: np.ndarray) -> np.ndarray:
        """Colour values ``(H, W)``, uint8 ``(H, W, 3)``: grey what is not finite, as the ends what is beyond them."""
        if self.representation is None:
            drawn = np.isfinite(values)
            unit = np.where(drawn, values, self.low) - self.low
            unit = unit / (self.high - self.low) if self.high > self.low else np.zeros_like(unit)
            colours = colour_table(self.cmap)[(unit.clip(0, 1) * 255).round().astype(np.uint8)]
            colours[~drawn] = GREY
            return colours
        low, high = sorted((self._linear(self.low), self._linear(self.high)))
        return colourise(values, representation=self.representation, low=low, high=high, cmap=self.cmap)

    def place(self, value: float) -> float:
        """Return where a value is on the bar: 0 at ``low``, 1 at ``high``."""
        low, high = self._linear(self.low), self._linear(self.high)
        return (self._linear(value) - low) / (high - low) if high != low else 0.5

    def ticks(self) -> list[tuple[float, str]]:
        """List places on the bar and what stands there: both ends, and round values between."""
        if self.high <= self.low:
            return [(0.5, f"{self.low:.3g}")]
        between = [float(f"{self._value(part):.2g}") for part in (0.25, 0.5, 0.75)]
        inner = [(self.place(x), f"{x:g}") for x in dict.fromkeys(between) if self.low < x < self.high]
        inner = [(place, text) for place, text in inner if 0.12 < place < 0.88]
        return [(0.0, f"{self.low:.3g}"), *inner, (1.0, f"{self.high:.3g}")]

    @property
    def gradient(self) -> str:
        """The bar's colours from ``low`` to ``high``, as CSS."""
        table = colour_table(self.cmap)
        stops = table[np.linspace(0, 255, _STOPS).round().astype(int)]
        stops = stops[::-1] if self._linear(self.high) < self._linear(self.low) else stops
        return f"linear-gradient(to right,{','.join(f'#{r:02x}{g:02x}{b:02x}' for r, g, b in stops.tolist())})"

    def _linear(self, value: float) -> float:
        """Turn a value into what the colours are linear in."""
        if self.representation == Representation.LOG_DEPTH:
            return -value
        return 1 / value if self.representation == Representation.DEPTH else value

    def _value(self, place: float) -> float:
        low, high = self._linear(self.low), self._linear(self.high)
        return self._linear(low + place * (high - low))  # its own inverse
