"""The first features of VGG16, in which images can be compared instead of in colour."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from depthkit.models.encoders.timm_encoder import IMAGENET_MEAN, IMAGENET_STD
from depthkit.models.weights.backbone import load_backbone


class FirstLayer(nn.Module):
    """The first layer of a network on images in [0, 1]: normalise with ImageNet's mean and std, convolve, ReLU.

    Args:
        conv: the convolution.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Compute the features, ``(B, 3, H, W) -> (B, C, H, W)``."""
        return F.relu(self.conv((image - self.mean) / self.std))


def vgg16_relu1_1(*, pretrained: bool | str | Path = True) -> FirstLayer:
    """Build the network of VGG16's features relu1_1 (Simonyan and Zisserman 2015), 64 channels at the image's size.

    Monodepth2's ``pe`` for hand-held video is ``depthkit.losses.FeatureL1Error(vgg16_relu1_1())``.

    Args:
        pretrained: weights of VGG16, see ``TimmEncoder``.
    """
    backbone = load_backbone("vgg16.tv_in1k", pretrained, out_indices=(0,))
    return FirstLayer(next(module for module in backbone.modules() if isinstance(module, nn.Conv2d)))
