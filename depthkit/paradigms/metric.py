"""Metric fine-tuning of a relative model: ZoeDepth's training (Bhat et al. 2023), which Depth Anything uses."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from depthkit.errors import LabelError, RecipeError
from depthkit.losses import SILogLoss
from depthkit.models import DepthNet
from depthkit.paradigms.base import DepthModule
from depthkit.paradigms.labels import has_label, labels, mean_over_images, readable
from depthkit.representation import convert
from depthkit.types import Ambiguity, Batch, LabelKind, Representation


class MetricModule(DepthModule):
    """Learn depth in metres from metric labels.

    Start from a relative model: its checkpoint as ``weights``, of which the encoder is taken (Depth Anything v2's way, for a
    sigmoid head), or as ``base`` of ``zoedepth``, which keeps all of it. ``encoder_lr`` keeps what it knows: a 50th of the
    rate in the paper.

    Args:
        model: outputs metric depth; disparity or a logarithm of depth in metres are read as it.
        loss: per image; default ten times the root of ``SILogLoss``'s, ZoeDepth's.
        label_range: labels between these depths are read [m]; the sky never is.
        kwargs: see ``DepthModule``.

    Raises:
        LabelError: the loss does not read metric labels.
        RecipeError: an empty range.
    """

    def __init__(
        self,
        model: DepthNet,
        *,
        loss: nn.Module | None = None,
        label_range: tuple[float, float] = (1e-3, 80.0),
        **kwargs: Any,
    ) -> None:
        super().__init__(model, **kwargs)
        chosen: Any = SILogLoss(root=True, factor=10.0) if loss is None else loss
        if Ambiguity.METRIC not in chosen.accepts:
            raise LabelError(f"expected a loss on metric labels; {type(chosen).__name__} accepts {', '.join(chosen.accepts)}.")
        self.loss = chosen
        if not 0 <= label_range[0] < label_range[1]:
            raise RecipeError(f"expected label_range as 0 <= least < greatest [m]; got {tuple(label_range)}.")
        self.label_range = label_range

    @property
    def accepts(self) -> frozenset[LabelKind]:
        """Metric labels."""
        return readable({Ambiguity.METRIC})

    @property
    def ambiguity(self) -> Ambiguity:
        """None."""
        return Ambiguity.METRIC

    def state_of(self, checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
        """As in ``DepthModule``, but of a relative network the encoder alone, as Depth Anything v2 does it.

        What its decoder passes on has any scale and would saturate a sigmoid for good.
        """
        state = super().state_of(checkpoint)
        if (checkpoint.get("depthkit") or {}).get("ambiguity") in (None, Ambiguity.METRIC):
            return state
        kept = "model.encoder."
        return {name: x for name, x in self.state_dict().items() if not name.startswith(kept)} | {
            name: x for name, x in state.items() if name.startswith(kept)
        }

    def per_image_loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss of each image, ``(B,)``, and which images have a label in range, bool ``(B,)``."""
        prediction = convert(self.model(batch.image).float(), self.model.representation, self.loss.representation)
        depth, valid = labels(batch, Representation.DEPTH, {Ambiguity.METRIC})
        valid = valid & (depth >= self.label_range[0]) & (depth <= self.label_range[1])
        target = convert(depth.where(valid, 1), Representation.DEPTH, self.loss.representation)
        return self.loss(prediction, target, valid), has_label(valid)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One step on the mean over the labelled images of all ranks."""
        loss, _ = mean_over_images(*self.per_image_loss(batch))
        self.log("train/loss", loss.detach(), prog_bar=True, sync_dist=True, batch_size=len(batch))
        return loss
