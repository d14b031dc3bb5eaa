"""Codecs: from depth to the numbers y in [-1, 1] that a latent diffusion model learns, and back."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, ClassVar

from torch import Tensor
from torch.nn import functional as F

from depthkit.checks import check_choice, check_map, check_valid
from depthkit.errors import RecipeError, ShapeError
from depthkit.masked import NEGLIGIBLE_SPREAD, masked_mean, masked_quantile, per_image
from depthkit.precision import in_float32
from depthkit.representation import log_depth_to_unit, unit_to_depth
from depthkit.types import Ambiguity, LabelKind, Representation


class Fill(StrEnum):
    """Values of y in pixels without depth: 1 (far) or -1 (near)."""

    FAR = "far"
    NEAR = "near"


class DepthCodec(ABC):
    """A map from depth to y in [-1, 1], near at -1, and back.

    Args:
        fill: y in pixels without depth, which the VAE sees too: "far" (1) or "near" (-1).

    Attributes:
        kind: label kind that it encodes, and of its decoded maps.
        resize_space: representation in which a decoded map equals y up to a factor and an offset, so that resizing either
            gives the same.

    Raises:
        RecipeError: an unknown fill.
    """

    kind: ClassVar[LabelKind]
    resize_space: ClassVar[Representation] = Representation.DEPTH

    def __init__(self, *, fill: Fill | str = Fill.FAR) -> None:
        self.fill = str(check_choice("fill", fill, Fill))

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Return plain values from which ``codec_of`` rebuilds the codec, for checkpoints and folders."""

    @abstractmethod
    def _unit(self, depth: Tensor, valid: Tensor) -> Tensor:
        """Compute y before clipping, from depth that is positive everywhere and read where valid."""

    @abstractmethod
    def decode(self, y: Tensor) -> Tensor:
        """Decode y of any shape to depth: the exact inverse of ``encode`` within the range."""

    @abstractmethod
    def within(self, depth: Tensor, valid: Tensor) -> Tensor:
        """Mask the valid pixels whose depth is in the codec's range, for losses and scores, bool ``(B, 1, H, W)``."""

    @abstractmethod
    def relative_spread(self, spread: Tensor, y: Tensor) -> Tensor:
        """Convert a small spread of y around ``y`` to a spread of depth as a fraction of that depth."""

    @in_float32
    def encode(self, depth: Tensor, valid: Tensor) -> Tensor:
        """Encode a depth map to y, clipped to [-1, 1]; pixels without depth are filled.

        Args:
            depth: metres, ``(B, 1, H, W)``; any value where not valid. The sky, at infinity, becomes 1.
            valid: bool, ``(B, 1, H, W)``. A valid depth that is not positive counts as invalid.

        Raises:
            ShapeError: other shapes or types.
        """
        check_map("depth", depth)
        check_valid(valid, depth)
        valid = valid & (depth > 0)
        y = self._unit(depth.where(valid, 1), valid).clamp(-1, 1)
        return y.where(valid, -1 if self.fill == Fill.NEAR else 1)

    @in_float32
    def clipped(self, depth: Tensor, valid: Tensor) -> Tensor:
        """Compute the share of each image's valid pixels with depth outside of the range, ``(B,)``."""
        return masked_mean((~self.within(depth, valid)).to(depth.dtype), valid)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DepthCodec) and self.facts() == other.facts()

    def __hash__(self) -> int:
        return hash(tuple(self.facts().items()))

    def __repr__(self) -> str:
        facts = self.facts()
        return f"{facts.pop('codec')}({', '.join(f'{name}={value!r}' for name, value in facts.items())})"


class _MetricDepth(DepthCodec):
    """Codec of depth between two bounds [m]."""

    kind = LabelKind(Ambiguity.METRIC, Representation.DEPTH)

    def __init__(self, d_min: float, d_max: float, *, fill: Fill | str = Fill.FAR) -> None:
        super().__init__(fill=fill)
        if not (0 < d_min < d_max and math.isfinite(d_max)):
            raise RecipeError(f"expected 0 < d_min < d_max in metres; got {d_min} and {d_max}.")
        self.d_min, self.d_max = float(d_min), float(d_max)

    def facts(self) -> dict[str, Any]:
        """See ``DepthCodec``."""
        return {"codec": type(self).__name__, "d_min": self.d_min, "d_max": self.d_max, "fill": self.fill}

    @in_float32
    def within(self, depth: Tensor, valid: Tensor) -> Tensor:
        """Mask the valid pixels between ``d_min`` and ``d_max``."""
        return valid & (depth >= self.d_min) & (depth <= self.d_max)


