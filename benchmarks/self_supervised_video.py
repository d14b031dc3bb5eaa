"""Depth and motion from rendered video without a label, and Monodepth2's ablation (Godard et al. 2019, table 2).

Drives (one frame apart) with traffic in half of the scenes, one car ahead as fast as the camera, and walks through rooms (three
frames apart) with moving objects in a third; the camera stands still in a fifth of both. One pair of networks per row and seed,
same order of the scenes, same number of steps:

    full         minimum over sources, automask, every scale compared at full resolution (the paper's method)
    mean         as full, but the mean over sources
    no automask  as full, but static pixels count
    native       as full, but every scale compared at its own resolution
    baseline     none of the three

From random weights the full method and the baseline, and on drives, from the weights that the baseline reached with the same
seed, every row for as many steps again: so what a row does once depth is known shows apart from how soon it begins to learn.

Scored on unseen scenes: depth after one median ratio per image, everywhere and on what moves as fast as the camera, against the
untrained network, one depth everywhere and one disparity per image row (the training scenes' median); motion over snippets of
five frames after the best scale, against a camera that never moves and one that always moves like the training scenes' mean.

    python benchmarks/self_supervised_video.py --jobs 2                  # everything; what is finished is kept
    python benchmarks/self_supervised_video.py --scenes 32 --steps 20 --seeds 0 --out /tmp/quick   # a look
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _command import each, installed, parsed, temporary_folder
from lightning.pytorch import Trainer, seed_everything
from torch import Tensor

from depthkit.alignment import fit_scale
from depthkit.data import ShardIndex, ShardSource, VideoDataModule
from depthkit.evaluation import PROTOCOLS
from depthkit.losses import MinReprojectionLoss
from depthkit.metrics.functional import abs_rel, trajectory_error
from depthkit.models import monodepth2_timm, pose_timm
from depthkit.paradigms import SelfSupervisedVideoModule, StepDecay
from depthkit.shards import write_shards
from depthkit.synthetic import Scene, SceneKind, SyntheticScenes, SyntheticView
from depthkit.types import Ambiguity, LabelKind, Representation, Views

SIZE = (64, 96)
BATCH = 12
NETWORK: dict[str, Any] = {"backbone": "test_resnet", "pretrained": False}
SNIPPET = 5
SPACING: dict[SceneKind, int] = {"street": 1, "room": 3}
MOVING: dict[SceneKind, float] = {"street": 1 / 2, "room": 1 / 3}
METRIC = LabelKind(Ambiguity.METRIC, Representation.DEPTH)
RUNS: dict[str, dict[str, Any]] = {
    "full": {},
    "mean": {"reduction": "mean"},
    "no automask": {"automask": False},
    "native": {"full_resolution": False},
    "baseline": {"reduction": "mean", "automask": False, "full_resolution": False},
}
START = {"random": "random weights", "baseline": "the baseline's weights"}
STAGES: dict[tuple[SceneKind, str], tuple[str, ...]] = {
    ("street", "random"): ("baseline", "full"),
    ("room", "random"): ("baseline", "full"),
    ("street", "baseline"): tuple(RUNS),
}
Truth = dict[str, Tensor]


def scenes(kind: SceneKind, count: int, seed: int, still: float) -> SyntheticScenes:
    """Triplets of one kind."""
    return SyntheticScenes(
        count, size=SIZE, kind=kind, seed=seed, views=Views.VIDEO, spacing=SPACING[kind], moving=MOVING[kind], still=still
    )


def module(run: str, seed: int) -> SelfSupervisedVideoModule:
    """A row's networks, untrained."""
    seed_everything(seed, verbose=False)
    options = dict(RUNS[run])
    loss = MinReprojectionLoss(reduction=options.pop("reduction", "min"), automask=options.pop("automask", True))
    return SelfSupervisedVideoModule(
        monodepth2_timm(**NETWORK),
        pose_timm(**NETWORK),
        reprojection=loss,
        optimizer=partial(torch.optim.Adam, lr=3e-4),
        schedule=StepDecay(warmup=100, milestones=(0.75,)),
        channels_last=True,
        **options,
    )


def prepare(out: Path, count: int, unseen: int, jobs: int) -> None:
    """Render what is missing: training triplets and, of unseen scenes, snippets with exact depth and motion."""
    for kind in SPACING:
        root = out / "shards" / kind
        if not ((root / "index.json").exists() and ShardIndex.load(root).splits["train"].complete):
            drawn = scenes(kind, count, seed=0, still=0.2)
            write_shards(drawn, root, split="train", dataset=kind, workers=jobs, progress=True, resume=root.exists())
        file = out / f"unseen-{kind}.pt"
        if not file.exists():
            torch.save(snippets(kind, unseen), file)


