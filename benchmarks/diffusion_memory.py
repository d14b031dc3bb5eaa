"""Memory and arithmetic to fine-tune the UNet of Stable Diffusion 2, by configuration: computed, not measured.

The network runs on PyTorch's meta device, where tensors have shapes and no memory, with the casts that CUDA's autocast makes;
what autograd keeps for the backward pass is counted, each storage once. The peak is taken to be at the end of the forward
pass: weights, gradients, Adam's two moments, bf16 copies of the weights under autocast, and what was kept; with gradient
checkpointing that is what stays between the recomputed blocks and the largest one of these. Attention is the memory-efficient
kernel. The second stage, end to end, keeps the VAE's decoder in float32, too.

Left out: the CUDA context (about 0.5 GB), the allocator's fragmentation, temporary tensors inside kernels, the VAE's encoding,
which is over by then, and the temporary copies of Adam's step, when the activations are gone. Gradients accumulated over
several micro-batches take no more memory than those of one: an effective batch of 32 costs what its micro-batch does.

Arithmetic is counted in a step that does run on the meta device: what the VAE encodes, forward, backward and what is
recomputed, a multiplication and an addition being two. Divided by what a GPU sustains, it is the time of an optimizer step.

Run: python benchmarks/diffusion_memory.py --size 480 640 --micro-batch 1 2 16
"""

import argparse
import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import torch
from _command import installed, parsed
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from depthkit.models import LatentDiffusionDepth, latent_diffusion, latent_diffusion_tiny

GB, TERA = 1e9, 1e12
BLOCKS = (
    "ResnetBlock2D",
    "Transformer2DModel",
    "UNetMidBlock2D",
    "UpDecoderBlock2D",
)  # what diffusers recomputes, each by itself


class Kept:
    """Bytes that autograd keeps, each storage once; those of parameters are not counted."""

    def __init__(self, model: nn.Module) -> None:
        self.seen = {x.untyped_storage()._cdata for x in model.parameters()}
        self.alive: list[Tensor] = []  # so that no storage's address is used again
        self.bytes = 0

    def leave_out(self, x: Tensor) -> Tensor:
        """Do not count this one."""
        self.seen.add(x.untyped_storage()._cdata)
        self.alive.append(x)
        return x

    def __call__(self, x: Tensor) -> Tensor:
        """Count one that autograd is about to keep."""
        if x.untyped_storage()._cdata not in self.seen:
            self.bytes += x.untyped_storage().nbytes()
            self.leave_out(x)
        return x


@contextlib.contextmanager
def as_on_cuda(kept: Kept, bf16: bool) -> Iterator[None]:
    """Attention by a kernel that keeps no matrix of scores; with ``bf16`` the casts of CUDA's autocast."""
    names = ("linear", "conv2d", "group_norm", "layer_norm", "scaled_dot_product_attention")
    plain: dict[str, Any] = {name: getattr(F, name) for name in names}
    copies: dict[int, Tensor] = {}

    def half(x: Tensor) -> Tensor:
        return x.bfloat16() if bf16 else x

    def weight(x: Tensor | None) -> Tensor | None:
        if x is None or not bf16:
            return x
        return copies.setdefault(id(x), kept.leave_out(half(x)))  # autocast casts a weight once

    def attention(q: Tensor, k: Tensor, v: Tensor, **_: Any) -> Tensor:
        return torch.ops.aten._scaled_dot_product_efficient_attention(half(q), half(k), half(v), None, True)[0]

    F.linear = lambda x, w, b=None: plain["linear"](half(x), weight(w), weight(b))
    F.conv2d = lambda x, w, b=None, *rest: plain["conv2d"](half(x), weight(w), weight(b), *rest)
    F.group_norm = lambda x, *rest: plain["group_norm"](x.float(), *rest)
    F.layer_norm = lambda x, *rest: plain["layer_norm"](x.float(), *rest)
    F.scaled_dot_product_attention = attention
    try:
        yield
    finally:
        for name, function in plain.items():
            setattr(F, name, function)


