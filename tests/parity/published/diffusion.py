"""Folders of diffusers as Marigold and E2E-FT publish them, with random weights, and the pipeline of diffusers that runs them.

Nothing of ours writes them. Schedules are set as the papers say: Stable Diffusion 2's own with leading steps for Marigold 1.0;
trailing steps, and no signal at the first, for what came after. The text encoder has two layers, since of it only the
embedding of the empty prompt is read, and the tokenizer knows this prompt's two words.
"""

from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from PIL import Image
from torch import Tensor, nn

from tests.parity.published.rules import Side, Written

# Stable Diffusion 2, as its configurations give it, with the second latent at the UNet's entrance
UNET: dict[str, Any] = {
    "sample_size": 96, "in_channels": 8, "out_channels": 4, "block_out_channels": (320, 640, 1280, 1280), "layers_per_block": 2,
    "cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True,
}  # fmt: skip
VAE: dict[str, Any] = {"sample_size": 768, "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2}
TINY_UNET = {
    **UNET, "block_out_channels": (16, 32), "layers_per_block": 1, "cross_attention_dim": 16, "attention_head_dim": 8,
    "norm_num_groups": 8, "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}  # fmt: skip
TINY_VAE = {**VAE, "block_out_channels": (8, 16, 16, 16), "layers_per_block": 1, "norm_num_groups": 8}
NOISE = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False, "steps_offset": 1,
    "prediction_type": "v_prediction",
}  # fmt: skip
FIRST = {**NOISE, "timestep_spacing": "leading", "set_alpha_to_one": False, "rescale_betas_zero_snr": False}
LATER = {**NOISE, "timestep_spacing": "trailing", "set_alpha_to_one": True, "rescale_betas_zero_snr": True}
STEPS = {"marigold_v1_1": 4, "marigold_v1_0": 50}


def text(width: int, scratch: Path) -> tuple[nn.Module, Any]:
    """A text encoder and a tokenizer of two words."""
    config = transformers.CLIPTextConfig(
        vocab_size=2, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=2, num_attention_heads=width // 8,
        max_position_embeddings=77, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    scratch.mkdir()
    (scratch / "vocab.json").write_text('{"<|startoftext|>": 0, "<|endoftext|>": 1}')
    (scratch / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer.from_pretrained(scratch, pad_token="<|endoftext|>", model_max_length=77)
    return transformers.CLIPTextModel(config).eval(), tokenizer


@torch.no_grad()
def spread(vae: Any) -> None:
    """Let the decoder's map have a mean of 0 and a deviation of 0.3, so that most of it is within [-1, 1]."""
    decoded = vae.decode(torch.randn(1, 4, 24, 32, generator=torch.Generator().manual_seed(0)) / vae.config.scaling_factor)[0]
    factor = 0.3 / decoded.mean(1).std()
    last = vae.decoder.conv_out
    last.bias.copy_(factor * (last.bias - decoded.mean((0, 2, 3))))
    last.weight.mul_(factor)


def marigold(name: str, folder: Path, side: Side = None, *, tiny: bool = False) -> Written:
    """The folder, and the pipeline's one member; the authors' fit of members does not repeat."""
    unet = diffusers.UNet2DConditionModel(**(TINY_UNET if tiny else UNET)).eval()
    stages = {f"{way}_block_types": (f"{kind}Block2D",) * 4 for way, kind in (("down", "DownEncoder"), ("up", "UpDecoder"))}
    vae = diffusers.AutoencoderKL(**(TINY_VAE if tiny else VAE), **stages).eval()
    spread(vae)
    schedule = diffusers.DDIMScheduler(**(FIRST if name == "marigold_v1_0" else LATER))
    words = text(unet.config.cross_attention_dim, folder / "words")
    steps, longest = STEPS.get(name, 1), side or 768
    pipeline = diffusers.MarigoldDepthPipeline(
        unet, vae, schedule, *words, prediction_type="depth", default_denoising_steps=steps, default_processing_resolution=768
    )
    path = folder / name
    pipeline.save_pretrained(path)
    pipeline.set_progress_bar_config(disable=True)

    def run(file: Path) -> Tensor:
        for table in ("alphas_cumprod", "final_alpha_cumprod"):
            setattr(schedule, table, getattr(schedule, table).to(torch.get_default_dtype()))
        image = Image.open(file).convert("RGB")
        sides = [-(-(length * longest // max(image.size)) // 8) for length in image.size[::-1]]
        latents = torch.randn((1, 4, *sides), generator=torch.Generator().manual_seed(0))
        return pipeline(
            image, num_inference_steps=steps, ensemble_size=1, processing_resolution=longest, output_type="pt",
            latents=latents * ("e2e" not in name), batch_size=1,
        ).prediction[0, 0]  # fmt: skip

    return Written(path, run, nn.ModuleList([unet, vae, words[0]]))