def snippets(kind: SceneKind, count: int) -> Truth:
    """Snippets of scenes of another seed: images, depth of the first, what moves along in it, motions ``next_from_current``."""
    drawn, spacing = scenes(kind, count, seed=1, still=0.0), SPACING[kind]
    videos = [drawn.video(i, (SNIPPET - 1) * spacing + 1)[::spacing] for i in range(count)]
    world = torch.from_numpy(np.stack([[view.world_from_camera for view in video] for video in videos]))
    images = torch.from_numpy(np.stack([[view.image for view in video] for video in videos]))
    return {
        "image": images.movedim(-1, 2).float() / 255,
        "depth": torch.from_numpy(np.stack([video[0].depth for video in videos]))[:, None].float(),
        "along": torch.from_numpy(np.stack([along(drawn.scene(i), video[0]) for i, video in enumerate(videos)]))[:, None],
        "motion": torch.linalg.solve(world[:, 1:], world[:, :-1]),
    }


def along(scene: Scene, view: SyntheticView) -> np.ndarray:
    """Where a view shows what moves as fast as the camera, within a tenth of its speed."""
    drift = np.linalg.norm(scene.solids.velocity - scene.path.velocity, axis=1)
    moves = drift < 0.1 * np.linalg.norm(scene.path.velocity)
    return np.isin(view.objects, scene.solids.thing[moves])


def train(kind: SceneKind, start: str, run: str, seed: int, out: Path, steps: int) -> None:
    """Train one row's networks and keep weights and time."""
    torch.set_num_threads(1)
    data = VideoDataModule(
        [ShardSource(str(out / "shards" / kind))],
        size=SIZE,
        batch_size=BATCH,
        seed=seed,
        epoch_size=steps * BATCH,
    )
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(max_epochs=1, accelerator="cpu", **quiet)
    networks = module(run, seed)
    if start != "random":
        networks.load_state_dict(torch.load(weights_file(out, kind, "random", start, seed), weights_only=True)["state"])
    began = time.perf_counter()
    trainer.fit(networks, datamodule=data)
    target = weights_file(out, kind, start, run, seed)
    target.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state": networks.state_dict(), "seconds": time.perf_counter() - began}, target)


def weights_file(out: Path, kind: SceneKind, start: str, run: str, seed: int) -> Path:
    """Where a finished row lies."""
    return out / "weights" / start / f"{kind}-{run.replace(' ', '-')}-{seed}.pt"


def depth_scores(predict: Callable[[Tensor], Tensor], truth: Truth) -> dict[str, float]:
    """Mean over images after one median ratio each; ``predict`` gives disparity."""
    depth = truth["depth"]
    valid = depth < 80
    with torch.no_grad():
        disparity = predict(truth["image"][:, 0])
    values = PROTOCOLS["synthetic_median"].score(disparity, Representation.DISPARITY, depth, valid, kind=METRIC)
    pred = (1 / disparity).double()
    pred = pred * fit_scale(pred, depth, valid, method="ratio_of_medians").reshape(-1, 1, 1, 1)
    found = {name: float(values[name].nanmean()) for name in ("abs_rel", "delta1")}
    return found | {"along": float(abs_rel(pred.clamp(max=80), depth, truth["along"] & valid).nanmean())}


def trajectory(motion: Tensor, truth: Truth) -> float:
    """Mean ATE of whole snippets [m]."""
    return float(trajectory_error(motion, truth["motion"], frames=SNIPPET, chaining="camera", partial=False).mean())


def scores(kind: SceneKind, start: str, out: Path, seeds: list[int], count: int) -> dict[str, list[dict[str, float]]]:
    """Rows of a kind's table, a dictionary per seed: baselines, the untrained networks, and everything that is trained."""
    truth = torch.load(out / f"unseen-{kind}.pt")
    seen = list(scenes(kind, count, seed=0, still=0.0))
    mean = torch.from_numpy(np.mean([sample.frames_from_camera["next"] for sample in seen], 0))
    still = torch.eye(4, dtype=torch.float64).expand_as(truth["motion"])
    near = np.stack([np.where(sample.label < 80, 1 / sample.label, np.nan) for sample in seen])
    profile = np.nanmedian(near, 2) / np.nanmedian(near, (1, 2))[:, None]  # of every image, in units of its median
    rows = torch.from_numpy(np.nanmedian(profile, 0)).float()[:, None]
    drift = mean.expand_as(truth["motion"])
    found = {
        "one depth, no motion": [{**depth_scores(lambda x: torch.ones_like(x[:, :1]), truth), "ate": trajectory(still, truth)}],
        "median disparity per row, mean motion": [
            {
                **depth_scores(lambda x: rows.expand_as(x[:, :1]), truth),
                "ate": trajectory(drift, truth),
            }
        ],
    }
    begins = ("random", start if start in RUNS else "untrained")
    rows_of = {f"start: {START[start]}": begins, **{run: (start, run) for run in STAGES[kind, start]}}
    for run, which in rows_of.items():
        found[run] = []
        for seed in seeds:
            networks, minutes = trained(kind, *which, seed, out)
            ate = trajectory(torch.stack([networks.motions(x) for x in truth["image"]]), truth)
            found[run].append({**depth_scores(networks, truth), "ate": ate, "minutes": minutes})
    return found


