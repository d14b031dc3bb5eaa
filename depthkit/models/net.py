"""The shape of every depth network: encoder, decoder, head."""

import math
from collections.abc import Callable, Sequence
from importlib import import_module
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
    """A network that can store how it was built.

    Attributes:
        config: plain values from which ``build`` rebuilds the network; None if it was put together from parts.
    """

    config: dict[str, Any] | None = None


class DepthNet(Buildable):
    """A depth network of three parts, each built from the facts that the part before publishes.

    The network normalises its own input, so all networks take the same images. Its heads leave autocast for the last layer, so
    that the output is float32: half precision holds 3 significant digits, too few for a map.

    Args:
        encoder: maps a normalised image to feature maps, finest first, and publishes ``channels``, ``strides`` (of those maps),
            ``mean`` and ``std`` (of an input channel).
        decoder: fuses the feature maps to one map and publishes its ``channels`` and ``stride``; or a callable that builds the
            decoder from the encoder's ``(channels, strides)``. A decoder that needs larger images than the encoder publishes
            ``min_size`` [px].
        head: converts the decoder's map to ``(B, 1, H, W)`` and states its ``representation``; or a callable that builds the
            head from the decoder's ``(channels, stride)``.

    Attributes:
        representation: of the output.
        size_multiple: H and W of an input are multiples of this [px].
        min_size: least H and W of an input [px].
        log_scale: part that predicts the uncertainty, see ``heteroscedastic``; None by default.
        config: see ``Buildable``.
        canonical_focal: focal length [px] of the camera in whose space a metric network predicts, see
            ``depthkit.resize.in_metres``; None if it predicts what it predicts.

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
    canonical_focal: float | None = None

    # factories come first, because jsonargparse before 4.52 tries no other type after a class of modules
    def __init__(self, encoder: nn.Module, decoder: DecoderFactory | nn.Module, head: HeadFactory | nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder if isinstance(decoder, nn.Module) else decoder(self.encoder.channels, self.encoder.strides)
        self.head = head if isinstance(head, nn.Module) else head(self.decoder.channels, self.decoder.stride)
        if not isinstance(getattr(self.head, "representation", None), Representation):
            raise RecipeError(
                f"expected a head that states its representation; {type(self.head).__name__} does not. "
                "Give it an attribute `representation: Representation`."
            )
        self.log_scale: nn.Module | None = None
        self.size_multiple = math.lcm(*self.encoder.strides)
        self.min_size: int = getattr(self.decoder, "min_size", self.size_multiple)
        self.register_buffer("mean", torch.tensor(self.encoder.mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(self.encoder.std, dtype=torch.float32).view(1, -1, 1, 1))

    @property
    def representation(self) -> Representation:
        """Representation of the output, as the head states it."""
        return self.head.representation

    @property
    def last_layer(self) -> nn.Module:
        """Last layer with trainable weights that all outputs share: the decoder's last.

        A cheap stand-in for all shared parameters when gradients of several objectives are compared.
        """
        layers = [m for m in self.decoder.modules() if any(p.requires_grad for p in m.parameters(recurse=False))]
        return layers[-1]

    def encode(self, image: Tensor) -> list[Tensor]:
        """Compute the encoder's feature maps of images ``(B, 3, H, W)`` in [0, 1]; raise as ``forward`` does."""
        self.check(image)
        return self.encoder((image - self.mean) / self.std)

    def check(self, image: Tensor) -> None:
        """Check that the network can take ``image``; raise as ``forward`` does."""
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
        """Predict the map of an image.

        Args:
            image: float RGB in [0, 1], ``(B, 3, H, W)``, H and W multiples of ``size_multiple``.

        Returns:
            The map in ``representation``, ``(B, 1, H, W)``.

        Raises:
            ShapeError: another shape or dtype, or a size that the network cannot take; the message names the next legal size.
        """
        return self.decode(self.encode(image))

    def decode(self, features: list[Tensor]) -> Tensor:
        """Predict from the feature maps of ``encode``, for losses that use them too."""
        return self.head(self.fused(features))

    def fused(self, features: list[Tensor]) -> Any:
        """Compute what the head reads: the decoder's map, or all its levels, finest last."""
        return self.decoder(features)

    @property
    def gives_uncertainty(self) -> bool:
        """Whether ``with_uncertainty`` can be called."""
        return self.log_scale is not None

    def with_uncertainty(self, image: Tensor, shown: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
        """Predict the map as ``forward`` does, and its uncertainty as a fraction of depth, ``(B, 1, H, W)`` each.

        Args:
            image: as of ``forward``.
            shown: (height, width) [px] of the first rows and columns to return; default all.

        Raises:
            RecipeError: the network has no part that predicts it.
            ShapeError: as of ``forward``.
        """
        if self.log_scale is None:
            raise RecipeError("expected a network with a part that predicts its uncertainty; make it by `heteroscedastic`.")
        x = self.fused(self.encode(image))
        finest = x if isinstance(x, Tensor) else x[-1]
        height, width = shown or image.shape[-2:]
        return self.head(x)[..., :height, :width], self.log_scale(finest).float().exp()[..., :height, :width]

    def save_pretrained(self, folder: str | Path, **facts: Any) -> Path:
        """Write a folder that ``from_pretrained`` reads: safetensors, ``config.json`` and a model card.

        Args:
            folder: created if it does not exist.
            facts: ``ambiguity``, ``size`` and ``card``, all optional; see ``save_folder``.
        """
        return save_folder(self, folder, **facts)

    def push_to_hub(self, repo: str, *, private: bool = False, **facts: Any) -> str:
        """Write the network to ``ORG/NAME`` on the Hugging Face hub; ``facts`` as of ``save_pretrained``."""
        return push_folder(self, repo, private=private, **facts)

    @staticmethod
    def from_pretrained(model: str | Path, **options: Any) -> "DepthNet":
        """Return the network that MODEL names: ``depthkit.models.from_pretrained``, where users of the hub look for it."""
        return import_module("depthkit.models").from_pretrained(model, **options)  # which builds this class
