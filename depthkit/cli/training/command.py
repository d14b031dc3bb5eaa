"""``depthkit fit | validate | test``: LightningCLI whose recipes are OmegaConf files."""

import re
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.nn.parameter import is_lazy

from depthkit.callbacks import RunReport, SaveOnTermination
from depthkit.cli.arguments import parser_sentence, usage_error
from depthkit.cli.recipes import find_recipe
from depthkit.cli.training.help import main_options
from depthkit.cli.training.resuming import RecipeInCheckpoint, check_recipe, last_checkpoint, log_where_it_did, recipe_text
from depthkit.data import DepthDataModule
from depthkit.data.stream.loader import Loader
from depthkit.errors import CheckpointError, RecipeError, ShardError
from depthkit.evaluation import table_of
from depthkit.evaluation.scores import COUNTS
from depthkit.models.weights.facts import read_run
from depthkit.paradigms import DepthModule

yaml.SafeDumper.add_multi_representer(Enum, lambda dumper, member: dumper.represent_data(member.value))
"""Callbacks of Lightning have members of enums as defaults, which the parser writes as YAML."""
_EXPECTED = (
    "LightningCLI's args parameter",  # the command line is ours to pass on
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning's own affair
    r"The number of training batches \(\d+\) is smaller than the logging interval",  # steps count across epochs
    "Total length of `.*` across ranks is zero",  # no validation sets
    r"Found \d+ module\(s\) in eval mode at the start of training",  # frozen on purpose
    "The dirpath has changed from",  # a run from a path has a folder of its own
    "Experiment logs directory .* exists and is not empty",  # what is in it is kept
    "Checkpoint directory .* exists and is not empty",  # it goes on there
)
"""Beginnings of warnings about what is meant to be so."""
_LEAST = {"accumulate_grad_batches": 1, "check_val_every_n_epoch": 1, "log_every_n_steps": 0}
"""Of the trainer's numbers that it divides by."""
_KEYWORDS = ("best", "hpc", "registry")  # checkpoints that the trainer finds itself


