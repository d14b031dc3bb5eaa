"""Low-rank adapters (Hu et al. 2022, LoRA) in a transformer's attention: what a few images can teach it without spoiling it."""

import re
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from depthkit.checks import optional_import
from depthkit.errors import RecipeError
from depthkit.models.weights.files import plain_network

_NAME = "depthkit"
_PARTS = ("base", "a", "b")


class Adapters(Callback):
    """Train small matrices beside the attention of a transformer's encoder, whose own weights stay; peft does the arithmetic.

    A linear layer W becomes W + (alpha / rank) B A with A of ``rank`` rows and B, of as many columns, 0 at first. At all times
    the network's state dict holds the sums under the layers' plain names: checkpoints are those of an ordinary network. The
    parts lie beside in the state of this callback, so that an interrupted run goes on with the same numbers.

    Args:
        rank: of the product.
        alpha: see above; default ``rank``.

    Raises:
        RecipeError: the rank or alpha is not above 0.
        MissingPackageError: peft is not installed.
    """

    def __init__(self, rank: int = 8, *, alpha: float | None = None) -> None:
        if rank < 1 or (alpha is not None and alpha <= 0):
            raise RecipeError(f"expected rank and alpha of adapters above 0; got {rank} and {alpha}.")
        self.peft = optional_import("peft", "adapters")
        self.rank, self.alpha = rank, alpha or rank
        self._encoder: Any = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Put the adapters in before the optimizer is made.

        Raises:
            RecipeError: the network's encoder has no attention of linear layers.
        """
        network: Any = plain_network(pl_module.model)
        if stage != "fit" or self._encoder is getattr(network, "encoder", None) is not None:
            return
        names = attention_layers(network)
        pattern = "|".join(map(re.escape, names))
        config = self.peft.LoraConfig(r=self.rank, lora_alpha=self.alpha, target_modules=pattern, bias="none")
        self._encoder = self.peft.inject_adapter_in_model(config, network.encoder, adapter_name=_NAME)
        self._encoder.register_state_dict_post_hook(_merge)
        self._encoder.register_load_state_dict_pre_hook(_divide)

    def state_dict(self) -> dict[str, Any]:
        """Return the weights of each adapted layer and the two matrices beside it."""
        parts = ((f"{name}.{part}", x) for name, layer in _adapted(self._encoder) for part, x in _parts(layer).items())
        return {name: x.detach().clone() for name, x in parts}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the parts of an interrupted run instead of their sums."""
        for name, layer in _adapted(self._encoder):
            for part, x in _parts(layer).items():
                if f"{name}.{part}" in state_dict:
                    x.copy_(state_dict[f"{name}.{part}"])


def attention_layers(network: Any) -> list[str]:
    """List the linear layers of attention in a network's encoder by their names in it.

    Layers of which only the weight is used, as some transformers use theirs, are left out: an adapter there would be dead.

    Raises:
        RecipeError: there is none.
    """
    encoder = getattr(network, "encoder", None)
    found = dict(encoder.named_modules()) if encoder is not None else {}
    candidates = {x: name for name, x in found.items() if isinstance(x, nn.Linear) and name.split(".")[-2:-1] == ["attn"]}
    called: dict[str, None] = {}
    hooks = [x.register_forward_hook(lambda module, *_: called.update({candidates[module]: None})) for x in candidates]
    if encoder is not None and candidates:
        training = [x for x in encoder.modules() if x.training]
        side = max(network.min_size, network.size_multiple)
        with torch.no_grad():
            encoder.eval()(torch.zeros(1, 3, side, side, device=next(encoder.parameters()).device))
        for x in training:
            x.training = True
    for hook in hooks:
        hook.remove()
    if not called:
        raise RecipeError(
            "expected a transformer as encoder, with attention of linear layers, for adapters; got a network with the encoder "
            f"{type(encoder).__name__}. Leave adapters out, or freeze the encoder."
        )
    return list(called)


def _adapted(encoder: Any) -> Iterator[tuple[str, Any]]:
    modules = () if encoder is None else encoder.named_modules()
    return ((name, x) for name, x in modules if hasattr(x, "lora_A") and _NAME in x.lora_A)


def _parts(layer: Any) -> dict[str, Tensor]:
    weights = (layer.base_layer.weight, layer.lora_A[_NAME].weight, layer.lora_B[_NAME].weight)
    return dict(zip(_PARTS, weights, strict=True))


@torch.no_grad()
def _merge(encoder: nn.Module, state: MutableMapping[str, Any], prefix: str, _: Any) -> None:
    """Replace in a state dict the parts of each adapted layer by their sum under the layer's plain name."""
    layers = {f"{prefix}{name}": layer for name, layer in _adapted(encoder)}
    merged: dict[str, Any] = {}
    for key, x in state.items():
        layer = next((name for name in (key.partition(".base_layer.")[0], key.partition(".lora_")[0]) if name in layers), None)
        if layer is None:
            merged[key] = x
        elif key.endswith(".base_layer.weight"):
            merged[f"{layer}.weight"] = x + layers[layer].get_delta_weight(_NAME).to(x)
        elif ".base_layer." in key:
            merged[key.replace(".base_layer.", ".")] = x
    state.clear()
    state.update(merged)


def _divide(encoder: nn.Module, state: MutableMapping[str, Any], prefix: str, *_: Any) -> None:
    """Take an ordinary state dict as that of the layers themselves, with nothing beside them."""
    given: Mapping[str, Any] = dict(state)
    for name, layer in _adapted(encoder):
        for key in [key for key in given if key.startswith(f"{prefix}{name}.")]:
            state[f"{prefix}{name}.base_layer.{key.removeprefix(f'{prefix}{name}.')}"] = state.pop(key)
        state[f"{prefix}{name}.lora_A.{_NAME}.weight"] = layer.lora_A[_NAME].weight.detach()
        state[f"{prefix}{name}.lora_B.{_NAME}.weight"] = torch.zeros_like(layer.lora_B[_NAME].weight)
