"""Inference by latent diffusion: ours against MarigoldDepthPipeline of diffusers, same parts, same latents, same images.

Both are given an image in [0, 1] at the size at which it is processed, and run in turn in one process. Time is that of
the process on the CPU's cores, which others disturb less than the clock does; on a GPU that of the clock. Parts are random:
of Stable Diffusion 2's size, or small ones of its shape. Ours has its weights channels last on a CPU, as DepthPredictor lays
them out there; `--layout plain` leaves them as diffusers has them.

Run: python benchmarks/diffusion_inference.py --steps 1 4 --repeats 7
     python benchmarks/diffusion_inference.py --parts sd2 --size 480 640 --device cuda --dtype bfloat16
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version

import torch
from _command import installed, parsed
from torch import Tensor

from depthkit.inference import diffuse
from depthkit.models import AffineDepth, LatentDiffusionDepth, latent_diffusion, latent_diffusion_tiny

Predict = Callable[[], Tensor]


def parts(name: str) -> LatentDiffusionDepth:
    """A model with random weights."""
    if name == "sd2":
        return latent_diffusion(pretrained=False, codec=AffineDepth()).eval()
    wide = {"unet_channels": (64, 128, 256), "vae_channels": (32, 64, 128, 128), "text_channels": 64}
    return latent_diffusion_tiny(codec=AffineDepth(), **wide).eval()


def pipeline_of(model: LatentDiffusionDepth) -> Callable:
    """The rival, with the same parts."""
    import diffusers

    scheduler = diffusers.DDIMScheduler.from_config(model.scheduler.config)
    pipeline = diffusers.MarigoldDepthPipeline(model.unet, model.vae, scheduler, None, None, prediction_type="depth")
    pipeline.set_progress_bar_config(disable=True)
    pipeline.empty_text_embedding = model.text_embedding
    return pipeline


def seconds(predict: Predict, on_gpu: bool) -> float:
    """Time of one prediction, over the threads it runs on."""
    if not on_gpu:
        start = time.process_time()
        predict()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    predict()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def alternate(one: Predict, other: Predict, repeats: int, on_gpu: bool) -> tuple[list[float], list[float]]:
    """Times of both, in turn, after one prediction of each to warm up."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(repeats + 1):
        for predict, found in list(zip((one, other), times, strict=True))[:: 1 if turn % 2 else -1]:
            taken = seconds(predict, on_gpu)
            if turn:
                found.append(taken)
    return times


def main() -> None:
    """Time both and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", choices=("small", "sd2"), default="small")
    parser.add_argument("--size", type=int, nargs=2, default=(192, 256), metavar=("HEIGHT", "WIDTH"), help="of the images [px]")
    parser.add_argument("--batch", type=int, default=1, help="images at a time")
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 4], help="calls of the UNet")
    parser.add_argument("--repeats", type=int, default=7, help="timed predictions of each")
    parser.add_argument("--threads", type=int, default=1, help="threads of the CPU")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of all weights of both")
    parser.add_argument("--layout", choices=("plain", "channels_last"), help="of our weights; default channels_last on a CPU")
    options = parsed(parser, size=(32, 48), steps=[1], repeats=1)
    if not installed("diffusers", "nothing can be measured"):
        return
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    dtype, on_gpu = getattr(torch, options.dtype), options.device != "cpu"
    model = parts(options.parts).to(options.device, dtype)
    pipeline, factor = pipeline_of(copy.deepcopy(model)), model.size_multiple
    layout = options.layout or ("plain" if on_gpu else "channels_last")
    if layout == "channels_last":
        model.to(memory_format=torch.channels_last)
    image = torch.rand(options.batch, 3, *options.size, device=options.device)
    latents = torch.randn(
        options.batch, 1, 4, *(-(-side // factor) for side in options.size), device=options.device, dtype=dtype
    )
    where = torch.cuda.get_device_name() if on_gpu else f"CPU, {options.threads} thread(s)"
    print(f"{where}; torch {torch.__version__}, diffusers {version('diffusers')}; {options.dtype}, {options.parts} parts,")
    print(
        f"{options.batch} x {options.size[0]}x{options.size[1]}, ours {layout}, {options.repeats} predictions of each in turn\n"
    )
    print(
        "| steps | diffusers, median [s] | depthkit, median [s] | ratio, median of pairs | of the fastest | difference of y |"
    )
    print("|--:|--:|--:|--:|--:|--:|")
    for steps in options.steps:

        def ours(steps: int = steps) -> Tensor:
            return diffuse(model, image, steps=steps, latents=latents, processing_size=0).depth

        def theirs(steps: int = steps) -> Tensor:
            found = pipeline(
                image,
                num_inference_steps=steps,
                latents=latents[:, 0],
                processing_resolution=0,
                batch_size=options.batch,
                output_type="pt",
            )
            return found.prediction

        difference = 2 * float((ours() - theirs()).abs().max())
        mine, other = alternate(ours, theirs, options.repeats, on_gpu)
        pairs = statistics.median(b / a for a, b in zip(mine, other, strict=True))
        print(
            f"| {steps} | {statistics.median(other):.4f} | {statistics.median(mine):.4f} | {pairs:.3f} | "
            f"{min(other) / min(mine):.3f} | {difference:.1e} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
