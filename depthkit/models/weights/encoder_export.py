"""Export of trained encoders to other tasks: their weights in timm's names."""

from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save
from torch import Tensor

from depthkit.errors import CheckpointError, RecipeError
from depthkit.models.net import DepthNet
from depthkit.models.weights.files import plain_network
from depthkit.writing import replacing


def encoder_state_dict(model: DepthNet) -> dict[str, Tensor]:
    """Return the encoder's weights, copied to the CPU, in the names of ``timm.create_model(name)``.

    A vision transformer has all but the classification layer, so that ``timm.create_model(name, num_classes=0)`` (and
    of DINOv2 ``timm.create_model(name)``) loads them strictly. Other backbones also lack the layers after the last
    feature map: an EfficientNet has no ``conv_head`` and ``bn2``.

    Raises:
        RecipeError: the encoder is not a timm backbone.

    Example:
        >>> from depthkit.models import dpt_timm
        >>> model = dpt_timm("test_vit", pretrained=False, features=16)
        >>> timm.create_model("test_vit", num_classes=0).load_state_dict(encoder_state_dict(model))
        <All keys matched successfully>
    """
    model = plain_network(model)
    names = _timm_names(model)
    weights = model.encoder.backbone.state_dict()
    return {names[key]: x.detach().cpu().clone(memory_format=torch.contiguous_format) for key, x in weights.items()}


def export_encoder(model: DepthNet, path: str | Path) -> None:
    """Write ``encoder_state_dict`` to a ``.safetensors`` file, which ``pretrained=path`` reads, here and in most tools.

    timm reads it by ``timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"file": path})``. The file's metadata
    name the architecture.

    Raises:
        CheckpointError: the file does not end in .safetensors, or its folder does not exist.
        RecipeError: the encoder is not a timm backbone.
    """
    path = Path(path)
    if path.suffix != ".safetensors" or not path.parent.is_dir():
        raise CheckpointError(f"expected a path that ends in .safetensors, in a folder that exists; got {path}.")
    weights, facts = encoder_state_dict(model), {"format": "pt", "architecture": _architecture(model)}
    with replacing(path) as part:
        part.write_bytes(save(weights, metadata=facts))


def _architecture(model: DepthNet) -> str:
    configuration = getattr(getattr(plain_network(model).encoder, "backbone", None), "pretrained_cfg", None)
    if not configuration:
        raise RecipeError(f"expected a network on a timm backbone; got one with {type(model.encoder).__name__} as its encoder.")
    return str(configuration["architecture"])


def _timm_names(model: DepthNet) -> dict[str, str]:
    """Map names of weights in the backbone to their names in the whole network of timm."""
    with torch.device("meta"):
        whole: Any = timm.create_model(_architecture(model))
    flat = {key.replace(".", "_"): key for key in whole.state_dict()}  # some feature extractors join module names by _
    given = model.encoder.backbone.state_dict()
    return {key: flat.get(key.removeprefix("model.").replace(".", "_"), key) for key in given}
