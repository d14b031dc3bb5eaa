"""A small smooth network with an encoder of its own, as Depth Anything's teacher and student need."""

from typing import Any

import torch
from torch import Tensor, nn

from depthkit.models import DepthNet
from depthkit.types import Representation


class Encoder(nn.Module):
    channels, strides, mean, std = (6,), (1,), (0.5,) * 3, (0.25,) * 3

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [nn.functional.gelu(self.conv(x))]


class Decoder(nn.Module):
    channels, stride = 6, 1

    def __init__(self, channels: Any, strides: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 6, 3, padding=1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        return nn.functional.gelu(self.conv(maps[-1]))


class Head(nn.Conv2d):
    representation = Representation.DISPARITY

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.softplus(super().forward(x))


def network(seed: int = 0) -> DepthNet:
    torch.manual_seed(seed)
    return DepthNet(Encoder(), Decoder, Head)
