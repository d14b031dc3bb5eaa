"""Where the time of a student's step goes: student, teacher, frozen encoder, augmentation (Depth Anything).

The rival is the same student's step on as many labelled images, without anything of the method: what a supervised user pays.
Parts are timed where they are called, with the device waited for; the student's is what remains.

    python benchmarks/semi_supervised_step.py                                       # ViT-S student and teacher at 252x252
    python benchmarks/semi_supervised_step.py --device cuda --teacher large --size 518 --batch 12 --bf16
"""

import argparse
import statistics
import time
from collections import defaultdict
from typing import Any

import torch
from _command import parsed
from torch import Tensor, nn

from depthkit import models
from depthkit.paradigms import SemiSupervisedModule
from depthkit.types import AMBIGUITIES, REPRESENTATIONS, Ambiguity, Batch, Representation


class Timed(nn.Module):
    """A module that adds its time to an account."""

    def __init__(self, module: Any, account: dict[str, float], name: str) -> None:
        super().__init__()
        self.module, self.account, self.name = module, account, name
        for fact in ("representation", "size_multiple"):
            if hasattr(module, fact):
                setattr(self, fact, getattr(module, fact))

    def forward(self, image: Tensor) -> Any:
        """What the module returns."""
        began = clock(image.device)
        found = self.module(image)
        self.account[self.name] += clock(image.device) - began
        return found


def clock(device: torch.device) -> float:
    """Seconds, after all that the device was told to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def images(count: int, labelled: int, side: int, device: torch.device) -> Batch:
    """Noise with disparity labels on the first rows."""
    ambiguity = torch.full((count,), AMBIGUITIES.index(Ambiguity.UNLABELLED))
    ambiguity[:labelled] = AMBIGUITIES.index(Ambiguity.SHIFT_SCALE)
    label = torch.rand(count, 1, side, side)
    return Batch(
        image=torch.rand(count, 3, side, side),
        target=label,
        valid=(torch.arange(count) < labelled)[:, None, None, None].expand_as(label).clone(),
        sky=torch.zeros_like(label, dtype=torch.bool),
        ambiguity=ambiguity,
        representation=torch.full((count,), REPRESENTATIONS.index(Representation.DISPARITY)),
        dataset=torch.zeros(count, dtype=torch.int64),
        intrinsics=torch.full((count, 3, 3), torch.nan),
        real=torch.ones(count, dtype=torch.bool),
        keys=tuple(str(i) for i in range(count)),
        pairs=torch.zeros((count, 0, 5), dtype=torch.int64),
    ).to(device)


def seconds(module: SemiSupervisedModule, batch: Batch, steps: int, *, bf16: bool) -> list[float]:
    """Of each step, forward, backward and optimizer, after one that is not counted."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-5)
    found = []
    for _ in range(steps + 1):
        began = clock(module.device)
        with torch.autocast(module.device.type, torch.bfloat16, enabled=bf16):
            loss = module.combine(module, batch).total
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(clock(module.device) - began)
    return found[1:]


def main() -> None:
    """Measure both and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", choices=("small", "base", "large"), default="small")
    parser.add_argument("--teacher", choices=("small", "base", "large"), default="small")
    parser.add_argument("--size", type=int, default=252, help="side of the images [px], a multiple of 14")
    parser.add_argument("--batch", type=int, default=3, help="images in a step, a third of them labelled")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parsed(parser, size=56, steps=1)
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    account: dict[str, float] = defaultdict(float)
    torch.manual_seed(0)
    networks = [getattr(models, f"dpt_dinov2_{name}")(pretrained=False) for name in (options.student, options.teacher)]
    module = SemiSupervisedModule(networks[0], teacher=Timed(networks[1], account, "teacher"))
    module.augment = Timed(module.augment, account, "augmentation")
    module.outside = module.outside._replace(frozen=Timed(module.outside.frozen, account, "frozen encoder"))
    module.to(device).train()
    for part in module.outside:
        part.to(device)
    whole = seconds(module, images(options.batch, options.batch // 3, options.size, device), options.steps, bf16=options.bf16)
    account = {name: spent / (options.steps + 1) for name, spent in account.items()}
    module.unlabelled_weight = module.feature_weight = 0.0
    bare = seconds(module, images(options.batch, options.batch, options.size, device), options.steps, bf16=options.bf16)
    mean = statistics.mean(whole)
    print("| part | ms per step | share |\n|---|--:|--:|")
    for name, spent in {"student and losses": mean - sum(account.values()), **account}.items():
        print(f"| {name} | {1000 * spent:.0f} | {spent / mean:.0%} |")
    print(f"| all | {1000 * mean:.0f} | 100% |")
    print(f"\nA supervised step of the same student on as many images: {1000 * statistics.mean(bare):.0f} ms.")
    print(f"The method's step takes {mean / statistics.mean(bare):.2f} of its time.")


if __name__ == "__main__":
    main()