def trained(kind: SceneKind, start: str, run: str, seed: int, out: Path) -> tuple[SelfSupervisedVideoModule, float]:
    """A row's networks in evaluation mode, and how long they were trained [min]."""
    if run == "untrained":
        return module("full", seed).eval(), 0.0
    networks, kept = module(run, seed).eval(), torch.load(weights_file(out, kind, start, run, seed), weights_only=True)
    networks.load_state_dict(kept["state"])
    return networks, kept["seconds"] / 60


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """Mean and standard deviation over seeds, in Markdown."""
    columns = {
        "abs_rel": ("AbsRel [%]", 100),
        "along": ("AbsRel of what moves along [%]", 100),
        "delta1": ("delta < 1.25 [%]", 100),
        "ate": ("ATE [mm]", 1000),
    }
    columns = {name: column for name, column in columns.items() if np.isfinite(next(iter(found.values()))[0][name])}
    lines = [
        "| | " + " | ".join(head for head, _ in columns.values()) + " | minutes |",
        "|---" + "|--:" * (len(columns) + 1) + "|",
    ]
    for row, seeds in found.items():
        cells = []
        for name, (_, unit) in columns.items():
            values = unit * np.array([seed[name] for seed in seeds])
            cells.append(f"{values.mean():.1f}" + (f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else ""))
        minutes = np.mean([seed.get("minutes", 0.0) for seed in seeds])
        lines.append(f"| {row} | {' | '.join(cells)} | {f'{minutes:.1f}' if minutes else ''} |")
    return "\n".join(lines)


def picture(kind: SceneKind, start: str, out: Path, seed: int, file: Path) -> None:
    """Unseen images, true disparity, and what the rows make of them."""
    import matplotlib.pyplot as plt

    truth, titles = torch.load(out / f"unseen-{kind}.pt"), ("image", "truth", *STAGES[kind, start])
    networks = [trained(kind, start, run, seed, out)[0] for run in STAGES[kind, start]]
    figure, axes = plt.subplots(5, len(titles), figsize=(2 * len(titles), 7), layout="constrained")
    for line, image, depth in zip(axes, truth["image"][:, 0], truth["depth"], strict=False):
        with torch.no_grad():
            maps = [1 / depth[0], *(network(image[None])[0, 0] for network in networks)]
        line[0].imshow(image.permute(1, 2, 0))
        for axis, disparity in zip(line[1:], maps, strict=True):
            low, high = np.quantile(disparity, [0.02, 0.98])
            axis.imshow(disparity, cmap="magma", vmin=low, vmax=high)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title)
    for axis in axes.flat:
        axis.axis("off")
    figure.savefig(file, dpi=100)


def main() -> None:
    """Render, train what is not trained, score, and write table, picture and numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/self_supervised_video"), help="folder; what is finished is kept")
    parser.add_argument("--scenes", type=int, default=600, help="training scenes of each kind")
    parser.add_argument("--unseen", type=int, default=60, help="snippets of each kind to score, at least 5")
    parser.add_argument("--steps", type=int, default=600, help=f"optimizer steps of {BATCH} triplets per network")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="networks trained at a time, one thread each; 0: in this process")
    options = parsed(parser, out=temporary_folder(), scenes=12, unseen=5, steps=1, seeds=[0], jobs=0)
    prepare(options.out, options.scenes, options.unseen, options.jobs)
    for start in START:
        rows = [(kind, start, run) for (kind, begun), runs in STAGES.items() if begun == start for run in runs]
        todo = [(*row, seed) for seed in options.seeds for row in rows if not weights_file(options.out, *row, seed).exists()]
        for *row, _, _ in each(train, [(*row, options.out, options.steps) for row in todo], options.jobs):
            print(f"trained {' '.join(map(str, row))}", flush=True)
    for kind, start in STAGES:
        found = scores(kind, start, options.out, options.seeds, min(options.scenes, 100))
        (options.out / f"scores-{kind}-{start}.json").write_text(json.dumps(found, indent=2))
        if installed("matplotlib", "no picture"):
            picture(kind, start, options.out, options.seeds[0], options.out / f"maps-{kind}-{start}.png")
        print(f"\n{kind}s, from {START[start]}\n\n{table(found)}")


if __name__ == "__main__":
    main()
