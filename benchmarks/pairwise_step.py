"""What the pairwise losses add to a training step beside the pointwise L1 (Romanov et al. 2020 report at most 5 %).

The losses take turns, and the fastest step of each counts: by the clock, and in CPU time, which a busy machine distorts less.

Run: python benchmarks/pairwise_step.py --batch 8 --repeat 5
"""

import argparse
import platform
import time
from collections.abc import Callable

import torch
from _command import parsed
from torch import Tensor

from depthkit.losses.functional import pairwise_l1_si_loss, pairwise_l1_ssi_loss, pointwise_loss
from depthkit.models import lrn_mobilenetv2
from depthkit.paradigms import LookaheadRAdam

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def si_and_ssi(pred: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """GP2's loss on log-disparity."""
    disparity = (pred - pred.detach().amax()).exp()
    return pairwise_l1_si_loss(pred, target, valid) + pairwise_l1_ssi_loss(disparity, target.exp(), valid)


LOSSES: dict[str, Loss] = {
    "pointwise L1": pointwise_loss,
    "pairwise L1, SI": pairwise_l1_si_loss,
    "pairwise L1, SI + SSI": si_and_ssi,
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32, help="images per step (default %(default)s)")
    parser.add_argument("--size", type=int, default=384, help="height and width [px] (default %(default)s)")
    parser.add_argument("--repeat", type=int, default=5, help="timed steps of each, taking turns (default %(default)s)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default %(default)s)")
    options = parsed(parser, batch=2, size=64, repeat=1, threads=1)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = lrn_mobilenetv2(pretrained=False).to(options.device, memory_format=torch.channels_last)
    optimizer = LookaheadRAdam(model.parameters())
    image = torch.rand(options.batch, 3, options.size, options.size, device=options.device)
    image = image.to(memory_format=torch.channels_last)
    target = torch.rand(options.batch, 1, options.size, options.size, device=options.device)
    valid = target > 0.2

    def step(loss: Loss) -> tuple[float, float]:
        _synchronise(options.device)
        began, spent = time.perf_counter(), time.process_time()
        optimizer.zero_grad()
        loss(model(image), target, valid).mean().backward()
        optimizer.step()
        _synchronise(options.device)
        return time.perf_counter() - began, time.process_time() - spent

    times: dict[str, list[tuple[float, float]]] = {name: [] for name in LOSSES}
    for turn in range(options.repeat + 1):
        for name, loss in LOSSES.items():
            seconds = step(loss)
            if turn:  # the first warms up
                times[name].append(seconds)
    where = torch.cuda.get_device_name() if options.device == "cuda" else f"{platform.machine()} CPU, {options.threads} threads"
    print(f"MN-LRN, {options.batch} images of {options.size}x{options.size}, forward, backward, optimizer; {where}\n")
    print("| loss | clock [ms] | to pointwise L1 | CPU time [ms] | to pointwise L1 |\n|---|--:|--:|--:|--:|")
    fastest = {name: [min(kind) for kind in zip(*seconds, strict=True)] for name, seconds in times.items()}
    for name, seconds in fastest.items():
        cells = [f"{s * 1e3:.0f} | {s / rival:.3f}" for s, rival in zip(seconds, fastest["pointwise L1"], strict=True)]
        print(f"| {name} | {' | '.join(cells)} |")


def _synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
