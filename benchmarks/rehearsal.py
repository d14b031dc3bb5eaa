"""The stream's plan at the size of a large training, rehearsed without its cluster: time, memory, balance, exactly once.

As large as Depth Anything's student by default: 14 sources, 31,000 shards, 93.45 million samples, read by 8 and by 512 ranks of
8 workers. No file is read: what is measured is what the plan costs each process before the first batch, at every batch, at a
checkpoint and after a restart. Beside it the rival, the plan that this one replaced: a table of what every batch of the epoch
holds, summed to find a position. Every sample exactly once is checked by arithmetic at full size, by enumeration of a small
epoch, and by two real processes that read real shards for a network that takes no time.

    python benchmarks/rehearsal.py --out benchmarks/results/DATE_MACHINE_rehearsal.md
"""

import argparse
import json
import os
import pickle
import platform
import random
import resource
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _command import parsed, temporary_folder

from depthkit.data import DepthDataModule, LabelledUnlabelled, Proportional, ShardSource, ShardWriter
from depthkit.data.stream.loader import Loader
from depthkit.data.stream.mixing import Mixture
from depthkit.data.stream.plan import Plan
from depthkit.data.stream.rows import training_rows
from depthkit.data.stream.stream import Dataset, Stream, Supplies
from depthkit.data.transforms import HorizontalFlip
from depthkit.shards.reading import Raw
from depthkit.types import Ambiguity, Sample


class Unread(Stream):
    """A stream whose samples cost nothing to read and decode."""

    def _raw(self, d: int, start: int, stop: int) -> Iterator[Raw]:
        for shard, first, last in self.plan.spans(d, start, stop):
            url = self.datasets[d].urls[shard]
            for place in range(first, last):
                yield Raw(f"{place}", {}, url)

    def _made(self, *_: Any) -> None:
        return None


