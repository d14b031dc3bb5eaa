"""The base of all paradigms: the training step over ``losses``, prediction, and the optimizer's parameter groups."""

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from copy import deepcopy
from pathlib import Path
from typing import Any, Self

import torch
from lightning.pytorch import Callback
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from depthkit.errors import RecipeError
from depthkit.models import DepthNet
from depthkit.paradigms.checkpoints import ResumePosition, StartsFromCheckpoints, WholeCheckpoints
from depthkit.paradigms.guards import BrokenSamples, FiniteWeights, KnownMonitors, LateChecks, LossOnBar
from depthkit.paradigms.optim.optimizers import LookaheadWeights, OptimizerFactory, adam, build_optimizer
from depthkit.paradigms.optim.schedules import Schedule
from depthkit.paradigms.scoring import ScoresProtocols, check_protocols
from depthkit.paradigms.sharding import SpreadsWeights
from depthkit.paradigms.terms.combination import Combination, SumOfTerms
from depthkit.paradigms.terms.labels import check_label_kinds
from depthkit.paradigms.terms.rng import step_rng
from depthkit.paradigms.terms.term import Term
from depthkit.paradigms.trainer import SearchedBefore, ServesTheTrainer, store_weights
from depthkit.types import Batch, LabelKind


class DepthModule(ScoresProtocols, StartsFromCheckpoints, SpreadsWeights, ServesTheTrainer, LateChecks, ABC):
    """Base of the paradigms. Subclasses add ``losses``, ``accepts`` and ``ambiguity``.

    Args:
        model: network to train; predicts in ``model.representation``.
        optimizer: builds the optimizer from parameter groups.
        encoder_lr: learning rate of ``model.encoder``; None uses the optimizer's, 0 leaves the encoder's weights as they are.
        schedule: learning-rate schedule over the whole run, stepped every optimizer step.
        protocols: evaluation protocol of all validation and test sets, or of each by its name; see ``find_protocol``.
        weights: MODEL whose networks training starts from, a checkpoint of an earlier run or a published name; they must be the
            same, see ``depthkit.models.from_pretrained``. To go on with an interrupted run, give the trainer its checkpoint
            instead.
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
        check_protocols(protocols)
        self.model = model.to(memory_format=torch.channels_last) if channels_last else model
        self.optimizer = optimizer
        self.encoder_lr = encoder_lr
        self.schedule = schedule or Schedule()
        self.protocols = protocols
        self.weights = weights
        self.combine = combine or SumOfTerms()
        self.scores = nn.ModuleDict()
        self.input_size: tuple[int, int] | None = None
        """(height, width) [px] at which the network sees images in training; None if the data does not say."""
        self.dataset_names: tuple[str, ...] = ("data",)
        """Names of the training sets, in the order of ``Batch.dataset``; the datamodule's once training starts, or yours."""
        self._drawn = 0  # batches drawn when the step began

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
        self.log("train/loss", step.total.detach(), sync_dist=True, batch_size=len(batch))
        for name, value in step.logged.items():
            self.log(name, value, sync_dist=True, batch_size=len(batch))
        return step.total

    def step_rng(self) -> AbstractContextManager[None]:
        """Seed the random generators from the run's seed, the batch and the rank; see ``terms.rng.step_rng``."""
        return step_rng(int(os.environ.get("PL_GLOBAL_SEED", 0)), self._drawn, self.global_rank, self.device)

    def setup(self, stage: str) -> None:
        """Check that the labels fit the paradigm, and make one set of scores per evaluation set.

        Raises:
            LabelError: a dataset holds labels that the paradigm does not learn from, or a protocol does not align what the
                model leaves undetermined.
        """
        data: Any = getattr(self.trainer, "datamodule", None)
        self.input_size = getattr(data, "size", None)
        self.combine.check(str(self.trainer.precision))
        if stage == "fit" and hasattr(data, "dataset_names"):
            self.dataset_names = tuple(data.dataset_names)
            kinds = dict(zip(self.dataset_names, data.label_kinds, strict=True))
            check_label_kinds(kinds, self.accepts, type(self).__name__)
        self.set_up_scores(stage)
        store_weights(self.trainer)

    def configure_callbacks(self) -> list[Callback]:
        """Return the callbacks of every run, for its weights, its samples and its checkpoints."""
        watching: list[Callback] = [FiniteWeights(), BrokenSamples(), KnownMonitors(), LossOnBar()]
        return [*watching, SearchedBefore(), ResumePosition(), WholeCheckpoints(), LookaheadWeights()]

    def forward(self, image: Tensor) -> Tensor:
        """Predict from RGB in [0, 1], ``(B, 3, H, W)``, a map in ``model.representation``, ``(B, 1, H, W)``."""
        prediction: Tensor = self.model(image)
        return prediction

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Split the trainable weights into the encoder's, at ``encoder_lr``, and all others."""
        encoder = [p for p in self.model.encoder.parameters() if p.requires_grad]
        known = set(map(id, encoder))
        rest = [p for p in self.parameters() if p.requires_grad and id(p) not in known]
        rate = {} if self.encoder_lr is None else {"lr": self.encoder_lr}
        return [{"params": encoder, "name": "encoder", **rate}, {"params": rest, "name": "decoder"}]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Load the weights to start from, with which a search for a rate begins, and build the optimizer and its schedule."""
        self.start_from_weights()
        optimizer, self._built_with = build_optimizer(self.optimizer, self.parameter_groups(), self.lr), self.searched
        scheduler = self.schedule(optimizer, self.trainer.estimated_stepping_batches)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Deep-copy everything but ``optimizer``, which the CLI binds to the trainer and which cannot be copied."""
        memo[id(self.optimizer)] = self.optimizer
        memo[id(self)] = copied = type(self).__new__(type(self))
        copied.__setstate__(deepcopy(self.__getstate__(), memo))
        return copied
