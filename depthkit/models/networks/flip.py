"""Flip averaging: predict an image and its mirror image, and average the two."""

from typing import Any

import torch
from torch import Tensor, nn

from depthkit.errors import LabelError
from depthkit.resize import input_rule_of, output_rule_of
from depthkit.types import REPRESENTATIONS, Representation


def flip_averaged(model: Any, flip: bool | None = None) -> Any:
    """Return a network averaged with itself on mirrored images, or the network itself.

    Args:
        model: network.
        flip: whether to average; None: if the network's authors do, as its attribute ``flip`` says.
    """
    return FlipAverage(model) if (getattr(model, "flip", False) if flip is None else flip) else model


class FlipAverage(nn.Module):
    """A network averaged with itself on mirrored images.

    Depth is the mean of the image's map and the mirrored map of its mirror image (ZoeDepth, Depth Anything's metric networks).
    Disparity follows Godard et al. 2017: the leftmost 5 % of the width take the map of the mirrored image, the rightmost 5 %
    that of the image, and both fade into the mean over the next 5 %, since a stereo-trained network knows least at its left
    border, which the other view does not see. Each call costs two predictions.

    Args:
        model: called on RGB in [0, 1], ``(B, 3, H, W)``; returns ``(B, 1, h, w)``.
        representation: of its maps; default ``model.representation``.

    Raises:
        LabelError: the representation is unknown.

    Attributes:
        representation: of the maps.
        ambiguity: what the network leaves undetermined; None if it does not say.
        size_multiple: image sides must be multiples of it.
        resize_space: in which to resize the maps.
        input_rule: the network's, see ``depthkit.resize.input_rule_of``.
        output_rule: the network's.

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
        self.input_rule, self.output_rule = input_rule_of(model), output_rule_of(model)

    def forward(self, image: Tensor) -> Tensor:
        """Predict the averaged map, ``(B, 1, h, w)``."""
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
        """Compute weights of 1 over the leftmost 5 % of the width, falling to 0 over the next 5 %, ``(W,)``."""
        x = torch.linspace(0, 1, like.shape[-1], device=like.device, dtype=torch.float32)
        return (1 - 20 * (x - 0.05).clamp(0, 0.05)).to(like.dtype)