def shard_counts(options: argparse.Namespace) -> list[tuple[int, ...]]:
    """Samples in each shard of each source; sources differ by a factor of 100 from the smallest to the largest."""
    weights = np.geomspace(1, 100, options.sources)
    samples = np.floor(options.samples * weights / weights.sum()).astype(int)
    samples[-1] += options.samples - samples.sum()
    shards = np.maximum(1, np.round(options.shards * weights / weights.sum()).astype(int))
    return [tuple(n // k + (i < n % k) for i in range(k)) for n, k in zip(samples.tolist(), shards.tolist(), strict=True)]


def mixing_of(options: argparse.Namespace) -> LabelledUnlabelled:
    """Labelled and unlabelled images 1 to 2; the larger half of the sources was labelled by a teacher."""
    return LabelledUnlabelled(pseudo_labelled=range(options.sources // 2, options.sources))


def stream_of(counts: list[tuple[int, ...]], ranks: int, rank: int, options: argparse.Namespace) -> Unread:
    """What one process builds."""
    sizes = tuple(map(sum, counts))
    rows = training_rows(sum(sizes), world=ranks, batch_size=options.batch_size, drop_last=True, epoch_size=options.samples)
    mixture = Mixture(mixing_of(options), sizes, (True,) * len(sizes))
    plan = Plan(rows, mixture, tuple(counts), workers=options.workers, continuing=True)
    names = [tuple(f"/data/shards/source{d:02d}/train-{i:06d}.tar" for i in range(len(c))) for d, c in enumerate(counts)]
    datasets = tuple(Dataset(f"source{d}", urls, c) for d, (urls, c) in enumerate(zip(names, counts, strict=True)))
    return Unread(datasets, plan, rank, ranks)


def seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    """Processor time of a call [s], and what it returned."""
    start = time.process_time()
    found = call()
    return time.process_time() - start, found


def measured(ranks: int, options: argparse.Namespace) -> dict[str, str]:
    """What one process of a training pays."""
    counts, rank, last = shard_counts(options), ranks - 1, options.workers - 1

    def build() -> Unread:
        stream = stream_of(counts, ranks, rank, options)
        lane = stream.plan.lane(rank, last)
        _ = lane.start, lane.stop, stream.fingerprint
        return stream

    spent, stream = seconds(build)
    tracemalloc.start()
    kept = build()
    memory = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    plan, lane = stream.plan, stream.plan.lane(rank, last)
    position = min(seconds(lambda: [lane.position(done) for done in range(50)])[0] / 50 for _ in range(10))
    supplies, steps = Supplies(stream, 0), range(last, plan.steps, options.workers)
    list(supplies.take(steps[0], next(stream.pieces(steps[0]))))  # the first window
    rounds = [steps[i : i + 20] for i in range(1, min(len(steps) - 20, 400), 20)]
    batch = min(
        seconds(lambda: [list(supplies.take(step, next(stream.pieces(step)))) for step in part])[0] / 20  # noqa: B023
        for part in rounds
    )

    loader = Loader(kept, num_workers=0)
    loader.epoch, loader.batch = 3, random.Random(0).randrange(1, plan.steps)
    saving, state = seconds(lambda: json.dumps(loader.state_dict()))

    def resume() -> None:
        again = Loader(build(), num_workers=0)
        again.load_state_dict(json.loads(state))
        step = again.batch
        list(Supplies(again.stream, again.epoch).take(step, next(again.stream.pieces(step))))

    resuming, _ = seconds(resume)
    return {
        "plan and names of shards built, with the last rank's last lane [s]": f"{spent:.3f}",
        "memory for it, at most [MB]": f"{memory / 1e6:.1f}",
        "sent to a worker process that is spawned [MB]": f"{len(pickle.dumps(stream)) / 1e6:.2f}",
        "position of a batch [ms]": f"{1e3 * position:.3f}",
        "bookkeeping of a batch in a worker, shuffle and order of shards included [ms]": f"{1e3 * batch:.3f}",
        "state [bytes]": f"{len(state)}",
        "state, time [ms]": f"{1e3 * saving:.2f}",
        "resume at a random step, up to the names of its samples [s]": f"{resuming:.3f}",
    }


def rival(ranks: int, options: argparse.Namespace) -> dict[str, str]:
    """The table-based plan of before, in a process of its own: its table, and the sum that finds a position."""
    program = [sys.executable, __file__, "--rival-of", str(ranks)]
    for name in ("samples", "sources", "shards", "batch_size", "workers"):
        program += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    return json.loads(subprocess.run(program, stdout=subprocess.PIPE, text=True, check=True).stdout)


def table(ranks: int, options: argparse.Namespace) -> dict[str, str]:
    """Build the table of before and measure it."""
    sizes = np.array([sum(c) for c in shard_counts(options)], dtype=float)
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def apportion(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
        total, share = int(rows.sum()), weights / weights.sum()
        wanted = np.ceil(total * share).astype(np.int64) + 1
        times = np.concatenate([(np.arange(n) + 0.5) / p for n, p in zip(wanted, share, strict=True)])
        dataset = np.repeat(np.arange(len(share)), wanted)[np.argsort(times, kind="stable")[:total]]
        cell = np.repeat(np.arange(len(rows)), rows)
        return np.bincount(cell * len(share) + dataset, minlength=len(rows) * len(share)).reshape(len(rows), len(share))

    def build() -> np.ndarray:
        steps = options.samples // (ranks * options.batch_size)
        rows, half = np.full(steps * ranks, options.batch_size), options.sources // 2
        groups = apportion(rows, np.array([1.0, 2.0]))
        parts = [apportion(groups[:, 0], sizes[:half]), apportion(groups[:, 1], sizes[half:])]
        return np.concatenate(parts, 1).reshape(steps, ranks, -1)

    spent, found = seconds(build)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base
    summed, _ = seconds(lambda: [found[0 : len(found) : options.workers, ranks - 1].sum(0) for _ in range(3)])
    return {
        "table built [s]": f"{spent:.3f}",
        "memory for it, at most [MB]": f"{memory * 1024 / 1e6:.0f}",
        "the table alone, sent to a worker process that is spawned [MB]": f"{found.nbytes / 1e6:.0f}",
        "position of a batch: a sum over the table [ms]": f"{1e3 * summed / 3:.2f}",
    }


def balance(ranks: int, options: argparse.Namespace) -> dict[str, str]:
    """Check that lanes tile the epoch of every source, and count what each rank reads."""
    counts = shard_counts(options)
    plan = stream_of(counts, ranks, 0, options).plan
    at, read = np.zeros(options.sources, dtype=np.int64), []
    for rank in range(ranks):
        before = at
        for worker in range(options.workers):
            lane = plan.lane(rank, worker)
            assert (lane.start == at).all(), "lanes overlap or leave a gap"
            at = lane.stop
        read.append(int((at - before).sum()))
    assert at.sum() == plan.rows.total
    assert (at == plan.demand).all()
    opened = []
    for rank in sorted({*range(0, ranks, max(1, ranks // 8)), ranks - 1}):
        lanes = [plan.lane(rank, worker) for worker in range(options.workers)]
        opened.append(sum(1 for lane in lanes for d in range(options.sources) for _ in plan.spans(d, *lane.range(3, d))))
    return {
        "lanes, each beginning where the one before ends": f"{ranks * options.workers}",
        "samples per rank and epoch, least to most": f"{min(read):,} to {max(read):,}",
        "shards opened by a rank in an epoch, mean and most": f"{statistics.mean(opened):.0f}, {max(opened)}",
    }


def enumerate_all(options: argparse.Namespace) -> str:
    """Go through every sample of small epochs on several layouts, fewer shards than lanes among them."""
    counts, done = ((400, 3, 250), (77,) * 13, (1,) * 40), 0
    sizes = tuple(map(sum, counts))
    for world, workers in ((1, 1), (2, 3), (8, 8), (64, 4)):
        rows = training_rows(sum(sizes), world=world, batch_size=4, drop_last=False)
        plan = Plan(rows, Mixture(Proportional(), sizes, (True,) * 3), counts, workers=workers)
        for epoch in range(2):
            seen: Counter[tuple[int, int, int]] = Counter()
            for lane in (plan.lane(rank, worker) for rank in range(world) for worker in range(workers)):
                for d in range(3):
                    for shard, first, stop in plan.spans(d, *lane.range(epoch, d)):
                        seen.update((d, shard, i) for i in range(first, stop))
            assert set(seen.values()) == {1}
            assert len(seen) == sum(sizes)
            done += len(seen)
    return f"{done:,} samples of 8 epochs on up to 256 lanes, each exactly once in its epoch."


def reader(rank: int, root: str, workers: int) -> None:
    """One of two real processes: read an epoch for a network that takes no time."""
    store = torch.distributed.FileStore(f"{root}/store", 2)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    data = DepthDataModule(
        [ShardSource(root)],
        batch_size=4,
        num_workers=workers,
        size=(16, 16),
        transform=HorizontalFlip(),
        drop_last=False,
        multiprocessing_context="fork",
    )
    start = time.perf_counter()
    keys = [key for batch in data.train_dataloader() for key in batch.keys]
    Path(root, f"{rank}.json").write_text(json.dumps([keys, time.perf_counter() - start]))


def two_processes(options: argparse.Namespace) -> str:
    """Two ranks over gloo read real shards, fewer than their workers."""
    root = temporary_folder()
    with ShardWriter(root, split="train", dataset="small", samples_per_shard=-(-options.real // 3)) as writer:
        for i in range(options.real):
            image, label = np.full((16, 16, 3), i % 256, np.uint8), np.ones((16, 16), np.float32)
            writer.write(Sample(f"{i:06d}", image, label, np.ones((16, 16), bool), Ambiguity.METRIC))
    torch.multiprocessing.spawn(reader, (str(root), 2), nprocs=2)
    found = [json.loads(Path(root, f"{rank}.json").read_text()) for rank in range(2)]
    assert sorted(found[0][0] + found[1][0]) == [f"{i:06d}" for i in range(options.real)]
    rate = options.real / max(spent for _, spent in found)
    return f"{options.real} samples of 3 shards by 2 processes with 2 workers each: every one once, {rate:.0f} samples/s."


def report(options: argparse.Namespace) -> str:
    """Everything, in Markdown."""
    lines = [
        f"# Rehearsal: {options.samples:,} samples of {options.sources} sources in {options.shards:,} shards",
        "",
        f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; Python "
        f"{platform.python_version()}, numpy {np.__version__}. Seconds are processor time of one process; "
        f"of batches that of the fastest round. {options.workers} "
        f"workers per rank, batches of {options.batch_size}, {mixing_of(options)}.",
        "",
        f"`python benchmarks/{Path(sys.argv[0]).name} {' '.join(sys.argv[1:])}`",
    ]
    for ranks in options.ranks:
        lines += ["", f"## {ranks} ranks", "", "| the plan | |", "|---|--:|"]
        lines += [f"| {what} | {value} |" for part in (measured, balance) for what, value in part(ranks, options).items()]
        if options.rival:
            lines += ["", "| the table of before | |", "|---|--:|"]
            lines += [f"| {what} | {value} |" for what, value in rival(ranks, options).items()]
    lines += ["", "## Exactly once", "", enumerate_all(options), "", two_processes(options), ""]
    return "\n".join(lines)


def main() -> None:
    """Rehearse and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[8, 512])
    parser.add_argument("--workers", type=int, default=8, help="per rank")
    parser.add_argument("--shards", type=int, default=31_000)
    parser.add_argument("--samples", type=int, default=93_450_000)
    parser.add_argument("--sources", type=int, default=14)
    parser.add_argument("--batch-size", type=int, default=24, help="per rank")
    parser.add_argument("--real", type=int, default=2000, help="samples that two real processes read")
    parser.add_argument("--rival", action=argparse.BooleanOptionalAction, default=True, help="build the table of before, 4 GB")
    parser.add_argument("--rival-of", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help="also write what is printed to this file")
    options = parsed(parser, ranks=[4], workers=2, shards=60, samples=20_000, sources=4, real=60)
    if options.rival_of:
        print(json.dumps(table(options.rival_of, options)))
        return
    found = report(options)
    print(found)
    if options.out:
        options.out.write_text(found)


if __name__ == "__main__":
    main()
