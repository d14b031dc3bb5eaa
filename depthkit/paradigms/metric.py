"""Metric fine-tuning of a relative model: ZoeDepth's training (Bhat et al. 2023), which Depth Anything uses."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from depthkit.errors import LabelError, RecipeError
from depthkit.losses import SILogLoss
from depthkit.models import DepthNet, ZoeDepthNet
from depthkit.models.weights.facts import facts_in
from depthkit.paradigms.base import DepthModule
from depthkit.paradigms.terms.labels import check_states, has_label, labels, readable
from depthkit.paradigms.terms.term import Term
from depthkit.representation import convert
from depthkit.resize import InputResize, OutputResize, multiple_of, network_map, resized_map
from depthkit.types import Ambiguity, Batch, LabelKind, Representation


class MetricModule(DepthModule):
    """Learn depth in metres from metric labels.

    Start from a relative model: pass its checkpoint as ``weights``, which takes its encoder (Depth Anything v2, with a sigmoid
    head), or as ``base`` of ``zoedepth``, which takes all of it. Low ``encoder_lr`` and ``base_lr`` preserve its knowledge:
    Depth Anything uses a 50th of the rate of ZoeDepth's bins.

    Args:
        model: network that outputs metric depth; disparity and logarithms of it are converted.
        loss: per image; default ZoeDepth's, ten times the root of ``SILogLoss``.
        label_range: least and greatest depth [m] of the labels to use; the sky is never used.
        base_lr: learning rate of the decoder and the head that ``zoedepth`` takes from its base; None uses the optimizer's.
        network_size: (height, width) [px] to which images are stretched for the network; its depth is resized to the labels
            and compared there, as in ZoeDepth, so that no label is lost. None leaves images at their size.
        kwargs: see ``DepthModule``.

    Raises:
        LabelError: the loss does not accept metric labels, or lacks ``representation`` or ``accepts``.
        RecipeError: an empty range, or ``base_lr`` for a network without a base.
    """

    def __init__(
        self,
        model: DepthNet,
        *,
        loss: nn.Module | None = None,
        label_range: tuple[float, float] = (1e-3, 80.0),
        base_lr: float | None = None,
        network_size: tuple[int, int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(model, **kwargs)
        chosen: Any = SILogLoss(root=True, factor=10.0) if loss is None else loss
        check_states("loss", chosen)
        if Ambiguity.METRIC not in chosen.accepts:
            raise LabelError(f"expected a loss on metric labels; {type(chosen).__name__} accepts {', '.join(chosen.accepts)}.")
        self.loss = chosen
        if not 0 <= label_range[0] < label_range[1]:
            raise RecipeError(f"expected label_range as 0 <= least < greatest [m]; got {tuple(label_range)}.")
        self.label_range = label_range
        if base_lr is not None and not isinstance(model, ZoeDepthNet):
            raise RecipeError(
                f"expected a network of zoedepth for base_lr={base_lr}; got {type(model).__name__}. Leave it out."
            )
        self.base_lr = base_lr
        self.network_size = None if network_size is None else (int(network_size[0]), int(network_size[1]))

    def setup(self, stage: str) -> None:
        """Set up as in ``DepthModule``; the network sees images at ``network_size`` if there is one."""
        super().setup(stage)
        self.input_size = self.network_size or self.input_size

    @property
    def accepts(self) -> frozenset[LabelKind]:
        """Metric labels."""
        return readable({Ambiguity.METRIC})

    @property
    def ambiguity(self) -> Ambiguity:
        """Nothing: depth is in metres."""
        return Ambiguity.METRIC

    def state_of(self, checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return all weights of an earlier run, or of a relative network the encoder's alone, as Depth Anything v2 does.

        A relative decoder's output has any scale and could saturate a sigmoid for good.
        """
        state = super().state_of(checkpoint)
        if facts_in(checkpoint).get("ambiguity") in (None, Ambiguity.METRIC):
            return state
        kept = "model.encoder."
        return {name: x for name, x in self.state_dict().items() if not name.startswith(kept)} | {
            name: x for name, x in state.items() if name.startswith(kept)
        }

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Split off the weights that ``zoedepth`` took from its base, at ``base_lr``."""
        encoder, rest = super().parameter_groups()
        if self.base_lr is None:
            return [encoder, rest]
        base = {id(p) for part in (self.model.decoder, self.model.head.relative) for p in part.parameters()}
        kept, fresh = ([p for p in rest["params"] if (id(p) in base) == old] for old in (True, False))
        return [encoder, {"params": kept, "name": "base", "lr": self.base_lr}, {**rest, "params": fresh}]

    def predicted(self, image: Tensor) -> Tensor:
        """Predict images ``(B, 3, H, W)`` at ``network_size``; return maps of the images' size, float32 ``(B, 1, H, W)``."""
        if self.network_size is None:
            return self.model(image).float()
        shown = InputResize(self.network_size, "stretch", 1, "bilinear")(image, multiple_of(self.model))
        found, size = network_map(self.model, shown).map, (image.shape[-2], image.shape[-1])
        return resized_map(found, size, self.model, OutputResize(align_corners=True))

    def losses(self, batch: Batch) -> dict[str, Term]:
        """Compare depth in metres where the label lies within ``label_range``."""
        prediction = convert(self.predicted(batch.image), self.model.representation, self.loss.representation)
        depth, valid = labels(batch, Representation.DEPTH, {Ambiguity.METRIC})
        valid = valid & (depth >= self.label_range[0]) & (depth <= self.label_range[1])
        target = convert(depth.where(valid, 1), Representation.DEPTH, self.loss.representation)
        return {"metric": Term(self.loss(prediction, target, valid), has_label(valid))}
