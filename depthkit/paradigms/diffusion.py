"""A latent diffusion model learns depth: MetricGold (Shah 2024), by the training of Marigold (Ke et al. 2024)."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from depthkit.errors import CheckpointError, RecipeError
from depthkit.models import LatentDiffusionDepth, valid_latents
from depthkit.models.weights.facts import facts_in
from depthkit.paradigms.base import DepthModule
from depthkit.paradigms.terms.labels import has_label, labels, mean_over_pixels, readable
from depthkit.paradigms.terms.multires_noise import MultiResolutionNoise
from depthkit.types import Ambiguity, Batch, LabelKind, Representation

_MEANING = frozenset({"codec", "d_min", "d_max", "low", "high", "prediction_type"})
"""What the numbers that a network learned stand for, among the settings of codec and scheduler."""
Penalty = Literal["l2", "l1"]
Trainable = Literal["all", "attention"]


class DiffusionModule(DepthModule):
    """Learn to denoise the latent of a depth map beside the latent of its image.

    What the UNet predicts (v, noise or z_0), the schedule of the noise and the codec between depth and latents are the model's.
    The VAE takes no part in training: no optimizer and no DDP bucket holds it, and it encodes in the precision of its weights,
    whatever the trainer's. An average of the weights (EMA) is Lightning's callback ``EMAWeightAveraging``.

    Args:
        model: the latent diffusion model.
        noise: default ``MultiResolutionNoise()``, annealed; of strength 0 it is plain.
        penalty: on the difference between output and target.
        masked: leave out latent cells with a pixel that has no label or lies outside the codec's range.
        tails: learn what lies outside the codec's range as its bound, instead of leaving it out; None for yes if the codec is
            affine, whose range holds a share of each image by intent. The sky, which has no depth, is left out either way.
        trainable: the whole UNet, or its attention and its first layer.
        checkpointing: recompute activations of the UNet in the backward pass: less memory, more time.
        kwargs: see ``DepthModule``.

    Raises:
        RecipeError: an unknown penalty or part, or ``encoder_lr``, for the encoder is the VAE's.
    """

    model: LatentDiffusionDepth

    def __init__(
        self,
        model: LatentDiffusionDepth,
        *,
        noise: MultiResolutionNoise | None = None,
        penalty: Penalty = "l2",
        masked: bool = True,
        tails: bool | None = None,
        trainable: Trainable = "all",
        checkpointing: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(model, **kwargs)
        for name, value, known in (("penalty", penalty, Penalty), ("trainable", trainable, Trainable)):
            if value not in get_args(known):
                raise RecipeError(f"expected {name} to be one of {', '.join(get_args(known))}; got {value!r}.")
        if self.encoder_lr is not None:
            raise RecipeError("expected no encoder_lr: the encoder is the VAE's, which is frozen. Set the optimizer's lr.")
        self.noise = noise or MultiResolutionNoise()
        self.penalty, self.masked = penalty, masked
        self.tails = model.ambiguity != Ambiguity.METRIC if tails is None else tails
        for name, weight in model.unet.named_parameters():
            weight.requires_grad_(trainable == "all" or ".attentions." in name or name.startswith("conv_in."))
        if checkpointing:
            model.unet.enable_gradient_checkpointing()

    @property
    def accepts(self) -> frozenset[LabelKind]:
        """Metric labels; with an affine codec also those up to scale."""
        return readable(self._read)

    @property
    def _read(self) -> set[Ambiguity]:
        return {Ambiguity.METRIC} | ({Ambiguity.SCALE} if self.model.ambiguity != Ambiguity.METRIC else set())

    @property
    def ambiguity(self) -> Ambiguity:
        """None, or scale and shift with an affine codec."""
        return self.model.ambiguity

    def check_run(self, checkpoint: Mapping[str, Any]) -> None:
        """As in ``DepthModule``: with other bounds of depth, or another kind of output, the same numbers mean other things."""
        network = facts_in(checkpoint).get("model") or {}
        for name, ours in (("codec", self.model.codec.facts()), ("scheduler", self.model.scheduler.config)):
            learned = network.get(name) or {}
            if changed := [key for key in learned.keys() & ours.keys() & _MEANING if learned[key] != ours[key]]:
                raise CheckpointError(
                    f"expected weights that learned {_said(ours, changed)}; these learned {_said(learned, changed)}. "
                    f"Give the model the {name} that its weights learned."
                )

    def depth(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """The labels' depth [m], ``(B, 1, H, W)``, where there is one and where it is learned, bool ``(B, 1, H, W)`` each."""
        depth, valid = labels(batch, Representation.DEPTH, self._read)
        return depth, valid, valid if self.tails else self.model.codec.within(depth, valid)

    def draw(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """By chance: a timestep for each row, int64 ``(B,)``, and noise of the shape of ``latent``."""
        length = self.model.scheduler.length
        timestep = torch.randint(length, (len(latent),), device=latent.device)
        return timestep, self.noise(latent, timestep / length)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One step on the mean over the learned latent cells of all ranks."""
        schedule, (depth, valid, learned) = self.model.scheduler, self.depth(batch)
        with torch.no_grad():
            image, clean = self.model.encode_image(batch.image), self.model.encode_depth(depth, valid)
        with self.repeatable_chance():
            timestep, noise = self.draw(clean)
        output = self.model.predict(schedule.add_noise(clean, noise, timestep), image, timestep)
        difference = output - schedule.target(clean, noise, timestep)
        error = difference.square() if self.penalty == "l2" else difference.abs()
        cells = valid_latents(learned, self.model.size_multiple)
        loss, _ = mean_over_pixels(error.mean(1, keepdim=True), cells if self.masked else torch.ones_like(cells))
        self.log_step(loss, valid, learned, cells)
        return loss

    def log_step(self, loss: Tensor, valid: Tensor, learned: Tensor, taught: Tensor) -> None:
        """Log the loss, the share of labelled pixels outside the codec's range, and an epoch's images that teach nothing."""
        self.log("train/loss", loss.detach(), prog_bar=True, sync_dist=True, batch_size=len(valid))
        outside, _ = mean_over_pixels((~learned).float(), valid)
        self.log("train/outside", outside, sync_dist=True, batch_size=len(valid))
        excluded = (~has_label(taught)).sum().float()
        self.log("train/excluded", excluded, on_step=False, on_epoch=True, reduce_fx="sum", sync_dist=True, batch_size=1)


def _said(facts: Mapping[str, Any], keys: list[str]) -> str:
    return ", ".join(f"{key} {facts[key]}" for key in sorted(keys))
