"""Metres of networks that predict in the space of one canonical camera (Metric3D; Yin et al. 2023, arXiv 2307.10984).

An object half as large in the picture is twice as far, or seen by half the focal length: a network that sees many cameras
cannot know. So it predicts ``canonical = metres * canonical_focal / focal`` with the focal length in pixels of the very tensor
that it sees. Every resize changes that focal length, no crop and no padding does.
"""

import math
from typing import Any

from torch import Tensor

from depthkit.errors import GeometryError
from depthkit.precision import to_float64
from depthkit.representation import convert
from depthkit.types import Representation


def canonical_focal_of(model: Any) -> float | None:
    """Find the focal length [px] of a network's canonical camera; None if it predicts what it predicts."""
    return getattr(model, "canonical_focal", None)


def in_metres(
    pred: Tensor,
    model: Any,
    representation: Representation,
    intrinsics: Tensor | None,
    *,
    size: tuple[int, int],
    seen: tuple[int, int],
    margins: tuple[int, int] = (0, 0),
) -> Tensor:
    """Convert maps of a network with a canonical camera to metres; return those of any other as they are.

    Args:
        pred: ``(B, 1, h, w)``.
        model: the network.
        representation: of the maps.
        intrinsics: of the images ``(B, 3, 3)`` [px]; None or NaN where they are not known.
        size: (height, width) of the images, or of the part of them that the network is shown [px].
        seen: (height, width) at which the network sees it, without what ``InputResize.extend`` adds [px].
        margins: see ``InputResize.margins``.

    Raises:
        GeometryError: the camera of an image is not known.

    Example:
        >>> import torch
        >>> class Net:
        ...     canonical_focal = 1000.0
        >>> camera = torch.tensor([[[500.0, 0, 320], [0, 500, 240], [0, 0, 1]]])
        >>> depth = torch.full((1, 1, 2, 2), 4.0)
        >>> in_metres(depth, Net(), Representation.DEPTH, camera, size=(480, 640), seen=(480, 640))[0, 0, 0, 0]
        tensor(2.)
    """
    focal = canonical_focal_of(model)
    if focal is None:
        return pred
    factor = seen_focal(intrinsics, size=size, seen=seen, margins=margins).to(pred) / focal
    depth = convert(pred, representation, Representation.DEPTH) * factor.view(-1, 1, 1, 1)
    return convert(depth, Representation.DEPTH, representation)


def seen_focal(
    intrinsics: Tensor | None, *, size: tuple[int, int], seen: tuple[int, int], margins: tuple[int, int] = (0, 0)
) -> Tensor:
    """Compute the focal length of what a network sees, ``(B,)`` [px]: the mean of both axes; arguments as of ``in_metres``.

    Raises:
        GeometryError: the camera of an image is not known.
    """
    if intrinsics is None or not intrinsics[..., :2, :2].isfinite().all():
        raise GeometryError(
            "expected the intrinsics of every image for a network with a canonical focal length, which has no metres without; "
            "got none. Give intrinsics= (--intrinsics fx fy cx cy, or --fov DEGREES), or intrinsics.json beside the images."
        )
    y, x = ((length / (whole + 2 * margin)) for length, whole, margin in zip(seen, size, margins, strict=True))
    focal: Tensor = (to_float64(intrinsics[..., 0, 0]) * x + to_float64(intrinsics[..., 1, 1]) * y) / 2
    return focal


def check_canonical_focal(focal: float) -> float:
    """Return a canonical focal length.

    Raises:
        GeometryError: it is not positive and finite.
    """
    if not (math.isfinite(focal) and focal > 0):
        raise GeometryError(f"expected canonical_focal above 0 [px], such as 1000; got {focal}.")
    return float(focal)
