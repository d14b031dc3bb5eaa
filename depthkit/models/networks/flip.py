"""Predict an image and its mirror image, and average the two."""

from typing import Any

import torch
from torch import Tensor, nn

from depthkit.errors import LabelError
from depthkit.types import REPRESENTATIONS, Representation


class FlipAverage(nn.Module):
    """Average of a network's map of an image and its mirrored map of the mirrored image, as the network returns them.

    Of depth, the mean of the two (ZoeDepth, Depth Anything's metric networks). Of disparity, as Godard et al. 2017: over the
    leftmost 5 % of the width the map of the mirrored image counts alone, over the rightmost 5 % that of the image, and both
    fade into the mean over the next 5 %. A stereo-trained network knows least at its left border, which the other view did
    not see. It costs two predictions.

    Args:
        model: called on RGB in [0, 1], ``(B, 3, H, W)``, and returning ``(B, 1, h, w)``.
        representation: what its numbers are; default ``model.representation``.

    Raises:
        LabelError: the representation is unknown.

    Attributes:
        representation: of the maps.
        ambiguity: what the network leaves undetermined; None if it does not say.
        size_multiple: image sides must be multiples of it.
        resize_space: in which to resize the maps.

    Example:
        >>> class Brightness(nn.Module):
        ...     representation = Representation.DISPARITY
        ...     def forward(self, image):
        ...         return image.mean(1, keepdim=True)
        >>> image = torch.rand(1, 3, 4, 40)
        >>> torch.allclose(FlipAverage(Brightness())(image), Brightness()(image))
        True
    """

    def __init__(self, model: nn.Module, *, representation: Representation | None = None) -> None:
        super().__init__()
        found = getattr(model, "representation", None) if representation is None else representation
        if found not in REPRESENTATIONS:
            raise LabelError(
                f"expected the representation of the model's output, one of {', '.join(REPRESENTATIONS)}; got {found!r}. "
                "Pass representation=."
            )
        self.model = model
        self.representation = Representation(found)
        self.ambiguity: Any = getattr(model, "ambiguity", None)
        self.size_multiple = int(getattr(model, "size_multiple", 1))
        self.resize_space = Representation(getattr(model, "resize_space", found))

    def forward(self, image: Tensor) -> Tensor:
        """The averaged map, ``(B, 1, h, w)``."""
        seen, mirrored = self.model(torch.cat([image, image.flip(-1)])).chunk(2)
        mirrored = mirrored.flip(-1)
        if self.representation in (Representation.DEPTH, Representation.LOG_DEPTH):
            return (seen + mirrored) / 2
        left = self._left(seen)
        right = left.flip(-1)
        averaged: Tensor = right * seen + left * mirrored + (1 - left - right) * (seen + mirrored) / 2
        return averaged

    @staticmethod
    def _left(like: Tensor) -> Tensor:
        """1 over the leftmost 5 % of the width, falling to 0 over the next 5 %, ``(W,)``."""
        x = torch.linspace(0, 1, like.shape[-1], device=like.device, dtype=torch.float32)
        return (1 - 20 * (x - 0.05).clamp(0, 0.05)).to(like.dtype)
