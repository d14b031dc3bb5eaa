"""What a command's words mean, without running it."""

from functools import cache
from importlib import import_module
from typing import Any

from jsonargparse import auto_cli, capture_parser

from depthkit.cli.arguments import gathered
from depthkit.cli.main import COMMANDS, command_module
from depthkit.cli.shards_write import parsed
from depthkit.cli.training.command import DepthCLI, as_meant
from tests.contracts.recipes import ROOT


class Parser(DepthCLI):
    """The command line of trainings that builds and runs nothing."""

    def before_instantiate_classes(self) -> None:
        """Look for no checkpoint."""

    def instantiate_classes(self) -> None:
        """Build nothing."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Run nothing."""


@cache
def fit_parser() -> Any:
    return Parser(["fit", f"--config={ROOT / 'recipes/quickstart.yaml'}"]).parser


@cache
def parser_of(command: str) -> tuple[Any, Any]:
    function = getattr(import_module(command_module(command)), command)
    return function, capture_parser(lambda: auto_cli({command: function}, args=[], as_positional=True))


@cache  # recipes share much of their data
def understood(*words: str) -> Any:
    """What a command's words mean; a ``SystemExit`` or an error if they mean nothing."""
    if words[:2] == ("shards", "write"):
        return parsed(words[2:])
    if words[0] == "fit":
        return fit_parser().parse_args(as_meant(words)).fit
    assert words[0] in COMMANDS
    function, parser = parser_of(words[0])
    return parser.parse_args([words[0], *gathered(function, words[1:])])[words[0]]
