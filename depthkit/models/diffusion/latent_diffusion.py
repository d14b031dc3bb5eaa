"""Latent diffusion models that predict depth from an image (Marigold; MetricGold in metres)."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from depthkit.errors import PredictionError, RecipeError
from depthkit.models.diffusion.depth_codecs import DepthCodec
from depthkit.models.diffusion.folders import save
from depthkit.models.diffusion.noise_schedule import NoiseSchedule
from depthkit.models.diffusion.sampling import Sampling, fitted_together
from depthkit.models.net import DepthNet
from depthkit.precision import at_least_float32, in_float32
from depthkit.types import Ambiguity, Representation


class LatentDiffusionDepth(DepthNet):
    """A UNet that denoises the latent of a depth map beside the latent of its image, between a VAE's encoder and decoder.

    The VAE is frozen and runs in the precision of its weights, outside autocast. A UNet with one latent as input is widened to
    two, the image's first: the weights of its first layer are repeated and halved, so that the same latent twice gives the
    original output. Calling the network predicts by its ``sampling``.

    Args:
        unet: ``diffusers.UNet2DConditionModel`` of 4 or 8 input channels.
        vae: ``diffusers.AutoencoderKL``.
        scheduler: noise schedule.
        text_embedding: of the empty prompt, ``(1, tokens, C)``.
        codec: from depth to y in [-1, 1], which the VAE encodes, and back.
        sampling: how to predict.
        halve_bias: when widening, halve the first layer's bias too, as E2E-FT does and Marigold does not.
        processing_size: longer side [px] at which the network sees an image of any size; 0 for the image's own.

    Attributes:
        representation: of the output: depth, in metres or, with an affine ``codec``, up to scale and shift.
        resize_space: representation in which to resize the output.
        ambiguity: what the output leaves undetermined.
        size_multiple: pixels along a side of a latent cell.

    Raises:
        RecipeError: the UNet has another number of channels, or does not fit the VAE or the text.
    """

    unet: Any
    vae: Any
    text_embedding: Tensor

    def __init__(
        self,
        unet: nn.Module,
        vae: nn.Module,
        scheduler: NoiseSchedule,
        text_embedding: Tensor,
        codec: DepthCodec,
        *,
        sampling: Sampling | None = None,
        halve_bias: bool = False,
        processing_size: int = 768,
    ) -> None:
        nn.Module.__init__(self)
        self.unet, self.vae, self.scheduler, self.codec = unet, vae, scheduler, codec
        latent, width = self.vae.config.latent_channels, self.unet.config.cross_attention_dim
        if self.unet.config.in_channels == latent:
            widen_first_layer(self.unet, halve_bias=halve_bias)
        seen, given = (self.unet.config.in_channels, self.unet.config.out_channels, width), (2 * latent, latent, width)
        if seen != given or text_embedding.ndim != 3 or text_embedding.shape[::2] != (1, width):
            raise RecipeError(
                f"expected a UNet from {2 * latent} channels (or {latent}, to be widened) to {latent}, as this VAE's latents "
                f"have {latent}, and a text embedding of shape (1, tokens, {width}); got one from {seen[0]} to {seen[1]}, and "
                f"{tuple(text_embedding.shape)}."
            )
        self.register_buffer("text_embedding", text_embedding.detach().clone().float())
        self.vae.requires_grad_(False)
        self.vae.outside_autocast = True
        self.processing_size = processing_size
        self.size_multiple = self.min_size = 2 ** (len(self.vae.config.block_out_channels) - 1)
        self.sampling = sampling or Sampling()

    @property
    def config(self) -> dict[str, Any]:
        """Plain values from which ``build`` rebuilds the network with its present parts."""
        return {
            "architecture": "latent_diffusion_of",
            "unet": _plain(self.unet.config),
            "vae": _plain(self.vae.config),
            "scheduler": self.scheduler.config,
            "codec": self.codec.facts(),
            "sampling": self.sampling.facts(),
            "processing_size": self.processing_size,
            "tokens": self.text_embedding.shape[1],
            "pretrained": False,
        }

    @config.setter
    def config(self, config: dict[str, Any] | None) -> None:
        pass  # ``architecture`` assigns the arguments of a function, of which the parts were built

    @property
    def sampling(self) -> Sampling:
        """Sampling of predictions; may be set."""
        return self._sampling

    @sampling.setter
    def sampling(self, sampling: Sampling) -> None:
        self.scheduler.timesteps(sampling.steps)  # raises if it cannot take them
        self._sampling = sampling

    @property
    def representation(self) -> Representation:
        """Representation of the output."""
        return self.codec.kind.representation

    @property
    def resize_space(self) -> Representation:
        """Representation in which to resize the output: there it is y up to a factor and an offset."""
        return self.codec.resize_space

    @property
    def ambiguity(self) -> Ambiguity:
        """What the output leaves undetermined."""
        return self.codec.kind.ambiguity

    @property
    def last_layer(self) -> nn.Module:
        """The UNet's last layer."""
        return self.unet.conv_out

    @property
    def encoder(self) -> nn.Module:
        """The VAE's encoder, which is not trained."""
        return self.vae.encoder

    @property
    def dtype_of_unet(self) -> torch.dtype:
        """Precision of the UNet's weights."""
        return self.unet.conv_in.weight.dtype

    def encode_image(self, image: Tensor) -> Tensor:
        """Encode images to latents.

        Args:
            image: float RGB in [0, 1], ``(B, 3, H, W)``, H and W multiples of ``size_multiple``.

        Returns:
            float32, ``(B, C, H / size_multiple, W / size_multiple)``.

        Raises:
            ShapeError: another shape or type.
            PredictionError: the VAE overflowed.
        """
        self.check(image)
        return self._latent(image * 2 - 1)

    def encode_depth(self, depth: Tensor, valid: Tensor) -> Tensor:
        """Encode depth maps to latents, by ``codec`` to y, which is the input of each of the VAE's three channels.

        Args:
            depth: metres, ``(B, 1, H, W)``; any value where not valid.
            valid: bool, ``(B, 1, H, W)``.

        Returns:
            float32, ``(B, C, H / size_multiple, W / size_multiple)``. Cells with invalid pixels hold the codec's
            fill: ``valid_latents`` masks them.

        Raises:
            ShapeError: other shapes or types.
            PredictionError: the VAE overflowed.
        """
        y = self.codec.encode(depth, valid).expand(-1, 3, -1, -1)
        self.check(y)
        return self._latent(y)

    @in_float32
    def _latent(self, x: Tensor) -> Tensor:
        mode = self.vae.encode(x.to(self.vae.dtype)).latent_dist.mode()
        return at_least_float32(self._finite(mode, "encoding")) * self.vae.config.scaling_factor

    @in_float32
    def decode_latent(self, latent: Tensor) -> Tensor:
        """Decode latents to y in [-1, 1], the mean of the VAE's three channels.

        Values outside are clipped but keep their gradient, so that training can bring them back.

        Args:
            latent: ``(B, C, h, w)``.

        Returns:
            float32, ``(B, 1, h size_multiple, w size_multiple)``.

        Raises:
            PredictionError: the VAE overflowed.
        """
        decoded = self.vae.decode(latent.to(self.vae.dtype) / self.vae.config.scaling_factor, return_dict=False)[0]
        y = at_least_float32(self._finite(decoded, "decoding")).mean(1, keepdim=True)
        return y.detach().clamp(-1, 1) + (y - y.detach())

    def roundtrip(self, depth: Tensor, valid: Tensor) -> Tensor:
        """Encode and decode depth maps of any size to y, float32 ``(B, 1, H, W)``; see ``encode_depth``."""
        height, width = depth.shape[-2:]
        margin = (0, -width % self.size_multiple, 0, -height % self.size_multiple)
        padded = F.pad(depth.where(valid, 1), margin), F.pad(valid, margin)
        return self.decode_latent(self.encode_depth(*padded))[..., :height, :width]

    def _finite(self, x: Tensor, what: str) -> Tensor:
        if x.dtype == torch.float16 and not x.isfinite().all():
            raise PredictionError(
                f"expected finite numbers from {what} by the VAE; in float16 it overflowed. "
                "Keep it in float32 or bfloat16: model.vae.float()."
            )
        return x

    def predict(self, noisy_latent: Tensor, image_latent: Tensor, timestep: Tensor | int) -> Tensor:
        """Compute the UNet's output, of kind ``scheduler.prediction_type``, float32 ``(B, C, h, w)``.

        Args:
            noisy_latent: of the depth map at ``timestep``, ``(B, C, h, w)``.
            image_latent: ``(B, C, h, w)``.
            timestep: int64 ``(B,)``, or one for all.
        """
        both = torch.cat([image_latent, noisy_latent], 1).to(self.dtype_of_unet)
        if isinstance(timestep, int):  # diffusers would copy it to the device
            timestep = torch.full((1,), timestep, device=both.device)
        text = self.text_embedding.to(both.dtype).expand(len(both), -1, -1)
        output: Tensor = self.unet(both, timestep, encoder_hidden_states=text, return_dict=False)[0]
        return at_least_float32(output)

    def clean(self, output: Tensor, noisy: Tensor, timestep: Tensor | int) -> Tensor:
        """Compute z_0 from the output of ``predict``; see ``NoiseSchedule.clean``."""
        return self.scheduler.clean(output, noisy, timestep)

    def denoise(self, image_latent: Tensor, latent: Tensor, *, steps: int) -> Tensor:
        """Denoise ``latent`` by DDIM ``steps`` to the latent of a depth map, float32; both ``(B, C, h, w)``."""
        for timestep in self.scheduler.timesteps(steps):
            output = self.predict(latent, image_latent, timestep)
            latent = self.scheduler.step(output, latent, timestep, steps)
        return latent

    def members(self, image_latent: Tensor, latents: Tensor, *, steps: int) -> Tensor:
        """Predict the maps y to which several latents lead.

        Args:
            image_latent: ``(B, C, h, w)``.
            latents: to start from, ``(B, members, C, h, w)``.
            steps: calls of the UNet for each member.

        Returns:
            float32 ``(B, members, 1, H, W)``, in [-1, 1].
        """
        each = image_latent.repeat_interleave(latents.shape[1], 0)
        y = self.decode_latent(self.denoise(each, latents.flatten(0, 1).to(each), steps=steps))
        return y.unflatten(0, latents.shape[:2])

    def start(self, height: int, width: int) -> Tensor:
        """Draw the latents that members start from on images of this size [px], ``(members, 1, C, h, w)``."""
        channels: int = self.vae.config.latent_channels
        return self.sampling.latents(
            (self.sampling.members, 1, channels, height // self.size_multiple, width // self.size_multiple)
        )

    @property
    def gives_uncertainty(self) -> bool:
        """Whether several members are predicted, whose spread is the uncertainty."""
        return self.sampling.members > 1

    def with_uncertainty(
        self, image: Tensor, shown: tuple[int, int] | None = None, start: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Predict as ``forward`` does, and the members' spread as a fraction of depth, ``(B, 1, H, W)``: 0 for one member.

        Members are predicted one after another, so that memory holds one batch. Both maps are cropped to the first rows and
        columns, ``shown``, before members are reduced. ``start`` is by default what the method of this name draws.
        """
        height, width = shown or image.shape[-2:]
        latent = self.encode_image(image)
        start = self.start(image.shape[-2], image.shape[-1]) if start is None else start
        each = [self.members(latent, one.expand(len(latent), *one.shape), steps=self.sampling.steps) for one in start]
        y, spread = self.reduce(torch.cat(each, 1)[..., :height, :width], self.sampling)
        return self.codec.decode(y), self.codec.relative_spread(spread, y)

    def reduce(self, y: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
        """Reduce members ``(B, members, 1, H, W)`` to one map and their spread, ``(B, 1, H, W)`` each.

        Members that are known up to scale and shift are fitted to each other first (Marigold, section 3.3).
        """
        if self.ambiguity != Ambiguity.SHIFT_SCALE or y.shape[1] == 1:
            return sampling.reduce(y)
        return fitted_together(y, sampling.reduction)

    def forward(self, image: Tensor) -> Tensor:
        """Predict depth maps by ``sampling``, the same at every call.

        Args:
            image: float RGB in [0, 1], ``(B, 3, H, W)``, H and W multiples of ``size_multiple``.

        Returns:
            Metres, or up to scale and shift with an affine codec, float32 ``(B, 1, H, W)``.

        Raises:
            ShapeError: another shape or type; the message names the next legal size.
            PredictionError: the VAE overflowed.
        """
        return self.with_uncertainty(image)[0]

    def save_pretrained(self, folder: str | Path, **facts: Any) -> Path:
        """Write a folder that ``latent_diffusion`` reads and ``diffusers.MarigoldDepthPipeline.from_pretrained`` opens."""
        return save(self, folder)


def widen_first_layer(unet: Any, *, halve_bias: bool = False) -> None:
    """Double a UNet's input channels, repeating and halving weights: the same input twice gives the original output."""
    old = unet.conv_in
    new = nn.Conv2d(2 * old.in_channels, old.out_channels, old.kernel_size, old.stride, old.padding)
    new.weight = nn.Parameter(old.weight.detach().repeat(1, 2, 1, 1) / 2)
    new.bias = nn.Parameter(old.bias.detach() / (2 if halve_bias else 1))
    unet.conv_in = new
    unet.register_to_config(in_channels=new.in_channels)


def _plain(config: Any) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in config.items() if not key.startswith("_")}
