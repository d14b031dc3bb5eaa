"""Pictures of depth maps: one colour per disparity, so that near is warm whatever the network outputs."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from depthkit.errors import ShapeError
from depthkit.representation import convert
from depthkit.resize import interpolate
from depthkit.types import REPRESENTATIONS, Batch, Representation

GREY = 128
"""Grey level of pixels without a value."""


def shown(depth_map: Tensor | np.ndarray, representation: Representation) -> np.ndarray:
    """Convert to what is coloured: disparity for depth and disparity, its logarithm for logarithms, float32 ``(H, W)``."""
    x = torch.as_tensor(depth_map).detach().cpu().float()
    x = x.flatten(0, -3) if x.ndim > 2 else x[None]
    if x.ndim != 3 or len(x) != 1:
        raise ShapeError(
            f"expected one map of shape (H, W) to draw; got {tuple(np.shape(depth_map))}. Pass the images one by one."
        )
    logarithm = representation in (Representation.LOG_DEPTH, Representation.LOG_DISPARITY)
    if representation == Representation.DEPTH:
        x = x.where(x > 0, torch.nan)
    return convert(x[0], representation, Representation.LOG_DISPARITY if logarithm else Representation.DISPARITY).numpy()


def shown_span(span: tuple[float, float], representation: Representation) -> tuple[float, float]:
    """Convert a range of predicted values to what is coloured, see ``shown``: lowest, highest.

    Depth from 0 on has no greatest disparity: the warmest colour then is a hundredth of its upper end.
    """
    if representation == Representation.DEPTH and span[0] <= 0:
        span = span[1] / 100, span[1]
    low, high = sorted(shown(np.array([span]), representation)[0].tolist())
    return low, high


def colourise(
    depth_map: Tensor | np.ndarray,
    *,
    representation: Representation,
    valid: Tensor | np.ndarray | None = None,
    low: float | None = None,
    high: float | None = None,
    cmap: str = "Spectral_r",
) -> np.ndarray:
    """Colour a map, larger disparity warmer, invalid pixels grey.

    Args:
        depth_map: ``(H, W)``, or the same with leading axes of length 1.
        representation: what its numbers are.
        valid: pixels that have a value, bool of the shape of ``depth_map``; None: the finite ones.
        low: disparity (its logarithm for a logarithmic map) of the coldest colour; None: the 2nd percentile.
        high: the same of the warmest colour; None: the 98th percentile.
        cmap: a colour map of matplotlib.

    Returns:
        RGB, uint8 ``(H, W, 3)``.

    Example:
        >>> near_and_far = colourise(torch.tensor([[1.0, 10.0]]), representation=Representation.DEPTH)
        >>> bool(near_and_far[0, 0, 0] > near_and_far[0, 0, 2]), bool(near_and_far[0, 1, 0] < near_and_far[0, 1, 2])
        (True, True)
    """
    x = shown(depth_map, representation)
    drawn = np.isfinite(x)
    if valid is not None:
        drawn &= np.asarray(torch.as_tensor(valid).cpu()).reshape(x.shape)
    if not drawn.any():
        return np.full((*x.shape, 3), GREY, np.uint8)
    low = float(np.percentile(x[drawn], 2)) if low is None else low
    high = float(np.percentile(x[drawn], 98)) if high is None else high
    unit = (np.where(drawn, x, low) - low) / (high - low) if high > low else np.full_like(x, 0.5)
    colours = np.take(colour_table(cmap), (unit.clip(0, 1) * 255).round().astype(np.uint8), axis=0)
    colours[~drawn] = GREY
    return colours


@cache
def colour_table(cmap: str) -> np.ndarray:
    """Return the 256 colours of a colour map of matplotlib, uint8 ``(256, 3)``."""
    from matplotlib import colormaps  # a drawing dependency, not one of every evaluation

    return (colormaps[cmap](np.arange(256))[:, :3] * 255).round().astype(np.uint8)


def picture_strip(rows: Sequence[Sequence[np.ndarray]], *, height: int = 192, gap: int = 4) -> np.ndarray:
    """Pictures side by side, one row per image (image | prediction | label), on white.

    Args:
        rows: RGB pictures, uint8 ``(H, W, 3)`` each, of any size.
        height: height of every row [px]; widths follow the aspect of each picture.
        gap: white between pictures [px].

    Returns:
        RGB, uint8 ``(rows * (height + gap) - gap, W, 3)``.
    """
    lines = [[_at_height(picture, height) for picture in row] for row in rows]
    width = max(sum(picture.shape[1] + gap for picture in line) - gap for line in lines)
    canvas = np.full((len(lines) * (height + gap) - gap, width, 3), 255, np.uint8)
    for index, line in enumerate(lines):
        top, left = index * (height + gap), 0
        for picture in line:
            canvas[top : top + height, left : left + picture.shape[1]] = picture
            left += picture.shape[1] + gap
    return canvas


def batch_strip(batch: Batch, pred: Tensor, representation: Representation, *, rows: int = 4, height: int = 192) -> np.ndarray:
    """Image | prediction | label of the first images of a batch, each map on its own colour scale.

    Args:
        batch: what was predicted.
        pred: predictions in ``representation``, ``(B, 1, h, w)``, of any size.
        representation: what their numbers are.
        rows: images to draw at most.
        height: height of each [px].

    Returns:
        RGB, uint8 ``(H, W, 3)``.
    """
    images = (batch.image[:rows].clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    stored = [REPRESENTATIONS[code] for code in batch.representation[:rows].tolist()]
    return picture_strip(
        [
            (
                image,
                colourise(pred[row], representation=representation),
                colourise(batch.target[row], representation=stored[row], valid=batch.valid[row]),
            )
            for row, image in enumerate(images)
        ],
        height=height,
    )


def _at_height(picture: np.ndarray, height: int) -> np.ndarray:
    width = max(round(picture.shape[1] * height / picture.shape[0]), 1)
    x = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float()
    x = interpolate(x, (height, width), "bilinear", antialias=True)
    return x[0].permute(1, 2, 0).round().clamp(0, 255).byte().numpy()
