"""Validation and test by evaluation protocols, for every paradigm."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, cast

from lightning.pytorch import LightningModule
from torch import Tensor, nn

from depthkit.errors import RecipeError
from depthkit.evaluation import PROTOCOLS, Protocol, ProtocolMetrics, find_protocol
from depthkit.evaluation.scores import maps_in_metres
from depthkit.precision import at_least_float32
from depthkit.resize import multiple_of, resize_space_of, shown_part
from depthkit.types import Ambiguity, Batch


def check_protocols(protocols: str | Mapping[str, str]) -> None:
    """Raise a ``RecipeError`` if a protocol is unknown, before anything is trained."""
    for name in [protocols] if isinstance(protocols, str) else protocols.values():
        find_protocol(name)


class ScoresProtocols(LightningModule):
    """Score every validation and test set under its protocol and log ``val/<dataset>/<metric>``.

    The module has ``model``, ``protocols`` (a name for all sets, or one for each), ``ambiguity`` and ``scores``.
    """

    model: Any
    protocols: str | Mapping[str, str]
    scores: nn.ModuleDict

    @property
    @abstractmethod
    def ambiguity(self) -> Ambiguity:
        """What the predictions of a trained model leave undetermined."""

    def set_up_scores(self, stage: str) -> None:
        """Make one set of scores per evaluation set.

        Raises:
            LabelError: a protocol does not align what the model leaves undetermined.
        """
        part = {"fit": "val", "validate": "val", "test": "test"}.get(stage)
        if part is not None:
            names = getattr(getattr(self.trainer, "datamodule", None), f"{part}_names", None)
            protocols = [self._protocol(name) for name in (("data",) if names is None else names)]
            for protocol in protocols if names else ():
                protocol.check_prediction(self.model.representation, self.ambiguity)
            self.scores[part] = nn.ModuleList(map(ProtocolMetrics, protocols))

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
        """Score one batch of a test set, as ``validation_step`` does."""
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
        multiple, protocol = multiple_of(self.model), metrics.protocol
        image = protocol.resize_input(batch.image, multiple)
        size = protocol.input_size(batch.image.shape[-2], batch.image.shape[-1], multiple)
        prediction = shown_part(self(image), (image.shape[-2], image.shape[-1]), size)
        own, space = self.model.representation, resize_space_of(self.model)
        found = maps_in_metres(at_least_float32(prediction), self.model, own, batch, protocol, size)
        metrics.update(found, own, batch, resize_space=space)
        return prediction

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
