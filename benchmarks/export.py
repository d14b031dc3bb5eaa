"""What is deployed: networks as programs in files, run by an interpreter that never imports depthkit.

Small networks learn rendered scenes for some steps; each is written as .pt2 and .onnx, of one size and of any size, in fp32,
fp16 and int8 (.onnx). A fresh interpreter that imports torch or ONNX Runtime alone runs the file. Printed are the largest
difference of its maps from the network's as a share of the largest value, the file's size, the median time of an image, and
AbsRel on unseen scenes of the file as `depthkit evaluate` scores it, beside the network's.

    python benchmarks/export.py
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _command import installed, parsed, temporary_folder
from lightning.pytorch import Trainer, seed_everything

from depthkit.data import DepthDataModule, ShardSource
from depthkit.errors import DepthKitError
from depthkit.evaluation import PROTOCOLS, evaluate
from depthkit.inference import export_program
from depthkit.models import (
    DepthNet,
    Sampling,
    dpt_timm,
    from_pretrained,
    latent_diffusion_tiny,
    lrn_timm,
    midas_timm,
    monodepth2_timm,
)
from depthkit.paradigms import AffineInvariantModule, GeometryPreservingModule
from depthkit.shards import write_shards
from depthkit.synthetic import SyntheticScenes
from depthkit.types import Ambiguity, Representation, Sample

SIZE = (64, 96)
PROTOCOL = PROTOCOLS["synthetic_affine"]
TINY = {"depth": 4, "embed_dim": 96, "num_heads": 3}
BUILDERS: dict[str, Callable[[], Any]] = {
    "midas, mobilenetv3": lambda: midas_timm("mobilenetv3_small_050", pretrained=False, features=32),
    "lrn, mobilenetv2": lambda: lrn_timm("mobilenetv2_035", pretrained=False),
    "monodepth2, mobilenetv3": lambda: monodepth2_timm("mobilenetv3_small_050", pretrained=False),
    "dpt, test_vit": lambda: dpt_timm("test_vit", pretrained=False, features=32),
    "dpt, DINOv3 of 4 blocks": lambda: dpt_timm("vit_small_patch16_dinov3", pretrained=False, features=32, options=TINY),
    "latent diffusion, 2 steps": lambda: latent_diffusion_tiny(sampling=Sampling(steps=2)),
}
WITHOUT_DEPTHKIT = """
import json, sys, time
import numpy as np
path, images, repeat = sys.argv[1], np.load(sys.argv[2]), int(sys.argv[3])
if path.endswith(".onnx"):
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    run = lambda image: session.run(["map"], {"image": image})[0]
else:
    import torch
    torch.set_num_threads(1)
    module = torch.export.load(path).module()
    run = lambda image: module(torch.from_numpy(image)).detach().numpy()
maps = np.concatenate([run(image[None]) for image in images])
times = []
for _ in range(repeat):
    start = time.perf_counter()
    run(images[:1])
    times.append(time.perf_counter() - start)
