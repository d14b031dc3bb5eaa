"""``depthkit demo``: the quickstart from rendered scenes to a scored model and its pictures, with no download."""

import json
from pathlib import Path

from PIL import Image
from rich.console import Console

from depthkit.cli.recipes import find_recipe
from depthkit.cli.scoring.evaluate import evaluation_samples
from depthkit.cli.shards_write import write
from depthkit.cli.training.command import run
from depthkit.cli.training.resuming import last_checkpoint
from depthkit.evaluation import PROTOCOLS, Report, best_row_baseline, evaluate
from depthkit.inference import DepthPredictor
from depthkit.shards import ShardIndex
from depthkit.writing import replacing

KINDS = ("room", "street")
SPLITS = {"train": (0, 1500), "val": (1, 20), "test": (2, 100)}
"""Seed and number of scenes of each kind; another seed is other scenes."""
PROTOCOL = "synthetic_affine"


def demo(
    recipe: str = "quickstart",
    out: Path = Path("runs/quickstart"),
    scenes: float = 1.0,
    size: tuple[int, int] = (96, 128),
    workers: int = 2,
    fit: list[str] | None = None,
) -> None:
    """Render synthetic scenes, train the recipe on them, score it on unseen scenes and draw what it sees.

    What is finished is kept: run again after an interruption, it goes on with what is missing.

    Args:
        recipe: file or name of a recipe that trains on the shards under ``<out>/shards/room`` and ``<out>/shards/street``.
        out: folder for shards, checkpoints, tables and pictures.
        scenes: share of the 1,500 training, 20 validation and 100 test scenes of either kind to render.
        size: (height, width) of the scenes [px].
        workers: processes that render.
        fit: further arguments of `depthkit fit`, such as `[--trainer.max_steps=100]`.
    """
    console = Console(soft_wrap=True, highlight=False)
    find_recipe(recipe)
    for kind in KINDS:
        for split, (seed, count) in SPLITS.items():
            _render(out / "shards" / kind, split, max(8, round(count * scenes)), seed, kind, size, workers)
    arguments = ["fit", f"--config={recipe}", f"--trainer.default_root_dir={out}"]
    for option, split in (("sources", "train"), ("val_sources", "val")):
        sources = [{"root": str(out / "shards" / kind), "split": split} for kind in KINDS]
        arguments.append(f"--data.{option}={json.dumps(sources)}")
    if checkpoint := last_checkpoint(out):
        arguments.append(f"--ckpt_path={checkpoint}")
    run([*arguments, *(fit or [])])
    predictor = DepthPredictor.from_pretrained(last_checkpoint(out) or out / "last.ckpt")
    errors: dict[str, list[float]] = {"network": [], "baseline": []}
    for kind in KINDS:
        train, test = (evaluation_samples(out / "shards" / kind, split) for split in ("train", "test"))
        report = evaluate(predictor.model, test, PROTOCOLS[PROTOCOL], name="trained network")
        baseline = best_row_baseline(train, test, PROTOCOLS[PROTOCOL])
        for scored, name in ((report, "network"), (baseline, "baseline")):
            errors[name] += [row["abs_rel"] for row in scored.per_image if not row["left_out"]]
        report = report.compared_with(baseline)
        console.print(f"\nunseen {kind} scenes\n{report.table()}", markup=False)
        _write(report, out / kind)
    network, baseline_error = (sum(values) / len(values) for values in errors.values())
    console.print(
        f"\nall {len(errors['network'])} unseen scenes: AbsRel {network:.4f}, image-blind baseline {baseline_error:.4f}, "
        f"ratio {network / baseline_error:.2f}"
    )
    console.print(f"pictures and numbers per image: {', '.join(f'{out / kind}.png, .html and .json' for kind in KINDS)}")


def _render(root: Path, split: str, count: int, seed: int, kind: str, size: tuple[int, int], workers: int) -> None:
    if (root / "index.json").exists():
        done = ShardIndex.load(root).splits.get(split)
        if done is not None and done.complete:
            return
    write(
        "synthetic", "-", str(root), split=split, count=count, seed=seed, kind=kind, size=size,
        samples_per_shard=max(1, count // 8), workers=workers, name=kind,
    )  # fmt: skip


def _write(report: Report, stem: Path) -> None:
    report.to_html(stem.with_suffix(".html"))
    report.to_json(stem.with_suffix(".json"))
    with replacing(stem.with_suffix(".png")) as part:
        Image.fromarray(report.strip()).save(part, format="png")
