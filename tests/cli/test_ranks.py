"""When one of several processes dies, all end within seconds, with a sentence that says so, and none goes on alone."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest

from depthkit.models import midas_timm, save_network
from depthkit.shards import ShardWriter
from depthkit.synthetic import SyntheticScenes

OUTLIVES = 15  # s
RECIPE = """
model:
  class_path: depthkit.paradigms.AffineInvariantModule
  init_args:
    model:
      class_path: depthkit.models.midas_timm
      init_args: {backbone: mobilenetv3_small_050, features: 8, pretrained: false}
data:
  class_path: depthkit.data.DepthDataModule
  init_args: {sources: [{root: ROOMS}], size: [32, 32], batch_size: 2, epoch_size: 100000}
trainer:
  accelerator: cpu
  devices: 2
  enable_progress_bar: false
  logger: false
  default_root_dir: OUT
  callbacks: [{class_path: ModelCheckpoint, init_args: {dirpath: OUT, save_last: true, every_n_train_steps: 2}}]
"""
COMMANDS: dict[str, tuple[str, Callable[[Path], bool]]] = {
    "fit": ("fit --config {root}/r.yaml", lambda out: (out / "last.ckpt").exists()),
    "label": (
        "label {root}/net.ckpt {root}/photos {out} --images_per_shard 20 --accelerator cpu --devices 2",
        lambda out: len(list(out.glob("*.tar"))) > 2,
    ),
    "predict": (
        "predict {root}/net.ckpt {root}/photos --out {out} --accelerator cpu --devices 2",
        lambda out: len(list(out.glob("*.png"))) > 20,
    ),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ranks")
    save_network(midas_timm("mobilenetv3_small_050", pretrained=False, features=8), root / "net.ckpt", ambiguity="shift_scale")
    with ShardWriter(root / "rooms", split="train", dataset="room", samples_per_shard=2) as writer:
        for sample in SyntheticScenes(8, size=(64, 96), kind="room"):
            writer.write(sample)
    (root / "photos").mkdir()
    cv2.imwrite(str(root / "photo.png"), np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8))
    for n in range(3000):
        (root / f"photos/{n:04d}.png").symlink_to(root / "photo.png")
    return root


def members(session: int) -> Iterator[int]:
    for place in Path("/proc").iterdir():
        with suppress(OSError, ValueError, IndexError):
            fields = (place / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                yield int(place.name)


def second_rank(session: int) -> int:
    for process in members(session):
        with suppress(OSError):
            if b"LOCAL_RANK=1" in Path(f"/proc/{process}/environ").read_bytes().split(b"\0"):
                return process
    raise AssertionError("there is no second rank")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are looked up in /proc")
@pytest.mark.parametrize("victim", ["first", "second"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_rank_that_dies_ends_the_run_in_a_sentence(command: str, victim: str, root: Path, tmp_path: Path) -> None:
    out, (words, begun) = tmp_path / "out", COMMANDS[command]
    (root / "r.yaml").write_text(RECIPE.replace("ROOMS", str(root / "rooms")).replace("OUT", str(out)))
    env = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "RANK", "WORLD", "LOCAL_RANK"))}
    line = [sys.executable, "-m", "depthkit.cli.main", *words.format(root=root, out=out).split()]
    with (tmp_path / "log").open("wb") as log:
        run = subprocess.Popen(line, stdout=log, stderr=log, start_new_session=True, env=env | {"OMP_NUM_THREADS": "1"})
    limit = time.monotonic() + 300
    while not begun(out) and run.poll() is None and time.monotonic() < limit:
        time.sleep(0.1)
    assert begun(out), (tmp_path / "log").read_text()
    os.kill(run.pid if victim == "first" else second_rank(run.pid), signal.SIGKILL)
    killed = time.monotonic()
    while left := [process for process in members(run.pid) if run.poll() is None or process != run.pid]:
        if time.monotonic() > killed + OUTLIVES:
            os.killpg(run.pid, signal.SIGKILL)
            pytest.fail(f"{len(left)} processes outlive it: {(tmp_path / 'log').read_text()[-3000:]}")
        time.sleep(0.1)
    told = (tmp_path / "log").read_text()
    sys.stdout.write(f"{command} {victim}: {time.monotonic() - killed:.1f} s, code {run.wait()}\n{told[-1500:]}")
    assert run.wait() not in (0, 1)
    assert "Traceback" not in told
    assert victim == "first" or "has ended" in told or "terminated with code" in told