class DepthCLI(LightningCLI):
    """LightningCLI bound to depthkit's base classes; a key that no constructor takes is an error, not a warning."""

    _goes_on_from: Path | None = None
    """Checkpoint of the run that this one is."""

    def __init__(self, arguments: Sequence[str], callbacks: Sequence[Callback] = ()) -> None:
        super().__init__(
            DepthModule,
            DepthDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=RecipeInCheckpoint,
            save_config_kwargs={"overwrite": True},
            parser_kwargs={"parser_mode": "omegaconf", "exit_on_error": False},
            seed_everything_default=0,
            trainer_defaults={"callbacks": list(callbacks), "log_every_n_steps": 10, "enable_model_summary": False},
            args=list(arguments),
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Name Lightning's commands but ``predict``, which is one of its own here, for any network."""
        return {name: skipped for name, skipped in LightningCLI.subcommands().items() if name != "predict"}

    def before_instantiate_classes(self) -> None:
        """Check numbers that the trainer does not, and find the checkpoint, before anything is built.

        Raises:
            RecipeError: a number is too small.
            CheckpointError: it does not exist; the message names the path.
        """
        config = self.config[self.subcommand]
        for key, least in _LEAST.items():
            if (value := config.trainer.get(key)) is not None and value < least:
                raise RecipeError(f"expected trainer.{key} of at least {least}; got {value}.")
        checkpoint = config.get("ckpt_path")
        if checkpoint in ("last", "auto"):
            root = Path(config.trainer.default_root_dir or ".")
            newest = last_checkpoint(root, *_folders(config.trainer))
            if newest is None and checkpoint == "last":
                raise CheckpointError(
                    f"expected a checkpoint of a run under {root}; there is none. Give the checkpoint's path, or "
                    "trainer.default_root_dir as in the run to go on with; `auto` instead of `last` begins where there is none."
                )
            if newest is not None and self.subcommand == "fit":
                check_recipe(newest, recipe_text(self._parser(self.subcommand), config))
                self._goes_on_from = newest
            config["ckpt_path"] = checkpoint = None if newest is None else str(newest)
        if checkpoint not in (None, *_KEYWORDS) and "://" not in checkpoint and not Path(checkpoint).is_file():
            raise CheckpointError(
                f"expected a checkpoint at {checkpoint or '(an empty path)'}; there is none. "
                "Give a file, `last` for the newest of trainer.default_root_dir, or `auto` for that if there is one."
            )

    def instantiate_classes(self) -> None:
        """Build the objects as Lightning does; turn errors of constructors into one sentence.

        Raises:
            RecipeError: a constructor refused its arguments; has its message.
        """
        try:
            super().instantiate_classes()
        except (ArgumentError, ValueError) as error:
            raise RecipeError(parser_sentence(str(error))) from error
        if self._goes_on_from is not None:
            log_where_it_did(self.trainer, self._goes_on_from)

    def validate(self, **options: Any) -> None:
        """Score the validation sets; print a line per set, and fail if a sample could not be read."""
        self._score("val", self.trainer.validate, options)

    def test(self, **options: Any) -> None:
        """Score the test sets; print a line per set, and fail if a sample could not be read."""
        self._score("test", self.trainer.test, options)

    def after_fit(self) -> None:
        """Say what was read, what was not and why, and where the run's report and its newest network are."""
        if self.trainer.is_global_zero and isinstance(loader := self.trainer.train_dataloader, Loader):
            sys.stdout.write(f"\ntraining: {loader.said()}\n")
        for callback in getattr(self.trainer, "callbacks", ()):
            if isinstance(callback, RunReport) and callback.page is not None:
                sys.stdout.write(f"\nreport of the run: {callback.page}\n")
        for callback in getattr(self.trainer, "checkpoint_callbacks", ()) if self.trainer.is_global_zero else ():
            if newest := getattr(callback, "last_model_path", "") or getattr(callback, "best_model_path", ""):
                sys.stdout.write(f"MODEL for the other commands: {_short(newest)}\n")

    def _score(self, part: str, run: Callable[..., Any], options: dict[str, Any]) -> None:
        run(**options | {"verbose": False})  # the trainer's own table has a column per set and cuts off names
        if self.trainer.is_global_zero:
            sys.stdout.write(f"{part} sets, protocols: {self.model.protocols}\n\n{_table(self.trainer, part)}")
        for loader in getattr(self.trainer, f"{part}_dataloaders") or ():
            if isinstance(loader, Loader) and loader.broken:
                name = loader.stream.datasets[0].name
                raise ShardError(f"expected all samples of {name}; {loader.said()} So the numbers are not those of the set.")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse as Lightning does; turn mistakes in a recipe into one sentence, and check the checkpoint.

        Raises:
            RecipeError: a key or a value is wrong; the message names it, and the help that lists what it takes.
            CheckpointError: the checkpoint is not one of a run.
        """
        try:
            super().parse_arguments(parser, args)
        except (ArgumentError, UnicodeDecodeError) as error:
            raise usage_error(error, "fit") from error
        checkpoint = self.config[self.config.subcommand].get("ckpt_path")
        if checkpoint and Path(checkpoint).is_file():
            content = read_run(checkpoint)
            if self.config.subcommand == "fit" and "optimizer_states" not in content:
                raise CheckpointError(
                    f"expected a checkpoint of a run to go on with; {checkpoint} holds a network alone. "
                    "Start a new run from its weights: --model.weights instead of --ckpt_path."
                )


class _Printed(Callback):
    """Print what is trained, and the scores of each validation during training."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            sizes = [(x.numel(), x.requires_grad) for x in pl_module.parameters() if not is_lazy(x)]
            total, trained = sum(size for size, _ in sizes), sum(size for size, learns in sizes if learns)
            sys.stdout.write(f"{type(pl_module).__name__}: {total:,} parameters, {trained:,} of them trained\n")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking and trainer.is_global_zero:
            sys.stdout.write(f"\nstep {trainer.global_step}\n{_table(trainer, 'val')}")


def _table(trainer: Any, part: str) -> str:
    """Write the scores that were logged, a line per set, and what else a subclass logs of it."""
    rows: dict[str, dict[str, float]] = {name: {} for name in getattr(trainer.datamodule, f"{part}_names", ())}
    others: list[str] = []
    for name, value in trainer.callback_metrics.items():
        dataset, _, metric = name.removeprefix(f"{part}/").rpartition("/")
        if dataset in rows:
            rows[dataset][metric] = int(value) if metric in COUNTS else float(value)
        elif name.startswith(f"{part}/") or trainer.state.fn != "fit":
            others.append(f"{name}: {float(value):.4f}\n")
    for count in COUNTS:
        if not any(figures.get(count) for figures in rows.values()):  # nothing left out is not worth a column
            rows = {name: {metric: x for metric, x in figures.items() if metric != count} for name, figures in rows.items()}
    return f"{table_of(rows)}\n{''.join(others)}"


def _short(path: str) -> str:
    """Write a path from here, if it lies here."""
    return str(Path(path).relative_to(Path.cwd())) if Path(path).is_relative_to(Path.cwd()) else path


def _folders(trainer: Any) -> list[Path]:
    """List the folders to which the recipe's callbacks write checkpoints."""
    callbacks = trainer.callbacks if isinstance(trainer.callbacks, list) else [trainer.callbacks]
    options = [callback.get("init_args") or {} for callback in callbacks if callback]
    return [Path(found["dirpath"]) for found in options if found.get("dirpath")]


def as_meant(arguments: Sequence[str]) -> list[str]:
    """Put the files of recipes in place of their names, and empty a list before another takes its place.

    The parser would fill what an element leaves out from the recipe's element at the same position: a dataset of one's own
    would keep another's transform.
    """
    words = [word for argument in arguments for word in (argument.split("=", 1) if argument.startswith("--") else [argument])]
    found: list[str] = []
    for option, word in pairwise(["", *words]):
        if option in ("--config", "-c"):
            word = str(find_recipe(word))
        elif option.startswith("--") and not option.endswith("+") and re.match(r"\[\s*\{", word):
            found[-1:] = [option, "[]", option]
        found.append(word)
    return found


def run(arguments: Sequence[str], callbacks: Sequence[Callback] = ()) -> DepthCLI:
    """Run one of the three commands with its arguments, ``["fit", "--config", ...]``, and callbacks beside the recipe's."""
    for message in _EXPECTED:
        warnings.filterwarnings("ignore", message=message)
    stop = SaveOnTermination()
    try:
        return DepthCLI(as_meant(arguments), [stop, _Printed(), RunReport(), *callbacks])
    except (SIGTERMException, SystemExit) as error:  # Lightning's own exit codes, 0 and 1, would tell a scheduler otherwise
        if stop.received is None and not isinstance(error, SIGTERMException):
            if {"--help", "-h"} & set(arguments):
                sys.stdout.write(main_options())
            raise
        signum = stop.received or signal.SIGTERM
        sys.stderr.write(f"Stopped by {signum.name}; the same command with --ckpt_path auto goes on.\n")
        sys.exit(128 + signum)
