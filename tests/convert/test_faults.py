"""Laws of writing a published dataset when something goes wrong: nothing lost, nothing twice, and one sentence about it."""

import json
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from depthkit.cli.shards_write import write
from depthkit.convert import redweb, virtual_kitti
from depthkit.errors import DepthKitError, ShardError
from depthkit.shards import ShardIndex, verify, write_shards
from depthkit.shards.reading import read_shard

DYING = """
import os, signal, sys
from depthkit.cli.main import main
from depthkit.shards.files import PartialTar
add, left = PartialTar.add, [47]
def dying(self, *sample):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    return add(self, *sample)
PartialTar.add = dying
main(sys.argv[1:])
"""


def write_redweb(root, count):
    for folder in ("Imgs", "RDs"):
        (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for n in range(count):
        cv2.imwrite(str(root / f"Imgs/{n:04d}.png"), rng.integers(0, 255, (90, 120, 3), np.uint8))
        cv2.imwrite(str(root / f"RDs/{n:04d}.png"), rng.integers(0, 255, (90, 120), np.uint8))
    return root


def keys_in(out, split):
    index = ShardIndex.load(out)
    return [raw.key for s in index.split(split).shards for raw in read_shard(str(out / s.name), 0, s.samples, total=s.samples)]


@pytest.mark.slow
def test_a_run_that_is_killed_is_continued_by_the_same_command_with_nothing_lost_or_twice(tmp_path):
    root, out = write_redweb(tmp_path / "redweb", 60), tmp_path / "out"
    command = ["shards", "write", "redweb", str(root), str(out), "--holdout", "0", "--samples_per_shard", "20"]
    died = subprocess.run([sys.executable, "-c", DYING, *command], stdout=subprocess.DEVNULL, check=False)
    assert died.returncode == -signal.SIGKILL
    here = ShardIndex.load(out).splits["train"]
    assert not here.complete
    assert len(here.shards) == 2
    assert all((out / shard.name).stat().st_size == shard.bytes for shard in here.shards)
    write("redweb", str(root), str(out), holdout=0.0, samples_per_shard=20)
    assert keys_in(out, "train") == [f"redweb/{n:04d}" for n in range(60)]
    verify(out).check()
    assert json.loads((out / "index.json").read_text())["splits"]["train"]["complete"]


def test_a_disk_that_will_be_too_small_is_told_after_the_first_samples(tmp_path, monkeypatch):
    root = write_redweb(tmp_path / "redweb", 40)
    frames = redweb.redweb(root, "train", holdout=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=200_000))
    with pytest.raises(
        ShardError, match=r"expected about [0-9.]+ [KM]iB of free space for .*; the disk has [0-9.]+ KiB. Free space"
    ):
        write_shards(frames, tmp_path / "out", split="train", dataset="redweb")
    monkeypatch.undo()
    assert write_shards(frames, tmp_path / "out", split="train", dataset="redweb", resume=True).samples == 40


def test_unreadable_files_are_counted_by_what_is_wrong_with_them(tmp_path, capsys):
    root = write_redweb(tmp_path / "redweb", 12)
    for n in (1, 2, 3):
        (root / f"RDs/{n:04d}.png").write_bytes((root / f"RDs/{n:04d}.png").read_bytes()[:-40])
    for n in (5, 6):
        (root / f"RDs/{n:04d}.png").unlink()
    write("redweb", str(root), str(tmp_path / "out"), holdout=0.0)
    said = " ".join(capsys.readouterr().out.split())
    assert "7 samples in 7 shards" in said
    assert "5 samples were left out" in said
    assert "│ 2 │ redweb/0005 │" in said
    assert "│ 3 │ redweb/0001 │" in said


@pytest.mark.parametrize("name", ["vkitti_2.0.3_rgb.tar", "redweb.zip", "notes.txt", "nothing"])
def test_what_is_no_folder_is_said_in_one_sentence_with_what_was_found(name, tmp_path):
    if name != "nothing":
        (tmp_path / name).write_bytes(b"x")
    found = {"notes.txt": "a file", "nothing": "nothing"}.get(name, "an archive")
    with pytest.raises(DepthKitError, match=rf"expected a folder with Virtual KITTI 2's scenes.* found {found}\. "):
        virtual_kitti.virtual_kitti(tmp_path / name, "val")


def test_a_split_that_is_complete_is_not_written_twice(tmp_path):
    root = write_redweb(tmp_path / "redweb", 4)
    write("redweb", str(root), str(tmp_path / "out"), holdout=0.0)
    written = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("*.tar")}
    write("redweb", str(root), str(tmp_path / "out"), holdout=0.0)
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("*.tar")} == written
