"""MetricGold (Shah 2024): a latent diffusion model learns metric depth by the training of Marigold (Ke et al. 2024)."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor

from depthkit.checks import check_choice
from depthkit.errors import CheckpointError, RecipeError
from depthkit.models import LatentDiffusionDepth, valid_latents
from depthkit.models.weights.facts import facts_in
from depthkit.paradigms.base import DepthModule
from depthkit.paradigms.terms.labels import has_label, labels, readable
from depthkit.paradigms.terms.multires_noise import MultiResolutionNoise
from depthkit.paradigms.terms.term import Term
from depthkit.types import Ambiguity, Batch, LabelKind, Representation

_MEANING = frozenset({"codec", "d_min", "d_max", "low", "high", "prediction_type"})
"""Settings of codec and scheduler that decide what a network's numbers mean."""


class Penalty(StrEnum):
    """Penalties on the difference between output and target."""

    L2 = "l2"
    L1 = "l1"


class Trainable(StrEnum):
    """Trained weights of the UNet: all, or those of its attention and first layer."""

    ALL = "all"
    ATTENTION = "attention"


class DiffusionModule(DepthModule):
    """Learn to denoise the latent of a depth map beside the latent of its image.

    The model decides the kind of the UNet's output (v, noise or z_0), the noise schedule and the codec of depth.
    The VAE is frozen: no optimizer and no DDP bucket holds it, and it encodes in the precision of its weights, whatever the
    trainer's. Lightning's callback ``EMAWeightAveraging`` averages weights (EMA).

    Args:
        model: the latent diffusion model.
        noise: added to latents; default ``MultiResolutionNoise()``, annealed; strength 0 is plain white noise.
        penalty: on the difference between output and target.
        masked: leave out latent cells with a pixel without a label or outside of the codec's range.
        tails: train on out-of-range depth clipped to the codec's bounds instead of masking it. Default: only for affine codecs,
            which clip a share of each image by design. The sky, which has no depth, is always masked.
        trainable: the whole UNet, or its attention and its first layer.
        checkpointing: recompute activations of the UNet in the backward pass: less memory, more time.
        kwargs: see ``DepthModule``.

    Raises:
        RecipeError: an unknown ``penalty`` or ``trainable``, or ``encoder_lr``, which does not apply: the encoder is the VAE's.
    """

    model: LatentDiffusionDepth

    def __init__(
        self,
        model: LatentDiffusionDepth,
        *,
        noise: MultiResolutionNoise | None = None,
        penalty: Penalty | str = Penalty.L2,
        masked: bool = True,
        tails: bool | None = None,
        trainable: Trainable | str = Trainable.ALL,
        checkpointing: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(model, **kwargs)
        if self.encoder_lr is not None:
            raise RecipeError("expected no encoder_lr: the encoder is the VAE's, which is frozen. Set the optimizer's lr.")
        self.noise = noise or MultiResolutionNoise()
        self.penalty, self.masked = check_choice("penalty", penalty, Penalty), masked
        trainable = check_choice("trainable", trainable, Trainable)
        self.tails = model.ambiguity != Ambiguity.METRIC if tails is None else tails
        for name, weight in model.unet.named_parameters():
            weight.requires_grad_(trainable == Trainable.ALL or ".attentions." in name or name.startswith("conv_in."))
        if checkpointing:
            model.unet.enable_gradient_checkpointing()

    @property
    def accepts(self) -> frozenset[LabelKind]:
        """Metric labels; with an affine codec also labels up to scale."""
        return readable(self._read)

    @property
    def _read(self) -> set[Ambiguity]:
        return {Ambiguity.METRIC} | ({Ambiguity.SCALE} if self.model.ambiguity != Ambiguity.METRIC else set())

    @property
    def ambiguity(self) -> Ambiguity:
        """Nothing, or scale and shift with an affine codec."""
        return self.model.ambiguity

    def check_run(self, checkpoint: Mapping[str, Any]) -> None:
        """Check that the earlier run had the same bounds of depth and kind of output, which give its numbers their meaning."""
        network = facts_in(checkpoint).get("model") or {}
        for name, ours in (("codec", self.model.codec.facts()), ("scheduler", self.model.scheduler.config)):
            learned = network.get(name) or {}
            if changed := [key for key in learned.keys() & ours.keys() & _MEANING if learned[key] != ours[key]]:
                raise CheckpointError(
                    f"expected weights that learned {_said(ours, changed)}; these learned {_said(learned, changed)}. "
                    f"Give the model the {name} that its weights learned."
                )

    def depth(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Read the labels' depth [m]; return it, its mask, and the mask of what is learned, ``(B, 1, H, W)`` each."""
        depth, valid = labels(batch, Representation.DEPTH, self._read)
        return depth, valid, valid if self.tails else self.model.codec.within(depth, valid)

    def draw(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Draw a timestep for each row, int64 ``(B,)``, and noise of the shape of ``latent``."""
        length = self.model.scheduler.length
        timestep = torch.randint(length, (len(latent),), device=latent.device)
        return timestep, self.noise(latent, timestep / length)

    def losses(self, batch: Batch) -> dict[str, Term]:
        """Compare the UNet's output with its target on the learned latent cells."""
        schedule, (depth, valid, learned) = self.model.scheduler, self.depth(batch)
        with torch.no_grad():
            image, clean = self.model.encode_image(batch.image), self.model.encode_depth(depth, valid)
        with self.step_rng():
            timestep, noise = self.draw(clean)
        output = self.model.predict(schedule.add_noise(clean, noise, timestep), image, timestep)
        difference = output - schedule.target(clean, noise, timestep)
        error = difference.square() if self.penalty == Penalty.L2 else difference.abs()
        cells = valid_latents(learned, self.model.size_multiple)
        denoising = Term(error.mean(1, keepdim=True), cells if self.masked else torch.ones_like(cells))
        return {"denoising": denoising, **left_out(valid, learned, cells)}


def left_out(valid: Tensor, learned: Tensor, taught: Tensor) -> dict[str, Term]:
    """Build logged terms: the share of labelled pixels outside of the codec's range, and of images without a learned pixel."""
    nothing = (~has_label(taught)).float()
    return {
        "outside": Term((~learned).float(), valid, weight=0.0),
        "excluded": Term(nothing, torch.ones_like(nothing, dtype=torch.bool), weight=0.0),
    }


def _said(facts: Mapping[str, Any], keys: list[str]) -> str:
    return ", ".join(f"{key} {facts[key]}" for key in sorted(keys))
