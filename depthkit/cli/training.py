"""``depthkit fit | validate | test | predict``: LightningCLI whose recipes are OmegaConf files."""

from collections.abc import Sequence

from lightning.pytorch.cli import LightningCLI

from depthkit.data import DepthDataModule
from depthkit.paradigms import DepthModule


class DepthCLI(LightningCLI):
    """LightningCLI bound to depthkit's base classes; an unknown key in a recipe is an error, not a warning."""

    def __init__(self, arguments: Sequence[str]) -> None:
        super().__init__(
            DepthModule,
            DepthDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_kwargs={"overwrite": True},
            parser_kwargs={"parser_mode": "omegaconf"},
            seed_everything_default=0,
            args=list(arguments),
        )


def run(arguments: Sequence[str]) -> DepthCLI:
    """Run one of the four commands with its arguments, ``["fit", "--config", ...]``."""
    return DepthCLI(arguments)
