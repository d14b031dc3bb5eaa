"""Streaming loader against the peers on the same samples, in samples per second and processor time.

Every contender delivers the same: shuffled batches of float32 images, labels and masks, from a random crop that is resized by
area averaging (by a cubic where it grows) and mirrored half of the time; labels take the nearest pixel. webdataset reads the
very tars; litdata reads the same members from chunks that its own writer made. Beside them two loops that know no plan, no
shuffling and no batches: `bare decoding` hands the members to OpenCV and drops what comes out, `bare loop` reads, decodes
and augments as the loader does. Images stay in 8 bits with `--bytes`, as where they go to a GPU.

    OMP_NUM_THREADS=1 python benchmarks/streaming.py --workers 0 2
"""

import argparse
import io
import json
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from _command import installed, parsed
from PIL import Image

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


def bare(loop: Callable[..., int], root: str, data: DepthDataModule, workers: int, shards: int, passes: int) -> int:
    """Samples that a loop in as many processes goes through."""
    parts = [passes * list(range(w, shards, max(workers, 1))) for w in range(max(workers, 1))]
    if workers == 0:
        return loop(root, parts[0], data)
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        done = sum(pool.starmap(loop, [(root, part, data) for part in parts], chunksize=1))
        pool.close()
        pool.join()
    return done


def decoded_only(root: str, shards: list[int], data: DepthDataModule) -> int:
    """Decode every sample of some shards with OpenCV, and drop it."""
    cv2.setNumThreads(0 if multiprocessing.parent_process() else -1)
    index, done = ShardIndex.load(root), 0
    for number in shards:
        shard = index.shards("train")[number]
        for raw in read_shard(index.url(shard), 0, shard.samples, total=shard.samples):
            for name in ("image.jpg", "depth.png"):
                cv2.imdecode(np.frombuffer(raw.members[name], np.uint8), cv2.IMREAD_UNCHANGED)
            done += 1
    return done


