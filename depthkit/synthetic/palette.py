"""Random materials of everyday things, so that no two scenes share colours and patterns."""

import colorsys
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from depthkit.synthetic.textures import Material

Colour = tuple[float, float, float]


@dataclass
class Palette:
    """The materials of one scene; each method adds one and returns its index."""

    rng: np.random.Generator
    materials: list[Material] = field(default_factory=list)

    def colour(
        self, value: tuple[float, float], saturation: tuple[float, float], hue: tuple[float, float] = (0.0, 1.0)
    ) -> Colour:
        """Draw a colour of any hue in the range, as linear RGB."""
        hsv = (self.rng.uniform(*r) for r in (hue, saturation, value))
        r, g, b = (float(c) ** 2.2 for c in colorsys.hsv_to_rgb(*hsv))
        return r, g, b

    def near(self, colour: Colour, spread: float) -> Colour:
        """Draw a colour lighter or darker than another by a ratio of up to ``spread``."""
        factor = np.exp(self.rng.uniform(-spread, spread))
        r, g, b = (float(np.clip(c * factor, 0.01, 0.95)) for c in colour)
        return r, g, b

    def add(self, first: Colour, second: Colour | None = None, **pattern: Any) -> int:
        """Add a material, its pattern shifted at random."""
        phase = self.rng.uniform(0, 50), self.rng.uniform(0, 50)
        self.materials.append(Material(**{"first": first, "second": second or first, "phase": phase} | pattern))
        return len(self.materials) - 1

    def paint(self, value: tuple[float, float] = (0.3, 0.95), saturation: tuple[float, float] = (0.0, 0.8)) -> int:
        """Add paint: one colour, almost even."""
        return self.add(self.colour(value, saturation), grain=self.rng.uniform(0.03, 0.2), grain_size=(1.5, 1.5))

    def glow(self, colour: Colour, strength: float) -> int:
        """Add the light of a lamp or a bright pane."""
        return self.add(colour, glow=strength)

    def window(self) -> int:
        """Add a window: bright panes between bars, with something blurred behind them."""
        bar = self.colour((0.2, 0.6), (0.0, 0.5))
        pane = self.colour((0.7, 1.0), (0.0, 0.35), (0.25, 0.62))
        wide, high = self.rng.uniform(0.3, 0.7), self.rng.uniform(0.4, 0.9)
        pattern = {"grain": 0.5, "grain_size": (6.0, 6.0), "glow": self.rng.uniform(0.2, 1.2)}
        return self.cells(bar, pane, wide, high, 0.05, 0.0, **pattern)

    def wood(self) -> int:
        """Add wood, with long fibres."""
        base = self.colour((0.25, 0.8), (0.35, 0.7), (0.04, 0.11))
        return self.add(
            base, self.near(base, 0.6), blend=0.9, grain=0.15, grain_size=(3.0, 0.25), angle=self.rng.choice([0.0, np.pi / 2])
        )

    def cloth(self) -> int:
        """Add cloth: plain, striped or chequered in two colours."""
        first = self.colour((0.3, 0.95), (0.1, 0.9))
        size = self.rng.uniform(0.06, 0.3)
        kind = self.rng.integers(3)
        if kind == 0:
            return self.add(first, grain=0.25, grain_size=(0.6, 0.6))
        second = self.colour((0.2, 0.95), (0.0, 0.9))
        duty = (0.5, 1.0) if kind == 1 else (0.5, 0.5)
        return self.add(
            first, second, period=(size, size), duty=duty, checker=float(kind == 2), grain=0.15, grain_size=(0.6, 0.6)
        )

    def cells(self, first: Colour, second: Colour, wide: float, high: float, joint: float, shift: float, **pattern: Any) -> int:
        """Add bricks, tiles or planks of colour ``second`` with joints of ``first``; lengths in metres."""
        duty = 1 - joint / wide, 1 - joint / high
        return self.add(first, second, **({"period": (wide, high), "duty": duty, "shift": shift, "grain": 0.15} | pattern))

    def bricks(self) -> int:
        """Add a wall of bricks in running bond."""
        brick = self.colour((0.35, 0.8), (0.3, 0.7), (0.0, 0.1))
        mortar = self.colour((0.5, 0.8), (0.0, 0.15))
        scale = self.rng.uniform(0.8, 2.0)
        return self.cells(mortar, brick, 0.25 * scale, 0.09 * scale, 0.015 * scale, 0.5, variation=0.35)

    def tiles(self) -> int:
        """Add square tiles, plain or chequered."""
        side = self.rng.uniform(0.15, 0.7)
        tile = self.colour((0.4, 0.95), (0.0, 0.5))
        if self.rng.random() < 0.4:
            other = self.colour((0.15, 0.9), (0.0, 0.5))
            angle = self.rng.choice([0.0, np.pi / 4])
            return self.add(tile, other, period=(2 * side, 2 * side), checker=1.0, grain=0.12, angle=angle)
        return self.cells(
            self.near(tile, 0.8), tile, side, side, 0.012 + 0.02 * side, self.rng.choice([0.0, 0.5]), variation=0.12
        )

    def planks(self) -> int:
        """Add a floor of boards."""
        wood = self.colour((0.3, 0.8), (0.3, 0.65), (0.04, 0.11))
        long, wide = self.rng.uniform(0.8, 2.5), self.rng.uniform(0.08, 0.22)
        angle = self.rng.choice([0.0, np.pi / 2])
        pattern = {"variation": 0.3, "grain": 0.25, "grain_size": (4.0, 0.4), "angle": angle}
        return self.cells(self.near(wood, 0.1), wood, long, wide, 0.008, 0.37, **pattern)

    def carpet(self) -> int:
        """Add a mottled carpet."""
        base = self.colour((0.2, 0.8), (0.0, 0.7))
        size = self.rng.uniform(0.5, 2.5)
        return self.add(base, self.near(base, 0.7), blend=1.0, grain=0.25, grain_size=(size, size))

    def wallpaper(self) -> int:
        """Add a painted, striped or papered wall."""
        base = self.colour((0.6, 0.97), (0.0, 0.45))
        kind = self.rng.integers(4)
        if kind == 0:
            width = self.rng.uniform(0.1, 0.5)
            pattern = {"period": (width, 1.0), "duty": (self.rng.uniform(0.2, 0.6), 1.0), "grain": 0.05}
            return self.add(base, self.near(base, 0.5), **pattern)
        if kind == 1:
            second = self.colour((0.4, 0.95), (0.0, 0.5))
            return self.add(base, second, blend=0.7, grain=0.06, grain_size=(self.rng.uniform(0.6, 3),) * 2)
        return self.add(base, grain=0.12, grain_size=(self.rng.uniform(1.0, 5.0),) * 2)

    def picture(self) -> int:
        """Add a picture for a wall."""
        first, second = self.colour((0.1, 0.9), (0.1, 0.9)), self.colour((0.3, 1.0), (0.1, 0.9))
        return self.add(first, second, blend=1.0, grain=0.5, grain_size=(self.rng.uniform(0.8, 3), self.rng.uniform(0.8, 3)))

    def leaves(self) -> int:
        """Add foliage."""
        dark = self.colour((0.15, 0.45), (0.4, 0.8), (0.2, 0.38))
        light = self.colour((0.4, 0.75), (0.4, 0.8), (0.18, 0.34))
        return self.add(dark, light, blend=1.0, grain=0.6, grain_size=(self.rng.uniform(1.5, 3.5),) * 2)

    def grass(self) -> int:
        """Add a lawn, a field or bare earth."""
        hue = (0.17, 0.33) if self.rng.random() < 0.75 else (0.06, 0.13)
        dark, light = self.colour((0.2, 0.45), (0.4, 0.7), hue), self.colour((0.4, 0.65), (0.3, 0.7), hue)
        return self.add(dark, light, blend=1.0, grain=0.4, grain_size=(self.rng.uniform(5, 14),) * 2)

    def asphalt(self, lane: float, *, marks: bool) -> int:
        """Add a road along z with lanes ``lane`` wide [m] and broken lines between them."""
        grey = self.colour((0.25, 0.5), (0.0, 0.1))
        dash = self.rng.uniform(4, 9)
        pattern = {"period": (lane, dash), "duty": (0.13 / lane, 0.45), "phase": (0.065, self.rng.uniform(0, dash))}
        paint = self.colour((0.85, 1.0), (0.0, 0.5), (0.13, 0.16)) if marks else grey
        return self.add(grey, paint, grain=0.35, grain_size=(3.0, 3.0), **pattern)

    def facade(self) -> int:
        """Add a facade: windows in rows."""
        wall = self.colour((0.4, 0.92), (0.0, 0.55), (0.0, 0.17))
        glass = self.colour((0.1, 0.45), (0.1, 0.5), (0.5, 0.65))
        period = self.rng.uniform(1.6, 3.6), self.rng.uniform(2.7, 3.6)
        duty = self.rng.uniform(0.3, 0.7), self.rng.uniform(0.35, 0.65)
        phase = self.rng.uniform(0, 9), -float(self.rng.uniform(0.1, 0.3)) * period[1]
        return self.add(wall, glass, period=period, duty=duty, phase=phase, variation=0.7, grain=0.25, grain_size=(6.0, 6.0))
