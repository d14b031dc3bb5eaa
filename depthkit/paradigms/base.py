"""What every paradigm shares: validation by protocols, prediction, optimizer groups, checkpoint facts. No training step."""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from itertools import chain
from pathlib import Path
from typing import Any, Self, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer

from depthkit.checks import first_line
from depthkit.errors import CheckpointError, LabelError, RecipeError, TrainingError
from depthkit.evaluation import PROTOCOLS, Protocol, ProtocolMetrics, find_protocol
from depthkit.models import DepthNet
from depthkit.models.weights.checkpoint import fresh_networks
from depthkit.models.weights.facts import read_run, write_facts
from depthkit.models.weights.files import misfit, named_as
from depthkit.paradigms.optim.schedules import Schedule
from depthkit.resize import input_rule_of, multiple_of, native_map, resize_space_of
from depthkit.types import Ambiguity, Batch, LabelKind

OptimizerFactory = Callable[[Iterable[Any]], Optimizer]
"""Builds an optimizer from parameter groups; in a recipe, ``{class_path: torch.optim.Adam, init_args: {lr: 1.0e-4}}``."""

_LOOK_EVERY = 50
"""Batches between two looks at the losses of a run that does not log."""


def adam(parameters: Iterable[Any]) -> Optimizer:
    """Adam with learning rate 1e-4, the optimizer of MiDaS."""
    return torch.optim.Adam(parameters, lr=1e-4)


