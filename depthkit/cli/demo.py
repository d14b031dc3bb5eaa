"""``depthkit demo``: the quickstart from rendered scenes to a scored model and its pictures, with no download."""

from pathlib import Path

import torch
from rich.console import Console

from depthkit.cli import shards
from depthkit.cli.evaluate import evaluation_samples
from depthkit.cli.training import run
from depthkit.errors import RecipeError
from depthkit.evaluation import PROTOCOLS, best_row_baseline, evaluate
from depthkit.inference import DepthPredictor

SPLITS = {"train": (0, 1600), "val": (1, 64), "test": (2, 200)}
"""Seed and number of scenes; different seeds are different scenes."""


def demo(
    recipe: Path = Path("recipes/quickstart.yaml"),
    out: Path = Path("runs/quickstart"),
    scenes: float = 1.0,
    overrides: list[str] | None = None,
) -> None:
    """Render synthetic scenes, train the recipe on them, score it on unseen scenes and draw what it sees.

    Finished parts are kept: run again after an interruption, it goes on with what is missing.

    Args:
        recipe: the quickstart recipe; its sources must be the shards under ``<out>/shards``.
        out: folder for shards, checkpoints, tables and pictures.
        scenes: share of the 1,600 training and 264 evaluation scenes to render.
        overrides: further arguments of ``depthkit fit``, such as ``--trainer.max_steps=100``.
    """
    console = Console()
    if not recipe.is_file():
        raise RecipeError(f"no recipe at {recipe}. Run the demo in a checkout of depthkit, or pass --recipe.")
    for split, (seed, count) in SPLITS.items():
        for kind in ("room", "street"):
            root = out / "shards" / kind
            number = max(8, round(count * scenes / 2))
            console.rule(f"{number} {kind} scenes for {split}")
            shards.write("synthetic", root, split=split, count=number, seed=seed, kind=kind, samples_per_shard=100, resume=True)
    console.rule("training")
    last = out / "checkpoints" / "last.ckpt"
    resumed = [f"--ckpt_path={last}"] if last.exists() else []
    run(["fit", f"--config={recipe}", f"--trainer.default_root_dir={out}", *resumed, *(overrides or [])])
    console.rule("unseen scenes")
    protocol = PROTOCOLS["synthetic_affine"]
    train = [sample for kind in ("room", "street") for sample in evaluation_samples(out / "shards" / kind, "train")]
    predictor = DepthPredictor.from_checkpoint(last)
    for kind in ("room", "street"):
        samples = list(evaluation_samples(out / "shards" / kind, "test"))
        report = evaluate(predictor.model, samples, protocol, name="trained")
        baseline = best_row_baseline(train, samples, protocol)
        console.print(report.table())
        console.print(baseline.table())
        report.to_html(out / f"{kind}.html")
        report.to_json(out / f"{kind}.json")
    torch.manual_seed(0)
