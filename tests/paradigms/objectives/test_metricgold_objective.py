"""DiffusionModule against MetricGold (Shah 2024), eqs 1-3, in Marigold's training (Ke et al. 2024), written from the papers."""

from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("diffusers")

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from depthkit.models import AffineDepth, LogDepth, latent_diffusion_tiny
from depthkit.paradigms import DiffusionModule, EndToEndDiffusionModule, VAEDecoderModule
from depthkit.paradigms.terms.rng import step_rng
from depthkit.types import Batch
from tests.contracts.objective import METRIC_LOG, assert_same_step, disparity_of
from tests.contracts.paradigm import METRIC_DEPTH, batch

NEAREST, FARTHEST = 0.5, 20.0


def module(kind: type, codec: Any = None, **options: Any) -> Any:
    torch.manual_seed(0)
    model = latent_diffusion_tiny(codec=codec or LogDepth(NEAREST, FARTHEST), unet_channels=(8, 16), vae_channels=(8, 8))
    return kind(model, **options)


def labelled(seed: int) -> Batch:
    """A hole, a sky, depths beyond both bounds, a row without a label."""
    b = batch([(0, METRIC_DEPTH), (0, METRIC_LOG), (1, METRIC_DEPTH), (0, METRIC_DEPTH)], seed=seed, unlabelled=[2])
    noise = torch.rand(b.target.shape, generator=torch.Generator().manual_seed(seed + 1))
    target = 1 / (0.2 + noise)
    valid = torch.ones_like(b.valid)
    target[0, :, 4:9, 3:11], target[0, :, :2], target[3, :, 2:4, 4:8] = 50.0, torch.inf, 0.1
    valid[1, :, 10:, 6:9], valid[2] = False, False
    target[1] = target[1].log()
    return replace(b, target=target.where(valid, torch.nan), valid=valid)


def depth_of(b: Batch) -> tuple[Tensor, Tensor]:
    """Depth [m], ``(B, 1, H, W)``, and where it is finite."""
    rows = [disparity_of(b, row) for row in range(len(b))]
    disparity, valid = (torch.stack([row[i] for row in rows])[:, None] for i in (0, 1))
    return (1 / disparity).where(valid, 1), valid & (disparity > 0)


def unit(depth: Tensor, valid: Tensor) -> Tensor:
    """Eqs 1 and 3: near at -1, far at 1, what has no depth far."""
    u = (depth / NEAREST).log() / torch.tensor(FARTHEST / NEAREST).double().log()
    return (2 * u - 1).clamp(-1, 1).where(valid, 1)


def latent(m: Any, image: Tensor) -> Tensor:
    """The mean of the VAE's posterior, scaled; of a map in three channels, of an image in [-1, 1]."""
    with torch.no_grad():
        vae = m.model.vae
        return vae.encode(image.float()).latent_dist.mean * vae.config.scaling_factor


def schedule() -> Tensor:
    """Stable Diffusion 2's cumulative products, rescaled so that the last step is noise alone (Lin et al., algorithm 1)."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    root = (1 - betas).cumprod(0).sqrt()
    return ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2


def draws(m: Any, like: Tensor) -> tuple[Tensor, Tensor]:
    """A timestep per row and annealed multi-resolution noise (Marigold, section 3.2), divided by its deviation."""
    with step_rng(0, m._drawn, 0):
        timestep = torch.randint(1000, (len(like),))
        strength = 0.9 * (timestep / 1000)[:, None, None, None]
        noise, (height, width) = torch.randn(like.shape), like.shape[-2:]
        for level in range(10):
            ratio = (2 + 2 * float(torch.rand(()))) ** level
            height, width = max(1, int(height / ratio)), max(1, int(width / ratio))
            coarse = torch.randn(*like.shape[:2], height, width)
            noise = noise + strength**level * interpolate(coarse, like.shape[-2:], mode="bilinear")
            if min(height, width) == 1:
                break
    return timestep, noise / noise.std()


def reference(m: Any, b: Batch, *, absolute: bool = False) -> Tensor:
    """v-prediction on the latent cells all of whose pixels hold a depth within the range."""
    depth, valid = depth_of(b)
    clean = latent(m, unit(depth, valid).expand(-1, 3, -1, -1))
    timestep, noise = draws(m, clean)
    a = schedule()[timestep][:, None, None, None]
    noisy, target = a.sqrt() * clean + (1 - a).sqrt() * noise, a.sqrt() * noise - (1 - a).sqrt() * clean
    both = torch.cat([latent(m, 2 * b.image - 1), noisy], 1).float()
    text = m.model.text_embedding.expand(len(b), -1, -1)
    difference = m.model.unet(both, timestep, encoder_hidden_states=text).sample.double() - target
    learned = valid & (depth >= NEAREST) & (depth <= FARTHEST)
    side = b.image.shape[-1] // clean.shape[-1]
    cells = learned.unfold(2, side, side).unfold(3, side, side).flatten(4).all(4).expand_as(difference)
    assert 0.1 < cells.double().mean() < 0.9
    return (difference.abs() if absolute else difference**2)[cells].mean()


@pytest.mark.parametrize("seed", [0, 1])
def test_the_step_is_marigolds_on_log_depth(seed: int) -> None:
    m, b = module(DiffusionModule), labelled(seed)
    m._drawn = 7 + seed
    assert_same_step(m, b, reference(m, b), tolerance=5e-3)


def test_the_absolute_difference_is_the_other_penalty() -> None:
    m, b = module(DiffusionModule, penalty="l1"), labelled(0)
    assert_same_step(m, b, reference(m, b, absolute=True), tolerance=5e-3)


def decoded(m: Any, z: Tensor) -> Tensor:
    """The mean of the VAE's channels, clipped; the clip lets gradients through."""
    vae = m.model.vae
    y = vae.decode((z / vae.config.scaling_factor).float()).sample.double().mean(1, keepdim=True)
    return y + (y.clamp(-1, 1) - y).detach()


