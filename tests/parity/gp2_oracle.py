"""What GP2's eight networks compute on encoders of the packages they were released on, saved for a test to compare with.

It runs in a process of its own, as ``python gp2_oracle.py PACKAGES_FOLDER OUTPUT_FOLDER THREADS``, for other versions of
these packages may be installed. Modules have the names that the released files have; the decoder is written here, from the
paper and the files' shapes.
"""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = (64, 96)


class MobileNet(nn.Module):
    """torchvision's, without its last convolution, in layers that begin where a stride does; the first is empty."""

    widths = (16, 24, 32, 96, 320)

    def __init__(self) -> None:
        from torchvision.models import mobilenet_v2

        super().__init__()
        blocks = mobilenet_v2(weights=None).features
        cuts = (0, 0, 2, 4, 7, 14, 18)
        self.layers = nn.ModuleList(nn.Sequential(*blocks[i:j]) for i, j in pairwise(cuts))

    def maps(self, x: Tensor) -> Iterable[Tensor]:
        for layer in self.layers[1:]:
            x = layer(x)
            yield x


class Lite0(nn.Module):
    """geffnet's, whole; of seven stages the first four and the last give a map."""

    widths = (16, 24, 40, 80, 320)

    def __init__(self) -> None:
        import geffnet

        super().__init__()
        self.model = geffnet.tf_efficientnet_lite0(pretrained=False)

    def maps(self, x: Tensor) -> Iterable[Tensor]:
        x = self.model.act1(self.model.bn1(self.model.conv_stem(x)))
        for k, stage in enumerate(self.model.blocks):
            x = stage(x)
            if k in (0, 1, 2, 3, 6):
                yield x


def efficientnet(name: str) -> nn.Module:
    """The encoder of segmentation-models-pytorch 0.1.0; its own maps, but for the image."""
    import segmentation_models_pytorch as smp

    assert smp.__version__ == "0.1.0", smp.__version__
    encoder = smp.encoders.get_encoder(f"efficientnet-{name}")
    encoder.widths = encoder.out_channels[1:]
    encoder.maps = lambda x: encoder(x)[1:]
    return encoder


def normalised_conv(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width))


class Chain(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.adapt = normalised_conv(width)
        for k in range(1, 5):
            self.add_module(f"{k}_outvar_dimred", normalised_conv(width))

    def forward(self, x: Tensor) -> Tensor:
        terms = [self.adapt(x)]
        for k in range(1, 5):
            terms.append(self.get_submodule(f"{k}_outvar_dimred")(F.max_pool2d(terms[-1], 5, 1, 2)))
        return sum(terms) / 5


class Decoder(nn.Module):
    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone  # as in the files, which so hold the encoder twice
        widths = backbone.widths[::-1]
        self.up_branch = nn.ModuleList(nn.Sequential(Chain(width)) for width in widths)
        self.adapters = nn.ModuleList(nn.Sequential(nn.Conv2d(*pair, 1)) for pair in pairwise(widths))
        self.final_decoder = nn.Sequential(nn.Conv2d(widths[-1], 1, 1))

    def forward(self, maps: list[Tensor]) -> Tensor:
        coarsest, *finer = maps[::-1]
        x = self.up_branch[0](coarsest)
        for adapter, chain, skip in zip(self.adapters, self.up_branch[1:], finer, strict=True):
            x = chain(doubled(adapter(x)) + skip)
        return doubled(self.final_decoder(x))


def doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class Network(nn.Module):
    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList([encoder, Decoder(encoder)])


def trained_like(network: nn.Module, images: Tensor) -> nn.Module:
    """Statistics of BatchNorm that are those of a batch, weights and biases that matter; evaluation mode."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(std=0.1)
            module.momentum = 1.0
    network.train()
    network.branches[1](list(network.branches[0].maps(images)))
    return network.eval()


@torch.no_grad()
def main(packages: str, output: str, threads: str) -> None:
    sys.path.insert(0, packages)
    torch.set_num_threads(int(threads))
    builders = {"mobilenetv2": MobileNet, "efficientnet_lite0": Lite0}
    builders |= {f"efficientnet_b{k}": lambda k=k: efficientnet(f"b{k}") for k in range(6)}
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    for seed, (name, build) in enumerate(builders.items()):
        torch.manual_seed(seed)
        images = torch.rand(4, 3, *SIZE)
        normalised = (images - mean[:, None, None]) / std[:, None, None]
        network = trained_like(Network(build()), normalised)
        maps = [x.clone() for x in network.branches[0].maps(normalised[:1])]
        found = {"image": images[:1], "maps": maps, "log_disparity": network.branches[1](maps), "file": network.state_dict()}
        torch.save(found, Path(output) / f"{name}.pt")


@contextmanager
def importable(folder: str | Path) -> Iterator[None]:
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            if getattr(sys.modules[name], "__file__", None) and str(folder) in str(sys.modules[name].__file__):
                del sys.modules[name]


if __name__ == "__main__":
    main(*sys.argv[1:])