class LogDepth(_MetricDepth):
    """Codec by the logarithm of depth: an error of y is the same relative error near and far (MetricGold eq. 3).

    Args:
        d_min: depth [m] that becomes -1.
        d_max: depth [m] that becomes 1. The paper gives neither bound; its released code has 0.1 and 100.
        fill: see ``DepthCodec``.

    Raises:
        RecipeError: not 0 < d_min < d_max, or an unknown fill.

    Example:
        >>> import torch
        >>> [round(float(x), 3) for x in LogDepth(0.1, 100).decode(torch.tensor([-1.0, 0.0, 1.0]))]
        [0.1, 3.162, 100.0]
    """

    resize_space = Representation.LOG_DEPTH

    def __init__(self, d_min: float = 0.1, d_max: float = 100.0, *, fill: Fill | str = Fill.FAR) -> None:
        super().__init__(d_min, d_max, fill=fill)

    def _unit(self, depth: Tensor, valid: Tensor) -> Tensor:
        return log_depth_to_unit(depth, min_depth=self.d_min, max_depth=self.d_max)

    @in_float32
    def decode(self, y: Tensor) -> Tensor:
        """Decode y of any shape to depth [m]."""
        return unit_to_depth(y, min_depth=self.d_min, max_depth=self.d_max)

    def relative_spread(self, spread: Tensor, y: Tensor) -> Tensor:
        """Compute dz / z = dy ln(d_max / d_min) / 2, whatever y is."""
        return spread * (math.log(self.d_max / self.d_min) / 2)


class LinearDepth(_MetricDepth):
    """Codec linear in depth: an error of y is the same number of metres near and far (MetricGold eq. 2).

    Args:
        d_min: depth [m] that becomes -1.
        d_max: depth [m] that becomes 1.
        fill: see ``DepthCodec``.

    Raises:
        RecipeError: not 0 < d_min < d_max, or an unknown fill.
    """

    def __init__(self, d_min: float = 0.1, d_max: float = 100.0, *, fill: Fill | str = Fill.FAR) -> None:
        super().__init__(d_min, d_max, fill=fill)

    def _unit(self, depth: Tensor, valid: Tensor) -> Tensor:
        return (depth - self.d_min) * (2 / (self.d_max - self.d_min)) - 1

    @in_float32
    def decode(self, y: Tensor) -> Tensor:
        """Decode y of any shape to depth [m]."""
        return self.d_min + (y + 1) * ((self.d_max - self.d_min) / 2)

    def relative_spread(self, spread: Tensor, y: Tensor) -> Tensor:
        """See ``DepthCodec``."""
        return spread * ((self.d_max - self.d_min) / 2) / self.decode(y)


class AffineDepth(DepthCodec):
    """Codec between two quantiles of each image's depth, so that neither scale nor offset is learnt (Marigold).

    Args:
        low: quantile that becomes -1.
        high: quantile that becomes 1.
        fill: see ``DepthCodec``.

    Raises:
        RecipeError: not 0 <= low < high <= 1, or an unknown fill.
    """

    kind = LabelKind(Ambiguity.SHIFT_SCALE, Representation.DEPTH)

    def __init__(self, low: float = 0.02, high: float = 0.98, *, fill: Fill | str = Fill.FAR) -> None:
        super().__init__(fill=fill)
        if not 0 <= low < high <= 1:
            raise RecipeError(f"expected quantiles 0 <= low < high <= 1; got {low} and {high}.")
        self.low, self.high = float(low), float(high)

    def facts(self) -> dict[str, Any]:
        """See ``DepthCodec``."""
        return {"codec": type(self).__name__, "low": self.low, "high": self.high, "fill": self.fill}

    def _quantiles(self, depth: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        read = valid & depth.isfinite() & (depth > 0)
        low, high = (per_image(masked_quantile(depth, read, q), depth) for q in (self.low, self.high))
        return low, high

    def _unit(self, depth: Tensor, valid: Tensor) -> Tensor:
        low, high = self._quantiles(depth, valid)
        span = high - low
        return (depth - low) / span.where(span > NEGLIGIBLE_SPREAD * high, 1) * 2 - 1  # a constant map has no scale

    def decode(self, y: Tensor) -> Tensor:
        """Decode y of any shape to depth up to a factor and an offset, 0 and 1 at the quantiles."""
        return (y + 1) / 2

    @in_float32
    def within(self, depth: Tensor, valid: Tensor) -> Tensor:
        """Mask the valid pixels between the two quantiles."""
        low, high = self._quantiles(depth, valid)
        return valid & (depth >= low) & (depth <= high)

    def relative_spread(self, spread: Tensor, y: Tensor) -> Tensor:
        """Return the spread as a fraction of the range between the quantiles, since without a scale there is no depth."""
        return spread / 2


_CODECS: dict[str, type[DepthCodec]] = {codec.__name__: codec for codec in (LogDepth, LinearDepth, AffineDepth)}


def codec_of(facts: Mapping[str, Any]) -> DepthCodec:
    """Build the codec that ``facts()`` describes.

    Raises:
        RecipeError: there is no such codec, or it does not take these settings.
    """
    settings = dict(facts)
    name = settings.pop("codec", None)
    if name not in _CODECS:
        raise RecipeError(f"expected a codec among {', '.join(_CODECS)}; got {name!r}.")
    try:
        return _CODECS[name](**settings)
    except TypeError as error:
        raise RecipeError(f"expected settings of {name} as this version of depthkit knows them; {error}.") from error


def valid_latents(valid: Tensor, factor: int = 8) -> Tensor:
    """Mask the latent cells all of whose pixels are valid, bool ``(B, 1, H / factor, W / factor)``.

    Args:
        valid: bool, ``(B, 1, H, W)``.
        factor: pixels along a side of a cell.

    Raises:
        ShapeError: height or width is not a multiple of ``factor``.
    """
    height, width = valid.shape[-2:]
    if height % factor or width % factor:
        raise ShapeError(f"expected a mask whose height and width are multiples of {factor}; got {height}x{width}.")
    return F.max_pool2d((~valid).float(), factor) == 0
