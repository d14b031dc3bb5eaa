"""What ``--ckpt_path last | auto`` goes on with: the newest checkpoint that reads, of a run of the same recipe."""

import csv
import sys
from collections.abc import Iterator, Mapping
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from omegaconf import OmegaConf

from depthkit.errors import CheckpointError, RecipeError
from depthkit.models.weights.facts import read_run

_KEY = "recipe"
_FOLDERS = "log_folders"
_SHAPING = ("seed_everything", "model.", "data.", *(f"trainer.{key}" for key in ("precision", "accumulate_", "gradient_clip_")))
_FREE = ("data.init_args.num_workers", "data.init_args.val_", "data.init_args.test_", "model.init_args.protocols")


class RecipeInCheckpoint(SaveConfigCallback):
    """Write the recipe and the run's folder into each checkpoint, and ``config.yaml`` beside the log as Lightning does."""

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add them to the checkpoint's content."""
        checkpoint[_KEY] = self._recipe
        checkpoint[_FOLDERS] = [Path(logger.log_dir).name for logger in _loggers(trainer)]

    @cached_property
    def _recipe(self) -> str:  # a second of a processor, and the same for every checkpoint
        return recipe_text(self.parser, self.config)


def recipe_text(parser: Any, config: Any) -> str:
    """Write a recipe, all defaults in it, as YAML."""
    return str(parser.dump(config, skip_none=False))


def last_checkpoint(root: Path, *folders: Path) -> Path | None:
    """Find the checkpoint of most steps in folders and in the runs under ``trainer.default_root_dir``, of any logger.

    Those count that Lightning writes on SLURM's signal before a job's end, too. One that does not read, such as what an
    interrupted copy leaves, is passed over and named on stderr.
    """
    runs, jobs = root.glob("*/*/checkpoints/*.ckpt"), root.glob("hpc_ckpt_*.ckpt")
    found = {*runs, *jobs, *(file for folder in folders for file in folder.glob("*.ckpt"))}
    steps: dict[Path, tuple[int, bool, float]] = {}
    for path in sorted(found):
        try:
            steps[path] = (int(read_run(path)["global_step"]), path.name == "last.ckpt", path.stat().st_mtime)
        except (CheckpointError, KeyError) as error:
            sys.stderr.write(f"Passed over {path}, which does not read: {error}\n")
    return max(steps, key=steps.__getitem__, default=None)


def log_where_it_did(trainer: Trainer, checkpoint: Path) -> None:
    """Let TensorBoard's and CSV logs go on in the folders of the checkpoint's run, from its step on.

    What was logged after the checkpoint's step is logged again, and so dropped.
    """
    content = read_run(checkpoint)
    names, step = content.get(_FOLDERS, []), int(content["global_step"])
    for logger, name in zip(_loggers(trainer), names, strict=False):
        folder = Path(logger.root_dir) / name
        if not folder.is_dir():
            continue
        logger._version = name
        if isinstance(logger, TensorBoardLogger):
            logger._kwargs["purge_step"] = step
        elif trainer.is_global_zero:
            file = folder / "metrics.csv"
            with file.open(newline="") if file.is_file() else StringIO() as text:
                known = csv.DictReader(text)
                header, rows = list(known.fieldnames or ()), [row for row in known if int(row["step"]) < step]
            writer = logger.experiment  # deletes the file
            if rows:
                with file.open("w", newline="") as text:
                    kept = csv.DictWriter(text, header)
                    kept.writeheader()
                    kept.writerows(rows)
                writer.metrics_keys = header


def _loggers(trainer: Trainer) -> list[Any]:
    return [logger for logger in trainer.loggers if isinstance(logger, CSVLogger | TensorBoardLogger)]


def check_recipe(checkpoint: Path, recipe: str) -> None:
    """Check that a run goes on with what shapes it: seed, model, training data, precision, accumulation, clipping.

    Raises:
        RecipeError: they are others; the message names the first.
    """
    earlier = read_run(checkpoint).get(_KEY)
    if earlier is None:
        return
    then, now = (dict(_leaves(OmegaConf.to_container(OmegaConf.create(text)))) for text in (earlier, recipe))
    changed = [key for key in then if key in now and then[key] != now[key]]
    changed = [key for key in changed if key.startswith(_SHAPING) and not key.startswith(_FREE)]
    if changed:
        shown = ", ".join(f"{key} ({then[key]}, now {now[key]})" for key in changed[:5])
        raise RecipeError(
            f"expected the recipe of {checkpoint}, to go on with its run; {len(changed)} keys are others: {shown}. Give "
            f"--ckpt_path {checkpoint} to go on all the same, or another trainer.default_root_dir to begin a run of its own."
        )


def _leaves(values: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(values, Mapping) and values:
        for name, value in values.items():
            yield from _leaves(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, values
