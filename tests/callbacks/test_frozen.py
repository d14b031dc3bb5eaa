"""What is frozen does not move, whatever mode the trainer sets."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from depthkit.callbacks import Frozen
from depthkit.errors import RecipeError


def network() -> Any:
    net = nn.Module()
    net.encoder = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    net.decoder = nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 1, 1))
    return net


@pytest.mark.parametrize(("encoder", "batch_norm"), [(True, True), (True, False), (False, True), (False, False)])
def test_statistics_and_weights_stay_as_asked(encoder: bool, batch_norm: bool) -> None:
    net: Any = network()
    module: Any = SimpleNamespace(model=net)
    callback, trainer = Frozen(encoder=encoder, batch_norm=batch_norm), SimpleNamespace()
    callback.setup(trainer, module, "fit")
    net.train()
    callback.on_train_batch_start(trainer, module, None, 0)
    net.decoder(net.encoder(torch.rand(4, 1, 8, 8) + 5)).sum().backward()
    assert all((p.grad is None) == encoder for p in net.encoder.parameters())
    assert all(p.grad is not None for p in net.decoder.parameters())
    moved = [float(part.running_mean.abs().sum()) != 0 for part in (net.encoder[1], net.decoder[0])]
    assert moved == [not (encoder or batch_norm), not batch_norm]


def test_a_network_without_an_encoder_is_refused() -> None:
    with pytest.raises(RecipeError, match="with an encoder to freeze"):
        Frozen(encoder=True).setup(SimpleNamespace(), SimpleNamespace(model=nn.Linear(1, 1)), "fit")  # type: ignore[arg-type]
