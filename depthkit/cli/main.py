"""Entry point of the ``depthkit`` command.

A user's mistake ends in one sentence on stderr and exit code 2; a traceback means a defect of depthkit.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from depthkit.errors import DepthKitError, RecipeError

TRAINING = ("fit", "validate", "test")
_SCORING = ("evaluate", "benchmark", "compare", "odometry", "roundtrip")
COMMANDS = ("shards", "predict", *_SCORING, "label", "export", "models", "recipes", "demo")
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
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(HELP)
        return
    try:
        if arguments[0] in TRAINING:
            from depthkit.cli.training.command import run

            run(arguments)
        else:
            _command(arguments)
    except DepthKitError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted. What was finished is kept; the same command continues.\n")
        sys.exit(130)


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
