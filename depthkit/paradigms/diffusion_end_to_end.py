"""End-to-end fine-tuning (Garcia et al. 2024): the second stage of a diffusion model, one step trained on pixels."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from depthkit.errors import LabelError
from depthkit.losses import PointwiseLoss, SSILoss
from depthkit.models import LatentDiffusionDepth
from depthkit.models.diffusion.sampling import StartNoise
from depthkit.paradigms.diffusion import DiffusionModule, left_out
from depthkit.paradigms.terms.labels import check_states, has_label
from depthkit.paradigms.terms.multires_noise import MultiResolutionNoise
from depthkit.paradigms.terms.term import Term
from depthkit.representation import convert
from depthkit.types import Ambiguity, Batch, Representation


class EndToEndDiffusionModule(DiffusionModule):
    """Fine-tune a latent diffusion model as a feed-forward network: one call of the UNet at the last timestep, then the VAE.

    Gradients flow through the VAE's frozen decoder and unchanged past its clip to [-1, 1]. Start from the first stage: pass its
    checkpoint as ``weights``. The model also predicts in one step.

    Args:
        model: the latent diffusion model; its spacing must be "trailing", so that the one step starts at the last timestep.
        loss: per image, on pixels of metric depth in any representation; default the absolute difference of log depth. With an
            affine codec, on depth up to scale and shift; default ``SSILoss(halved=False)``, which aligns by least squares.
        noise: input of the UNet beside the image: None for zeros; strength 0 for plain white noise.
        kwargs: see ``DiffusionModule``; ``checkpointing`` also saves memory in the VAE's decoder.

    Raises:
        RecipeError: the spacing of the noise schedule is not trailing.
        LabelError: the loss does not accept the codec's labels.
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
        """Representation that the loss compares: with an affine codec always depth, which has no logarithm and no inverse."""
        start = StartNoise.ZEROS if noise is None else StartNoise.GAUSSIAN
        model.sampling = replace(model.sampling, steps=1, members=1, noise=start)
        if kwargs.get("checkpointing"):
            model.vae.enable_gradient_checkpointing()

    def predict_once(self, image: Tensor) -> Tensor:
        """Predict depth of images ``(B, 3, H, W)`` by one call of the UNet, with gradients, ``(B, 1, H, W)``."""
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
