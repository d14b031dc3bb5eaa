"""Metric fine-tuning of a relative model: ZoeDepth's training (Bhat et al. 2023), which Depth Anything uses."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from depthkit.errors import CheckpointError, LabelError, RecipeError
from depthkit.losses import SILogLoss
from depthkit.losses.functional import gradient_matching_loss, laplace_nll_loss
from depthkit.models import DepthNet, ZoeDepthNet, heteroscedastic
from depthkit.models.weights.facts import facts_in
from depthkit.paradigms.base import DepthModule
from depthkit.paradigms.terms.labels import check_states, has_label, labels, readable
from depthkit.paradigms.terms.term import Term
from depthkit.representation import convert
from depthkit.resize import (
    InputResize,
    NativeMap,
    OutputResize,
    canonical_focal_of,
    multiple_of,
    network_map,
    resized_map,
    resized_spread,
    seen_focal,
)
from depthkit.resize.canonical import check_canonical_focal
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
        uncertainty_weight: above 0 the network gets a part that predicts how uncertain each pixel is, see ``heteroscedastic``,
            and the likelihood that it gives the labels, ``laplace_nll_loss``, is a second term of this weight.
        gradient_weight: above 0 the slopes of ln depth at four scales are compared, too, with this weight (Depth Anything 3
            has such a term, of a weight that it does not state).
        network_size: (height, width) [px] to which images are stretched for the network; its depth is resized to the labels
            and compared there, as in ZoeDepth, so that no label is lost. None leaves images at their size.
        canonical_focal: focal length [px] of a canonical camera, such as 1000 (Metric3D): the network learns and predicts depth
            times this over its image's focal length, so that cameras of all kinds can be mixed, and each image's own camera
            makes metres of it (``depthkit.resize.in_metres``). ``label_range`` stays in metres. Every sample needs intrinsics.
            None keeps the model's own, which is mostly none.
        kwargs: see ``DepthModule``.

    Raises:
        GeometryError: ``canonical_focal`` is not above 0.
        LabelError: the loss does not accept metric labels, or lacks ``representation`` or ``accepts``.
        RecipeError: an empty range, a negative weight, or ``base_lr`` for a network without a base.
    """

    def __init__(
        self,
        model: DepthNet,
        *,
        loss: nn.Module | None = None,
        label_range: tuple[float, float] = (1e-3, 80.0),
        base_lr: float | None = None,
        uncertainty_weight: float = 0.0,
        gradient_weight: float = 0.0,
        network_size: tuple[int, int] | None = None,
        canonical_focal: float | None = None,
        **kwargs: Any,
    ) -> None:
        for name, weight in (("uncertainty_weight", uncertainty_weight), ("gradient_weight", gradient_weight)):
            if weight < 0:
                raise RecipeError(f"expected {name} of 0 or more; got {weight}.")
        if uncertainty_weight and model.log_scale is None:
            model = heteroscedastic(model)
        self.uncertainty_weight, self.gradient_weight = uncertainty_weight, gradient_weight
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
        if canonical_focal is not None:
            self.model.canonical_focal = check_canonical_focal(canonical_focal)
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
        fresh = {name: x for name, x in self.state_dict().items() if name.startswith("model.log_scale.")}
        state = {**fresh, **state}  # an earlier run may have had no such part
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

    def predicted(self, image: Tensor) -> NativeMap:
        """Predict images ``(B, 3, H, W)`` at ``network_size``; return maps of the images' size, float32 ``(B, 1, H, W)``."""
        if self.network_size is None:
            return network_map(self.model, image)
        stretch = InputResize(self.network_size, "stretch", 1, "bilinear")
        found, size = network_map(self.model, stretch(image, multiple_of(self.model))), (image.shape[-2], image.shape[-1])
        spread = None if found.spread is None else resized_spread(found.spread, size, stretch)
        return NativeMap(resized_map(found.map, size, self.model, OutputResize(align_corners=True)), spread)

    def check_run(self, checkpoint: Mapping[str, Any]) -> None:
        """Refuse a run whose canonical focal length is another: its metres would be others."""
        facts = facts_in(checkpoint)
        theirs, ours = facts.get("canonical_focal"), canonical_focal_of(self.model)
        if theirs not in (None, ours):
            raise CheckpointError(
                f"expected a checkpoint with the canonical focal length {ours}, as canonical_focal says; it has {theirs}. "
                f"Set canonical_focal to {theirs:g}."
            )

    def _canonical(self, depth: Tensor, batch: Batch) -> Tensor:
        """Convert labels [m] ``(B, 1, H, W)`` to the canonical camera, if there is one."""
        focal, size = canonical_focal_of(self.model), (batch.image.shape[-2], batch.image.shape[-1])
        if focal is None:
            return depth
        seen = seen_focal(batch.intrinsics, size=size, seen=self.network_size or size)
        return depth * (focal / seen).to(depth).view(-1, 1, 1, 1)

    def losses(self, batch: Batch) -> dict[str, Term]:
        """Compare depth, in metres or of the canonical camera, where the label lies within ``label_range`` of metres."""
        found, own = self.predicted(batch.image), self.model.representation
        prediction = convert(found.map, own, self.loss.representation)
        depth, valid = labels(batch, Representation.DEPTH, {Ambiguity.METRIC})
        valid = valid & (depth >= self.label_range[0]) & (depth <= self.label_range[1])
        depth = self._canonical(depth.where(valid, 1), batch)
        target = convert(depth, Representation.DEPTH, self.loss.representation)
        terms = {"metric": Term(self.loss(prediction, target, valid), has_label(valid))}
        if not (self.gradient_weight or self.uncertainty_weight):
            return terms
        logs = convert(found.map, own, Representation.LOG_DEPTH), depth.log()
        if self.gradient_weight:
            terms["gradient"] = Term(gradient_matching_loss(*logs, valid), has_label(valid), self.gradient_weight)
        if self.uncertainty_weight and found.spread is not None:
            likelihood = laplace_nll_loss(*logs, valid, found.spread.log())
            terms["uncertainty"] = Term(likelihood, has_label(valid), self.uncertainty_weight)
        return terms
