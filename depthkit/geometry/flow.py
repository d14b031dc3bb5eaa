"""Where the points of a frame were in the frame before it, by optical flow on small grey pictures."""

from dataclasses import dataclass

import cv2
import numpy as np

PIXELS = 160 * 120
"""Number of pixels to which frames are reduced: flicker has no fine detail, and flow at this size costs milliseconds."""
LEAST_SEEN = 0.25
"""Share of pixels that two frames must both show; with fewer a new shot begins."""
_BRIGHTNESS = 24.0  # grey levels by which a point may change between frames beyond what all of them do


@dataclass(frozen=True)
class Motion:
    """Correspondences of a frame with the one before.

    Attributes:
        columns: where each pixel was, float32 ``(h, w)``.
        rows: the same.
        seen: pixels that both frames show, by flow there and back and by brightness, bool ``(h, w)``.
    """

    columns: np.ndarray
    rows: np.ndarray
    seen: np.ndarray

    def bring(self, *before: np.ndarray) -> tuple[np.ndarray, ...]:
        """Sample maps of the frame before, float32 ``(h, w)`` each, at where each pixel was."""
        stacked = cv2.merge(before)
        return tuple(cv2.split(cv2.remap(stacked, self.columns, self.rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)))


def small_size(height: int, width: int) -> tuple[int, int]:
    """Find (height, width) at which a frame of this size is looked at for motion."""
    scale = min(1.0, (PIXELS / (height * width)) ** 0.5)
    return max(round(height * scale), 16), max(round(width * scale), 16)


def small_grey(image: np.ndarray) -> np.ndarray:
    """Reduce an RGB frame, uint8 ``(H, W, 3)``, to the grey picture that motion is found in."""
    height, width = small_size(*image.shape[:2])
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)


def motion_between(before: np.ndarray, now: np.ndarray) -> Motion | None:
    """Find where the pixels of a grey picture were in the one before; None if the pictures differ in size."""
    if before.shape != now.shape:
        return None
    back, forth = _flow(now, before), _flow(before, now)
    grid = np.indices(now.shape, np.float32)
    columns, rows = grid[1] + back[..., 0], grid[0] + back[..., 1]
    returned = cv2.remap(forth, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    inside = (columns >= 0) & (columns <= now.shape[1] - 1) & (rows >= 0) & (rows <= now.shape[0] - 1)
    error, length = ((x * x).sum(-1) for x in (back + returned, np.abs(back) + np.abs(returned)))
    difference = now.astype(np.float32) - cv2.remap(before, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    dimmed = float(np.median(difference))
    seen = inside & (error < 0.01 * length + 0.5) & (np.abs(difference - dimmed) < _BRIGHTNESS)
    return Motion(columns, rows, seen)


def _flow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Compute optical flow (Kroeger et al. 2016), float32 ``(h, w, 2)``."""
    start = np.zeros((*first.shape, 2), np.float32)
    return cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST).calc(first, second, start)
