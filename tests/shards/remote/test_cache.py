"""Laws of copies: one download for all processes, whole or not there, bounded, and never removed under a reader."""

import hashlib
import multiprocessing
import time

import numpy as np
import pytest

from depthkit.errors import RecipeError, ShardError
from depthkit.shards import ShardInfo
from depthkit.shards.remote.cache import ShardCache
from tests.contracts.server import Fault

SIZE = 4500


@pytest.fixture
def shards(server):
    """Three shards of one size, and where they lie."""
    contents = [bytes(np.random.default_rng(n).integers(0, 256, SIZE, dtype=np.uint8)) for n in range(3)]
    server.files |= {f"/{n}": content for n, content in enumerate(contents)}
    infos = [ShardInfo(f"{n}", 1, SIZE, hashlib.sha256(c).hexdigest()) for n, c in enumerate(contents)]
    return [(f"{server.address}/{n}", info, content) for n, (info, content) in enumerate(zip(infos, contents, strict=True))]


def names(folder):
    return sorted(file.name for file in folder.iterdir() if not file.name.endswith(".lock"))


def read(cache, url, info, content):
    with cache.open(url, info) as file:
        assert file.read() == content


def test_processes_that_want_one_shard_download_it_once(server, shards, tmp_path):
    server.latency, cache = 0.05, ShardCache(str(tmp_path))
    processes = [multiprocessing.get_context("fork").Process(target=read, args=(cache, *shards[0])) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert sorted(server.ranges) == [f"bytes={at}-{min(at + 1000, SIZE) - 1}" for at in range(0, SIZE, 1000)]
    read(cache, *shards[0])
    assert names(tmp_path) == [f"{shards[0][1].sha256}.tar"]
    assert len(server.asked) == 5


@pytest.mark.parametrize("fault", list(Fault))
def test_a_download_with_faults_is_whole_in_the_end_and_has_its_name_only_then(server, shards, tmp_path, fault):
    count, seen = iter(range(100)), []

    def at_times(path):
        seen.append(names(tmp_path))
        return fault if next(count) % 2 == 0 else None

    server.fault, server.stalled = at_times, 1
    read(ShardCache(str(tmp_path)), *shards[0])
    assert {tuple(found) for found in seen} == {(f"{shards[0][1].sha256}.{SIZE}.partial",)}


def test_a_download_that_was_cut_short_goes_on_and_a_wrong_one_begins_anew(server, shards, tmp_path):
    (url, info, content), cache = shards[0], ShardCache(str(tmp_path))
    partial = tmp_path / f"{info.sha256}.{SIZE}.partial"
    partial.write_bytes(content[:3200])
    read(cache, url, info, content)
    assert server.ranges == ["bytes=3200-4199", "bytes=4200-4499"]
    (tmp_path / f"{info.sha256}.tar").unlink()
    partial.write_bytes(b"x" * 4000)
    read(cache, url, info, content)
    assert names(tmp_path) == [f"{info.sha256}.tar"]


def test_a_server_without_ranges_sends_a_shard_once(server, shards, tmp_path):
    server.knows_ranges = False
    read(ShardCache(str(tmp_path)), *shards[0])
    assert len(server.asked) == 1


def test_what_is_not_the_shard_of_the_index_is_refused(server, shards, tmp_path):
    (url, info, content), cache = shards[0], ShardCache(str(tmp_path))
    server.files["/0"] = content[:-1] + b"?"
    with pytest.raises(ShardError, match=f"expected {url} to have the SHA-256 that the index says; got .* twice"):
        cache.open(url, info)
    assert names(tmp_path) == []
    with pytest.raises(FileNotFoundError):
        cache.open(f"{server.address}/missing", info)


def test_the_cache_is_bounded_and_what_was_not_read_for_longest_goes_first(server, shards, tmp_path):
    cache = ShardCache(str(tmp_path), gigabytes=2.5 * SIZE / 1e9)
    for shard in (0, 1, 0, 2):
        read(cache, *shards[shard])
        time.sleep(0.01)  # times of files are not finer everywhere
    assert names(tmp_path) == sorted(f"{shards[n][1].sha256}.tar" for n in (0, 2))


def test_what_is_read_is_not_removed_and_what_finds_no_room_is_read_from_the_server(server, shards, tmp_path):
    cache = ShardCache(str(tmp_path), gigabytes=1.5 * SIZE / 1e9)
    url, info, content = shards[0]
    with cache.open(url, info) as held:
        first = held.read(10)
        read(cache, *shards[1])
        assert names(tmp_path) == [f"{info.sha256}.tar"]
        assert first + held.read() == content
    read(cache, *shards[1])
    assert names(tmp_path) == [f"{shards[1][1].sha256}.tar"]


def test_what_a_killed_process_left_gives_room(server, shards, tmp_path):
    (tmp_path / f"{shards[0][1].sha256}.{SIZE}.partial").write_bytes(b"x")
    read(ShardCache(str(tmp_path), gigabytes=1.5 * SIZE / 1e9), *shards[1])
    assert names(tmp_path) == [f"{shards[1][1].sha256}.tar"]


def test_a_prefetched_shard_need_not_be_waited_for_and_a_failed_one_is_told_when_it_is_opened(server, shards, tmp_path):
    (url, info, content), cache = shards[0], ShardCache(str(tmp_path))
    cache.prefetch(url, info)
    until = time.monotonic() + 10
    while not (tmp_path / f"{info.sha256}.tar").exists() and time.monotonic() < until:
        time.sleep(0.01)
    asked = len(server.asked)
    read(cache, url, info, content)
    assert len(server.asked) == asked
    cache.prefetch(f"{server.address}/missing", shards[1][1])
    with pytest.raises(FileNotFoundError):
        cache.open(f"{server.address}/missing", shards[1][1])


def test_a_size_must_be_positive():
    with pytest.raises(RecipeError, match=r"expected data.cache.gigabytes above 0; got 0"):
        ShardCache(gigabytes=0)
