"""`depthkit predict` against the bare forward loop of the same network on the same photos; and its memory over time.

The bare loop holds each photo decoded, resized and as a float tensor of batch 1 in memory before the clock starts, calls the
network on one after the other under ``torch.inference_mode``, and drops what it returns: no reading, resizing, bringing of maps
to the photos' sizes, colouring or writing. The command reads every file, resizes, predicts, brings the map to the photo's size
and writes it as 16-bit PNG with a coloured picture beside it (`--bare_maps` without), by threads of its own.

Both run in turn in pieces of `--piece` photos, so that what else the machine does meets both alike; the ratio is the median
over pieces. The ratio of processor times counts every thread: on one processor, or where the network keeps all of them busy,
the work beside the network cannot hide behind it; by the clock it can, where a processor is free. Both ratios are printed.

Then the command itself, a process of its own, predicts all photos in one run. Its resident memory is read whenever another
200 results are written; flat means that the later ones are alike.

    python benchmarks/predict.py --photos 1100 --network lrn_efficientnet_lite0 --side 384
    python benchmarks/predict.py --folders PHOTOS MORE_PHOTOS --network midas_small
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from _command import parsed
from lightning.pytorch import Trainer

from depthkit import models
from depthkit.cli.predict import PredictModule
from depthkit.images import image_files, read_image
from depthkit.inference.files import Results, Writer
from depthkit.inference.outputs import OutputNames
from depthkit.inference.predictor import DepthPredictor
from depthkit.models import save_network
from depthkit.resize import InputResize, multiple_of
from depthkit.types import Ambiguity


def photographs(root: Path, count: int) -> list[Path]:
    """Make photos of two aspects with smooth content and fine texture, 640 x 480 as cameras of phones give them small."""
    files = [root / f"{i:05d}.jpg" for i in range(count)]
    for i, file in enumerate(files):
        rng, (height, width) = np.random.default_rng(i), [(480, 640), (640, 480)][i % 10 == 0]
        coarse, fine = (
            cv2.resize(rng.random((n, n, 3), dtype=np.float32), (width, height), interpolation=cv2.INTER_CUBIC) for n in (6, 60)
        )
        cv2.imwrite(str(file), (255 * np.clip(0.7 * coarse + 0.3 * fine, 0, 1)).astype(np.uint8))
    return files


def now() -> tuple[float, float]:
    """The clock, and the processor time of this process and of its children that have ended [s]."""
    return time.perf_counter(), sum(os.times()[:4])


def since(start: tuple[float, float]) -> tuple[float, float]:
    """Seconds on both since."""
    end = now()
    return end[0] - start[0], end[1] - start[1]


def resident(process: int) -> float:
    """Memory of a process now [MB]; 0 if it has ended."""
    found = subprocess.run(["ps", "-o", "rss=", "-p", str(process)], capture_output=True, text=True, check=False).stdout.split()
    return int(found[0]) / 1e3 if found else 0.0


@torch.inference_mode()
def bare(predictor: DepthPredictor, files: Sequence[Path]) -> tuple[float, float]:
    """Seconds of the network alone on photos that are in memory."""
    rule, multiple = predictor.input_rule, multiple_of(predictor.model)
    images = [rule(torch.from_numpy(read_image(file)).permute(2, 0, 1)[None].float() / 255, multiple) for file in files]
    start = now()
    for image in images:
        predictor.model(image)
    return since(start)


def commanded(predictor: DepthPredictor, files: Sequence[Path], out: Path, options: argparse.Namespace) -> tuple[float, float]:
    """Seconds of the command's own module and trainer, from the files to the files."""
    results = Results(colour=not options.bare_maps)
    start = now()
    writer = Writer(results, OutputNames(files, out, results.endings), options.threads)
    module: Any = PredictModule(predictor, writer, files, batch_size=1, num_workers=options.workers)
    trainer = Trainer(
        accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, enable_model_summary=False,
        enable_progress_bar=False, use_distributed_sampler=False,
    )  # fmt: skip
    trainer.predict(module, return_predictions=False)
    module.writer.close()
    seconds = since(start)
    assert writer.written == len(files), "results are missing"
    return seconds


