"""Latent diffusion on images of any size, with steps, members, noise and resolution chosen at each call."""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from depthkit.checks import check_image
from depthkit.errors import RecipeError, ShapeError
from depthkit.models import LatentDiffusionDepth, Sampling
from depthkit.models.diffusion.sampling import StartNoise
from depthkit.resize import OutputResize, interpolate


class DiffusionDepth(NamedTuple):
    """Result of ``diffuse``.

    Attributes:
        depth: metres, or up to scale and shift with an affine codec, float32 ``(B, 1, H, W)``.
        uncertainty: spread of the members as a fraction of depth, float32 ``(B, 1, H, W)``; 0 for one member.
        y: map in [-1, 1] that the codec decoded to depth, float32 ``(B, 1, H, W)``.
    """

    depth: Tensor
    uncertainty: Tensor
    y: Tensor


@torch.inference_mode()
def diffuse(
    model: LatentDiffusionDepth,
    image: Tensor,
    *,
    steps: int | None = None,
    members: int | None = None,
    latents: Tensor | None = None,
    generator: torch.Generator | None = None,
    processing_size: int | None = None,
    batch_size: int | None = None,
) -> DiffusionDepth:
    """Predict depth of a batch of images by a chosen number of steps and members.

    Images are resized to the processing size, padded at the right and below with their last pixels, predicted, cropped, reduced
    over the members and resized back, the last two in y. Members known up to scale and shift are fitted to each other before.

    Args:
        model: any; its ``sampling`` decides all that is not given here.
        image: float RGB in [0, 1], ``(B, 3, H, W)``, of any size.
        steps: calls of the UNet for each member.
        members: of the ensemble of each image; 2 are as good as 1.
        latents: to start from, ``(B, members, C, h, w)``, of the size of the padded image's latents; in video, for example,
            the latents of the frame before.
        generator: draws other latents for each image. Without ``latents`` and ``generator`` the model's sampling draws them.
        processing_size: longer side [px] at which the model sees an image, the other side rounded down; 0 for the image's own.
        batch_size: maps to predict at a time; None for all members of all images.

    Raises:
        ShapeError: an image of another shape or type, so long and thin that a side vanishes, or latents of another shape.
        RecipeError: latents and generator at once, a generator for a model that starts from zeros, a batch size below 1, or
            settings as of ``Sampling``.
        PredictionError: the VAE overflowed.
    """
    check_image("image", image)
    if latents is not None and generator is not None:
        raise RecipeError("expected latents or a generator that draws them; got both.")
    if batch_size is not None and batch_size < 1:
        raise RecipeError(f"expected a batch size of 1 or more; got {batch_size}.")
    sampling = _sampling(model.sampling, steps, members, latents, generator)
    members = sampling.members
    height, width = _processed(image, model.processing_size if processing_size is None else processing_size)
    seen = image
    if (height, width) != tuple(image.shape[-2:]):
        seen = interpolate(image, (height, width), "bilinear", antialias=True).clamp(0, 1)
    factor = model.size_multiple
    seen = F.pad(seen, (0, -width % factor, 0, -height % factor), mode="replicate")
    cells = (model.vae.config.latent_channels, seen.shape[-2] // factor, seen.shape[-1] // factor)
    start = _start(sampling, len(image), cells, latents, generator)
    each = range(0, len(image) * members, batch_size or len(image) * members)
    encoded = torch.cat([model.encode_image(part) for part in seen.split(batch_size or len(seen))])
    encoded, start = encoded.repeat_interleave(members, 0), start.flatten(0, 1)[:, None].to(encoded)
    stop = batch_size or len(encoded)
    maps = torch.cat([model.members(encoded[i : i + stop], start[i : i + stop], steps=sampling.steps) for i in each])
    maps = maps.view(len(image), members, *maps.shape[2:])[..., :height, :width]
    y, spread = (OutputResize()(x, (image.shape[-2], image.shape[-1])) for x in model.reduce(maps, sampling))
    return DiffusionDepth(model.codec.decode(y), model.codec.relative_spread(spread, y), y)


def _processed(image: Tensor, side: int) -> tuple[int, int]:
    height, width = image.shape[-2:]
    if side == 0:
        return height, width
    size = height * side // max(height, width), width * side // max(height, width)
    if side < 0 or 0 in size:
        raise ShapeError(f"expected an image of which something is left at a longer side of {side}; got {height}x{width}.")
    return size


def _sampling(
    own: Sampling, steps: int | None, members: int | None, latents: Tensor | None, generator: torch.Generator | None
) -> Sampling:
    """Change the model's sampling by the arguments given, and check the result."""
    if generator is not None and own.noise == StartNoise.ZEROS:
        raise RecipeError("expected no generator for a model that starts from zeros; got one. Leave it out.")
    return replace(
        own,
        steps=own.steps if steps is None else steps,
        members=own.members if members is None else members,
        noise=own.noise if latents is None else StartNoise.GAUSSIAN,
    )


def _start(
    sampling: Sampling,
    images: int,
    cells: tuple[int, int, int],
    latents: Tensor | None,
    generator: torch.Generator | None,
) -> Tensor:
    shape = (images, sampling.members, *cells)
    if latents is not None:
        if tuple(latents.shape) != shape:
            raise ShapeError(f"expected latents of shape {shape}; got {tuple(latents.shape)}.")
        return latents
    if generator is not None:
        return torch.randn(shape, generator=generator, device=generator.device)
    return sampling.latents(shape[1:]).expand(shape)
