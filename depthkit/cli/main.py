"""Entry point of the ``depthkit`` command.

A user's mistake ends in one sentence on stderr and exit code 2; a traceback means a defect of depthkit.
"""

import logging
import sys
from collections.abc import Sequence
from importlib import import_module
from traceback import walk_tb
from typing import Any

from depthkit.errors import DepthKitError, RecipeError

TRAINING = ("fit", "validate", "test")
_SCORING = ("evaluate", "benchmark", "calibrate", "compare", "odometry", "roundtrip")
COMMANDS = ("shards", "predict", *_SCORING, "label", "export", "models", "recipes", "demo")
_REMEDIES = {
    "ConnectionError": "Check the network, and run the same command again.",
    "OSError": "Give a path that may be read and written, on a disk with room.",
    "MisconfigurationException": "See the trainer's options: `depthkit fit --help`.",
    "OutOfMemoryError": "Take smaller batches (and trainer.accumulate_grad_batches), smaller images, or precision bf16-mixed.",
    "DistNetworkError": "If another job has the port, choose a free one in the environment: MASTER_PORT.",
}
"""What to do about errors of other packages that no code of depthkit can foresee, by the name of their class or its base."""
HELP = """usage: depthkit COMMAND ...

train and evaluate (a recipe's keys are constructor arguments; `depthkit fit --help`):
  fit | validate | test             --config RECIPE.yaml [--key value ...]

data:
  shards write | verify | info      datasets and raw RGB-D to shards, and checks of shards; `shards write --list` names them

use (MODEL: a checkpoint, a folder, or a name that `depthkit models` lists):
  predict                           MODEL SOURCE...: depth maps, pictures or point clouds of images and folders, on all devices
  label                             pseudo-labels for a pool of images, on all devices, by any teacher
  evaluate                          MODEL SHARDS...: score a network on shards under a published protocol
  benchmark                         MODEL... --table NAME --shards ROOT: a paper's whole table, ours beside the paper's
  calibrate                         MODEL SHARDS: one scale (and shift) from labels in metres, stored with the network
  compare                           REPORT_A REPORT_B: two reports image by image, with an interval
  odometry                          score the camera's motions that a pose network predicts, and write its path
  roundtrip                         what the VAE of a latent diffusion model alone makes of true depth
  export                            MODEL OUT: a network as a program (.pt2, .onnx), or its encoder as a file of timm
  models                            published networks by name, their licences and rules
  recipes                           [NAME] the recipes that `--config` takes by name, and a copy of one to edit
  demo                              render scenes, train, evaluate, draw: the quickstart recipe from end to end

`depthkit COMMAND --help` describes each.
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command; exits with code 2 and one sentence after a user's mistake."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_no_advertisement)
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(HELP)
        return
    try:
        if arguments[0] in TRAINING:
            from depthkit.cli.training.command import run

            run(arguments)
        else:
            _command(arguments)
    except Exception as error:
        text = _sentence_for_the_user(error)
        if text is None:
            raise
        sys.stderr.write(f"{type(error).__name__}: {text}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted. What was finished is kept; the same command continues.\n")
        sys.exit(130)


def _is_no_advertisement(record: logging.LogRecord) -> bool:
    return "💡 Tip" not in record.getMessage()


def _sentence_for_the_user(error: Exception) -> str | None:
    """Return what to tell of a mistake or of what a machine lacks; None for a defect, which keeps its traceback."""
    if isinstance(error, DepthKitError):
        return str(error)
    for kind in type(error).__mro__:
        if kind.__name__ in _REMEDIES:
            return f"{' '.join(str(error).split())} {_REMEDIES[kind.__name__]}"
    *_, last = (frame.f_globals["__name__"] for frame, _ in walk_tb(error.__traceback__))
    if isinstance(error, ValueError | ImportError) and last.startswith("lightning"):
        return " ".join(str(error).split())
    return None


def _command(arguments: list[str]) -> None:
    name, *rest = arguments
    if name not in COMMANDS:
        raise RecipeError(f"expected a command of {', '.join((*TRAINING, *COMMANDS))}; got {name!r}.")
    if arguments[:2] == ["shards", "write"]:
        from depthkit.cli.shards_write import command

        command(rest[1:])
        return
    from jsonargparse import auto_cli

    from depthkit.cli.arguments import gathered

    if name in ("models", "recipes") and rest and not rest[0].startswith("-"):
        rest = ["--name", *rest]
    folder = "depthkit.cli.scoring" if name in _SCORING else "depthkit.cli"
    module = import_module(f"{folder}.{name}")  # of one command only: `shards info` waits for no trainer
    if name == "shards":
        component: Any = {verb: getattr(module, verb) for verb in ("info", "verify")}
    else:
        component, rest = getattr(module, name), gathered(getattr(module, name), rest)
    auto_cli({name: component}, args=[name, *rest], prog="depthkit", as_positional=True)


if __name__ == "__main__":
    main()
