"""Flip averaging: predict an image and its mirror image, and average the two."""

from typing import Any

import torch
from torch import Tensor

from depthkit.models.wrapped import WrappedDepth
from depthkit.types import Representation


def flip_averaged(model: Any, flip: bool | None = None) -> Any:
    """Return a network averaged with itself on mirrored images, or the network itself.

    Args:
        model: network.
        flip: whether to average; None: if the network's authors do, as its attribute ``flip`` says.
    """
    return FlipAverage(model) if (getattr(model, "flip", False) if flip is None else flip) else model


class FlipAverage(WrappedDepth):
    """A network averaged with itself on mirrored images.

    Depth is the mean of the image's map and the mirrored map of its mirror image (ZoeDepth, Depth Anything's metric networks).
    Disparity follows Godard et al. 2017: the leftmost 5 % of the width take the map of the mirrored image, the rightmost 5 %
    that of the image, and both fade into the mean over the next 5 %, since a stereo-trained network knows least at its left
    border, which the other view does not see. Each call costs two predictions.

    Args:
        model: called on RGB in [0, 1], ``(B, 3, H, W)``; returns ``(B, 1, h, w)``. Further arguments, attributes and errors are
            those of ``WrappedDepth``.

    Example:
        >>> class Brightness(torch.nn.Module):
        ...     representation = Representation.DISPARITY
        ...     def forward(self, image):
        ...         return image.mean(1, keepdim=True)
        >>> image = torch.rand(1, 3, 4, 40)
        >>> torch.allclose(FlipAverage(Brightness())(image), Brightness()(image))
        True
    """

    def forward(self, image: Tensor) -> Tensor:
        """Predict the averaged map, ``(B, 1, h, w)``."""
        seen, mirrored = self.model(torch.cat([image, image.flip(-1)])).chunk(2)
        return self.average(seen, mirrored.flip(-1))

    def average(self, seen: Tensor, mirrored: Tensor) -> Tensor:
        """Average the map of the image and that of its mirror image, mirrored back, ``(B, 1, h, w)`` each."""
        if self.representation in (Representation.DEPTH, Representation.LOG_DEPTH):
            return (seen + mirrored) / 2
        left = self._left(seen)
        right = left.flip(-1)
        averaged: Tensor = right * seen + left * mirrored + (1 - left - right) * (seen + mirrored) / 2
        return averaged

    @staticmethod
    def _left(like: Tensor) -> Tensor:
        """Compute weights of 1 over the leftmost 5 % of the width, falling to 0 over the next 5 %, ``(W,)``."""
        x = torch.linspace(0, 1, like.shape[-1], device=like.device, dtype=torch.float32)
        return (1 - 20 * (x - 0.05).clamp(0, 0.05)).to(like.dtype)
