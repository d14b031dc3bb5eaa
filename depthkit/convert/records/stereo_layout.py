"""The two pictures in one: how a frame of a stereo film is cut into what the left and the right eye see.

Films lie side by side or one above the other. Often each eye's picture is squeezed to half of its width or height, so that
both fit into an ordinary frame; the other direction is then halved, too, which gives the aspect back without inventing
pixels. Black bars around the picture (letterbox) are cut off, equally for both eyes: that shifts no disparity.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import cv2
import numpy as np

from depthkit.errors import DepthKitError

_BLACK = 24  # grey levels: video black is 16, and compression lets it flicker
_FILLED = 0.1  # share of a row or column that must not be black: subtitles in a bar are no picture
_LIKE = 0.55  # least likeness of two eyes; halves of 420 photographs have up to 0.48, stereo pairs 0.66 to 0.95
_WIDTH, _BLOCK, _SEARCH, _FAINT = 160, 16, 16, 2.0  # px, px, px, grey levels: where likeness looks


class Layout(StrEnum):
    """Where the two pictures lie."""

    AUTO = "auto"
    """Where the halves show the same."""
    SIDE_BY_SIDE = "side_by_side"
    OVER_UNDER = "over_under"


class Eyes(StrEnum):
    """Which eye's picture comes first, from left or from above."""

    LEFT_RIGHT = "left_right"
    RIGHT_LEFT = "right_left"


@dataclass(frozen=True)
class Arrangement:
    """From a frame to the left and the right picture.

    Attributes:
        layout: side_by_side or over_under.
        squeezed: whether the pictures have half of their width (side by side) or height (over under).
        swapped: whether the right eye's comes first.
        area: rows and columns of the picture inside its bars, after that.
        height: to reduce the pictures to [px]; None to leave them.
    """

    layout: Layout
    squeezed: bool = False
    swapped: bool = False
    area: tuple[slice, slice] = (slice(None), slice(None))
    height: int | None = None

    def __call__(self, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the left and right picture, uint8 RGB ``(H, W, 3)``, of a frame."""
        eyes = [self._sized(self._whole(eye)[self.area]) for eye in halves(frame, self.layout)]
        return (eyes[1], eyes[0]) if self.swapped else (eyes[0], eyes[1])

    def _whole(self, eye: np.ndarray) -> np.ndarray:
        height, width = eye.shape[:2]
        if not self.squeezed:
            return eye
        size = (width, height // 2) if self.layout == Layout.SIDE_BY_SIDE else (width // 2, height)
        return cv2.resize(eye, size, interpolation=cv2.INTER_AREA)

    def _sized(self, eye: np.ndarray) -> np.ndarray:
        if self.height is None or self.height >= len(eye):
            return np.ascontiguousarray(eye)
        width = round(eye.shape[1] * self.height / len(eye))
        return cv2.resize(eye, (width, self.height), interpolation=cv2.INTER_AREA)


def halves(frame: np.ndarray, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Return both pictures as they lie in the frame, first one first; a last odd column or row is left out."""
    height, width = frame.shape[:2]
    if layout == Layout.SIDE_BY_SIDE:
        return frame[:, : width // 2], frame[:, width // 2 : width // 2 * 2]
    return frame[: height // 2], frame[height // 2 : height // 2 * 2]


def arrange(
    frames: Sequence[np.ndarray],
    what: str,
    *,
    layout: Layout = Layout.AUTO,
    eyes: Eyes = Eyes.LEFT_RIGHT,
    squeezed: bool | None = None,
    height: int | None = None,
) -> Arrangement:
    """Decide how frames of one size are cut.

    Args:
        frames: some, spread over the film.
        what: its name, for messages.
        layout: where the pictures lie.
        eyes: which comes first. No picture tells: with the wrong one, what is far looks near.
        squeezed: whether the pictures are; None to judge by their aspect, below 1.2 (side by side) or above 2.8 (over under).
        height: of ``Arrangement``.

    Raises:
        DepthKitError: the halves of the frames do not show the same, or all are black.
    """
    if layout == Layout.AUTO:
        layout = found_layout(frames, what)
    first = halves(frames[0], layout)[0]
    if squeezed is None:
        aspect = first.shape[1] / first.shape[0]
        squeezed = aspect < 1.2 if layout == Layout.SIDE_BY_SIDE else aspect > 2.8
    whole = Arrangement(layout, squeezed, eyes == Eyes.RIGHT_LEFT)
    area = picture_area([eye for frame in frames for eye in whole(frame)])
    rows, columns = area
    if rows.stop - rows.start < 2 or columns.stop - columns.start < 2:
        raise DepthKitError(f"{what}: expected pictures; all frames looked at are black. Check it.")
    return Arrangement(layout, squeezed, whole.swapped, area, height)


def found_layout(frames: Sequence[np.ndarray], what: str) -> Layout:
    """Decide whether halves side by side or one above the other show the same, from some frames, which may differ in size.

    Raises:
        DepthKitError: neither do.
    """
    found = {
        candidate: float(np.median([likeness(*halves(frame, candidate)) for frame in frames]))
        for candidate in (Layout.SIDE_BY_SIDE, Layout.OVER_UNDER)
    }
    layout = max(found, key=found.__getitem__)
    if not found[layout] >= _LIKE:
        numbers = " and ".join(f"{value:.2f} ({name})" for name, value in found.items())
        raise DepthKitError(
            f"{what}: expected stereo, two pictures of the same beside or above each other; the halves have a likeness of "
            f"{numbers}, below {_LIKE}. What is made for one eye has no disparity; if this is not, give --layout."
        )
    return layout


def picture_area(pictures: Sequence[np.ndarray]) -> tuple[slice, slice]:
    """Return rows and columns between the black bars around pictures of one size; empty if all is black."""
    brightest = np.max([picture.max(2) for picture in pictures], 0) > _BLACK
    sides = []
    for axis in (1, 0):
        filled = np.flatnonzero(brightest.mean(axis) >= _FILLED)
        sides.append(slice(int(filled[0]), int(filled[-1]) + 1) if filled.size else slice(0, 0))
    return sides[0], sides[1]


def likeness(a: np.ndarray, b: np.ndarray) -> float:
    """Measure how well the details of one picture are found in another at nearly the same place: 1 equal, 0 nothing.

    The median, over blocks that have details, of the best normalised correlation within a tenth of the width.
    """
    width = min(_WIDTH, a.shape[1])
    height = round(width * a.shape[0] / a.shape[1])
    grey = [cv2.resize(cv2.cvtColor(x, cv2.COLOR_RGB2GRAY), (width, height), interpolation=cv2.INTER_AREA) for x in (a, b)]
    first, second = (x - cv2.GaussianBlur(x, (0, 0), 4.0) for x in (picture.astype(np.float32) for picture in grey))
    found = []
    for y in range(2, height - _BLOCK - 1, _BLOCK):
        for x in range(_SEARCH, width - _BLOCK - _SEARCH + 1, _BLOCK):
            block = first[y : y + _BLOCK, x : x + _BLOCK]
            if block.std() >= _FAINT:
                around = second[y - 2 : y + _BLOCK + 2, x - _SEARCH : x + _BLOCK + _SEARCH]
                found.append(float(cv2.matchTemplate(around, block, cv2.TM_CCOEFF_NORMED).max()))
    return float(np.median(found)) if found else 0.0
