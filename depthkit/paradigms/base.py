"""What every paradigm shares: the training step over ``losses``, prediction, optimizer groups, checkpoint facts."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from copy import deepcopy
from pathlib import Path
from typing import Any, Self

import torch
from lightning.pytorch import Callback
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer

from depthkit.checks import first_line
from depthkit.errors import CheckpointError, LabelError, RecipeError
from depthkit.evaluation import find_protocol
from depthkit.models import DepthNet
from depthkit.models.weights.checkpoint import fresh_networks
from depthkit.models.weights.facts import read_run, write_facts
from depthkit.models.weights.files import misfit, named_as
from depthkit.paradigms.guards import BrokenSamples, FiniteWeights, LookaheadWeights
from depthkit.paradigms.optim.schedules import Schedule
from depthkit.paradigms.scoring import ScoresProtocols
from depthkit.paradigms.terms.combination import Combination, SumOfTerms
from depthkit.paradigms.terms.rng import step_rng
from depthkit.paradigms.terms.term import Term
from depthkit.resize import input_rule_of, native_map
from depthkit.types import Batch, LabelKind

OptimizerFactory = Callable[[Iterable[Any]], Optimizer]
"""Builds an optimizer from parameter groups; in a recipe, ``{class_path: torch.optim.Adam, init_args: {lr: 1.0e-4}}``."""


def adam(parameters: Iterable[Any]) -> Optimizer:
    """Adam with learning rate 1e-4, the optimizer of MiDaS."""
    return torch.optim.Adam(parameters, lr=1e-4)


class DepthModule(ScoresProtocols, ABC):
    """Base of the paradigms. Subclasses add ``losses``, ``accepts`` and ``ambiguity``.

    Args:
        model: network to train; predicts in ``model.representation``.
        optimizer: builds the optimizer from parameter groups.
        encoder_lr: learning rate of ``model.encoder``; None uses the optimizer's, 0 leaves the encoder's weights as they are.
        schedule: learning-rate schedule over the whole run, stepped every optimizer step.
        protocols: evaluation protocol of all validation and test sets, or of each by its name; see ``find_protocol``.
        weights: checkpoint of an earlier run whose networks training starts from; they must be the same. To go on with an
            interrupted run, give the trainer its checkpoint instead.
        channels_last: keep the network's weights in the channels-last layout, faster on most hardware for convolutions.
        combine: how the terms of a batch become one step; default their weighted sum.

    Raises:
        RecipeError: an unknown protocol, or a negative ``encoder_lr``.
    """

    def __init__(
        self,
        model: DepthNet,
        *,
        optimizer: OptimizerFactory = adam,
        encoder_lr: float | None = None,
        schedule: Schedule | None = None,
        protocols: str | Mapping[str, str] = "synthetic_affine",
        weights: str | Path | None = None,
        channels_last: bool = False,
        combine: Combination | None = None,
    ) -> None:
        super().__init__()
        if encoder_lr is not None and encoder_lr < 0:
            raise RecipeError(f"expected encoder_lr of 0 or more; got {encoder_lr}.")
        self.model = model.to(memory_format=torch.channels_last) if channels_last else model
        self.optimizer = optimizer
        self.encoder_lr = encoder_lr
        self.schedule = schedule or Schedule()
        self.protocols = protocols
        self.weights, self._loaded = weights, False
        self._drawn = 0  # batches drawn when the step began
        self.combine = combine or SumOfTerms()
        self.scores = nn.ModuleDict()
        self.input_size: tuple[int, int] | None = None
        """(height, width) [px] at which the network sees images while it is trained; None if the data does not say."""
        self.dataset_names: tuple[str, ...] = ("data",)
        """Names of the training sets, in the order of ``Batch.dataset``; the datamodule's once training starts."""
        names = [protocols] if isinstance(protocols, str) else protocols.values()
        for name in names:
            find_protocol(name)

    @property
    @abstractmethod
    def accepts(self) -> frozenset[LabelKind]:
        """Label kinds that the paradigm can learn from; others raise a ``LabelError`` when training starts."""

    @abstractmethod
    def losses(self, batch: Batch) -> Mapping[str, Term]:
        """Compute the terms of the objective, by name. Needs no trainer; override it to change a method."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Combine the terms of a batch over all ranks, and log them."""
        self._drawn = self.trainer.fit_loop.epoch_loop.total_batch_idx
        step = self.combine(self, batch)
        self.log("train/loss", step.total.detach(), prog_bar=True, sync_dist=True, batch_size=len(batch))
        for name, value in step.logged.items():
            self.log(name, value, sync_dist=True, batch_size=len(batch))
        return step.total

    def step_rng(self) -> AbstractContextManager[None]:
        """Seed the random generators from the run's seed, the batch and the rank; see ``terms.rng.step_rng``."""
        return step_rng(int(os.environ.get("PL_GLOBAL_SEED", 0)), self._drawn, self.global_rank, self.device)

    def configure_callbacks(self) -> list[Callback]:
        """Watch for weights that are not finite, count broken samples, and keep Lookahead's weights in step."""
        return [FiniteWeights(), BrokenSamples(), LookaheadWeights()]

    def forward(self, image: Tensor) -> Tensor:
        """Predict: RGB in [0, 1], ``(B, 3, H, W)``, to a map in ``model.representation``, ``(B, 1, H, W)``."""
        prediction: Tensor = self.model(image)
        return prediction

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Deep-copy everything but ``optimizer``, which the command binds to the trainer and which cannot be copied."""
        memo[id(self.optimizer)] = self.optimizer
        memo[id(self)] = copied = type(self).__new__(type(self))
        copied.__setstate__(deepcopy(self.__getstate__(), memo))
        return copied

    def setup(self, stage: str) -> None:
        """Check that the labels fit the paradigm, and make one set of scores per evaluation set.

        Raises:
            LabelError: a dataset holds labels that the paradigm does not learn from, or a protocol does not align what the
                model leaves open.
        """
        data: Any = getattr(self.trainer, "datamodule", None)
        self.input_size = getattr(data, "size", None)
        self.combine.check(str(self.trainer.precision))
        if stage == "fit" and hasattr(data, "dataset_names"):
            self.dataset_names = tuple(data.dataset_names)
            for name, kinds in zip(self.dataset_names, data.label_kinds, strict=True):
                for kind in sorted(kinds - self.accepts):
                    accepted = ", ".join(sorted(map(str, self.accepts)))
                    raise LabelError(
                        f"dataset {name!r} holds {kind} labels; {type(self).__name__} as configured learns from {accepted}. "
                        "Leave the dataset out, convert its labels, or choose another paradigm or loss."
                    )
        self.set_up_scores(stage)

    def on_fit_start(self) -> None:
        """Start from ``weights``, unless a checkpoint has been loaded.

        Raises:
            CheckpointError: ``weights`` is no checkpoint, or one of other networks.
        """
        if self.weights is not None and not self._loaded:
            earlier = read_run(self.weights)
            self.check_run(earlier)
            self.load_state_dict(self.state_of(earlier))

    def on_train_start(self) -> None:
        """Go on with the next unseen batch of the checkpoint's epoch.

        ``configure_optimizers`` has asked for the number of steps, so the trainer made the loader before it read the
        checkpoint's position, and would begin the epoch anew.
        """
        self.trainer.fit_loop._load_combined_loader_states()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remember that training goes on from a checkpoint."""
        self.check_run(checkpoint)
        self._loaded = True

    def state_of(self, checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
        """The weights that training starts from: all of an earlier run's."""
        return dict(checkpoint["state_dict"])

    def check_run(self, checkpoint: Mapping[str, Any]) -> None:
        """Raise a ``CheckpointError`` if an earlier run cannot be built upon for another reason than its weights."""

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Predict at the size of the source, ``(B, 1, H, W)``, as ``DepthPredictor`` predicts with the run's checkpoint."""
        return native_map(self.model, batch.image, input_rule_of(self.model, self.input_size)).map

    def parameter_groups(self) -> list[dict[str, Any]]:
        """What the optimizer is given: the encoder's trainable weights, at ``encoder_lr``, and all others."""
        encoder = [p for p in self.model.encoder.parameters() if p.requires_grad]
        known = set(map(id, encoder))
        rest = [p for p in self.parameters() if p.requires_grad and id(p) not in known]
        rate = {} if self.encoder_lr is None else {"lr": self.encoder_lr}
        return [{"params": encoder, "name": "encoder", **rate}, {"params": rest, "name": "decoder"}]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer of ``parameter_groups``, and the schedule stepped by optimizer steps.

        Raises:
            RecipeError: the optimizer refuses its settings, or the parameters.
        """
        try:
            optimizer = self.optimizer([group for group in self.parameter_groups() if group["params"]])
        except ValueError as error:
            raise RecipeError(f"expected settings that the optimizer takes; it says: {error}. Mend model.optimizer.") from error
        scheduler = self.schedule(optimizer, self.trainer.estimated_stepping_batches)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store, as plain values, what a predictor needs to rebuild the network."""
        write_facts(checkpoint, self.model, self.ambiguity, self.input_size, getattr(self, "pose_net", None))

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As in torch.

        Raises:
            CheckpointError: names every key that is missing, too many or of another shape.
        """
        ours = self.state_dict()
        state_dict = named_as(state_dict, ours)
        try:
            return super().load_state_dict(state_dict, strict=strict, assign=assign)
        except RuntimeError as error:
            found = misfit(state_dict, ours, f"this {type(self).__name__}", "Use the recipe it was trained with.")
            raise found or CheckpointError(first_line(error)) from error

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As in Lightning; a model built by one of ``depthkit.models``' functions need not be passed again."""
        if "model" not in kwargs and isinstance(checkpoint_path, str | Path):
            kwargs = fresh_networks(checkpoint_path) | kwargs
        return super().load_from_checkpoint(checkpoint_path, *args, **kwargs)
