"""Several predictions of one image: bring them to one scale, and measure how far they are apart."""

from collections.abc import Sequence

import torch
from torch import Tensor

from depthkit.alignment import Alignment, Degrees
from depthkit.masked import masked_median, per_image
from depthkit.precision import in_float32
from depthkit.representation import convert
from depthkit.types import Ambiguity, Representation

_LINEAR = {Representation.LOG_DEPTH: Representation.DEPTH, Representation.LOG_DISPARITY: Representation.DISPARITY}


@in_float32
def reduced(members: Sequence[Tensor], ambiguity: Ambiguity, representation: Representation) -> tuple[Tensor, Tensor]:
    """Average predictions of the same images, and measure how far they are from their mean.

    Logarithms are averaged as what they are logarithms of. What the predictions leave undetermined is fitted first: a scale by
    the medians, a scale and shift by least squares, to the first of them.

    Args:
        members: maps ``(B, 1, h, w)``, two or more.
        ambiguity: what each leaves undetermined.
        representation: of each.

    Returns:
        The mean in ``representation``, and the mean absolute distance from it, ``(B, 1, h, w)`` each: as a fraction of the
        mean, for two members the same of depth and of disparity; of maps up to scale and shift in their units.
    """
    linear = _LINEAR.get(representation, representation)
    first, *others = (convert(x, representation, linear) for x in members)
    x = torch.stack([first, *(_fitted(other, first, ambiguity) for other in others)])
    mean = x.mean(0)
    distance = (x - mean).abs().mean(0)
    if ambiguity != Ambiguity.SHIFT_SCALE:
        distance = distance / mean.where(mean > 0, 1)  # where all are 0, the distance is 0
    least = torch.finfo(mean.dtype).tiny if linear != representation else -torch.inf
    return convert(mean.clamp_min(least), linear, representation), distance


def _fitted(x: Tensor, to: Tensor, ambiguity: Ambiguity) -> Tensor:
    """Give ``x`` the scale, and shift, of another map as far as they are undetermined."""
    everywhere = torch.ones_like(to, dtype=torch.bool)
    if ambiguity == Ambiguity.SCALE:
        own, wanted = masked_median(x, everywhere), masked_median(to, everywhere)
        return x * per_image(torch.where(own > 0, wanted / own.where(own > 0, 1), 1), x)
    if ambiguity == Ambiguity.SHIFT_SCALE:
        line = Alignment(Degrees.SCALE_SHIFT, "least_squares")
        fit = line.fit(x, to, everywhere)
        return line.apply(x, fit.scale.to(x), fit.shift.to(x))
    return x
