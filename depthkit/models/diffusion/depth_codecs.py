"""Between depth and the numbers in [-1, 1] that a latent diffusion model learns."""

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
    """What y is in pixels without depth."""

    FAR = "far"
    NEAR = "near"


class DepthCodec(ABC):
    """What turns depth into y in [-1, 1], near at -1, and back.

    Args:
        fill: what y is in pixels without depth, which the VAE sees too: "far" (1) or "near" (-1).

    Attributes:
        kind: the labels it encodes and what its decoded maps leave undetermined.
        resize_space: the representation in which a decoded map is y up to a factor and an offset, so that to resize the one is
            to resize the other.

    Raises:
        RecipeError: an unknown fill.
    """

    kind: ClassVar[LabelKind]
    resize_space: ClassVar[Representation] = Representation.DEPTH

    def __init__(self, *, fill: str = "far") -> None:
        self.fill = str(check_choice("fill", fill, Fill))

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """The plain values that ``codec_of`` makes it from again; a checkpoint and a saved folder hold them."""

    @abstractmethod
    def _unit(self, depth: Tensor, valid: Tensor) -> Tensor:
        """What y is before it is clipped, of depth that is positive everywhere and read where valid."""

    @abstractmethod
    def decode(self, y: Tensor) -> Tensor:
        """Depth of y, any shape: the exact inverse of ``encode`` within the range."""

    @abstractmethod
    def within(self, depth: Tensor, valid: Tensor) -> Tensor:
        """Valid pixels whose depth the codec holds, so that a loss or a score may read them, bool ``(B, 1, H, W)``."""

    @abstractmethod
    def relative_spread(self, spread: Tensor, y: Tensor) -> Tensor:
        """How large a small spread of y around ``y`` is in depth, as a fraction of that depth."""

    @in_float32
    def encode(self, depth: Tensor, valid: Tensor) -> Tensor:
        """The y of a depth map, clipped to [-1, 1]; pixels without depth are filled.

        Args:
            depth: metres, ``(B, 1, H, W)``; any value where not valid. The sky, at infinity, is as far as can be.
            valid: bool, ``(B, 1, H, W)``. A valid depth that is not positive is taken as invalid.

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
        """Share of each image's valid pixels whose depth the range does not hold, ``(B,)``."""
        return masked_mean((~self.within(depth, valid)).to(depth.dtype), valid)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DepthCodec) and self.facts() == other.facts()

    def __hash__(self) -> int:
        return hash(tuple(self.facts().items()))

    def __repr__(self) -> str:
        facts = self.facts()
        return f"{facts.pop('codec')}({', '.join(f'{name}={value!r}' for name, value in facts.items())})"


class _MetricDepth(DepthCodec):
    """Depth between two bounds [m]."""

    kind = LabelKind(Ambiguity.METRIC, Representation.DEPTH)

    def __init__(self, d_min: float, d_max: float, *, fill: str = "far") -> None:
        super().__init__(fill=fill)
        if not (0 < d_min < d_max and math.isfinite(d_max)):
            raise RecipeError(f"expected 0 < d_min < d_max in metres; got {d_min} and {d_max}.")
        self.d_min, self.d_max = float(d_min), float(d_max)

    def facts(self) -> dict[str, Any]:
        """See ``DepthCodec``."""
        return {"codec": type(self).__name__, "d_min": self.d_min, "d_max": self.d_max, "fill": self.fill}

    @in_float32
    def within(self, depth: Tensor, valid: Tensor) -> Tensor:
        """See ``DepthCodec``: between ``d_min`` and ``d_max``."""
        return valid & (depth >= self.d_min) & (depth <= self.d_max)


