"""Heads: from a decoder's map to the output in a representation."""

import math
from enum import StrEnum
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from depthkit.checks import check_choice
from depthkit.errors import RecipeError
from depthkit.types import Representation


class OutputActivation(StrEnum):
    """Activations of a head's output."""

    RELU = "relu"
    SOFTPLUS = "softplus"
    EXP = "exp"
    NONE = "none"


class Exponential(nn.Module):
    """The exponential as a module."""

    def forward(self, x: Tensor) -> Tensor:
        """Return e to the power of ``x``."""
        return x.exp()


_ACTIVATIONS = {
    OutputActivation.RELU: nn.ReLU,
    OutputActivation.SOFTPLUS: nn.Softplus,
    OutputActivation.EXP: Exponential,
    OutputActivation.NONE: nn.Identity,
}

_MOST_LOG_SCALE = 7.0


class OutputConv(nn.Conv2d):
    """A convolution that leaves autocast: a map rounded to half precision would have steps of up to 1 %."""

    outside_autocast = True
    """Whether a part runs in the precision of its weights, which so stay in float32; read in training."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve as ``nn.Conv2d`` does, in the precision of the weights."""
        device = x.device.type
        if x.is_meta or not torch.is_autocast_enabled(device):
            return super().forward(x)
        with torch.autocast(device, enabled=False):
            return super().forward(x.to(self.weight.dtype))


class MidasHead(nn.Module):
    """The head of MiDaS v2: convolve, enlarge to the input's size, convolve, activate (Ranftl et al. 2020, released network).

    Args:
        channels: channels of the decoder's map.
        stride: its stride [px].
        representation: of the output.
        output_activation: "relu" as released, "softplus" (positive, with a gradient everywhere), "exp", or "none", which a
            logarithm needs because it can be negative.

    The bias of the last convolution starts at 1 before a "relu" or "softplus", so that a fresh network does not output
    zeros, which have no gradient.

    Raises:
        RecipeError: an activation that is unknown or does not suit the representation.
    """

    align_corners = False

    def __init__(
        self,
        channels: int,
        stride: float,
        *,
        representation: Representation = Representation.DISPARITY,
        output_activation: OutputActivation | str = OutputActivation.RELU,
    ) -> None:
        super().__init__()
        activation = check_choice("output_activation", output_activation, OutputActivation)
        if activation != OutputActivation.NONE and representation in (Representation.LOG_DEPTH, Representation.LOG_DISPARITY):
            raise RecipeError(
                f"expected an output that can be negative for {representation}; got output_activation={str(activation)!r}. "
                "Set output_activation to none."
            )
        self.representation = Representation(representation)
        self.stride = stride
        self.reduce = nn.Conv2d(channels, channels // 2, 3, padding=1)
        self.refine = nn.Conv2d(channels // 2, 32, 3, padding=1)
        self.output = OutputConv(32, 1, 1)
        self.activation = _ACTIVATIONS[activation]()
        if activation in (OutputActivation.RELU, OutputActivation.SOFTPLUS):
            nn.init.ones_(cast(Tensor, self.output.bias))

    def forward(self, x: Tensor) -> Tensor:
        """Predict, ``(B, channels, H / stride, W / stride) -> (B, 1, H, W)``."""
        return self.map(self.hidden(x))

    def hidden(self, x: Tensor) -> Tensor:
        """Compute the input of the last layer, ``(B, 32, H, W)``."""
        x = F.interpolate(self.reduce(x), scale_factor=self.stride, mode="bilinear", align_corners=self.align_corners)
        return F.relu(self.refine(x))

    def map(self, hidden: Tensor) -> Tensor:
        """Compute the output from ``hidden``, ``(B, 1, H, W)``."""
        return self.activation(self.output(hidden))


class LogScale(nn.Module):
    """A part beside a head: ln b of the Laplace distribution of ln depth, from the decoder's map, within 7 of 0.

    b is about the relative error to expect; it starts near 0.1.

    Args:
        channels: channels of the decoder's map.
        stride: its stride [px].
    """

    def __init__(self, channels: int, stride: float) -> None:
        super().__init__()
        self.stride = stride
        self.refine = nn.Conv2d(channels, 32, 3, padding=1)
        self.output = OutputConv(32, 1, 1)
        nn.init.constant_(cast(Tensor, self.output.bias), math.log(0.1))

    def forward(self, x: Tensor) -> Tensor:
        """Predict, ``(B, channels, H / stride, W / stride) -> (B, 1, H, W)``."""
        s = self.output(F.relu(self.refine(x)))
        s = F.interpolate(s, scale_factor=self.stride, mode="bilinear", align_corners=False)
        return _MOST_LOG_SCALE * (s / _MOST_LOG_SCALE).tanh()


class LogDisparityHead(nn.Module):
    """The head of GP2: convolve to log-disparity by 1x1, enlarge to the input's size (Romanov et al. 2020, as released).

    Args:
        channels: channels of the decoder's map.
        stride: its stride [px].
    """

    representation = Representation.LOG_DISPARITY

    def __init__(self, channels: int, stride: float) -> None:
        super().__init__()
        self.stride = stride
        self.output = OutputConv(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Predict, ``(B, channels, H / stride, W / stride) -> (B, 1, H, W)``."""
        return F.interpolate(self.output(x), scale_factor=self.stride, mode="bilinear", align_corners=False)