class DepthModule(LightningModule):
    """Base of the paradigms. Subclasses add ``training_step``, ``accepts`` and ``ambiguity``.

    Args:
        model: network to train; predicts in ``model.representation``.
        optimizer: builds the optimizer from parameter groups.
        encoder_lr: learning rate of ``model.encoder``; None uses the optimizer's, 0 leaves the encoder's weights as they are.
        schedule: learning-rate schedule over the whole run, stepped every optimizer step.
        protocols: evaluation protocol of all validation and test sets, or of each by its name; see ``find_protocol``.
        weights: checkpoint of an earlier run whose networks training starts from; they must be the same. To go on with an
            interrupted run, give the trainer its checkpoint instead.
        channels_last: keep the network's weights in the channels-last layout, faster on most hardware for convolutions.

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
        self._finite: Tensor | bool = True  # every loss since it was last looked at
        self.scores = nn.ModuleDict()
        self.dataset_names: tuple[str, ...] = ("data",)
        """Names of the training sets, in the order of ``Batch.dataset``; the datamodule's once training starts."""
        names = [protocols] if isinstance(protocols, str) else protocols.values()
        for name in names:
            find_protocol(name)

    @property
    def accepts(self) -> frozenset[LabelKind]:
        """Label kinds that the paradigm can learn from; others raise a ``LabelError`` when training starts."""
        raise NotImplementedError(f"{type(self).__name__} does not say which labels it accepts")

    @property
    def ambiguity(self) -> Ambiguity:
        """What a trained model's prediction leaves undetermined."""
        raise NotImplementedError(f"{type(self).__name__} does not say what its predictions leave undetermined")

    @property
    def input_size(self) -> tuple[int, int] | None:
        """(height, width) [px] at which the network sees images while it is trained; None if the data does not say."""
        return getattr(getattr(self._trainer, "datamodule", None), "size", None)

    def forward(self, image: Tensor) -> Tensor:
        """Predict: RGB in [0, 1], ``(B, 3, H, W)``, to a map in ``model.representation``, ``(B, 1, H, W)``."""
        prediction: Tensor = self.model(image)
        return prediction

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy with the same factory of optimizers: the command's holds the trainer and its processes, which have no copy."""
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
        if stage == "fit" and hasattr(data, "dataset_names"):
            self.dataset_names = tuple(data.dataset_names)
            for name, kinds in zip(self.dataset_names, data.label_kinds, strict=True):
                for kind in sorted(kinds - self.accepts):
                    accepted = ", ".join(sorted(map(str, self.accepts)))
                    raise LabelError(
                        f"dataset {name!r} holds {kind} labels; {type(self).__name__} as configured learns from {accepted}. "
                        "Leave the dataset out, convert its labels, or choose another paradigm or loss."
                    )
        part = {"fit": "val", "validate": "val", "test": "test"}.get(stage)
        if part is not None:
            names = getattr(data, f"{part}_names", None)
            protocols = [self._protocol(name) for name in (("data",) if names is None else names)]
            for protocol in protocols if names else ():
                protocol.check_prediction(self.model.representation, self.ambiguity)
            self.scores[part] = nn.ModuleList(map(ProtocolMetrics, protocols))

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

    def _protocol(self, dataset: str) -> Protocol:
        if isinstance(self.protocols, str):
            return find_protocol(self.protocols)
        if dataset not in self.protocols:
            raise RecipeError(
                f"no protocol for evaluation set {dataset!r}; model.init_args.protocols names {', '.join(self.protocols)}. "
                f"Add `{dataset}: <protocol>`, one of {', '.join(PROTOCOLS)}."
            )
        return find_protocol(self.protocols[dataset])

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Tensor | None:
        """Score one batch under the set's protocol; returns the prediction at network resolution."""
        return self._score(batch, self._metrics("val", dataloader_idx))

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Tensor | None:
        """As ``validation_step``."""
        return self._score(batch, self._metrics("test", dataloader_idx))

    def _metrics(self, part: str, index: int) -> ProtocolMetrics:
        sets = cast(nn.ModuleList, self.scores[part])
        if index >= len(sets):
            raise RecipeError(
                f"expected one {part} set, or a datamodule that names them in `{part}_names`; got loader number {index + 1}. "
                "Use DepthDataModule."
            )
        return cast(ProtocolMetrics, sets[index])

    def _score(self, batch: Batch, metrics: ProtocolMetrics) -> Tensor | None:
        metrics.protocol.check_prediction(self.model.representation, self.ambiguity)
        batch = batch.rows(batch.real)  # the other rows only keep ranks in step
        if not len(batch):
            return None
        prediction = self(metrics.protocol.resize_input(batch.image, multiple_of(self.model)))
        own, space = self.model.representation, resize_space_of(self.model)
        metrics.update(prediction.float(), own, batch, resize_space=space)
        return cast(Tensor, prediction)

    def on_validation_epoch_end(self) -> None:
        """Log every protocol's numbers as ``val/<dataset>/<metric>``."""
        self._log_scores("val")

    def on_test_epoch_end(self) -> None:
        """Log every protocol's numbers as ``test/<dataset>/<metric>``."""
        self._log_scores("test")

    def _log_scores(self, part: str) -> None:
        names = getattr(getattr(self.trainer, "datamodule", None), f"{part}_names", ("data",))
        for index, name in enumerate(names):
            metrics = self._metrics(part, index)
            for metric, value in metrics.compute().items():  # already reduced over ranks
                self.log(f"{part}/{name}/{metric}", value, rank_zero_only=False)
            metrics.reset()

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Predict at the size of the source, ``(B, 1, H, W)``, as ``DepthPredictor`` predicts with the run's checkpoint."""
        return native_map(self.model, batch.image, input_rule_of(self.model, self.input_size)).map

    def on_validation_start(self) -> None:
        """Validate with the weights that count; see ``LookaheadRAdam``."""
        if not self.trainer.sanity_checking:
            self._synchronise()

    def on_train_epoch_end(self) -> None:
        """End the epoch, and its checkpoint, with the weights that count; see ``LookaheadRAdam``."""
        self._synchronise()

    def _synchronise(self) -> None:
        for optimizer in self.trainer.optimizers:
            if hasattr(optimizer, "sync_lookahead"):
                optimizer.sync_lookahead()

    @contextlib.contextmanager
    def repeatable_chance(self) -> Iterator[None]:
        """Chance that depends on the seed, the batch and the rank alone, so that a resumed run draws what the whole one did."""
        devices = [self.device] if self.device.type == "cuda" else []
        seed, drawn = int(os.environ.get("PL_GLOBAL_SEED", 0)), self.trainer.fit_loop.epoch_loop.total_batch_idx
        with torch.random.fork_rng(devices):
            torch.manual_seed(hash((seed, drawn, self.global_rank)) % 2**63)
            yield

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Count the samples that could not be read, and now and then see whether training broke down.

        Raises:
            TrainingError: the weights are not finite.
        """
        broken = float(len(getattr(batch, "broken", ())))
        self.log("data/broken", broken, on_step=False, on_epoch=True, reduce_fx="sum", sync_dist=True, batch_size=1)
        if isinstance(outputs, Mapping):
            self._finite = outputs["loss"].isfinite().all() & self._finite  # stays on the device: no step waits for it
        every = self.trainer.log_every_n_steps or _LOOK_EVERY  # type: ignore[attr-defined]
        if (self.trainer.fit_loop.total_batch_idx + 1) % every == 0:
            finite, self._finite = self.trainer.strategy.reduce_boolean_decision(bool(self._finite)), True
            if not finite:
                self._check_weights()

    def _check_weights(self) -> None:
        """A loss that is not finite ends training once it has reached the weights; float16 steps over some of them."""
        state = chain(self.named_parameters(), self.named_buffers())  # batch statistics, too, do not recover
        broken = [name for name, values in state if not values.isfinite().all()]
        if broken:
            raise TrainingError(
                f"expected finite weights; after {self.trainer.global_step} steps {len(broken)} of them, {broken[0]} for one, "
                "are NaN or infinite, as was the loss. Go on from the last checkpoint, which is whole, with a lower learning "
                "rate, trainer.gradient_clip_val, or bf16-mixed for float16; trainer.detect_anomaly names the operation."
            )

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
        """Store, as plain values, what a predictor needs to rebuild the network.

        Raises:
            TrainingError: the weights are not finite; no checkpoint is overwritten by such.
        """
        self._check_weights()
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
