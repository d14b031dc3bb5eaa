"""Networks whose numbers were fitted to known depth: a scale, and a shift where one was left open, after the head."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from depthkit.errors import RecipeError
from depthkit.models.build import architecture, build
from depthkit.models.net import DepthNet
from depthkit.types import Representation

_LOGARITHMS = (Representation.LOG_DEPTH, Representation.LOG_DISPARITY)


class CalibratedHead(nn.Module):
    """A head, then a scale and a shift of its output.

    Args:
        head: states its ``representation``, which stays.
        scale: factor of depth or disparity; of the exponential of a logarithm.
        shift: added to depth [m] or disparity [1/m].
        least: smallest depth [m] or disparity [1/m] that comes out: a shift can leave pixels behind infinity.

    Raises:
        RecipeError: the scale is not positive, or a logarithm is shifted.
    """

    def __init__(self, head: nn.Module, *, scale: float, shift: float = 0.0, least: float = 1e-3) -> None:
        super().__init__()
        self.representation = Representation(cast(Any, head).representation)
        if not (scale > 0 and math.isfinite(scale) and math.isfinite(shift)):
            raise RecipeError(f"expected a positive scale and a finite shift; got {scale:g} and {shift:g}.")
        if shift and self.representation in _LOGARITHMS:
            raise RecipeError(f"expected no shift for {self.representation}, of which a scale is an offset; got {shift:g}.")
        self.head, self.scale, self.shift, self.least = head, scale, shift, least

    def forward(self, x: Tensor) -> Tensor:
        """Predict, ``(B, 1, H, W)``, from what the head takes."""
        map_: Tensor = self.head(x)
        if self.representation in _LOGARITHMS:
            return map_ + math.log(self.scale)
        return (map_ * self.scale + self.shift).clamp_min(self.least)


@architecture
def calibrated(
    base: DepthNet | Mapping[str, Any],
    *,
    scale: float,
    shift: float = 0.0,
    least: float = 1e-3,
    pretrained: bool | str | Path = True,
) -> DepthNet:
    """Put a scale and a shift behind the head of a network, in place; ``depthkit calibrate`` finds them.

    Args:
        base: the network, which becomes the result; or its ``config``.
        scale: see ``CalibratedHead``.
        shift: see ``CalibratedHead``.
        least: see ``CalibratedHead``.
        pretrained: weights of the encoder if ``base`` is a ``config``.

    Raises:
        RecipeError: as of ``CalibratedHead``.
    """
    network = base if isinstance(base, DepthNet) else cast(DepthNet, build(base, pretrained=pretrained))
    network.head = CalibratedHead(network.head, scale=scale, shift=shift, least=least)
    return network
