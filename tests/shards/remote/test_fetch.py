"""Laws of remote files: the bytes are right, however the server answers, and one that stays away is named."""

import io
import time

import numpy as np
import pytest

from depthkit.errors import MissingPackageError, ShardError
from depthkit.shards import ShardIndex, ShardWriter, verify
from depthkit.shards.files import joined, open_url
from depthkit.shards.reading import read_shard
from depthkit.shards.remote import fetch as module
from depthkit.shards.remote.fetch import fetch, open_remote
from depthkit.types import Sample
from tests.contracts.server import Fault

CONTENT = bytes(np.random.default_rng(0).integers(0, 256, 4500, dtype=np.uint8))


@pytest.mark.parametrize("fault", list(Fault))
def test_what_fails_once_is_asked_for_again(server, fault):
    server.files["/a"] = CONTENT
    faults = iter([fault, None])
    server.fault = lambda path: next(faults)
    assert fetch(f"{server.address}/a", 100, 2100) == CONTENT[100:2100]
    assert server.ranges == ["bytes=100-2099"] * 2


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (Fault.BUSY, "503"),
        (Fault.DROP, "the last with"),
        (Fault.SHORT, "1000 bytes came instead of 2000"),
        (Fault.STALL, "no answer in 0.4 s"),
    ],
)
def test_a_server_that_stays_away_is_named_without_its_key(server, fault, told):
    server.files["/a"] = CONTENT
    server.fault = lambda path: fault
    with pytest.raises(
        ShardError, match=rf"expected to read {server.address}/a; 5 tries in .*{told}.*--ckpt_path auto"
    ) as raised:
        fetch(f"{server.address}/a?key=secret", 0, 2000)
    assert "secret" not in str(raised.value)
    assert len(server.asked) == 5


def test_no_server_at_all_is_told(server):
    with pytest.raises(ShardError, match=r"expected to read http://127.0.0.1:9/a; 5 tries"):
        fetch("http://127.0.0.1:9/a")


def test_what_is_not_there_is_not_asked_for_again(server):
    with pytest.raises(FileNotFoundError):
        fetch(f"{server.address}/missing")
    assert len(server.asked) == 1


def test_the_training_keeps_its_random_numbers(server):
    import random

    random.seed(3)
    expected = random.random()
    random.seed(3)
    server.files["/a"] = CONTENT
    faults = iter([Fault.BUSY, None])
    server.fault = lambda path: next(faults)
    fetch(f"{server.address}/a")
    assert random.random() == expected


@pytest.mark.parametrize("query", ["key=a%2Fb%2Bc%3D&x=1", "sig=%20", ""])
def test_what_follows_the_question_mark_is_sent_as_it_is(server, query):
    server.files["/folder/a.tar"] = CONTENT
    root = f"{server.address}/folder" + (f"?{query}" if query else "")
    assert fetch(joined(root, "a.tar")) == CONTENT
    assert server.asked == ["/folder/a.tar" + (f"?{query}" if query else "")]


@pytest.mark.parametrize("knows_ranges", [True, False])
@pytest.mark.parametrize("size", [None, len(CONTENT)])
def test_a_remote_file_reads_like_one_on_a_disk(server, knows_ranges, size):
    server.files["/a"], server.knows_ranges = CONTENT, knows_ranges
    remote, local = open_remote(f"{server.address}/a", size=size), io.BytesIO(CONTENT)
    for step in (lambda f: f.read(10), lambda f: f.seek(3000), lambda f: f.read(700), lambda f: f.seek(20), lambda f: f.read()):
        assert step(remote) == step(local)
    assert remote.read(1) == b""
    with pytest.raises(ValueError, match="expected to read"):
        open_remote(f"{server.address}/a", "wb")


def test_without_its_package_a_kind_of_address_names_the_extra(monkeypatch):
    monkeypatch.setitem(module.PACKAGES, "s3", "no_such_package")
    with pytest.raises(MissingPackageError, match=r"pip install 'depthkit\[remote\]'"):
        fetch("s3://bucket/a")


def test_an_index_and_its_shards_are_read_and_verified_where_they_lie(server, tmp_path):
    with ShardWriter(tmp_path, split="train", dataset="a", samples_per_shard=2) as writer:
        for n in range(3):
            writer.write(Sample(f"s{n}", np.full((4, 6, 3), n, np.uint8)))
    server.files |= {f"/shards/{file.name}": file.read_bytes() for file in tmp_path.glob("*.*")}
    count = iter(range(1000))
    server.fault = lambda path: Fault.BUSY if next(count) % 3 == 0 else None
    index = ShardIndex.load(f"{server.address}/shards/?key=1")
    assert index.digest == ShardIndex.load(tmp_path).digest
    urls = [index.url(shard) for shard in index.shards("train")]
    assert urls[0] == f"{server.address}/shards/train-000000.tar?key=1"
    keys = [raw.key for url, n in zip(urls, (2, 1), strict=True) for raw in read_shard(url, 0, n, total=n)]
    assert keys == ["s0", "s1", "s2"]
    assert verify(f"{server.address}/shards").problems == ()
    from webdataset.gopen import gopen_schemes

    assert all(gopen_schemes[scheme] is open_remote for scheme in module.PACKAGES)
    with open_url(urls[1]) as stream:
        assert stream.read() == (tmp_path / "train-000001.tar").read_bytes()


def test_what_stalls_is_asked_for_again_before_the_time_of_an_answer_is_over(server, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT", 30.0)
    monkeypatch.setattr(module, "QUIET", 0.2)
    server.files["/a"], server.stalled = CONTENT, 3.0
    faults = iter([Fault.STALL, None])
    server.fault = lambda path: next(faults)
    start = time.monotonic()
    assert fetch(f"{server.address}/a", 0, 2000) == CONTENT[:2000]
    assert time.monotonic() - start < 2.0
