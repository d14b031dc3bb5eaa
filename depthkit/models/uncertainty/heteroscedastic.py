"""Networks with a part that predicts how uncertain each pixel of their depth is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from depthkit.errors import RecipeError
from depthkit.models.build import architecture, build
from depthkit.models.net import DepthNet
from depthkit.models.networks.heads import LogScale


@architecture
def heteroscedastic(base: DepthNet | Mapping[str, Any], *, pretrained: bool | str | Path = True) -> DepthNet:
    """Put a ``LogScale`` beside the head of a network, in place; its map stays as it is. ``MetricModule`` trains it.

    Args:
        base: the network, which becomes the result; or its ``config``.
        pretrained: weights of the encoder if ``base`` is a ``config``.

    Raises:
        RecipeError: the network has no decoder whose map it could read.

    Example:
        >>> from depthkit.models import dpt_timm
        >>> import torch
        >>> model = heteroscedastic(dpt_timm("test_vit", pretrained=False, features=16, max_depth=10))
        >>> depth, uncertainty = model.with_uncertainty(torch.rand(1, 3, 32, 48))
        >>> uncertainty.shape
        torch.Size([1, 1, 32, 48])
    """
    network = base if isinstance(base, DepthNet) else cast(DepthNet, build(base, pretrained=pretrained))
    decoder: Any = getattr(network, "decoder", None)
    if not hasattr(decoder, "channels") or not hasattr(decoder, "stride"):
        raise RecipeError(
            f"expected a network with a decoder that publishes its channels and stride; got {type(network).__name__}. "
            "Of a latent diffusion model take the members of its sampling."
        )
    network.log_scale = LogScale(decoder.channels, decoder.stride)
    return network