class LogDepth(_MetricDepth):
    """y rises with the logarithm of depth, so that an error of y is the same relative error near and far (MetricGold eq. 3).

    Args:
        d_min: depth [m] that becomes -1.
        d_max: depth [m] that becomes 1. The paper names neither; its released code has 0.1 and 100.
        fill: see ``DepthCodec``.

    Raises:
        RecipeError: not 0 < d_min < d_max, or an unknown fill.

    Example:
        >>> import torch
        >>> [round(float(x), 3) for x in LogDepth(0.1, 100).decode(torch.tensor([-1.0, 0.0, 1.0]))]
        [0.1, 3.162, 100.0]
    """

    resize_space = Representation.LOG_DEPTH

    def __init__(self, d_min: float = 0.1, d_max: float = 100.0, *, fill: str = "far") -> None:
        super().__init__(d_min, d_max, fill=fill)

    def _unit(self, depth: Tensor, valid: Tensor) -> Tensor:
        return log_depth_to_unit(depth, min_depth=self.d_min, max_depth=self.d_max)

    @in_float32
    def decode(self, y: Tensor) -> Tensor:
        """Depth [m] of y, any shape."""
        return unit_to_depth(y, min_depth=self.d_min, max_depth=self.d_max)

    def relative_spread(self, spread: Tensor, y: Tensor) -> Tensor:
        """See ``DepthCodec``: dz / z = dy ln(d_max / d_min) / 2, whatever y is."""
        return spread * (math.log(self.d_max / self.d_min) / 2)


class LinearDepth(_MetricDepth):
    """y rises with depth, so that an error of y is the same number of metres near and far (MetricGold eq. 2).

    Args:
        d_min: depth [m] that becomes -1.
        d_max: depth [m] that becomes 1.
        fill: see ``DepthCodec``.

    Raises:
        RecipeError: not 0 < d_min < d_max, or an unknown fill.
    """

    def __init__(self, d_min: float = 0.1, d_max: float = 100.0, *, fill: str = "far") -> None:
        super().__init__(d_min, d_max, fill=fill)

    def _unit(self, depth: Tensor, valid: Tensor) -> Tensor:
        return (depth - self.d_min) * (2 / (self.d_max - self.d_min)) - 1

    @in_float32
    def decode(self, y: Tensor) -> Tensor:
        """Depth [m] of y, any shape."""
        return self.d_min + (y + 1) * ((self.d_max - self.d_min) / 2)

    def relative_spread(self, spread: Tensor, y: Tensor) -> Tensor:
        """See ``DepthCodec``."""
        return spread * ((self.d_max - self.d_min) / 2) / self.decode(y)


class AffineDepth(DepthCodec):
    """y is -1 and 1 at two quantiles of each image's depth, so that neither its scale nor its offset is learnt (Marigold).

    Args:
        low: quantile that becomes -1.
        high: quantile that becomes 1.
        fill: see ``DepthCodec``.

    Raises:
        RecipeError: not 0 <= low < high <= 1, or an unknown fill.
    """

    kind = LabelKind(Ambiguity.SHIFT_SCALE, Representation.DEPTH)

    def __init__(self, low: float = 0.02, high: float = 0.98, *, fill: str = "far") -> None:
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
        """Depth up to a factor and an offset, 0 and 1 at the quantiles, of y, any shape."""
        return (y + 1) / 2

    @in_float32
    def within(self, depth: Tensor, valid: Tensor) -> Tensor:
        """See ``DepthCodec``: between the two quantiles."""
        low, high = self._quantiles(depth, valid)
        return valid & (depth >= low) & (depth <= high)

    def relative_spread(self, spread: Tensor, y: Tensor) -> Tensor:
        """The spread as a fraction of the range between the quantiles: without a scale there is no depth to divide by."""
        return spread / 2


_CODECS: dict[str, type[DepthCodec]] = {codec.__name__: codec for codec in (LogDepth, LinearDepth, AffineDepth)}


def codec_of(facts: Mapping[str, Any]) -> DepthCodec:
    """The codec that ``facts()`` describes.

    Raises:
        RecipeError: there is no such codec, or it has no such settings.
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
    """Latent cells all of whose pixels are valid, bool ``(B, 1, H / factor, W / factor)``: one invalid pixel masks its cell.

    Args:
        valid: bool, ``(B, 1, H, W)``.
        factor: pixels along a side of a cell.

    Raises:
        ShapeError: height or width is no multiple of ``factor``.
    """
    height, width = valid.shape[-2:]
    if height % factor or width % factor:
        raise ShapeError(f"expected a mask whose height and width are multiples of {factor}; got {height}x{width}.")
    return F.max_pool2d((~valid).float(), factor) == 0
