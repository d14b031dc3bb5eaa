"""The shape that every depth network here has: encoder, decoder, head."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from depthkit.checks import check_image
from depthkit.errors import RecipeError, ShapeError
from depthkit.models.weights.folder import push_folder, save_folder
from depthkit.types import Representation

DecoderFactory = Callable[[Sequence[int], Sequence[int]], nn.Module]
HeadFactory = Callable[[int, float], nn.Module]


class Buildable(nn.Module):
    """A network that may remember how it was built.

    Attributes:
        config: the plain values that ``build`` makes this network from again; None for one put together from parts.
    """

    config: dict[str, Any] | None = None


class DepthNet(Buildable):
    """A depth network of three parts, each built from what the one before it publishes.

    The network normalises its own input, so it takes the same image as every other one. Its heads leave autocast for the last
    layer, so that the output is float32: half precision holds 3 significant digits, too few for a map.

    Args:
        encoder: maps a normalised image to feature maps, finest first, and publishes ``channels``, ``strides`` (of those maps),
            ``mean`` and ``std`` (of an input channel).
        decoder: maps them to one map and publishes its ``channels`` and ``stride``; or a callable that builds it from the
            encoder's ``(channels, strides)``. If it cannot take the smallest image that the encoder can, it publishes
            ``min_size`` [px].
        head: maps that one to ``(B, 1, H, W)`` and states its ``representation``; or a callable that builds it from the
            decoder's ``(channels, stride)``.

    Attributes:
        representation: what the output's numbers are.
        size_multiple: H and W of an input are multiples of this [px].
        min_size: and no less than this [px].
        config: see ``Buildable``.

    Raises:
        RecipeError: the head does not state its representation.

    Example:
        >>> from depthkit.models import LogDisparityHead, LightRefineNetDecoder, TimmEncoder
        >>> encoder = TimmEncoder("mobilenetv2_035", pretrained=False, strides=(2, 4, 8, 16, 32))
        >>> model = DepthNet(encoder, LightRefineNetDecoder, LogDisparityHead)
        >>> model.representation.value, model.size_multiple, model(torch.zeros(1, 3, 32, 64)).shape
        ('log_disparity', 32, torch.Size([1, 1, 32, 64]))
    """

    encoder: Any
    decoder: Any
    head: Any
    mean: Tensor
    std: Tensor

    def __init__(self, encoder: nn.Module, decoder: nn.Module | DecoderFactory, head: nn.Module | HeadFactory) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder if isinstance(decoder, nn.Module) else decoder(self.encoder.channels, self.encoder.strides)
        self.head = head if isinstance(head, nn.Module) else head(self.decoder.channels, self.decoder.stride)
        if not isinstance(getattr(self.head, "representation", None), Representation):
            raise RecipeError(
                f"expected a head that states its representation; {type(self.head).__name__} does not. "
                "Give it an attribute `representation: Representation`."
            )
        self.size_multiple = math.lcm(*self.encoder.strides)
        self.min_size: int = getattr(self.decoder, "min_size", self.size_multiple)
        self.register_buffer("mean", torch.tensor(self.encoder.mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(self.encoder.std, dtype=torch.float32).view(1, -1, 1, 1))

    @property
    def representation(self) -> Representation:
        """What the output's numbers are, as the head states it."""
        return self.head.representation

    @property
    def last_layer(self) -> nn.Module:
        """The last layer with trainable weights that all of the network's outputs share: the decoder's last one.

        A cheap stand-in for all shared parameters where gradients of several tasks are compared.
        """
        layers = [m for m in self.decoder.modules() if any(p.requires_grad for p in m.parameters(recurse=False))]
        return layers[-1]

    def encode(self, image: Tensor) -> list[Tensor]:
        """The encoder's feature maps of an image, ``(B, 3, H, W)`` in [0, 1]; raises like ``forward``."""
        self.check(image)
        return self.encoder((image - self.mean) / self.std)

    def check(self, image: Tensor) -> None:
        """``image`` is one that the network can take; raises like ``forward``."""
        check_image("image", image)
        height, width = image.shape[-2:]
        m = self.size_multiple
        if height % m or width % m or min(height, width) < self.min_size:
            legal = [max(-(-side // m) * m, self.min_size) for side in (height, width)]
            least = f" of at least {self.min_size}x{self.min_size}" if self.min_size > m else ""
            raise ShapeError(
                f"expected an image{least} whose height and width are multiples of {m}; got {height}x{width}. "
                f"Resize or pad it to {legal[0]}x{legal[1]}, the next legal size."
            )

    def forward(self, image: Tensor) -> Tensor:
        """The map of an image.

        Args:
            image: float RGB in [0, 1], ``(B, 3, H, W)``, H and W multiples of ``size_multiple``.

        Returns:
            The map in ``representation``, ``(B, 1, H, W)``.

        Raises:
            ShapeError: another shape or dtype, or a size that the network cannot take; names the next one that it can.
        """
        return self.decode(self.encode(image))

    def decode(self, features: list[Tensor]) -> Tensor:
        """The map of what ``encode`` gave, for losses that see the features too."""
        return self.head(self.decoder(features))

    def save_pretrained(self, folder: str | Path, **facts: Any) -> Path:
        """Write a folder that ``from_pretrained`` reads: safetensors, ``config.json`` and a model card.

        Args:
            folder: made if it is not there.
            facts: ``ambiguity``, and optionally ``size`` and ``card``; see ``save_folder``.
        """
        return save_folder(self, folder, **facts)

    def push_to_hub(self, repo: str, *, private: bool = False, **facts: Any) -> str:
        """Write it to ``ORG/NAME`` on the Hugging Face hub; ``facts`` as of ``save_pretrained``."""
        return push_folder(self, repo, private=private, **facts)
