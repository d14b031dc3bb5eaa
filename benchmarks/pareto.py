"""What a Pareto step costs beside an equal-weights step, with five datasets in every batch.

Run: python benchmarks/pareto.py --repeat 5
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from _command import parsed
from torch import Tensor

from depthkit.models import midas_timm
from depthkit.paradigms import AffineInvariantModule, EqualWeights, MinNorm
from depthkit.types import AMBIGUITIES, REPRESENTATIONS, Ambiguity, Batch, Representation

DATASETS = 5
VARIANTS: dict[str, dict[str, Any]] = {
    "equal weights": {"combine": EqualWeights()},
    "Pareto, all parameters, one forward per dataset (frozen)": {
        "combine": MinNorm(forward="per_dataset"),
        "freeze_batch_norm": True,
    },
    "Pareto, all parameters, one forward per dataset": {"combine": MinNorm(forward="per_dataset")},
    "Pareto, all parameters, one mixed forward": {"combine": MinNorm()},
    "Pareto, last shared layer (heuristic)": {"combine": MinNorm("last_shared_layer")},
}


def mixed_batch(per_dataset: int, size: int, device: str) -> Batch:
    """Random images and depths, as many from every dataset."""
    rows = DATASETS * per_dataset
    depth = torch.rand(rows, 1, size, size) * 9 + 1
    fill: Callable[[int], Tensor] = lambda code: torch.full((rows,), code)  # noqa: E731
    return Batch(
        image=torch.rand(rows, 3, size, size),
        target=depth,
        valid=depth < 9,
        sky=depth > 99,
        ambiguity=fill(AMBIGUITIES.index(Ambiguity.METRIC)),
        representation=fill(REPRESENTATIONS.index(Representation.DEPTH)),
        dataset=torch.arange(rows) % DATASETS,
        intrinsics=torch.full((rows, 3, 3), torch.nan),
        real=torch.ones(rows, dtype=torch.bool),
        keys=tuple(map(str, range(rows))),
        pairs=torch.zeros(rows, 0, 5, dtype=torch.int64),
    ).to(device)


def seconds_per_step(module: AffineInvariantModule, batch: Batch, device: str) -> float:
    """Wall time of one step: losses, combination, backward, Adam."""
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-4)
    _synchronise(device)
    start = time.perf_counter()
    optimizer.zero_grad()
    module.combine(module, batch).total.backward()
    optimizer.step()
    _synchronise(device)
    return time.perf_counter() - start


def _synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    """Time every variant in turn, several rounds, and print the medians and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--features", type=int, default=64)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--per-dataset", type=int, default=4)
    parser.add_argument("--repeat", type=int, default=5)
    args = parsed(parser, size=32, per_dataset=2, repeat=1, features=8)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    batch = mixed_batch(args.per_dataset, args.size, device)
    modules = {}
    for name, options in VARIANTS.items():
        torch.manual_seed(0)
        model = midas_timm(args.backbone, pretrained=False, features=args.features)
        modules[name] = AffineInvariantModule(model, **options).to(device)
        modules[name].dataset_names = tuple(f"set{k}" for k in range(DATASETS))
        seconds_per_step(modules[name], batch, device)  # warm up
    times: dict[str, list[float]] = {name: [] for name in modules}
    for _ in range(args.repeat):
        for name, module in modules.items():
            times[name].append(seconds_per_step(module, batch, device))
    base = statistics.median(times["equal weights"])
    where = torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    print(
        f"{args.backbone}, {args.features} features, "
        f"{DATASETS} x {args.per_dataset} images of {args.size}x{args.size}; {where}\n"
    )
    print("| step | median [ms] | spread [ms] | ratio to equal weights |\n|---|--:|--:|--:|")
    for name, values in times.items():
        spread = f"{min(values) * 1e3:.0f} to {max(values) * 1e3:.0f}"
        print(f"| {name} | {statistics.median(values) * 1e3:.0f} | {spread} | {statistics.median(values) / base:.2f} |")


if __name__ == "__main__":
    main()