def activations(
    model: LatentDiffusionDepth, size: tuple[int, int], batch: int, bf16: bool, recompute: bool, end_to_end: bool
) -> tuple[int, int]:
    """Bytes kept at the end of the forward pass, and in the largest block that can be recomputed."""
    kept, before, largest = Kept(model), {}, 0

    def enter(block: nn.Module, _: Any) -> None:
        before[block] = kept.bytes

    def leave(block: nn.Module, *_: Any) -> None:
        nonlocal largest
        largest = max(largest, kept.bytes - before[block])

    blocks = [x for part in (model.unet, model.vae.decoder) for x in part.modules() if type(x).__name__ in BLOCKS]
    handles = [h for block in blocks for h in (block.register_forward_pre_hook(enter), block.register_forward_hook(leave))]
    for part in (model.unet, model.vae):
        (part.enable_gradient_checkpointing if recompute else part.disable_gradient_checkpointing)()
    latent = torch.empty(batch, 4, size[0] // 8, size[1] // 8, device="meta")
    timestep = torch.zeros(batch, dtype=torch.int64, device="meta")
    with torch.autograd.graph.saved_tensors_hooks(kept, lambda x: x):
        with as_on_cuda(kept, bf16):
            output = model.predict(latent, latent, timestep)
        with as_on_cuda(kept, bf16=False):
            y = model.vae.decode(output, return_dict=False)[0].mean(1) if end_to_end else output
        y.square().mean()
    for handle in handles:
        handle.remove()
    return kept.bytes, largest


def arithmetic(model: LatentDiffusionDepth, size: tuple[int, int], recompute: bool, end_to_end: bool) -> int:
    """Operations of one image in a training step; the optimizer's do not count."""
    for part in (model.unet, model.vae):
        (part.enable_gradient_checkpointing if recompute else part.disable_gradient_checkpointing)()
    image = torch.empty(1, 3, *size, device="meta")
    with FlopCounterMode(display=False) as counter:
        with torch.no_grad():
            latents = [model.vae.encode(image).latent_dist.mode() for _ in range(1 if end_to_end else 2)]  # depth's, too
        output = model.predict(latents[0], latents[-1], torch.zeros(1, dtype=torch.int64, device="meta"))
        (model.vae.decode(output, return_dict=False)[0] if end_to_end else output).square().mean().backward()
    return counter.get_total_flops()


def main() -> None:
    """Compute and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", choices=("small", "sd2"), default="sd2", help="of Stable Diffusion 2's size, or small")
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640), metavar=("HEIGHT", "WIDTH"), help="of the images [px]")
    parser.add_argument("--micro-batch", type=int, nargs="+", default=[1, 2, 16], help="images per forward pass")
    parser.add_argument("--batch", type=int, default=32, help="images per optimizer step, for its time")
    parser.add_argument("--sustained", type=float, default=35.0, help="TFLOP/s of the GPU, for the same")
    options = parsed(parser, parts="small", size=(64, 64), micro_batch=[1])
    if not installed("diffusers", "nothing can be measured"):
        return
    with torch.device("meta"):
        model = (latent_diffusion_tiny() if options.parts == "small" else latent_diffusion(pretrained=False)).train()
    count = sum(x.numel() for x in model.unet.parameters())
    frozen = 4 * sum(x.numel() for x in model.vae.parameters())
    print(f"computed for {options.size[0]}x{options.size[1]}; UNet {count:,} parameters\n")
    print("| stage | UNet in | checkpointing | micro-batch | weights, gradients, Adam [GB] | activations [GB] | in all [GB] |")
    print("|---|---|---|--:|--:|--:|--:|")
    switches = itertools.product((False, True), (False, True), (False, True), options.micro_batch)
    for end_to_end, bf16, recompute, batch in switches:
        fixed = (16 + 2 * bf16) * count + frozen
        known = {"size": tuple(options.size), "batch": batch, "bf16": bf16, "end_to_end": end_to_end}
        whole, largest = activations(model, **known, recompute=False)
        if recompute:
            whole = activations(model, **known, recompute=True)[0] + largest
        stage, precision = ("end to end" if end_to_end else "latents"), ("bf16 autocast" if bf16 else "float32")
        numbers = f"{fixed / GB:.1f} | {whole / GB:.1f} | {(fixed + whole) / GB:.1f}"
        print(f"| {stage} | {precision} | {'yes' if recompute else 'no'} | {batch} | {numbers} |", flush=True)
    print(f"\n| stage | checkpointing | TFLOP per image | step of {options.batch} at {options.sustained:g} TFLOP/s [s] |")
    print("|---|---|--:|--:|")
    for end_to_end, recompute in itertools.product((False, True), (False, True)):
        each = arithmetic(model, tuple(options.size), recompute, end_to_end) / TERA
        stage, seconds = ("end to end" if end_to_end else "latents"), options.batch * each / options.sustained
        print(f"| {stage} | {'yes' if recompute else 'no'} | {each:.1f} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