assert "depthkit" not in sys.modules
np.save(sys.argv[4], maps)
print(json.dumps(sorted(times)[len(times) // 2]))
"""
"""Arguments: file, images, repetitions, where to write the maps."""


def trained(name: str, data: Path, steps: int) -> DepthNet:
    """A network that has learned rendered scenes for some steps; the diffusion model stays as it is made."""
    seed_everything(0, verbose=False)
    model: Any = BUILDERS[name]()
    if hasattr(model, "sampling"):
        return model.eval()
    optimizer = partial(torch.optim.AdamW, lr=2e-3, weight_decay=1e-2)
    logarithm = model.representation == Representation.LOG_DISPARITY
    module = (GeometryPreservingModule if logarithm else AffineInvariantModule)(model, optimizer=optimizer)
    batches = DepthDataModule([ShardSource(str(data))], size=SIZE, batch_size=8, epoch_size=8 * steps)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    Trainer(max_epochs=1, accelerator="cpu", gradient_clip_val=1.0, **quiet).fit(module, datamodule=batches)
    return model.eval()


def variants(precisions: list[str], sizes: list[str]) -> Iterator[tuple[str, bool, str]]:
    """Format, any size or one, precision; what a format has not is left out."""
    for suffix, size, precision in product(("pt2", "onnx"), sizes, precisions):
        if (suffix, precision) != ("pt2", "int8"):
            yield suffix, size == "any", precision


def abs_rel(model: Any, samples: list[Sample], ambiguity: Ambiguity) -> float:
    """As `depthkit evaluate` does."""
    return evaluate(model, samples, PROTOCOL, ambiguity=ambiguity, pictures=0, progress=False).summary["abs_rel"]


def rows(name: str, model: DepthNet, samples: list[Sample], folder: Path, options: argparse.Namespace) -> Iterator[str]:
    """A line for each variant."""
    ambiguity = Ambiguity.SHIFT_SCALE if model.representation == Representation.DISPARITY else Ambiguity.SCALE
    ambiguity = Ambiguity.METRIC if hasattr(model, "sampling") else ambiguity
    images = np.stack([sample.image for sample in samples]).transpose(0, 3, 1, 2).astype(np.float32) / 255
    np.save(folder / "images.npy", images)
    with torch.no_grad():
        exact = torch.cat([model(torch.from_numpy(image[None])) for image in images]).numpy()
    own = abs_rel(model, samples, ambiguity)
    for suffix, dynamic, precision in variants(options.precisions, options.sizes):
        sizes, path = "any" if dynamic else f"{SIZE[0]}x{SIZE[1]}", folder / f"net.{suffix}"
        start = f"| {name} | {suffix} | {sizes} | {precision} |"
        try:
            export_program(model, path, size=SIZE, ambiguity=ambiguity, dynamic=dynamic, precision=precision)
        except DepthKitError as error:
            yield f"{start} refused: {str(error).partition(';')[0].partition('. ')[0]} | | | | |"
            continue
        program = [
            sys.executable,
            "-c",
            WITHOUT_DEPTHKIT,
            path,
            folder / "images.npy",
            str(options.repeat),
            folder / "maps.npy",
        ]
        done = subprocess.run(program, stdout=subprocess.PIPE, text=True, check=True, cwd=folder)
        maps = np.load(folder / "maps.npy")
        difference = np.abs(maps - exact).max() / np.abs(exact).max()
        found = abs_rel(from_pretrained(path), samples, ambiguity)
        size = sum(file.stat().st_size for file in folder.glob(f"{path.name}*"))
        yield (f"{start} {difference:.1e} | {size / 1e6:.2f} | {1e3 * json.loads(done.stdout):.1f} | {found:.4f} | {own:.4f} |")
        path.unlink()


def main() -> None:
    """Train, export, run elsewhere, score and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=tuple(BUILDERS), default=list(BUILDERS))
    parser.add_argument("--scenes", type=int, default=200, help="to learn from")
    parser.add_argument("--unseen", type=int, default=16, help="to score")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--repeat", type=int, default=9, help="timed calls")
    parser.add_argument("--precisions", nargs="+", choices=("fp32", "fp16", "int8"), default=["fp32", "fp16", "int8"])
    parser.add_argument("--sizes", nargs="+", choices=("one", "any"), default=["one", "any"])
    one = ["midas, mobilenetv3"]
    options = parsed(parser, networks=one, scenes=8, unseen=2, steps=1, repeat=1, precisions=["fp32"], sizes=["one"])
    if not all(installed(package, "no .onnx") for package in ("onnx", "onnxscript", "onnxruntime")):
        return
    torch.set_num_threads(1)
    folder = temporary_folder()
    write_shards(SyntheticScenes(options.scenes, size=SIZE, kind="mixed"), folder / "data", split="train", dataset="mixed")
    samples = list(SyntheticScenes(options.unseen, size=SIZE, kind="mixed", seed=1))
    print(f"{options.unseen} unseen scenes, {options.steps} steps, one thread, load {os.getloadavg()[0]:.1f}\n")
    print("| network | format | sizes | precision | difference | MB | ms | AbsRel of the file | of the network |")
    print("|---|---|---|---|--:|--:|--:|--:|--:|", flush=True)
    for name in options.networks:
        for row in rows(name, trained(name, folder / "data", options.steps), samples, folder, options):
            print(row, flush=True)


if __name__ == "__main__":
    main()
