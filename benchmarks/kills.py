"""Commands killed at random instants: the same command, repeated, ends in what an undisturbed one leaves.

Each command is killed by SIGKILL, SIGTERM and SIGINT in turn and then repeated until it ends. Counted as failures are: an exit
code other than the signal's, a process of the run that outlives it by 15 s, a file under its final name that does not read, a
repeated command that does not end well, and a result other than that of an undisturbed run. It does so with the folder for
temporary files on the disk of the results, and on another; and on disks that are full, where a command may end with one
sentence and nothing else. Remote shards are those of a server in this program. Linux only; a full disk needs root.

    python benchmarks/kills.py --kills 20
"""

import argparse
import functools
import hashlib
import http.server
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from _command import parsed, temporary_folder
from _runs import busy_for, has_ended, members, sums, unreadable

import depthkit.cli.finetuning.finetune
import depthkit.cli.label
import depthkit.cli.predict
import depthkit.cli.scoring.benchmark
import depthkit.cli.scoring.calibrate
import depthkit.cli.scoring.evaluate
import depthkit.cli.shards_write
import depthkit.cli.training.distil
import depthkit.convert.folder  # noqa: F401 - so that forks need not
from depthkit.cli.main import main
from depthkit.data import ShardWriter
from depthkit.models import midas_timm, save_network
from depthkit.shards import verify
from depthkit.synthetic import SyntheticScenes

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
OUTLIVES = 15  # s that a process of a run may outlive it
LONGEST = 600  # s of a run
_PAUSE = 0.025  # s between two looks at a run
RECIPE = """
model:
  class_path: depthkit.paradigms.AffineInvariantModule
  init_args:
    encoder_lr: 1.0e-5
    model:
      class_path: depthkit.models.midas_timm
      init_args: {backbone: mobilenetv3_small_050, features: 8, pretrained: false}
data: {class_path: depthkit.data.DepthDataModule, init_args: {sources: [{root: ROOMS}], size: [64, 64], batch_size: 2}}
trainer:
  max_epochs: 2
  accelerator: cpu
  enable_progress_bar: false
  enable_model_summary: false
  logger: {class_path: CSVLogger, init_args: {save_dir: OUT}}
  default_root_dir: OUT
  callbacks: [{class_path: ModelCheckpoint, init_args: {save_last: true, every_n_train_steps: 2}}]
"""
COMMANDS = {
    "fit": "fit --config {out}.yaml --ckpt_path auto",
    "fit, remote": "fit --config {out}.yaml --ckpt_path auto --data.cache.folder {out}/cache",
    "shards write": "shards write folder {root}/seq {out} --samples_per_shard 4",
    "shards write, 2 workers": "shards write folder {root}/seq {out} --samples_per_shard 4 --workers 2",
    "label": "label {root}/net.ckpt {root}/photos {out} --images_per_shard 4 --batch_size 2 --accelerator cpu",
    "predict": "predict {root}/net.ckpt {root}/photos --out {out} --batch_size 2 --accelerator cpu",
    "predict, film": "predict {root}/net.ckpt {root}/photos --format mp4 --out {out} --accelerator cpu",
    "evaluate": "evaluate {root}/net.ckpt {root}/rooms --split test --protocol synthetic_affine --out {out}",
    "finetune": "finetune {root}/net.ckpt {root}/rooms --out {out} --steps 6",
    "distil": "distil {root}/net.ckpt {root}/photos --out {out} --size 32 32 --steps 4 --batch_size 2 --format pt2 "
    "--accelerator cpu --devices 1",
    "export": "export {root}/net.ckpt {out}/net.pt2 --size 32 32",
    "benchmark": "benchmark {root}/net.ckpt --table midas_11 --shards {root}/tests --out {out}/ledger.json",
    "calibrate": "calibrate {root}/net.ckpt {root}/rooms --images 8 --out {out}/net.ckpt",
}
SMALLEST = ("shards write", "evaluate")


