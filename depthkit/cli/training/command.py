"""``depthkit fit | validate | test``: LightningCLI whose recipes are OmegaConf files."""

import re
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import SIGTERMException

from depthkit.callbacks import SaveOnTermination
from depthkit.cli.recipes import find_recipe
from depthkit.cli.training.resuming import RecipeInCheckpoint, check_recipe, last_checkpoint, recipe_text
from depthkit.data import DepthDataModule
from depthkit.errors import CheckpointError, RecipeError
from depthkit.evaluation import table_of
from depthkit.models.weights.facts import read_run
from depthkit.paradigms import DepthModule

_EXPECTED = (
    "LightningCLI's args parameter",  # the command line is ours to pass on
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning's own affair
    r"The number of training batches \(\d+\) is smaller than the logging interval",  # steps count across epochs
    "Total length of `.*` across ranks is zero",  # no validation sets
    r"Found \d+ module\(s\) in eval mode at the start of training",  # frozen on purpose
    "The dirpath has changed from",  # a resumed run has a folder of its own
    "Checkpoint directory .* exists and is not empty",  # it goes on there
)
"""Beginnings of warnings about what is meant to be so."""
_KEYWORDS = ("best", "hpc", "registry")  # checkpoints that the trainer finds itself
_NOISE = re.compile(r"does not validate against|^subtypes:|^errors:|^given value|^expected a <class 'nonetype'>", re.IGNORECASE)


class DepthCLI(LightningCLI):
    """LightningCLI bound to depthkit's base classes; a key that no constructor takes is an error, not a warning."""

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
            trainer_defaults={"callbacks": list(callbacks), "log_every_n_steps": 10},
            args=list(arguments),
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Name Lightning's commands but ``predict``, which is one of its own here, for any network."""
        return {name: skipped for name, skipped in LightningCLI.subcommands().items() if name != "predict"}

    def before_instantiate_classes(self) -> None:
        """Find the checkpoint before anything is built.

        Raises:
            CheckpointError: it does not exist; the message names the path.
        """
        config = self.config[self.subcommand]
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
            raise RecipeError(sentence(str(error))) from error

    def validate(self, **options: Any) -> None:
        """Score the validation sets; print a line per set."""
        self._score("val", self.trainer.validate, options)

    def test(self, **options: Any) -> None:
        """Score the test sets; print a line per set."""
        self._score("test", self.trainer.test, options)

    def _score(self, part: str, run: Callable[..., Any], options: dict[str, Any]) -> None:
        run(**options | {"verbose": False})  # the trainer's own table has a column per set and cuts off names
        if self.trainer.is_global_zero:
            sys.stdout.write(f"{part} sets, protocols: {self.model.protocols}\n\n{_table(self.trainer, part)}")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse as Lightning does; turn mistakes in a recipe into one sentence, and check the checkpoint.

        Raises:
            RecipeError: a key or a value is wrong; the message names it, and the help that lists what it takes.
            CheckpointError: the checkpoint is not one of a run.
        """
        try:
            super().parse_arguments(parser, args)
        except (ArgumentError, UnicodeDecodeError) as error:
            raise RecipeError(f"{sentence(str(error))} See `depthkit fit --help`.") from error
        checkpoint = self.config[self.config.subcommand].get("ckpt_path")
        if checkpoint and Path(checkpoint).is_file():
            content = read_run(checkpoint)
            if self.config.subcommand == "fit" and "optimizer_states" not in content:
                raise CheckpointError(
                    f"expected a checkpoint of a run to go on with; {checkpoint} holds a network alone. "
                    "Start a new run from its weights: --model.weights instead of --ckpt_path."
                )


class _ScoresAtValidation(Callback):
    """Print the scores of each validation during training."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking and trainer.is_global_zero:
            sys.stdout.write(f"\nstep {trainer.global_step}\n{_table(trainer, 'val')}")


def _table(trainer: Any, part: str) -> str:
    """Write the scores that were logged, a line per set, and what else a subclass logs of it."""
    rows: dict[str, dict[str, float]] = {name: {} for name in getattr(trainer.datamodule, f"{part}_names", ())}
    others = []
    for name, value in trainer.callback_metrics.items():
        dataset, _, metric = name.removeprefix(f"{part}/").rpartition("/")
        if dataset in rows:
            rows[dataset][metric] = float(value)
        elif name.startswith(f"{part}/") or trainer.state.fn != "fit":
            others.append(f"{name}: {float(value):.4f}\n")
    return f"{table_of(rows)}\n{''.join(others)}"


def _folders(trainer: Any) -> list[Path]:
    """List the folders to which the recipe's callbacks write checkpoints."""
    callbacks = trainer.callbacks if isinstance(trainer.callbacks, list) else [trainer.callbacks]
    options = [callback.get("init_args") or {} for callback in callbacks if callback]
    return [Path(found["dirpath"]) for found in options if found.get("dirpath")]


def sentence(message: str) -> str:
    """Shorten a parser's nested message to one line: the keys down to the wrong one, and the reason."""
    lines = (line.strip(" -\t") for line in message.splitlines())
    kept = [line.rstrip(":") for line in lines if line and not _NOISE.search(line)]
    text = ": ".join(re.sub(r'^Parser key "(.+)"$', r"\1", line) for line in kept)
    return text if text.endswith(".") else f"{text}."


def _with_files(arguments: Sequence[str]) -> list[str]:
    """Put the files of recipes in place of their names after ``--config``."""
    found, is_recipe = [], False
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if option in ("--config", "-c") and equals:
            argument = f"{option}={find_recipe(value)}"
        elif is_recipe:
            argument = str(find_recipe(argument))
        is_recipe = argument in ("--config", "-c")
        found.append(argument)
    return found


def run(arguments: Sequence[str], callbacks: Sequence[Callback] = ()) -> DepthCLI:
    """Run one of the three commands with its arguments, ``["fit", "--config", ...]``, and callbacks beside the recipe's."""
    for message in _EXPECTED:
        warnings.filterwarnings("ignore", message=message)
    stop = SaveOnTermination()
    try:
        return DepthCLI(_with_files(arguments), [stop, _ScoresAtValidation(), *callbacks])
    except (SIGTERMException, SystemExit) as error:  # Lightning's own exit codes, 0 and 1, would tell a scheduler otherwise
        if stop.received is None and not isinstance(error, SIGTERMException):
            raise
        signum = stop.received or signal.SIGTERM
        sys.stderr.write(f"Stopped by {signum.name}; the same command with --ckpt_path auto goes on.\n")
        sys.exit(128 + signum)
