"""What a run leaves to look at: its curves as a picture, and a page with its last scores and pictures."""

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer

from depthkit.data.stream.loader import Loader
from depthkit.errors import DepthKitError
from depthkit.evaluation.page import run_page


class RunReport(Callback):
    """Write ``report.html`` and ``curves.png`` into the run's folder when training ends, also when it fails.

    They show what was logged: the losses as often as the trainer logs, the scores of every validation. A run that goes on
    from a checkpoint has the curves from its beginning.

    Attributes:
        pictures: step, picture and what its columns are, by name; the last of each.
        page: the page, once it is written.
    """

    def __init__(self) -> None:
        self.curves: dict[str, list[tuple[int, float]]] = {}
        self.pictures: dict[str, tuple[int, np.ndarray, str]] = {}
        self.page: Path | None = None
        self._folder: Path | None = None

    def state_dict(self) -> dict[str, Any]:
        """Keep the curves in checkpoints."""
        return {"curves": self.curves}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the curves of a checkpoint."""
        self.curves = {name: [tuple(point) for point in curve] for name, curve in state_dict["curves"].items()}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the run's folder, which all ranks agree on."""
        self._folder = Path(trainer.log_dir or trainer.default_root_dir)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the losses where the trainer logs."""
        every = getattr(trainer, "log_every_n_steps", 0)
        if trainer.is_global_zero and every and trainer.global_step % every == 0:
            self._note(trainer, validation=False)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the scores."""
        if trainer.is_global_zero and trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._note(trainer, validation=True)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the files."""
        self._write(trainer, pl_module, "finished")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write what there is."""
        self._write(trainer, pl_module, f"stopped by {type(exception).__name__}")

    def _note(self, trainer: Trainer, *, validation: bool) -> None:
        step = trainer.global_step
        for name, value in trainer.callback_metrics.items():
            if name.startswith("val/") == validation:
                curve = self.curves.setdefault(name, [])
                if not curve or curve[-1][0] < step:
                    curve.append((step, float(value)))

    def _write(self, trainer: Trainer, module: LightningModule, how: str) -> None:
        if not trainer.is_global_zero or self._folder is None or getattr(trainer, "fast_dev_run", False):
            return
        facts = {"paradigm": type(module).__name__, "run": how, "folder": str(self._folder)}
        if isinstance(loader := trainer.train_dataloader, Loader):
            facts["data"] = loader.said()
        curves = {name: curve for name, curve in self.curves.items() if any(math.isfinite(value) for _, value in curve)}
        try:
            title = f"Run {self._folder.name}"
            self.page = run_page(self._folder, title, curves, pictures=self.pictures, facts=facts)
        except DepthKitError as error:  # training is done, and worth more than its report
            warnings.warn(str(error), stacklevel=2)