@dataclass
class Tally:
    """What became of the runs of one command in one place.

    Attributes:
        kills: how many were killed before they ended, by signal; ``full`` if the disk was.
        late: how many ended before.
        failures: what was wrong.
        seconds: of an undisturbed run.
    """

    kills: Counter[str] = field(default_factory=Counter)
    late: int = 0
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0


def prepare(root: Path) -> None:
    """Write photos, a sequence with depth, shards and a network, all as small as can be."""
    rng = np.random.default_rng(0)
    (root / "photos").mkdir(parents=True)
    for n in range(12):
        cv2.imwrite(str(root / f"photos/{n:03d}.png"), rng.integers(0, 255, (64, 96, 3), np.uint8))
    for n in range(24):
        made = {"rgb": rng.integers(0, 255, (120, 160, 3), np.uint8), "depth": rng.integers(500, 9000, (120, 160), np.uint16)}
        for kind, image in made.items():
            (root / "seq" / kind).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(root / "seq" / kind / f"{n:03d}.png"), image)
    for folder, split in (("rooms", "train"), ("rooms", "val"), ("rooms", "test"), ("tests/eth3d", "test")):
        with ShardWriter(root / folder, split=split, dataset="room", samples_per_shard=4) as writer:
            for sample in SyntheticScenes(12, size=(64, 96), kind="room"):
                writer.write(sample)
    network = midas_timm("mobilenetv3_small_050", pretrained=False, features=8)
    save_network(network, root / "net.ckpt", ambiguity="shift_scale", size=(64, 96))


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def serve(root: Path) -> str:
    """Serve a folder on this machine until the program ends; return its address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(root)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


class Bench:
    """Runs of one command in one place.

    Args:
        command: of ``COMMANDS``.
        root: of what ``prepare`` wrote.
        place: for results.
        scratch: for temporary files.
        address: of the server of ``root``.
    """

    def __init__(self, command: str, root: Path, place: Path, scratch: Path, address: str) -> None:
        self.command, self.root, self.place, self.scratch, self.address = command, root, place, scratch, address
        self.log, self.tally = scratch / "log", Tally()
        for folder in (place, scratch):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        self.whole: dict[str, Any] = {}
        self.busy, self.bytes = 0.0, 0

    def begin(self, out: Path) -> int:
        """Start the command in a process and a session of its own; return its id."""
        rooms = f"{self.address}/rooms" if self.command.endswith("remote") else self.root / "rooms"
        if "{out}/" in COMMANDS[self.command]:
            out.mkdir(parents=True, exist_ok=True)
        out.with_suffix(".yaml").write_text(RECIPE.replace("ROOMS", str(rooms)).replace("OUT", str(out)))
        words = [word.format(root=self.root, out=out) for word in COMMANDS[self.command].split()]
        sys.stdout.flush()
        child = os.fork()
        if child:
            return child
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
        vars(sys.modules["__main__"]).pop("__file__", None)  # workers need not import this program anew
        os.environ["TMPDIR"], tempfile.tempdir = str(self.scratch), None
        code = 1
        with self.log.open("ab") as log:
            os.dup2(log.fileno(), 1), os.dup2(log.fileno(), 2)
            try:
                main(words)
                code = 0
            except SystemExit as stop:
                code = int(stop.code or 0)
            except BaseException:
                traceback.print_exc()
                code = 99
            finally:
                with suppress(OSError):
                    sys.stdout.flush(), sys.stderr.flush()
                os._exit(code)

    def end(self, child: int, after: float = LONGEST) -> int:
        """Wait for a run and for all that it started; return its exit code.

        Raises:
            AssertionError: it does not end, or something outlives it.
        """
        limit = time.monotonic() + after
        while not (found := os.waitpid(child, os.WNOHANG))[0]:
            if time.monotonic() > limit:
                os.killpg(child, signal.SIGKILL), os.waitpid(child, 0)
                raise AssertionError(f"hangs for {after:.0f} s")
            time.sleep(0.005)
        limit = time.monotonic() + OUTLIVES
        while left := list(members(child)):
            if time.monotonic() > limit:
                for process, _ in left:
                    os.kill(process, signal.SIGKILL)
                raise AssertionError(f"{len(left)} processes outlive it")
            time.sleep(0.02)
        return os.waitstatus_to_exitcode(found[1])

    def told(self) -> str:
        """Return the end of what the runs printed."""
        return self.log.read_text(errors="replace")[-1500:]

    def undisturbed(self) -> None:
        """Run once, and keep the result and the processor time that it takes."""
        began, out = time.monotonic(), self.place / "whole"
        child = self.begin(out)
        while not has_ended(child):
            self.busy = max(self.busy, busy_for(child))
            time.sleep(_PAUSE)
        code = self.end(child)
        assert code == 0, f"undisturbed: exit code {code}: {self.told()}"
        self.tally.seconds, self.whole = time.monotonic() - began, self.contents(out)
        self.bytes = sum(-(-file.stat().st_size // 4096) * 4096 for file in out.rglob("*") if file.is_file())

    def kill(self, out: Path, number: signal.Signals, share: float) -> bool:
        """Start the command and kill it after a share of the processor time of an undisturbed run; return if it was in time."""
        child = self.begin(out)
        while busy_for(child) < share * self.busy and not has_ended(child):
            time.sleep(_PAUSE)
        time.sleep(random.uniform(0, _PAUSE))
        with suppress(ProcessLookupError):
            os.kill(child, number)
        code = self.end(child, 60)
        if code == 0:
            self.tally.late += 1
            return False
        self.tally.kills[number.name] += 1
        allowed = {-number, 128 + number}  # a shell gives both as the latter
        assert code in allowed, f"{number.name}: exit code {code}: {self.told()}"
        broken = [f"{file.name}: {why}" for file in sorted(out.rglob("*")) if (why := unreadable(file))]
        assert not broken, f"{number.name}: {broken}"
        return True

    def repeat(self, out: Path, after: str) -> None:
        """Repeat the command until its end, and compare the result."""
        code = self.end(self.begin(out))
        assert code == 0, f"repeated after {after}: exit code {code}: {self.told()}"
        found = self.contents(out)
        differing = [name for name in {*found, *self.whole} if found.get(name) != self.whole.get(name)]
        assert not differing, f"repeated after {after}, other than undisturbed: {sorted(differing)[:5]}"
        if self.command.startswith(("shards", "label")):
            assert verify(out).ok, f"repeated after {after}: the shards are damaged"

    def contents(self, out: Path) -> dict[str, Any]:
        """Return what a command leaves, by its file, without times and names of runs."""
        found: dict[str, Any] = {}
        for file in sorted(file for file in out.rglob("*") if file.is_file()):
            name = str(file.relative_to(out))
            if file.suffix == ".ckpt" and not any(part.startswith("version_") for part in file.parts):
                found[name] = sums(file)
            elif self.command.startswith(("shards", "label", "predict")) or "labels/" in name or file.suffix == ".tar":
                found[name] = hashlib.sha256(file.read_bytes()).hexdigest()
            elif file.suffix == ".json" and self.command in ("evaluate", "finetune", "benchmark"):
                text = re.sub(r'"(seconds|created|images_per_second|written)"[^,}]*', "", file.read_text())
                found[name] = text.replace(str(out), "")
            elif "version_" not in name and file.suffix != ".lock":
                found[name] = "there"
        if self.command.startswith(("fit", "distil")):
            last = max(out.rglob("*.ckpt"), key=lambda file: (sums(file)["step"], file.name))
            found["last"] = sums(last)
        return found

    def killed(self, kills: int, seconds: float) -> Tally:
        """Kill and repeat until each signal has come often enough, or the time is over."""
        chance, runs, ends = random.Random(self.command), 0, time.monotonic() + seconds
        while min(self.tally.kills[number.name] for number in SIGNALS) < kills and runs < 3 * kills + 3:
            if time.monotonic() > ends:
                break
            out = self.place / f"out{runs}"
            runs += 1
            try:
                order = chance.sample(SIGNALS, 3)
                done = [number.name for number in order if self.kill(out, number, chance.uniform(0, 0.97))]
                self.repeat(out, " and ".join(done))
            except AssertionError as failure:
                self.tally.failures.append(f"{' '.join(number.name for number in order)}: {failure}")
            shutil.rmtree(out, ignore_errors=True)
        return self.tally

    def full(self, times: int, seconds: float) -> Tally:
        """Run on a disk that is too small, and again when it is larger."""
        chance, ends = random.Random(f"{self.command} full"), time.monotonic() + seconds
        for run in range(times):
            if time.monotonic() > ends:
                break
            out, size = self.place / f"disk{run}" / "out", int(chance.uniform(0.05, 1.0) * self.bytes) // 4096 * 4096 + 8192
            out.parent.mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(out.parent)], check=True)
            self.log.write_bytes(b"")
            try:
                code = self.end(self.begin(out))
                self.tally.kills["full"] += code != 0
                self.tally.late += code == 0
                told = self.told()
                assert code in (0, 2), f"full disk: exit code {code}: {told}"
                assert "Traceback" not in told, f"full disk: {told}"
                broken = [f"{file.name}: {why}" for file in sorted(out.rglob("*")) if (why := unreadable(file))]
                assert not broken, f"full disk: {broken}"
                subprocess.run(["mount", "-o", f"remount,size={2**30}", str(out.parent)], check=True)
                self.repeat(out, "a full disk")
            except AssertionError as failure:
                self.tally.failures.append(str(failure))
            finally:
                subprocess.run(["umount", "-l", str(out.parent)], check=True)
        return self.tally


PLACES: dict[str, Callable[[Path, Path], tuple[Path, Path]]] = {
    "one disk": lambda disk, memory: (disk / "results", disk / "scratch"),
    "two disks": lambda disk, memory: (memory / "results", disk / "scratch"),
    "full disk": lambda disk, memory: (disk / "results", disk / "scratch"),
}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="of each command by each signal in each place")
    parser.add_argument("--commands", nargs="+", default=list(COMMANDS), choices=list(COMMANDS))
    parser.add_argument("--places", nargs="+", default=list(PLACES), choices=list(PLACES))
    parser.add_argument("--seconds", type=float, default=1e9, help="of a command in a place, at most")
    options = parsed(parser, kills=1, commands=SMALLEST, places=["one disk"])
    torch.set_num_threads(1), cv2.setNumThreads(0)
    disk = temporary_folder()
    memory = Path(tempfile.mkdtemp(prefix="depthkit-kills-", dir="/dev/shm"))
    prepare(disk / "data")
    address, failures = serve(disk / "data"), 0
    print(f"{'command':24} {'place':10} {'SIGKILL':>7} {'SIGTERM':>7} {'SIGINT':>7} {'full':>5} {'late':>5} {'failures':>8}")
    try:
        for name in options.commands:
            first = Bench(name, disk / "data", disk / "first", disk / "scratch", address)
            try:
                first.undisturbed()
            except AssertionError as failure:
                print(f"{name}: {failure}", flush=True)
                failures += 1
                continue
            for where in options.places:
                bench = Bench(name, disk / "data", *PLACES[where](disk, memory), address)
                bench.whole, bench.busy, bench.bytes = first.whole, first.busy, first.bytes
                tally = (bench.full if where == "full disk" else bench.killed)(options.kills, options.seconds)
                counts = [tally.kills[number.name] for number in SIGNALS]
                row = "".join(f" {count:7}" for count in counts)
                print(
                    f"{name:24} {where:10}{row} {tally.kills['full']:5} {tally.late:5} {len(tally.failures):8}  "
                    f"{first.tally.seconds:.1f} s undisturbed",
                    flush=True,
                )
                for failure, count in Counter(tally.failures).most_common(5):
                    print(f"    {count} x {failure}", flush=True)
                failures += len(tally.failures)
    finally:
        shutil.rmtree(memory, ignore_errors=True)
    sys.exit(bool(failures))
