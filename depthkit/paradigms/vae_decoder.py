"""Fine-tuning of a VAE's decoder on depth, since its errors limit a latent diffusion model."""

from typing import Any

import torch
from torch import Tensor

from depthkit.errors import LabelError
from depthkit.evaluation import ProtocolMetrics
from depthkit.models import LatentDiffusionDepth
from depthkit.paradigms.base import DepthModule
from depthkit.paradigms.terms.labels import labels, readable
from depthkit.paradigms.terms.term import Term
from depthkit.types import Ambiguity, Batch, LabelKind, Representation


class VAEDecoderModule(DepthModule):
    """Fine-tune the VAE's decoder to reproduce depth maps from their latents, by the absolute difference of y.

    With ``LogDepth`` this is the relative error of depth. The encoder is frozen, so that latents stay the same and the UNet
    need not be retrained. ``DiffusionModule`` starts from its checkpoint (``weights``). Validation scores the round trip of
    the true depth, not the diffusion model.

    Args:
        model: the latent diffusion model.
        kwargs: see ``DepthModule``.

    Raises:
        LabelError: the codec of the model is affine, so that its range differs from image to image.
    """

    model: LatentDiffusionDepth

    def __init__(self, model: LatentDiffusionDepth, **kwargs: Any) -> None:
        super().__init__(model, **kwargs)
        if model.ambiguity != Ambiguity.METRIC:
            raise LabelError(f"expected a metric codec to teach the decoder metres; got {model.codec}. Take LogDepth.")
        model.requires_grad_(False)
        for part in (model.vae.decoder, model.vae.post_quant_conv):
            if part is not None:
                part.requires_grad_(True)

    @property
    def accepts(self) -> frozenset[LabelKind]:
        """Metric labels."""
        return readable({Ambiguity.METRIC})

    @property
    def ambiguity(self) -> Ambiguity:
        """Nothing: depth is in metres."""
        return Ambiguity.METRIC

    def losses(self, batch: Batch) -> dict[str, Term]:
        """Compare the decoded latents of true depth with it, where it lies within the codec's range."""
        depth, valid = labels(batch, Representation.DEPTH, {Ambiguity.METRIC})
        with torch.no_grad():
            latent = self.model.encode_depth(depth, valid)
        difference = self.model.decode_latent(latent) - self.model.codec.encode(depth, valid)
        return {"roundtrip": Term(difference.abs(), self.model.codec.within(depth, valid))}

    def _score(self, batch: Batch, metrics: ProtocolMetrics) -> Tensor | None:
        batch = batch.rows(batch.real)
        if not len(batch):
            return None
        depth, valid = labels(batch, Representation.DEPTH, {Ambiguity.METRIC})
        found = self.model.codec.decode(self.model.roundtrip(depth, valid))
        metrics.update(found, self.model.representation, batch)
        return found
