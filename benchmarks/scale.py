"""Writing and labelling a pool of images as independent jobs: images per second and core, and what parts and engines cost.

The same images become shards in one go (`shards write images`), as parts one after the other, as parts in processes of their
own, by worker processes of one, and by Ray Data where that is installed. Then `label` runs with a teacher that costs nothing,
so that what remains is everything but the network: read, decode, resize, bring to the image's size, encode, write. Seconds
are of the clock and, as a shared machine needs, of processors (children included; Ray's daemons are nobody's children).

    OMP_NUM_THREADS=1 python benchmarks/scale.py --pool PHOTOS
"""

import argparse
import importlib.util
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from _command import parsed
from lightning.pytorch import Trainer

from depthkit.convert.catalogue import find
from depthkit.evaluation import InputResize
from depthkit.inference.labelling import LabelFolder, PoolReader, open_pool, stored_kind
from depthkit.inference.labelling.module import PseudoLabelModule
from depthkit.shards import Part, write_shards
from depthkit.types import Ambiguity, LabelKind, Representation

HOW: dict[str, Any] = {"split": "train", "dataset": "pool", "samples_per_shard": 12}


def photographs(root: Path, count: int, height: int, width: int) -> None:
    """Smooth content with fine texture: about as hard to decode as photographs."""
    for n in range(count):
        rng = np.random.default_rng(n)
        coarse, fine = (cv2.resize(rng.random((c, c, 3), dtype=np.float32), (width, height)) for c in (8, width // 5))
        cv2.imwrite(str(root / f"{n:05d}.jpg"), (255 * np.clip(0.7 * coarse + 0.3 * fine, 0, 1)).astype(np.uint8))


def at_once(pool: Path, out: Path, workers: int = 0) -> None:
    """`shards write`."""
    write_shards(find("images").open(str(pool), None, {}), out, originals=pool, workers=workers, **HOW)


def in_parts(pool: Path, out: Path, count: int, numbers: range | None = None) -> None:
    """`shards write --part k/n` for every k, one after the other."""
    for number in numbers or range(1, count + 1):
        source: Any = find("images").open(str(pool), None, {})
        write_shards(source, out, part=Part(number, count), originals=pool, **HOW)


def as_jobs(pool: Path, out: Path, count: int) -> None:
    """The same in processes that start afresh, all at once, as a SLURM array's do."""
    code = "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); import scale; "
    code += (
        "scale.in_parts(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[5]), range(int(sys.argv[4]), int(sys.argv[4]) + 1))"
    )
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", code, here, str(pool), str(out)]
    jobs = [subprocess.Popen([*command, str(number), str(count)]) for number in range(1, count + 1)]
    assert not any(job.wait() for job in jobs), "a job failed"


def by_ray(pool: Path, out: Path, count: int) -> None:
    """Ray Data: read files, check that they decode, write tars."""
    import ray

    ray.init(num_cpus=count, logging_level="error", log_to_driver=False, include_dashboard=False)
    try:
        context: Any = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        rows = ray.data.read_binary_files([str(file) for file in sorted(pool.glob("*"))], include_paths=True)
        rows.map(_decoded).write_webdataset(str(out), encoder=dict)  # bytes as they are
    finally:
        ray.shutdown()


def _decoded(row: dict[str, Any]) -> dict[str, Any]:
    assert cv2.imdecode(np.frombuffer(row["bytes"], np.uint8), cv2.IMREAD_COLOR) is not None
    return {"__key__": Path(row["path"]).stem, "image.jpg": row["bytes"], "meta.json": b"{}"}


class Nothing(torch.nn.Module):
    """A teacher that costs nothing: how bright the image is, at a fourteenth of its size."""

    size_multiple = 14

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """``(B, 1, h / 14, w / 14)``."""
        return torch.nn.functional.avg_pool2d(image.mean(1, keepdim=True), 14)


def labels(pool: Path, out: Path, side: int) -> None:
    """`label` with no network to speak of."""
    images = open_pool(str(pool), images_per_shard=100)
    kind = LabelKind(Ambiguity.SHIFT_SCALE, Representation.DISPARITY)
    folder = LabelFolder(out, images, stored_kind(kind), {})
    reader = PoolReader(images, images.pieces, resize=InputResize(side, "area", antialias=True), multiple=14, batch_size=8)
    module: Any = PseudoLabelModule(Nothing(), kind, folder, reader, threads=1)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False, "enable_progress_bar": False}
    Trainer(accelerator="cpu", devices=1, **quiet).predict(module, return_predictions=False)
    folder.complete()


def seconds(run: Callable[[Path], None]) -> tuple[float, float, int]:
    """Clock and processors [s], and bytes written, into an empty folder."""
    with tempfile.TemporaryDirectory() as place:
        start, used = time.perf_counter(), sum(os.times()[:4])
        run(Path(place) / "out")
        result = time.perf_counter() - start, sum(os.times()[:4]) - used
        return *result, sum(file.stat().st_size for file in (Path(place) / "out").rglob("*.tar"))


def main() -> None:
    """Measure in turn and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", type=Path, help="folder of images; made ones without it")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--size", type=int, nargs=2, default=[375, 500], help="of made images")
    parser.add_argument("--side", type=int, default=518, help="what the teacher sees is as many pixels as this square")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    options = parsed(parser, images=192, size=[60, 80], side=56, repeat=1)
    warnings.filterwarnings("ignore")
    cv2.setNumThreads(1)
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    with tempfile.TemporaryDirectory() as made:
        pool = options.pool or Path(made)
        if not options.pool:
            photographs(pool, options.images, *options.size)
        count = len(find("images").open(str(pool), None, {}))
        runs: dict[str, Callable[[Path], None]] = {
            "write, at once": lambda out: at_once(pool, out),
            f"write, {options.jobs} parts, one after the other": lambda out: in_parts(pool, out, options.jobs),
            "write, 16 parts, one after the other": lambda out: in_parts(pool, out, 16),
            f"write, {options.jobs} parts, a process each": lambda out: as_jobs(pool, out, options.jobs),
            f"write, {options.jobs} workers of one process": lambda out: at_once(pool, out, options.jobs),
            "label, without the network": lambda out: labels(pool, out, options.side),
        }
        if importlib.util.find_spec("ray"):
            runs[f"Ray Data, {options.jobs} cores, from its start"] = lambda out: by_ray(pool, out, options.jobs)
        print(f"{count} images\n\n| run | images/s | processor ms per image | kB per image |\n|---|--:|--:|--:|")
        for name, run in runs.items():
            times = [seconds(run) for _ in range(options.repeat)]
            clock, used, size = (statistics.median(column) for column in zip(*times, strict=True))
            cells = f"{count / clock:.1f} | {1000 * used / count:.2f} | {size / count / 1000:.1f}"
            print(f"| {name} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
