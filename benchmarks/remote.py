"""Training from a server against the same shards on a disk: samples per second, and what a bad connection costs.

The server, a process of its own, waits before every answer, and a few of its answers fail: it is busy (503), ends in the middle
of the body, or sends nothing more after the middle. Both contenders read every sample twice by the same workers, in turn: the
first epoch fills the cache, the second reads it. What the first epoch costs is counted from its second quarter on, when the
first shards are there. Every sample must come exactly once in each epoch.

    OMP_NUM_THREADS=1 python benchmarks/remote.py --workers 2
"""

import argparse
import http.server
import multiprocessing
import os
import platform
import random
import re
import statistics
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from _command import parsed, temporary_folder
from streaming import photograph

from depthkit.data import DepthDataModule, ShardCache, ShardSource, ShardWriter
from depthkit.data.transforms import Compose, HorizontalFlip, RandomResizedCrop


class Handler(http.server.BaseHTTPRequestHandler):
    """Files of a folder, in ranges, as a server at a distance gives them."""

    protocol_version = "HTTP/1.1"  # connections stay open
    folder: Path
    latency: float
    failures: float
    counts: Any

    def do_GET(self) -> None:
        """Answer."""
        time.sleep(self.latency)
        fault = random.choice(("busy", "drop", "stall")) if random.random() < self.failures else ""
        self.counts[("", "busy", "drop", "stall").index(fault)] += 1
        if fault == "busy":
            self.send_error(503)
            return
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        with (self.folder / self.path.strip("/")).open("rb") as file:
            if found:
                file.seek(int(found[1]))
            content = memoryview(file.read(int(found[2]) + 1 - int(found[1]) if found else -1))
        self.send_response(206 if found else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if fault else content)
        if fault:
            time.sleep(600 if fault == "stall" else 0)
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class Quiet(http.server.ThreadingHTTPServer):
    """A server that says nothing of clients that went away."""

    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Say nothing."""


def serve(folder: Path, latency: float, failures: float, address: Any, counts: Any) -> None:
    """Serve until the process is ended."""
    facts = {"folder": folder, "latency": latency, "failures": failures, "counts": counts}
    server = Quiet(("127.0.0.1", 0), type("Bound", (Handler,), facts))
    address.send(f"http://127.0.0.1:{server.server_address[1]}")
    server.serve_forever()


@contextmanager
def serving(folder: Path, latency: float, failures: float) -> Iterator[tuple[str, Any]]:
    """Serve inside the block; give the address, and how many answers were right, busy, dropped and stalled."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    counts = context.Array("l", 4)
    process = context.Process(target=serve, args=(folder, latency, failures, there, counts), daemon=True)
    process.start()
    yield here.recv(), counts
    process.terminate()
    process.join()


class Epoch(NamedTuple):
    """What one epoch took.

    Attributes:
        rate: samples per second of the clock from its second quarter on.
        cpu: seconds of processor time per sample over all of this program's processes, in the whole epoch.
        first: seconds to the first batch.
    """

    rate: float
    cpu: float
    first: float


def epochs(root: str, copies: Path, options: argparse.Namespace) -> list[Epoch]:
    """Read every sample twice, and check that each came once in each epoch."""
    data = DepthDataModule(
        [ShardSource(root)],
        batch_size=options.batch_size,
        num_workers=options.workers,
        size=tuple(options.size),
        transform=Compose([RandomResizedCrop(tuple(options.size)), HorizontalFlip()]),
        drop_last=False,
        cache=ShardCache(str(copies)),
        multiprocessing_context="fork",
    )
    loader, found = data.train_dataloader(), []
    for _ in range(2):
        seen: Counter[str] = Counter()
        start, busy = time.perf_counter(), sum(os.times()[:4])
        arrived = []
        for batch in loader:
            seen.update(batch.keys)
            arrived.append((time.perf_counter() - start, len(batch)))
        assert set(seen.values()) == {1}, "a sample came twice"
        assert len(seen) == options.samples, "a sample is lost"
        quarter = len(arrived) // 4
        rest = sum(rows for _, rows in arrived[quarter + 1 :]) / max(arrived[-1][0] - arrived[quarter][0], 1e-9)
        found.append(Epoch(rest, (sum(os.times()[:4]) - busy) / options.samples, arrived[0][0]))
    return found


def main() -> None:
    """Measure both in turn, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2, help="worker processes")
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--image", type=int, nargs=2, default=(480, 640), metavar=("HEIGHT", "WIDTH"), help="stored size [px]")
    parser.add_argument("--size", type=int, nargs=2, default=(384, 384), metavar=("HEIGHT", "WIDTH"), help="training size [px]")
    parser.add_argument("--latency", type=float, default=0.05, help="before every answer [s]")
    parser.add_argument("--failures", type=float, default=0.02, help="share of answers that fail")
    parser.add_argument("--repeat", type=int, default=3, help="rounds of both in turn; medians are printed")
    options = parsed(
        parser, samples=48, shards=6, batch_size=4, image=(60, 80), size=(48, 48), repeat=1, latency=0.01, failures=0.0
    )
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    folder = temporary_folder()
    root = folder / "shards"
    with ShardWriter(root, split="train", dataset="a", samples_per_shard=-(-options.samples // options.shards)) as writer:
        for i in range(options.samples):
            writer.write(photograph(i, *options.image))
    size = sum(file.stat().st_size for file in root.glob("*.tar"))
    runs: dict[str, list[list[Epoch]]] = {"disk": [], "server": []}
    with serving(root, options.latency, options.failures) as (address, counts):
        for number in range(options.repeat):
            runs["disk"].append(epochs(str(root), folder / "unused", options))
            runs["server"].append(epochs(address, folder / f"copies{number}", options))
        answers = list(counts)
    print(
        f"{options.samples} samples in {options.shards} shards of {size / options.shards / 1e6:.0f} MB, {options.workers} "
        f"workers, {1e3 * options.latency:.0f} ms before every answer, {options.failures:.0%} failing; {platform.machine()}, "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}; medians of {options.repeat} "
        f"rounds, the ratio is that of each round. Of the server's {sum(answers)} answers {answers[1]} were 503, {answers[2]} "
        f"dropped and {answers[3]} stalled; every sample came once in every epoch.\n"
    )
    print("| shards on | epoch | samples/s, warm | of the disk's | CPU [ms per sample] | first batch [s] |")
    print("|---|--:|--:|--:|--:|--:|")
    for name, rounds in runs.items():
        for epoch in range(2):
            rate, cpu, first = (statistics.median(r[epoch][part] for r in rounds) for part in range(3))
            ratio = statistics.median(r[epoch].rate / d[epoch].rate for r, d in zip(rounds, runs["disk"], strict=True))
            print(f"| {name} | {epoch} | {rate:.1f} | {ratio:.2f} | {1e3 * cpu:.2f} | {first:.2f} |")


if __name__ == "__main__":
    main()