def whole(network: Any, sources: Sequence[Path], out: Path, options: argparse.Namespace) -> list[tuple[int, float, float]]:
    """Run the command on all photos; return (results, seconds since its start, MB) at every `--every` results."""
    checkpoint = out.with_suffix(".ckpt")
    save_network(network, checkpoint, ambiguity=Ambiguity.SCALE)
    program = "import sys; from depthkit.cli.main import main; sys.exit(main())"
    arguments = ["predict", checkpoint, *sources, "--out", out, "--num_workers", options.workers, "--threads", options.threads]
    arguments += ["--colour", str(not options.bare_maps).lower(), "--accelerator", "cpu"]
    found: list[tuple[int, float, float]] = []
    start, log = time.perf_counter(), out.with_suffix(".log")
    with log.open("w") as file:
        process = subprocess.Popen([sys.executable, "-c", program, *map(str, arguments)], stdout=file, stderr=file)
        while process.poll() is None:
            time.sleep(0.2)
            written = sum(not x.name.endswith(".colour.png") for x in out.rglob("*.png")) if out.is_dir() else 0
            if written >= options.every * (len(found) + 1) and (memory := resident(process.pid)):
                found.append((written, time.perf_counter() - start, memory))
    assert process.returncode == 0, log.read_text()[-2000:]
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=1100, help="number of photos to make, or to take of --folders")
    parser.add_argument("--folders", type=Path, nargs="+", default=[], help="of photos, instead of made ones")
    parser.add_argument("--every", type=int, default=200, help="results between two readings of memory")
    parser.add_argument("--piece", type=int, default=50, help="photos that are predicted in turn by both")
    parser.add_argument(
        "--network", default="midas_small", help="architecture with random weights: speed does not depend on them"
    )
    parser.add_argument("--side", type=int, default=384, help="lower bound of the network's input [px]")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bare_maps", action="store_true", help="write no coloured pictures")
    options = parsed(parser, photos=4, piece=2, every=2, network="lrn_mobilenetv2", side=64)
    warnings.filterwarnings("ignore")
    torch.manual_seed(0)
    network = getattr(models, options.network)(pretrained=False).eval()
    rule = InputResize(options.side, "lower_bound", network.size_multiple)
    predictor = DepthPredictor(network, ambiguity=Ambiguity.SCALE, input_rule=rule)
    network.input_rule, rounds = rule, []
    with tempfile.TemporaryDirectory() as folder:
        root, out = Path(folder) / "photos", Path(folder) / "out"
        root.mkdir()
        files = image_files(options.folders)[: options.photos] if options.folders else photographs(root, options.photos)
        bare(predictor, files[:2])
        commanded(predictor, files[:2], out / "first", options)
        for first in range(0, len(files), options.piece):
            piece = files[first : first + options.piece]
            rounds.append((*bare(predictor, piece), *commanded(predictor, piece, out / "pieces", options), len(piece)))
        listed = Path(folder) / "photos.txt"
        listed.write_text("\n".join(map(str, files)))
        memory = whole(network, [listed], out / "whole", options)
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(f"{platform.machine()}, {processors} processors, {torch.get_num_threads()} threads of torch\n")
    head = ("network", "side", "photos", "bare photos/s", "predict photos/s", "ratio", "processor time")
    print("|", " | ".join((*head, "ms beside the network")), "|")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    count = sum(r[4] for r in rounds)
    one, two = (count / sum(r[i] for r in rounds) for i in (0, 2))
    clock, processor = (statistics.median(r[i] / r[i + 2] for r in rounds) for i in (0, 1))
    beside = statistics.median(1e3 * (r[3] - r[1]) / r[4] for r in rounds)
    ratios = f"{one:.2f} | {two:.2f} | {clock:.1%} | {processor:.1%} | {beside:.0f}"
    print(f"| {options.network} | {options.side} | {count} | {ratios} |")
    print("\n| results of the command | seconds since its start | MB resident |\n|--:|--:|--:|")
    for written, seconds, resident_size in memory:
        print(f"| {written} | {seconds:.1f} | {resident_size:.0f} |")


if __name__ == "__main__":
    main()