def test_one_step_end_to_end_compares_log_depth_pixel_by_pixel() -> None:
    """Garcia et al. (2024): the last timestep, zeros beside the image, z_0 = -v, the VAE's decoder, a loss per image."""
    m, b = module(EndToEndDiffusionModule), labelled(0)
    image = latent(m, 2 * b.image - 1)
    both, text = torch.cat([image, torch.zeros_like(image)], 1), m.model.text_embedding.expand(len(b), -1, -1)
    v = m.model.unet(both, 999, encoder_hidden_states=text).sample
    log_depth = torch.tensor(NEAREST).log() + (decoded(m, -v) + 1) / 2 * torch.tensor(FARTHEST / NEAREST).double().log()
    depth, valid = depth_of(b)
    learned = valid & (depth >= NEAREST) & (depth <= FARTHEST)
    losses = [(log_depth[i] - depth[i].log())[learned[i]].abs().mean() for i in range(len(b)) if learned[i].any()]
    assert len(losses) == 3
    assert_same_step(m, b, torch.stack(losses).mean(), tolerance=5e-3)


def test_the_decoder_is_taught_the_map_itself() -> None:
    m, b = module(VAEDecoderModule), labelled(0)
    depth, valid = depth_of(b)
    y = unit(depth, valid)
    learned = valid & (depth >= NEAREST) & (depth <= FARTHEST)
    z = latent(m, y.expand(-1, 3, -1, -1))
    assert_same_step(m, b, (decoded(m, z) - y)[learned].abs().mean(), tolerance=5e-3)


def test_an_affine_codec_learns_each_image_between_its_own_quantiles_tails_included() -> None:
    """Marigold's eq 1: -1 and 1 at the 2 % and 98 % quantiles of each image's depth."""
    m, b = module(DiffusionModule, AffineDepth()), labelled(0)
    depth, valid = depth_of(b)
    y = torch.ones_like(depth)
    for row in (0, 1, 3):
        known = depth[row][valid[row]]
        low, high = known.quantile(0.02), known.quantile(0.98)
        y[row] = (2 * (depth[row] - low) / (high - low) - 1).clamp(-1, 1).where(valid[row], 1)
    clean = latent(m, y.expand(-1, 3, -1, -1))
    timestep, noise = draws(m, clean)
    a = schedule()[timestep][:, None, None, None]
    both = torch.cat([latent(m, 2 * b.image - 1), a.sqrt() * clean + (1 - a).sqrt() * noise], 1).float()
    found = m.model.unet(both, timestep, encoder_hidden_states=m.model.text_embedding.expand(len(b), -1, -1)).sample
    difference = found.double() - (a.sqrt() * noise - (1 - a).sqrt() * clean)
    side = b.image.shape[-1] // clean.shape[-1]
    cells = valid.unfold(2, side, side).unfold(3, side, side).flatten(4).all(4).expand_as(difference)
    assert_same_step(m, b, (difference**2)[cells].mean(), tolerance=5e-3)
