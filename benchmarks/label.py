"""`depthkit label` against the bare forward loop of the same teacher on the same images, both in images per second.

The bare loop has its images decoded, resized and batched in memory before the clock starts, and drops what the network
returns. What labelling loses against it is the price of reading, decoding, resizing, of bringing each map to its image's
size, of encoding and of writing shards that survive a power cut. Both are measured in turn, several times; the clock of a
labelling run starts before its worker processes and stops when the index is on the disk.

On a busy machine the ratio of processor times is the one to trust: it counts every thread and process.

    python benchmarks/label.py --pool PHOTOS --teacher lrn_efficientnet_lite0 --side 384
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from _command import parsed
from lightning.pytorch import Trainer

from depthkit import models
from depthkit.evaluation import InputResize
from depthkit.inference.labelling import LabelFolder, Pool, PoolReader, open_pool, pool_loader, stored_kind
from depthkit.inference.labelling.module import PseudoLabelModule
from depthkit.inference.teacher import Teacher, load_teacher
from depthkit.types import Ambiguity, LabelKind, Representation

AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def photographs(root: Path, count: int) -> None:
    """Images of three aspects with smooth content and fine texture: about as hard to decode as photographs."""
    for i in range(count):
        rng, (height, width) = np.random.default_rng(i), [(375, 500), (500, 375), (333, 500)][i % 3]
        coarse, fine = (
            cv2.resize(rng.random((n, n, 3), dtype=np.float32), (width, height), interpolation=cv2.INTER_CUBIC) for n in (6, 60)
        )
        cv2.imwrite(str(root / f"{i:05d}.jpg"), (255 * np.clip(0.7 * coarse + 0.3 * fine, 0, 1)).astype(np.uint8))


class Sloped(torch.nn.Module):
    """A network whose random weights may return nothing but 0, with a slope added so that each map is a label."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model, self.size_multiple = model, model.size_multiple

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """The map of ``(B, 3, h, w)``."""
        maps = self.model(image)
        return maps + torch.linspace(0, 1, maps.shape[-1], device=maps.device)


def teacher_of(name: str, side: int) -> Teacher:
    """A checkpoint's network, or a named architecture with random weights: speed does not depend on them."""
    if Path(name).is_file():
        return load_teacher(name, input_rule=lambda _: InputResize(side, "area", antialias=True))
    model = getattr(models, name)(pretrained=False).eval()
    affine = model.representation == Representation.DISPARITY
    kind = LabelKind(Ambiguity.SHIFT_SCALE if affine else Ambiguity.SCALE, model.representation)
    return Teacher(name, Sloped(model), kind, InputResize(side, "area", antialias=True))


def reader_of(pool: Pool, teacher: Teacher, batch_size: int) -> PoolReader:
    """The pool as both read it."""
    return PoolReader(pool, pool.pieces, resize=teacher.resize, multiple=teacher.multiple, batch_size=batch_size)


def now() -> tuple[float, float]:
    """The clock, and the processor time of this process and of its children that have ended [s]."""
    return time.perf_counter(), sum(os.times()[:4])


def since(start: tuple[float, float]) -> tuple[float, float]:
    """Seconds on both since."""
    end = now()
    return end[0] - start[0], end[1] - start[1]


@torch.inference_mode()
def bare(batches: list[torch.Tensor], teacher: Teacher, device: torch.device, precision: str) -> tuple[float, float]:
    """Seconds for all batches, on the clock and of processors."""
    start = now()
    with torch.autocast(device.type, AUTOCAST.get(precision), enabled=precision in AUTOCAST):
        for images in batches:
            teacher.model(images.to(device, non_blocking=True))
    if device.type == "cuda":
        torch.cuda.synchronize()
    return since(start)


def labelled(pool: Pool, teacher: Teacher, options: argparse.Namespace, device: torch.device) -> tuple[float, float]:
    """Seconds to label the pool into a new folder, on the clock and of processors."""
    with tempfile.TemporaryDirectory() as out:
        folder = LabelFolder(Path(out) / "labels", pool, stored_kind(teacher.kind), teacher.facts())
        module: Any = PseudoLabelModule(
            teacher.model, teacher.kind, folder, reader_of(pool, teacher, options.batch_size),
            num_workers=options.workers, threads=options.threads,
        )  # fmt: skip
        trainer = Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu", devices=1, precision=options.precision, logger=False,
            enable_checkpointing=False, enable_model_summary=False, enable_progress_bar=False,
        )  # fmt: skip
        start = now()
        trainer.predict(module, return_predictions=False)
        seconds = since(start)
        assert module.labelled == pool.count, "labels are missing"
        return seconds


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", help="folder of images or shards; made ones without it")
    parser.add_argument("--images", type=int, default=120, help="how many to make, or to take of a folder")
    parser.add_argument("--teacher", default="lrn_efficientnet_lite0", help="architecture, or checkpoint of depthkit fit")
    parser.add_argument("--side", type=int, nargs="+", default=[384])
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", default="32-true", choices=["32-true", *AUTOCAST])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parsed(parser, images=3, teacher="lrn_mobilenetv2", side=[64], repeat=1)
    device = torch.device(options.device)
    warnings.filterwarnings("ignore")
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads of torch, {device}\n")
    print("| teacher | side | batch | workers | bare images/s | label images/s | ratio | processor time |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as made:
        if not options.pool:
            photographs(Path(made), options.images)
        pool = open_pool(options.pool or made, images_per_shard=max(1, options.images // 3))
        for side in options.side:
            teacher = teacher_of(options.teacher, side)
            teacher.model.to(device)
            loader = pool_loader(reader_of(pool, teacher, options.batch_size), num_workers=options.workers)
            batches = [batch.images for batch in loader if batch.entries]
            bare(batches[:3], teacher, device, options.precision)
            rounds = [
                (*bare(batches, teacher, device, options.precision), *labelled(pool, teacher, options, device))
                for _ in range(options.repeat)
            ]
            one, _, two, _ = (pool.count / statistics.median(column) for column in zip(*rounds, strict=True))
            ratio, processors = (statistics.median(r[i] / r[i + 2] for r in rounds) for i in (0, 1))
            print(
                f"| {teacher.name} | {side} | {options.batch_size} | {options.workers} | {one:.1f} | {two:.1f} | {ratio:.1%} | "
                f"{processors:.1%} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
