"""What the VAE alone costs: true depth encoded and decoded, the best that a latent diffusion model can do with it."""

from collections.abc import Iterable
from typing import NamedTuple

import torch

from depthkit.errors import LabelError
from depthkit.evaluation.evaluate import batches
from depthkit.evaluation.report import table_of
from depthkit.masked import masked_count
from depthkit.metrics import MAE, AbsRel, DeltaAccuracy
from depthkit.models import LatentDiffusionDepth
from depthkit.representation import convert_rows
from depthkit.types import AMBIGUITIES, Ambiguity, Batch, Representation, Sample


class RoundTrip(NamedTuple):
    """Means over images of true depth against the same encoded and decoded, over valid pixels within the codec's range.

    Attributes:
        abs_rel: relative error of depth.
        delta1: share of pixels off by a factor below 1.25.
        y_error: absolute error of y, whose range is [-1, 1].
        clipped: share of the valid pixels outside the range, which are not scored.
        images: scored.
        left_out: without a valid pixel within the range.
    """

    abs_rel: float
    delta1: float
    y_error: float
    clipped: float
    images: int
    left_out: int

    def table(self, name: str = "VAE alone") -> str:
        """Write the numbers as one row of text."""
        return table_of({name: {"abs_rel": self.abs_rel, "delta1": self.delta1, "y": self.y_error, "clipped": self.clipped}})


@torch.inference_mode()
def vae_roundtrip(model: LatentDiffusionDepth, samples: Iterable[Sample | Batch]) -> RoundTrip:
    """Encode and decode the true depth of samples, as far as they have any in metres.

    MetricGold names the VAE as what limits it: a network cannot score better than this, and an error of y grows to
    ln(d_max / d_min) / 2 times its size in depth. ``VAEDecoderModule`` lowers it.

    Args:
        model: its VAE and codec are used, its UNet is not.
        samples: labelled samples or batches of any size.

    Raises:
        LabelError: the codec is affine, which leaves no metres to compare.
    """
    if model.ambiguity != Ambiguity.METRIC:
        raise LabelError(f"expected a metric codec; got {model.codec}. Give the model LogDepth or LinearDepth for this.")
    device = next(model.vae.parameters()).device
    abs_rel, delta1, y_error = (metric.to(device) for metric in (AbsRel(), DeltaAccuracy(), MAE()))
    clipped, labelled = 0.0, 0
    for batch in batches(samples):
        batch = batch.to(device)
        metric = (batch.ambiguity == AMBIGUITIES.index(Ambiguity.METRIC)).view(-1, 1, 1, 1)
        depth, valid = convert_rows(batch.target, batch.valid & metric, batch.representation, Representation.DEPTH)
        within, y = model.codec.within(depth, valid), model.roundtrip(depth, valid)
        abs_rel.update(model.codec.decode(y), depth, within)
        delta1.update(model.codec.decode(y), depth, within)
        y_error.update(y + 2, model.codec.encode(depth, valid) + 2, within)  # metrics score what is positive
        clipped += float(model.codec.clipped(depth, valid).sum())
        labelled += int((masked_count(valid) > 0).sum())
    return RoundTrip(
        float(abs_rel.compute()),
        float(delta1.compute()),
        float(y_error.compute()),
        clipped / max(labelled, 1),
        int(abs_rel.n_images),
        int(abs_rel.n_left_out),
    )
