"""Streaming loader against a bare loop that reads, decodes and augments the same bytes, both in samples per second.

The bare loop has the same number of processes, each going through its own shards in order; it knows no plan, no shuffling,
no batches, and sends nothing to anyone. What the loader loses against it is the price of all that.

    python benchmarks/streaming.py --workers 0 2
"""

import argparse
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from _command import parsed

from depthkit.data import DepthDataModule, ShardIndex, ShardSource, ShardWriter
from depthkit.data.stream.plan import generator
from depthkit.data.transforms import Compose, HorizontalFlip, RandomResizedCrop
from depthkit.shards import decode_sample
from depthkit.shards.reading import read_shard
from depthkit.types import Ambiguity, Sample


def one_view(member: str) -> bool:
    """Whether a member belongs to the image itself, not to another view."""
    return not member.startswith(("prev.", "next.", "stereo.", "frame-"))


def photograph(i: int, height: int, width: int) -> Sample:
    """Smooth random content with some fine texture: about as hard to decode as a photograph, with depth to match."""
    rng = np.random.default_rng(i)

    def smooth(cells: int, channels: int) -> np.ndarray:
        noise = rng.random((cells * height // width + 1, cells, channels), dtype=np.float32)
        return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)

    image = 0.6 * smooth(8, 3) + 0.3 * smooth(80, 3) + 0.1 * smooth(320, 3)
    depth = np.clip(1 + 9 * smooth(6, 1) + 0.2 * smooth(60, 1), 0.5, 12)
    valid = smooth(20, 1).reshape(height, width) > 0.05
    pixels = (255 * np.clip(image, 0, 1)).astype(np.uint8)
    intrinsics = np.array([[0.9 * width, 0, width / 2 - 0.5], [0, 0.9 * width, height / 2 - 0.5], [0, 0, 1]])
    return Sample(f"{i:06d}", pixels, depth.reshape(height, width), valid, Ambiguity.METRIC, intrinsics=intrinsics)


def bare_pass(root: str, shards: list[int], data: DepthDataModule) -> int:
    """Read, decode and augment every sample of some shards, and drop it."""
    cv2.setNumThreads(0 if multiprocessing.parent_process() else -1)
    index, done = ShardIndex.load(root), 0
    for number in shards:
        shard = index.shards("train")[number]
        url = index.url(shard)
        for raw in read_shard(url, 0, shard.samples, total=shard.samples, wanted=one_view):
            data.transform(decode_sample(raw.key, raw.members, where=url), generator(0, done))
            done += 1
    return done


def bare(root: str, data: DepthDataModule, workers: int, shards: int, passes: int) -> int:
    """Samples that the bare loop goes through."""
    parts = [passes * list(range(w, shards, max(workers, 1))) for w in range(max(workers, 1))]
    if workers == 0:
        return bare_pass(root, parts[0], data)
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        done = sum(pool.starmap(bare_pass, [(root, part, data) for part in parts], chunksize=1))
        pool.close()
        pool.join()
    return done


def measured(run: Callable[[], int]) -> tuple[float, float]:
    """Samples per second, and seconds of processor time per sample over all processes, their start included."""
    start, busy = time.perf_counter(), sum(os.times()[:4])
    done = run()
    return done / (time.perf_counter() - start), (sum(os.times()[:4]) - busy) / done


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2], help="worker processes")
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--passes", type=int, default=4, help="over all samples in one measurement")
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--image", type=int, nargs=2, default=(480, 640), metavar=("HEIGHT", "WIDTH"), help="stored size [px]")
    parser.add_argument("--size", type=int, nargs=2, default=(384, 384), metavar=("HEIGHT", "WIDTH"), help="training size [px]")
    parser.add_argument("--depth-format", default="png_linear16")
    parser.add_argument("--repeat", type=int, default=3, help="rounds, each of both loops in turn; medians are printed")
    args = parsed(parser, samples=16, passes=1, shards=2, batch_size=4, image=(60, 80), size=(48, 48), repeat=1)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as root:
        per_shard = -(-args.samples // args.shards)
        options = {"samples_per_shard": per_shard, "depth_format": args.depth_format}
        with ShardWriter(root, split="train", dataset="benchmark", **options) as writer:
            for i in range(args.samples):
                writer.write(photograph(i, *args.image))
        size = sum(file.stat().st_size for file in Path(root).glob("*.tar"))
        print(
            f"{args.samples} samples of {args.image[1]} x {args.image[0]} (JPEG, {args.depth_format} depth), "
            f"{size / args.samples / 1e3:.0f} kB each, cropped and resized to {args.size[1]} x {args.size[0]}, "
            f"batches of {args.batch_size}, {args.passes} passes; {platform.machine()}, {os.cpu_count()} cores, "
            f"torch {torch.__version__}; median of {args.repeat}. CPU is processor time over all processes: on a busy machine "
            "its ratio is the one to trust.\n"
        )
        print("| workers | bare loop [samples/s] | loader [samples/s] | per core | loader / bare |", end="")
        print(" CPU bare [ms] | CPU loader [ms] | CPU ratio |")
        print("|--:|--:|--:|--:|--:|--:|--:|--:|")
        for workers in args.workers:
            data = DepthDataModule(
                [ShardSource(root)],
                batch_size=args.batch_size,
                num_workers=workers,
                size=tuple(args.size),
                transform=Compose([RandomResizedCrop(tuple(args.size)), HorizontalFlip()]),
                epoch_size=args.passes * args.samples,
                multiprocessing_context="fork",
            )
            rounds = []
            for _ in range(args.repeat):
                rival = measured(lambda: bare(root, data, workers, args.shards, args.passes))  # noqa: B023
                rounds.append((*rival, *measured(lambda: sum(map(len, data.train_dataloader())))))  # noqa: B023
            slow, slow_cpu, ours, ours_cpu = (statistics.median(column) for column in zip(*rounds, strict=True))
            ratio, cpu_ratio = (statistics.median(r[a] / r[b] for r in rounds) for a, b in ((2, 0), (1, 3)))
            print(
                f"| {workers} | {slow:.1f} | {ours:.1f} | {ours / max(workers, 1):.1f} | {ratio:.2f} "
                f"| {1e3 * slow_cpu:.2f} | {1e3 * ours_cpu:.2f} | {cpu_ratio:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
