"""One scale, or one scale and one shift, for all images of a network: from predictions up to them to metres."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from depthkit.alignment import fit_scale
from depthkit.errors import LabelError, RecipeError
from depthkit.evaluation.evaluate import batches
from depthkit.masked import masked_count, masked_mean
from depthkit.precision import where_float64_exists
from depthkit.representation import convert, convert_rows, depth_limits
from depthkit.resize import native_map
from depthkit.types import AMBIGUITIES, Ambiguity, Batch, Representation, Sample

_INVERSES = (Representation.DISPARITY, Representation.LOG_DISPARITY)


class Calibration(NamedTuple):
    """What turns a network's numbers into metres.

    Attributes:
        scale: factor of its depth or disparity, or of what its logarithm is of.
        shift: added to its depth [m] or disparity [1/m].
        images: that it was found on.
        spread: deviation of the images' own scales from it, as a fraction; NaN where a shift was fitted, too.
    """

    scale: float
    shift: float
    images: int
    spread: float


@torch.inference_mode()
def calibrate(
    network: Any,
    samples: Iterable[Sample | Batch],
    *,
    label_range: tuple[float, float] = (0.0, torch.inf),
    images: int | None = None,
    device: torch.device | str = "cpu",
) -> Calibration:
    """Find the one scale, and shift where a network leaves it open, that brings its predictions to labels in metres.

    Up to scale, it is the median over images of the ratio of medians of depth, as Godard et al. 2019 scale their video models
    for KITTI's server. Up to scale and shift, it is the least-squares line over all images in the space in which the network
    is affine, each image with the same weight.

    Args:
        network: with ``representation`` and ``ambiguity``, sees images as it wants to.
        samples: with labels in metres; few pixels suffice, such as a sparse scan.
        label_range: depths that count, both excluded [m].
        images: how many to use; None for all.
        device: where the network runs.

    Raises:
        LabelError: a label is not in metres.
        RecipeError: nothing determines the scale, or it is not positive.
    """
    affine = network.ambiguity == Ambiguity.SHIFT_SCALE
    own = Representation(network.representation)
    linear = Representation.DISPARITY if own in _INVERSES else Representation.DEPTH
    space = linear if affine else Representation.DEPTH
    low, high = depth_limits(space, *label_range)
    ratios, moments = list[float](), list[Tensor]()
    used = 0
    for batch in batches(samples):
        batch = batch.to(device)
        for key, code in zip(batch.keys, batch.ambiguity.tolist(), strict=True):
            if AMBIGUITIES[code] != Ambiguity.METRIC:
                raise LabelError(f"{key}: expected a label in metres to calibrate with; got {AMBIGUITIES[code]}.")
        predicted = native_map(network, batch.image, intrinsics=batch.intrinsics).map
        predicted, target, valid, codes = where_float64_exists(predicted, batch.target, batch.valid, batch.representation)
        pred = convert(predicted.double(), own, space)
        target, valid = convert_rows(target, valid, codes, space)
        valid = valid & (target > low) & (target < high)
        if affine:
            moments += _moments(pred, target.double(), valid)
        else:
            ratios += [x for x in fit_scale(pred, target.double(), valid, method="ratio_of_medians").tolist() if x > 0]
        used = len(moments) if affine else len(ratios)
        if images is not None and used >= images:
            break
    if not used:
        raise RecipeError("expected an image that determines a scale; got none. Check the labels and the range of depth.")
    if affine:
        scale, shift = _line(torch.stack(moments[:images]))
        return Calibration(scale, shift, len(moments[:images]), float("nan"))
    found = np.asarray(ratios[:images])
    factor = float(np.median(found))
    inverse = own in _INVERSES
    return Calibration(1 / factor if inverse else factor, 0.0, len(found), float(np.std(found / factor)))


def _moments(x: Tensor, y: Tensor, valid: Tensor) -> list[Tensor]:
    """Means of x, y, x^2 and x y over the valid pixels of each image that has some."""
    means = torch.stack([masked_mean(z, valid) for z in (x, y, x * x, x * y)], 1)
    return list(means[masked_count(valid) > 0].cpu())


def _line(moments: Tensor) -> tuple[float, float]:
    """Fit the line of least squares to pooled moments ``(N, 4)``.

    Raises:
        RecipeError: it does not rise.
    """
    x, y, xx, xy = moments.mean(0).tolist()
    variance = xx - x * x
    if not (variance > 1e-12 * xx and xy - x * y > 0):
        raise RecipeError(
            "expected predictions that grow with the labels; these are constant or fall. Check the network and the labels."
        )
    scale = (xy - x * y) / variance
    return scale, y - scale * x
