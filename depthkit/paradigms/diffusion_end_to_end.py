"""One step from image to depth, trained end to end on pixels (Garcia et al. 2024): the second stage of a diffusion model."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from depthkit.errors import LabelError
from depthkit.losses import PointwiseLoss, SSILoss
from depthkit.models import LatentDiffusionDepth
from depthkit.paradigms.diffusion import DiffusionModule, left_out
from depthkit.paradigms.terms.labels import check_states, has_label
from depthkit.paradigms.terms.multires_noise import MultiResolutionNoise
from depthkit.paradigms.terms.term import Term
from depthkit.representation import convert
from depthkit.types import Ambiguity, Batch, Representation


class EndToEndDiffusionModule(DiffusionModule):
    """Fine-tune a latent diffusion model as a feed-forward network: one call of the UNet at the last timestep, then the VAE.

    Gradients flow through the VAE's decoder, whose weights stay as they are, and past its clip to [-1, 1] unchanged.
    Start from the first stage: its checkpoint as ``weights``. The model predicts as it was trained, in one step.

    Args:
        model: the latent diffusion model; its steps are "trailing", so that the one step starts at the last timestep.
        loss: per image, on pixels of metric depth or what it converts to: default the absolute difference of log depth. With
            an affine codec, of depth up to scale and shift: default ``SSILoss(halved=False)``, which aligns by least squares.
        noise: what the UNet sees beside the image: None for zeros; of strength 0, plain noise.
        kwargs: see ``DiffusionModule``; ``checkpointing`` saves memory in the VAE's decoder, too.

    Raises:
        RecipeError: the noise schedule's steps are not trailing.
        LabelError: the loss does not read the labels that the codec makes.
    """

    def __init__(
        self,
        model: LatentDiffusionDepth,
        *,
        loss: nn.Module | None = None,
        noise: MultiResolutionNoise | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(model, **kwargs)
        metric = model.ambiguity == Ambiguity.METRIC
        chosen: Any = (PointwiseLoss() if metric else SSILoss(halved=False)) if loss is None else loss
        check_states("loss", chosen)
        if model.ambiguity not in chosen.accepts:
            raise LabelError(
                f"expected a loss on {model.ambiguity} labels, as {model.codec} makes them; {type(chosen).__name__} accepts "
                f"{', '.join(chosen.accepts)}."
            )
        (self.timestep,) = model.scheduler.timesteps(1)
        self.loss, self.start = chosen, noise
        self.compared: Representation = chosen.representation if metric else model.representation
        """What the loss compares: with an affine codec its depth as it is, which has no logarithm and no inverse."""
        model.sampling = replace(model.sampling, steps=1, members=1, noise="zeros" if noise is None else "gaussian")
        if kwargs.get("checkpointing"):
            model.vae.enable_gradient_checkpointing()

    def predict_once(self, image: Tensor) -> Tensor:
        """Depth of images ``(B, 3, H, W)`` by one call of the UNet, with gradients, ``(B, 1, H, W)``."""
        with torch.no_grad():
            latent = self.model.encode_image(image)
        noisy = torch.zeros_like(latent)
        if self.start is not None:
            with self.step_rng():
                noisy = self.start(latent, torch.ones(len(latent), device=latent.device))
        output = self.model.predict(noisy, latent, self.timestep)
        return self.model.codec.decode(self.model.decode_latent(self.model.clean(output, noisy, self.timestep)))

    def losses(self, batch: Batch) -> dict[str, Term]:
        """Compare the depth of one call with the labels, pixel by pixel."""
        depth, valid, learned = self.depth(batch)
        if self.tails:  # as the model can predict it: clipped and, if affine, far images weighing no more than near ones
            depth = self.model.codec.decode(self.model.codec.encode(depth, valid))
        prediction = self.predict_once(batch.image)
        source = self.model.representation
        target = convert(depth.where(learned, 1), source, self.compared)
        loss = self.loss(convert(prediction, source, self.compared), target, learned)
        return {"pixels": Term(loss, has_label(learned)), **left_out(valid, learned, learned)}
