"""Centre a map per image and measure its spread, the two numbers that every fit of scale and shift is made of."""

from typing import NamedTuple, Self

from torch import Tensor

from depthkit.masked import NEGLIGIBLE_SPREAD, centred, masked_count, masked_median, per_image, zeroed_mean


class Pixels(NamedTuple):
    """The valid pixels of a batch."""

    valid: Tensor
    """bool ``(B, 1, H, W)``."""
    weight: Tensor
    """1 where valid, 0 elsewhere, ``(B, 1, H, W)``; once a map is finite, a product masks faster than a selection."""
    number: Tensor
    """How many are valid, int64 ``(B,)``."""

    @classmethod
    def of(cls, valid: Tensor, like: Tensor) -> Self:
        """Make the pixels of a mask, weighted in the dtype of ``like``."""
        return cls(valid, valid.to(like.dtype), masked_count(valid))

    def mean(self, x: Tensor) -> Tensor:
        """Average a map that is 0 where not valid, ``(B,)``."""
        return zeroed_mean(x, self.number)


class Centred(NamedTuple):
    """A map without its centre."""

    x: Tensor
    """The map minus its centre, 0 where not valid, ``(B, 1, H, W)``."""
    centre: Tensor
    """Its mean or median, ``(B,)``."""
    spread: Tensor
    """Its mean absolute deviation from the centre, or its variance, ``(B,)``."""
    power: int
    """1 if ``spread`` is in the unit of the map, 2 if in its square."""
    varies: Tensor  # no property: torch 2.6 cannot compile those of a named tuple
    """Whether the spread is more than the rounding of values around the centre, bool ``(B,)``; NaN passes, to be seen."""

    @classmethod
    def of(cls, x: Tensor, centre: Tensor, spread: Tensor, power: int) -> Self:
        """Make a centred map, and say which images vary."""
        return cls(x, centre, spread, power, ~(spread <= (NEGLIGIBLE_SPREAD * centre.abs()) ** power))

    def over_spread(self) -> Tensor:
        """Return ``x`` in units of its deviation; an image that does not vary keeps its own unit."""
        divisor = self.spread.where(self.varies, 1)
        return self.x / per_image(divisor if self.power == 1 else divisor.sqrt(), self.x)


def about_median(x: Tensor, pixels: Pixels) -> Centred:
    """Centre ``x``, finite where not valid, about its median; the spread is its mean absolute deviation (MiDaS eq. 5)."""
    centre = masked_median(x, pixels.valid)
    x = centred(x, centre) * pixels.weight
    return Centred.of(x, centre, pixels.mean(x.abs()), 1)


def about_mean(x: Tensor, pixels: Pixels, *, correction: int = 0) -> Centred:
    """Centre ``x``, 0 where not valid, about its mean; the spread is its variance, with ``correction`` as in ``torch.var``."""
    centre = pixels.mean(x)
    x = centred(x, centre) * pixels.weight
    return Centred.of(x, centre, zeroed_mean(x**2, pixels.number - correction), 2)


def slope(x: Centred, y: Centred, pixels: Pixels) -> Tensor:
    """Fit the slope of ``y`` over ``x``, both about their means, by least squares, ``(B,)``; 0 where ``x`` does not vary."""
    return pixels.mean(x.x * y.x) / x.spread.where(x.varies, 1)
