"""Laws of continuing: the same command continues or is done, another one is refused by name; a lock admits one."""

import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

from depthkit.errors import ShardError
from depthkit.shards import Part, ShardIndex, ShardWriter, write_shards
from depthkit.shards.files import alone, size_text
from depthkit.types import Ambiguity, Sample

BASE = {"dataset": "room", "licence": "CC0", "samples_per_shard": 2, "depth_format": "png_log16"}
MADE = {"converter": "folder", "depth_scale": 0.001, "intrinsics": None, "label": "depth"}
CHANGES = [
    ({}, {"depth_scale": 0.0002}, "their depth_scale was 0.001 and is 0.0002 now"),
    ({}, {"intrinsics": [9, 9, 1, 1]}, r"their intrinsics was None and is \[9, 9, 1, 1\] now"),
    ({}, {"label": "none"}, "their label was 'depth' and is 'none' now"),
    ({}, {"converter": "tum"}, "their converter was 'folder' and is 'tum' now"),
    ({"depth_format": "npy"}, {}, "their depth_format was 'png_log16' and is 'npy' now"),
    ({"licence": "secret"}, {}, "their licence was 'CC0' and is 'secret' now"),
    ({"dataset": "other"}, {}, "dataset.*'room'"),
]


class Made:
    def __init__(self, fatal=None):
        self.fatal = fatal

    def __len__(self):
        return 8

    def key(self, n):
        return f"s{n}"

    def __getitem__(self, n):
        if n == self.fatal:
            raise KeyboardInterrupt
        depth = np.full((8, 8), 1.0 + n, np.float32)
        return Sample(self.key(n), np.full((8, 8, 3), n, np.uint8), depth, depth > 0, Ambiguity.METRIC)


def write(root, samples=None, changed=None, made=None, **more):
    options = {**BASE, **(changed or {}), "manifest": {**MADE, **(made or {})}, **more}
    return write_shards(samples or Made(), root, split="train", **options)


@pytest.mark.parametrize(("changed", "made", "says"), CHANGES)
def test_what_was_cut_short_is_not_continued_in_another_way(tmp_path, changed, made, says):
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, Made(fatal=5))
    before = (tmp_path / "index.json").read_bytes()
    with pytest.raises(ShardError, match=says):
        write(tmp_path, None, changed, made, resume=True)
    assert (tmp_path / "index.json").read_bytes() == before


@pytest.mark.parametrize("where", ["depthkit.shards.writer.__version__", "depthkit.shards.writer.SCHEMA"])
def test_another_version_does_not_continue(tmp_path, monkeypatch, where):
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, Made(fatal=5))
    monkeypatch.setattr(where, 99)
    with pytest.raises(ShardError, match=r"their (depthkit|format) was .* and is 99 now"):
        write(tmp_path, resume=True)


@pytest.mark.parametrize(("changed", "made", "says"), CHANGES)
def test_parts_made_in_different_ways_do_not_join(tmp_path, changed, made, says):
    write(tmp_path, part=Part(1, 2))
    with pytest.raises(ShardError, match=says):
        write(tmp_path, None, changed, made, part=Part(2, 2))


def test_a_part_repeated_after_joining_says_that_all_is_there(tmp_path):
    for number in (1, 2):
        write(tmp_path, part=Part(number, 2))
    again = write(tmp_path, part=Part(1, 2))
    assert (again.samples, again.skipped, again.complete) == (0, 4, True)


def test_a_finished_command_repeated_does_nothing(tmp_path):
    first = write(tmp_path, resume=True)
    before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in tmp_path.rglob("*.tar*")}
    again = write(tmp_path, Made(fatal=0), resume=True)
    assert (again.samples, again.skipped, again.complete, again.shards) == (0, 8, True, first.shards)
    assert {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in tmp_path.rglob("*.tar*")} == before


