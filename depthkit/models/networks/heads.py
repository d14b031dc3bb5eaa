"""Heads: from a decoder's map to the output, and what the output's numbers are."""

from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from depthkit.errors import RecipeError
from depthkit.types import Representation

OutputActivation = Literal["relu", "softplus", "none"]


class OutputConv(nn.Conv2d):
    """A convolution that leaves autocast: a map rounded to half precision would have steps of up to 1 %."""

    def forward(self, x: Tensor) -> Tensor:
        """As ``nn.Conv2d``, in the precision of the weights."""
        device = x.device.type
        if not (torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)):
            return super().forward(x)
        with torch.autocast(device, enabled=False):
            return super().forward(x.to(self.weight.dtype))


class MidasHead(nn.Module):
    """The head of MiDaS v2: convolve, enlarge to the input's size, convolve, activate (Ranftl et al. 2020, released network).

    Args:
        channels: channels of the decoder's map.
        stride: its stride [px].
        representation: what the output's numbers are.
        output_activation: "relu" as released, "softplus" (positive too, and never without a gradient) or "none". A logarithm
            can be negative and takes "none".

    The bias of the last convolution starts at 1 before a "relu" or "softplus", so that a fresh network is not zero everywhere,
    where it would have no gradient and stay so.

    Raises:
        RecipeError: an activation that the representation or this head cannot take.
    """

    align_corners = False

    def __init__(
        self,
        channels: int,
        stride: float,
        *,
        representation: Representation = Representation.DISPARITY,
        output_activation: OutputActivation = "relu",
    ) -> None:
        super().__init__()
        activations = {"relu": nn.ReLU, "softplus": nn.Softplus, "none": nn.Identity}
        if output_activation not in activations:
            raise RecipeError(f"expected output_activation relu, softplus or none; got {output_activation!r}.")
        if output_activation != "none" and representation in (Representation.LOG_DEPTH, Representation.LOG_DISPARITY):
            raise RecipeError(
                f"expected an output that can be negative for {representation}; got output_activation={output_activation!r}. "
                "Set output_activation to none."
            )
        self.representation = Representation(representation)
        self.stride = stride
        self.reduce = nn.Conv2d(channels, channels // 2, 3, padding=1)
        self.refine = nn.Conv2d(channels // 2, 32, 3, padding=1)
        self.output = OutputConv(32, 1, 1)
        self.activation = activations[output_activation]()
        if output_activation != "none":
            nn.init.ones_(cast(Tensor, self.output.bias))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, channels, H / stride, W / stride) -> (B, 1, H, W)``."""
        return self.map(self.hidden(x))

    def hidden(self, x: Tensor) -> Tensor:
        """What the last layer sees, ``(B, 32, H, W)``."""
        x = F.interpolate(self.reduce(x), scale_factor=self.stride, mode="bilinear", align_corners=self.align_corners)
        return F.relu(self.refine(x))

    def map(self, hidden: Tensor) -> Tensor:
        """What it makes of that, ``(B, 1, H, W)``."""
        return self.activation(self.output(hidden))


class LogDisparityHead(nn.Module):
    """The head of GP2: a 1x1 convolution to log-disparity, enlarged to the input's size (Romanov et al. 2020, as released).

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
        """``(B, channels, H / stride, W / stride) -> (B, 1, H, W)``."""
        return F.interpolate(self.output(x), scale_factor=self.stride, mode="bilinear", align_corners=False)
