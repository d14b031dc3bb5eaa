"""Labels of stereo pairs whose cameras nobody knows: disparity by optical flow, known up to scale and shift.

The left picture's optical flow to the right one is, mirrored, its disparity [px], larger for what is closer. Between films
focal length and baseline differ, and the two cameras' principal points differ by what the film makers thought comfortable:
1 / depth = a (disparity + b), with a > 0 and b unknown. What flow gets wrong shows where the flow back does not return to
where it came from; frames in which that is much, or in which hardly anything has depth, are left out (Ranftl et al. 2022,
appendix on 3D movies; Romanov et al. 2020, appendix E).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from depthkit.checks import check_choice
from depthkit.convert.records.record import Annotation, Record
from depthkit.convert.records.sky import Sky
from depthkit.convert.records.stereo_layout import picture_area
from depthkit.errors import LabelError, RecipeError, ShapeError
from depthkit.types import Ambiguity, LabelKind, Representation, Views

KIND = LabelKind(Ambiguity.SHIFT_SCALE, Representation.DISPARITY)
RIGHT = " right"
"""Ends the name of the right picture of a pair; that of the left one is the pair's."""

Flow = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From two pictures, uint8 RGB ``(H, W, 3)``, to where each pixel of the first goes in the second, ``(H, W, 2)``: x, y [px]."""


@dataclass(frozen=True)
class Rules:
    """Which pixels and which frames are good enough. Pixels are those of the stored picture.

    Attributes:
        discrepancy: flow there and back must end less than so far from its begin, along the row [px].
        matched: a frame needs more than this share of such pixels.
        span: its disparities must span more than so much [px].
        vertical: a vertical flow beyond this is suspect [px]; None not to look.
        tilted: a frame may have at most this share of suspect pixels, there or back.
    """

    discrepancy: float = 8.0
    matched: float = 0.8
    span: float = 8.0
    vertical: float | None = None
    tilted: float = 0.1


RULES: Mapping[str, Rules] = MappingProxyType(
    {"gp2": Rules(), "midas": Rules(discrepancy=2, matched=0.7, span=10, vertical=2, tilted=0.1)}
)
"""Romanov et al. (2020) and Ranftl et al. (2022), who look at pictures of 1880 x 800."""


@dataclass(frozen=True)
class StereoLabels:
    """Reads the label of a frame, as ``Records.reader``; travels to worker processes if its parts do.

    Attributes:
        pair: from root and name to the left and the right picture.
        flow: optical flow.
        rules: what is good enough.
        sky: where the sky is; it gets the least disparity of the picture, and is valid. None not to look.
    """

    pair: Callable[[Path, str], tuple[np.ndarray, np.ndarray]]
    flow: Flow
    rules: Rules = RULES["gp2"]
    sky: Sky | None = None

    def __call__(self, root: Path, frame: Record, size: tuple[int, int]) -> Annotation:
        """Return disparity [px], where it is known, and the sky.

        Raises:
            LabelError: the frame is not good enough.
            ShapeError: what flow or sky return is not of the picture's size.
        """
        left, right = self.pair(root, frame.image)
        forward, backward = (self._sized(self.flow(*pair), (*size, 2)) for pair in ((left, right), (right, left)))
        disparity, matched = disparity_from_flow(forward, backward, discrepancy=self.rules.discrepancy)
        bars = np.ones(size, bool)
        bars[picture_area([left])] = False
        valid = matched & ~bars
        sky = None if self.sky is None else self._sized(self.sky(left), size) & ~bars
        vertical = np.stack([forward[..., 1], backward[..., 1]])
        check_frame(disparity, valid if sky is None else valid | sky, self.rules, seen=valid, vertical=vertical)
        if sky is None or not sky.any():
            return Annotation(disparity, valid)
        ground = valid & ~sky
        if not ground.any():
            raise LabelError("all that matches is sky")
        return Annotation(np.where(sky, disparity[ground].min(), disparity), ground | sky, sky)

    def picture(self, root: Path, name: str) -> np.ndarray:
        """Return a picture by its name, uint8 RGB ``(H, W, 3)``, as ``Records.picture``."""
        return self.pair(root, name.removesuffix(RIGHT))[name.endswith(RIGHT)]

    def _sized(self, found: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
        if found.shape != size:
            raise ShapeError(f"expected optical flow and sky of the picture's size, {size}; got {found.shape}. Correct it.")
        return found


def stereo_frame(key: str, name: str, views: Views | str) -> Record:
    """Make the record of a pair: its left picture, its label, and, with views stereo, its right picture.

    Raises:
        LabelError: the views are neither single nor stereo.
    """
    if check_choice("views", views, Views) not in (Views.SINGLE, Views.STEREO):
        raise LabelError(f"expected views single or stereo; got {views}. A stereo pair has no neighbours in time.")
    return Record(key, name, label=f"{name} flow", views={"stereo": name + RIGHT} if views == Views.STEREO else {})


def preset(rules: Rules | str) -> Rules:
    """Return the rules of a name.

    Raises:
        RecipeError: there are none.
    """
    if isinstance(rules, Rules):
        return rules
    if rules not in RULES:
        raise RecipeError(f"expected rules among {', '.join(RULES)}; got '{rules}'. Choose one of them.")
    return RULES[rules]


def disparity_from_flow(forward: np.ndarray, backward: np.ndarray, *, discrepancy: float) -> tuple[np.ndarray, np.ndarray]:
    """Return disparity [px] of the left picture, float32 ``(H, W)``, and where it is confirmed, bool ``(H, W)``.

    A pixel is confirmed if the flow back, read between its pixels where the flow leads along the row, returns to less than
    ``discrepancy`` from it. One that leaves the picture has nothing that could confirm it.

    Args:
        forward: flow from left to right ``(H, W, 2)`` [px].
        backward: flow from right to left.
        discrepancy: [px].

    Raises:
        ShapeError: they are not two flows of one size.

    Example:
        >>> forward = np.full((1, 6, 2), -2.0)
        >>> disparity, confirmed = disparity_from_flow(forward, -forward, discrepancy=1)
        >>> disparity[0].tolist(), confirmed[0].tolist()
        ([0.0, 0.0, 2.0, 2.0, 2.0, 2.0], [False, False, True, True, True, True])
    """
    if forward.shape != backward.shape or forward.ndim != 3 or forward.shape[2] != 2 or forward.shape[1] < 2:
        raise ShapeError(f"expected flow both ways, (H, W, 2) each; got {forward.shape} and {backward.shape}.")
    there, back = forward[..., 0], backward[..., 0]
    width = there.shape[1]
    at = np.arange(width) + there
    inside = (at >= 0) & (at <= width - 1)  # False where the flow is NaN
    at = np.where(inside, at, 0)
    pixel = np.minimum(at.astype(np.intp), width - 2)
    share = at - pixel
    returned = (1 - share) * np.take_along_axis(back, pixel, 1) + share * np.take_along_axis(back, pixel + 1, 1)
    confirmed = inside & (np.abs(there + returned) < discrepancy)
    return np.where(confirmed, -there, 0).astype(np.float32), confirmed


def check_frame(disparity: np.ndarray, good: np.ndarray, rules: Rules, *, seen: np.ndarray, vertical: np.ndarray) -> None:
    """Check that the frame is good enough.

    Args:
        disparity: [px], ``(H, W)``.
        good: pixels that count as matched, bool ``(H, W)``.
        rules: what is good enough.
        seen: pixels whose disparity is known, bool ``(H, W)``.
        vertical: vertical flow there and back [px], ``(2, H, W)``.

    Raises:
        LabelError: it is not; equal reasons have equal words, so that they can be counted.
    """
    if good.mean() <= rules.matched or not seen.any():
        raise LabelError(f"no more than {rules.matched:.0%} of its pixels match within {rules.discrepancy:g} px")
    if np.ptp(disparity[seen]) <= rules.span:
        raise LabelError(f"its disparities span no more than {rules.span:g} px")
    if rules.vertical is not None and (np.abs(vertical) > rules.vertical).mean((1, 2)).max() > rules.tilted:
        raise LabelError(f"over {rules.tilted:.0%} of its pixels move by more than {rules.vertical:g} px vertically")