RECORD = "records/train-000001.tar.json"


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda root: (root / RECORD).write_text("{"), f"expected .*{RECORD} to record a finished shard; it does not read"),
        (lambda root: (root / RECORD).write_text("[]"), "to record a finished shard; it does not read"),
        (
            lambda root: (root / RECORD).write_text((root / RECORD).read_text().replace('"manifest": "', '"manifest": "x')),
            f"expected .*{RECORD} to record a shard of this run; it is of another one",
        ),
        (lambda root: (root / "train-000001.tar").write_bytes(b"x"), r"train-000001\.tar to have \d+ bytes, .*; it has 1\."),
        (lambda root: (root / RECORD).unlink(), r"a record in .* of every shard that index\.json lists; train-000001\.tar has"),
        (lambda root: (root / "train.manifest.json").write_text("{"), "to be a manifest; it does not read"),
    ],
)
def test_what_is_spoilt_is_named_and_nothing_is_written_on_it(tmp_path, spoil, says):
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, Made(fatal=5))
    spoil(tmp_path)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    with pytest.raises(ShardError, match=says):
        write(tmp_path, resume=True)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before
    write(tmp_path, overwrite=True)
    write(tmp_path / "whole")
    assert ShardIndex.load(tmp_path).digest == ShardIndex.load(tmp_path / "whole").digest


def test_a_shard_that_was_removed_is_written_again(tmp_path):
    write(tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    (tmp_path / "train-000001.tar").unlink()
    assert write(tmp_path, resume=True).samples == 2
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()} == before


def test_what_is_being_written_is_not_replaced(tmp_path):
    tried = []

    class Meanwhile(Made):
        def __getitem__(self, n):
            if n == 3:
                with pytest.raises(ShardError, match="another process is writing split 'train'"):
                    write(tmp_path, overwrite=True)
                tried.append(n)
            return super().__getitem__(n)

    write(tmp_path, Meanwhile())
    assert tried == [3]
    assert ShardIndex.load(tmp_path).samples("train") == 8


@pytest.mark.parametrize("fatal", range(1, 8))
def test_wherever_it_was_cut_short_it_ends_in_the_bytes_of_an_undisturbed_run(tmp_path, fatal):
    write(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "cut", Made(fatal=fatal))
    write(tmp_path / "cut", resume=True)
    assert ShardIndex.load(tmp_path / "cut").digest == ShardIndex.load(tmp_path / "whole").digest


def test_shards_without_a_manifest_are_not_continued(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, Made(fatal=5))
    (tmp_path / "train.manifest.json").unlink()
    with pytest.raises(ShardError, match="it is missing"), ShardWriter(tmp_path, split="train", resume=True, **BASE):
        pass


def test_a_lock_whose_file_is_removed_by_its_holder_admits_one_at_a_time(tmp_path):
    inside, most, path = [0], [0], tmp_path / ".lock"

    def contend():
        for _ in range(60):
            with alone(path):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0.0005)
                inside[0] -= 1

    threads = [threading.Thread(target=contend) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert not path.exists()


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_no_worker_outlives_the_process_that_started_it(tmp_path, signum):
    script = tmp_path / "job.py"
    script.write_text(
        textwrap.dedent(
            """
            import os, sys, time
            from depthkit.shards.workers import stops_at_sigterm, worker_pool

            def pid(_):
                time.sleep(0.3)
                return os.getpid()

            if __name__ == "__main__":
                with stops_at_sigterm(), worker_pool(2) as pool:
                    print(*set(pool.map(pid, range(4))), flush=True)
                    time.sleep(60)
            """
        )
    )
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as job:
        workers = [int(number) for number in job.stdout.readline().split()]
        assert workers
        job.send_signal(signum)
        job.wait(60)
        end = time.monotonic() + 15
        while any(map(alive, workers)) and time.monotonic() < end:
            time.sleep(0.1)
    assert not any(map(alive, workers))


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_sizes_are_told_in_a_unit_that_shows_them():
    assert [size_text(n) for n in (0, 5000, 3 * 2**20, 2**31)] == ["0 bytes", "4.9 KiB", "3.0 MiB", "2.0 GiB"]