class Peer:
    """What one who knows OpenCV or Pillow writes to make a sample and a batch."""

    def __init__(self, size: tuple[int, int], *, pillow: bool, images_in_bytes: bool) -> None:
        self.size, self.pillow, self.images_in_bytes = size, pillow, images_in_bytes
        self.random = np.random.default_rng()

    def __call__(self, members: Mapping[str, bytes]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return image, label and where it is valid."""
        facts = json.loads(bytes(members["meta.json"]))["depth"]
        parts = (members["image.jpg"], members["depth.png"])
        image, codes = (self._pillow if self.pillow else self._opencv)(*parts)
        return image, codes.astype(np.float32) * facts["step"] + facts["offset"], codes > 0

    def _crop(self, rows: int, columns: int) -> tuple[int, int, int, int, bool]:
        height, width = self.size
        side = min(rows / height, columns / width) * self.random.uniform(0.5, 1.0) ** 0.5
        h, w = round(side * height), round(side * width)
        top, left = (int(self.random.integers(whole - part + 1)) for whole, part in ((rows, h), (columns, w)))
        return top, left, h, w, bool(self.random.random() < 0.5)

    def _opencv(self, image: bytes, depth: bytes) -> tuple[np.ndarray, np.ndarray]:
        pixels = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR_RGB)
        codes = cv2.imdecode(np.frombuffer(depth, np.uint8), cv2.IMREAD_UNCHANGED)
        top, left, h, w, mirrored = self._crop(*codes.shape)
        part, (height, width) = np.s_[top : top + h, left : left + w], self.size
        how = cv2.INTER_AREA if h >= height else cv2.INTER_CUBIC
        pixels = cv2.resize(pixels[part], (width, height), interpolation=how)
        codes = cv2.resize(codes[part], (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
        return (cv2.flip(pixels, 1), cv2.flip(codes, 1)) if mirrored else (pixels, codes)

    def _pillow(self, image: bytes, depth: bytes) -> tuple[np.ndarray, np.ndarray]:
        pixels, codes = Image.open(io.BytesIO(image)), Image.open(io.BytesIO(depth))
        top, left, h, w, mirrored = self._crop(pixels.height, pixels.width)
        box, size = (left, top, left + w, top + h), self.size[::-1]
        how = Image.Resampling.BOX if h >= self.size[0] else Image.Resampling.BICUBIC
        pixels, codes = pixels.resize(size, how, box), codes.resize(size, Image.Resampling.NEAREST, box)
        if mirrored:
            pixels, codes = (part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for part in (pixels, codes))
        return np.asarray(pixels), np.asarray(codes)

    def collate(self, samples: list[tuple[np.ndarray, ...]]) -> tuple[torch.Tensor, ...]:
        """Return the batch, its images in the order of memory that costs nothing."""
        images, labels, valid = (torch.from_numpy(np.stack(parts)) for parts in zip(*samples, strict=True))
        images = images.permute(0, 3, 1, 2)
        return images if self.images_in_bytes else images.to(torch.float32).div_(255), labels[:, None], valid[:, None]


def by_webdataset(root: str, peer: Peer, workers: int, options: argparse.Namespace) -> int:
    """Samples that come out of a webdataset pipeline."""
    import webdataset

    urls = [str(file) for file in sorted(Path(root).glob("*.tar"))] * options.passes
    pipeline = webdataset.WebDataset(urls, shardshuffle=False, empty_check=False).shuffle(256)
    batches = pipeline.map(peer).batched(options.batch_size, collation_fn=peer.collate)
    return sum(len(images) for images, *_ in webdataset.WebLoader(batches, batch_size=None, num_workers=workers))


def chunks_for_litdata(root: str, out: str) -> None:
    """The members of every sample, as litdata stores them."""
    from litdata.streaming.writer import BinaryWriter

    index, writer, number = ShardIndex.load(root), BinaryWriter(out, chunk_bytes="64MB"), 0
    for shard in index.shards("train"):
        for raw in read_shard(index.url(shard), 0, shard.samples, total=shard.samples):
            writer[number] = dict(raw.members)
            number += 1
    writer.done()
    writer.merge()


def by_litdata(chunks: str, peer: Peer, workers: int, options: argparse.Namespace) -> int:
    """Samples that come out of a litdata loader."""
    import litdata

    class Decoded(litdata.StreamingDataset):
        def __getitem__(self, index: Any) -> Any:
            return peer(super().__getitem__(index))

    done = 0
    for _ in range(options.passes):
        dataset = Decoded(chunks, shuffle=True)
        loader = litdata.StreamingDataLoader(
            dataset, batch_size=options.batch_size, num_workers=workers, collate_fn=peer.collate
        )
        done += sum(len(images) for images, *_ in loader)
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
    parser.add_argument("--bytes", action="store_true", help="images stay in 8 bits, as where they go to a GPU")
    parser.add_argument("--repeat", type=int, default=3, help="rounds, each of all contenders in turn; medians are printed")
    options = parsed(parser, samples=16, passes=1, shards=2, batch_size=4, image=(60, 80), size=(48, 48), repeat=1)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    litdata = installed("litdata", "it is left out")
    with tempfile.TemporaryDirectory() as place:
        root, chunks = f"{place}/shards", f"{place}/chunks"
        with ShardWriter(
            root,
            split="train",
            dataset="benchmark",
            samples_per_shard=-(-options.samples // options.shards),
            depth_format=options.depth_format,
        ) as writer:
            for i in range(options.samples):
                writer.write(photograph(i, *options.image))
        if litdata:
            chunks_for_litdata(root, chunks)
        size = sum(file.stat().st_size for file in Path(root).glob("*.tar"))
        print(
            f"{options.samples} samples of {options.image[1]} x {options.image[0]} (JPEG, {options.depth_format} depth), "
            f"{size / options.samples / 1e3:.0f} kB each, cropped and resized to {options.size[1]} x {options.size[0]}, "
            f"batches of {options.batch_size}, images in {'8 bits' if options.bytes else 'float32'}, {options.passes} passes; "
            f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}; medians "
            f"of {options.repeat} rounds. CPU is processor time over all processes: on a busy machine trust its ratio.\n"
        )
        print("| workers | contender | samples/s | CPU [ms per sample] | CPU / CPU of depthkit | least to most |")
        print("|--:|---|--:|--:|--:|--:|")
        for workers in options.workers:
            report(contenders(root, chunks if litdata else None, workers, options), workers, options.repeat)


def contenders(root: str, chunks: str | None, workers: int, options: argparse.Namespace) -> dict[str, Callable[[], int]]:
    """What is measured, by name."""
    data = DepthDataModule(
        [ShardSource(root)],
        batch_size=options.batch_size,
        num_workers=workers,
        size=tuple(options.size),
        transform=Compose([RandomResizedCrop(tuple(options.size)), HorizontalFlip()]),
        epoch_size=options.passes * options.samples,
        multiprocessing_context="fork",
    )

    def ours() -> int:
        loader = data.train_dataloader()
        loader.images_in_bytes = options.bytes
        return sum(map(len, loader))

    opencv, pillow = (Peer(tuple(options.size), pillow=p, images_in_bytes=options.bytes) for p in (False, True))
    found = {
        "depthkit": ours,
        "bare loop": lambda: bare(bare_pass, root, data, workers, options.shards, options.passes),
        "bare decoding": lambda: bare(decoded_only, root, data, workers, options.shards, options.passes),
        "webdataset + OpenCV": lambda: by_webdataset(root, opencv, workers, options),
        "webdataset + Pillow": lambda: by_webdataset(root, pillow, workers, options),
    }
    if chunks:
        found["litdata + OpenCV"] = lambda: by_litdata(chunks, opencv, workers, options)
    return found


def report(runs: Mapping[str, Callable[[], int]], workers: int, repeat: int) -> None:
    """Measure all in turn, and print their rows."""
    rounds = [{name: measured(run) for name, run in runs.items()} for _ in range(repeat)]
    for name in runs:
        rate, cpu = (statistics.median(r[name][part] for r in rounds) for part in (0, 1))
        ratios = [r[name][1] / r["depthkit"][1] for r in rounds]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(f"| {workers} | {name} | {rate:.1f} | {1e3 * cpu:.2f} | {statistics.median(ratios):.2f} | {spread} |", flush=True)


if __name__ == "__main__":
    main()
