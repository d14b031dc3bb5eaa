"""Entry point of the ``depthkit`` command.

A user's mistake ends in one sentence on stderr and exit code 2; a traceback means a defect of depthkit.
"""

import logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Sequence
from importlib import import_module
from traceback import walk_tb
from typing import Any

from depthkit.errors import DepthKitError, RecipeError

TRAINING = ("fit", "validate", "test")
_SCORING = ("evaluate", "benchmark", "calibrate", "compare", "odometry", "roundtrip")
COMMANDS = ("shards", "finetune", "predict", *_SCORING, "label", "export", "distil", "app", "models", "recipes", "demo")
_REMEDIES = {
    "ConnectionError": "Check the network, and run the same command again.",
    "OSError": "Give a path that may be read and written, on a disk with room.",
    "MisconfigurationException": "See the trainer's options: `depthkit fit --help`.",
    "OutOfMemoryError": "Take smaller batches (and trainer.accumulate_grad_batches), smaller images, or precision bf16-mixed.",
    "DistNetworkError": "If another job has the port, choose a free one in the environment: MASTER_PORT.",
}
"""What to do about errors of other packages that no code of depthkit can foresee, by the name of their class or its base."""
_PEER = re.compile(r"\bgloo\b|\bNCCL\b|closed by peer|reset by peer", re.IGNORECASE)
"""What torch says of a process that it can no longer reach."""
HELP = """usage: depthkit COMMAND ...

train and evaluate (a recipe's keys are constructor arguments; `depthkit fit --help`):
  fit | validate | test             --config RECIPE.yaml [--key value ...]
  finetune                          MODEL DATA: train a network on your own depth, and keep the better of the two

data:
  shards write | verify | info      datasets and raw RGB-D to shards, and checks of shards; `shards write --list` names them

use (MODEL: a checkpoint, a folder, or a name that `depthkit models` lists):
  predict                           MODEL SOURCE...: depth maps, pictures, films or point clouds of images and films
  label                             pseudo-labels for a pool of images, on all devices, by any teacher
  evaluate                          MODEL SHARDS...: score a network on shards under a published protocol
  benchmark                         MODEL... --table NAME --shards ROOT: a paper's whole table, ours beside the paper's
  calibrate                         MODEL SHARDS: one scale (and shift) from labels in metres, stored with the network
  compare                           REPORT_A REPORT_B: two reports image by image, with an interval
  odometry                          score the camera's motions that a pose network predicts, and write its path
  roundtrip                         what the VAE of a latent diffusion model alone makes of true depth
  app                               MODEL [MODEL2]: a page in the browser: drop an image, point at depth, turn its points
  export                            MODEL OUT: a network as a program (.pt2, .onnx), or its encoder as a file of timm
  distil                            TEACHER POOL: a small student trained on a teacher's labels, exported and compared
  models                            published networks by name, their licences and rules
  recipes                           [NAME] the recipes that `--config` takes by name, and a copy of one to edit
  demo                              render scenes, train, evaluate, draw: the quickstart recipe from end to end

`depthkit COMMAND --help` describes each.
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command; exits with code 2 and one sentence after a user's mistake."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if os.environ.get("LOCAL_RANK", "0") != "0":  # started by the first process of a run
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    if argv is None:
        sys.path.append(os.getcwd())  # a module beside the data, as `python -m` would find it
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_says_something)
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(HELP)
        return
    try:
        arguments = _with_environment(arguments)
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
    except KeyboardInterrupt as stop:  # with a number: of another signal than Ctrl-C's
        sys.stderr.write("Interrupted. What was finished is kept; the same command continues.\n")
        sys.exit(128 + (stop.args[0] if stop.args else signal.SIGINT))


def command_module(name: str) -> str:
    """Return the module whose function of that name is the command."""
    folders = {"finetune": "finetuning.", "distil": "training."}
    room = "scoring." if name in _SCORING else folders.get(name, "")
    return f"depthkit.cli.{room}{name}"


def _with_environment(arguments: list[str]) -> list[str]:
    if not any(name.startswith("DEPTHKIT_") and "__" in name for name in os.environ):
        return arguments  # and so imports nothing
    from depthkit.cli.arguments import with_environment

    known = with_environment(arguments, os.environ)
    if added := [word for word in known if word not in arguments]:
        sys.stderr.write(f"From the environment: {' '.join(added)}\n")
    return known


def _says_something(record: logging.LogRecord) -> bool:
    """Leave out advertisements, and lines of every run that say nothing of this one."""
    return not record.getMessage().startswith(("💡 Tip", "TPU available", "Loading `train_dataloader`"))


def _sentence_for_the_user(error: Exception) -> str | None:
    """Return what to tell of a mistake or of what a machine lacks; None for a defect, which keeps its traceback."""
    if isinstance(error, DepthKitError):
        return str(error)
    for kind in type(error).__mro__:
        if kind.__name__ in _REMEDIES:
            return f"{' '.join(str(error).split())} {_REMEDIES[kind.__name__]}"
    if isinstance(error, RuntimeError) and _PEER.search(str(error)):
        why = " ".join(str(error).split())
        return f"Another process of the run has ended or cannot be reached ({why}). `fit --ckpt_path auto` goes on."
    *_, last = (frame.f_globals["__name__"] for frame, _ in walk_tb(error.__traceback__))
    theirs = isinstance(error, ValueError | ImportError) and last.startswith(("lightning", "fsspec"))
    if theirs or (isinstance(error, TypeError) and last.startswith("lightning.fabric.accelerators")):
        return " ".join(str(error).split())
    return None


def _end_with(parent: int) -> None:
    """End this process, one of several of a run, when the one that started it has ended: it would go on alone, or wait."""
    while os.getppid() == parent:
        time.sleep(1)
    sys.stderr.write("Stopped, as the first process of the run has ended.\n")
    os._exit(128 + signal.SIGTERM)


def _command(arguments: list[str]) -> None:
    name, *rest = arguments
    if name not in COMMANDS:
        raise RecipeError(f"expected a command of {', '.join((*TRAINING, *COMMANDS))}; got {name!r}.")
    if arguments[:2] == ["shards", "write"]:
        from depthkit.cli.shards_write import command

        command(rest[1:])
        return
    from jsonargparse import ArgumentError, auto_cli

    from depthkit.cli.arguments import gathered, usage_error

    if name in ("models", "recipes") and rest and not rest[0].startswith("-"):
        rest = ["--name", *rest]
    module = import_module(command_module(name))  # of one command only: `shards info` waits for no trainer
    if name == "shards":
        component: Any = {verb: getattr(module, verb) for verb in ("info", "verify")}
        if rest and rest[0] in component:
            rest = [rest[0], *gathered(component[rest[0]], rest[1:])]
    else:
        component, rest = getattr(module, name), gathered(getattr(module, name), rest)
    try:
        auto_cli({name: component}, args=[name, *rest], prog="depthkit", as_positional=True, exit_on_error=False)
    except ArgumentError as error:
        raise usage_error(error, name) from error


if __name__ == "__main__":
    main()
