"""Inference of Depth Anything Small: ours against DepthAnythingForDepthEstimation of transformers, same weights, same images.

Both take an image in [0, 1], are as their package builds them, and run in turn in one process. Time is that of the process on
the CPU's cores, which other processes disturb less than the clock does; on a GPU that of the clock.

Run: python benchmarks/dpt_inference.py --size 518 518 --repeats 9
     python benchmarks/dpt_inference.py --device cuda --batch 8 --dtype bfloat16 --compile
"""

import argparse
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version

import timm
import torch
from _command import installed, parsed
from torch import Tensor, nn

from depthkit.models import dpt_dinov2_small, load_published

Predict = Callable[[Tensor], Tensor]


class Rival(nn.Module):
    """The network of transformers, which takes a normalised image."""

    def __init__(self, hooks: list[int]) -> None:
        import transformers

        super().__init__()
        backbone = transformers.Dinov2Config(
            hidden_size=384, num_attention_heads=6, image_size=518, patch_size=14,
            out_indices=hooks, apply_layernorm=True, reshape_hidden_states=False,
        )  # fmt: skip
        config = transformers.DepthAnythingConfig(backbone_config=backbone)
        self.model = transformers.DepthAnythingForDepthEstimation(config)
        for parameter in self.parameters():  # some are 0 in a fresh network
            nn.init.normal_(parameter, std=0.05)
        nn.init.ones_(self.model.head.conv3.bias)  # so that ReLU leaves a map
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """``(B, 3, H, W) -> (B, 1, H, W)``."""
        return self.model((image - self.mean) / self.std).predicted_depth.unsqueeze(1)


def seconds(predict: Predict, image: Tensor) -> float:
    """Time of one prediction, over the threads it runs on."""
    if not image.is_cuda:
        start = time.process_time()
        predict(image)
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    predict(image)
    torch.cuda.synchronize()
    return time.perf_counter() - start


def alternate(networks: dict[str, Predict], image: Tensor, repeats: int) -> dict[str, list[float]]:
    """Times of each, in turn, after two predictions of each to warm up."""
    times: dict[str, list[float]] = {name: [] for name in networks}
    for turn in range(repeats + 2):
        for name in list(networks)[:: -1 if turn % 2 else 1]:
            taken = seconds(networks[name], image)
            if turn > 1:
                times[name].append(taken)
    return times


def both(hooks: str) -> dict[str, nn.Module]:
    """The rival, if it is installed, and ours with the same random weights."""
    ours = dpt_dinov2_small(pretrained=False, hooks=hooks).eval()
    if not installed("transformers", "ours is timed alone"):
        return {"depthkit": ours}
    rival = Rival([9, 10, 11, 12] if hooks == "v1" else [3, 6, 9, 12]).eval()
    load_published(ours, rival.model.state_dict(), source="transformers")
    return {"transformers": rival, "depthkit": ours}


def main() -> None:
    """Time both and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=(518, 518), metavar=("HEIGHT", "WIDTH"), help="of the images [px]")
    parser.add_argument("--batch", type=int, default=1, help="images at a time")
    parser.add_argument("--repeats", type=int, default=7, help="timed predictions of each")
    parser.add_argument("--threads", type=int, default=None, help="threads of the CPU; PyTorch's choice by default")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="bfloat16 runs both in autocast")
    parser.add_argument("--compile", action="store_true", help="compile both")
    parser.add_argument("--hooks", choices=("v1", "v2"), default="v1")
    arguments = parsed(parser, size=(70, 70), repeats=1, threads=1)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    networks = {name: network.to(arguments.device) for name, network in both(arguments.hooks).items()}
    image = torch.rand(arguments.batch, 3, *arguments.size, device=arguments.device)
    with torch.inference_mode():
        maps = [network(image) for network in networks.values()]
    contenders = {name: torch.compile(x) if arguments.compile else x for name, x in networks.items()}
    half = arguments.dtype == "bfloat16"
    with torch.inference_mode(), torch.autocast(torch.device(arguments.device).type, torch.bfloat16, enabled=half):
        found = alternate(contenders, image, arguments.repeats)
    where = torch.cuda.get_device_name() if image.is_cuda else f"CPU, {torch.get_num_threads()} threads"
    how = f"{arguments.dtype}, compiled" if arguments.compile else arguments.dtype
    print(f"{where}; torch {torch.__version__}, timm {timm.__version__}")
    print(
        f"{arguments.batch} x {arguments.size[0]}x{arguments.size[1]}, {how}, {arguments.repeats} predictions of each in turn"
    )
    if maps[1:]:
        difference = float((maps[1] - maps[0]).abs().max() / maps[0].abs().max())
        print(f"transformers {version('transformers')}; the maps differ by {difference:.1e} of their greatest value in float32")
    print("\n| network | median [s] | fastest [s] |\n|---|--:|--:|")
    for name, times in found.items():
        print(f"| {name} | {statistics.median(times):.4f} | {min(times):.4f} |")
    if maps[1:]:
        theirs, mine = found.values()
        pairs = [b / a for a, b in zip(mine, theirs, strict=True)]
        print(f"| ratio | {statistics.median(pairs):.3f} (of each pair) | {min(theirs) / min(mine):.3f} |")


if __name__ == "__main__":
    main()
