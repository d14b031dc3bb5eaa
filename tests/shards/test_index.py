"""Laws of the index: it is read whole or refused with a remedy, and it never points outside of its folder."""

import http.server
import json
import threading
from functools import partial

import numpy as np
import pytest

from depthkit.errors import ShardError
from depthkit.shards import ShardIndex, ShardWriter, verify
from depthkit.types import Sample


@pytest.fixture
def root(tmp_path):
    with ShardWriter(tmp_path, split="train", dataset="photos", samples_per_shard=2) as writer:
        for number in range(3):
            writer.write(Sample(f"p{number}", np.full((8, 9, 3), number, np.uint8)))
    return tmp_path


def change(root, **changes):
    index = json.loads((root / "index.json").read_text())
    (root / "index.json").write_text(json.dumps({**index, **changes}))


def change_shard(root, **changes):
    index = json.loads((root / "index.json").read_text())
    index["splits"]["train"]["shards"][0] |= changes
    (root / "index.json").write_text(json.dumps(index))


def test_an_index_is_what_it_writes(root):
    index = ShardIndex.load(root)
    (root / "index.json").write_text(index.to_json())
    assert ShardIndex.load(root) == index


def test_the_digest_is_of_the_data_and_not_of_its_place(root, tmp_path_factory):
    other = tmp_path_factory.mktemp("copy") / "here"
    root.rename(other)
    index = ShardIndex.load(other)
    other.rename(root)
    assert ShardIndex.load(root).digest == index.digest
    change_shard(root, sha256="0" * 64)
    assert ShardIndex.load(root).digest != index.digest


def test_a_folder_without_an_index_is_named_with_the_remedy(tmp_path):
    with pytest.raises(
        ShardError, match=r"expected shards in .*; there is no index.json. Give the folder that `depthkit shards write`"
    ):
        ShardIndex.load(tmp_path / "nowhere")


def test_an_unknown_split_names_the_known_ones(root):
    with pytest.raises(ShardError, match=r"expected a split of .*: train; got 'val'"):
        ShardIndex.load(root).samples("val")


@pytest.mark.parametrize(
    "name", ["../train-000000.tar", "/etc/passwd", "a/train-000000.tar", "train-0.tar", "test-000000.tar", "train-000001.tar"]
)
def test_a_shard_lies_in_the_folder_of_its_index(root, name):
    change_shard(root, name=name)
    with pytest.raises(ShardError, match="to be an index of shards; it is not"):
        ShardIndex.load(root)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"schema": 99}, r"expected schema 1 in .*; got 99. Write the shards again or use a matching depthkit"),
        ({"splits": 3}, "to be an index of shards; it is not"),
        ({"splits": {"../x": {}}}, "to be an index of shards; it is not"),
        ({"splits": {"train": {"shards": [{}]}}}, "to be an index of shards; it is not"),
    ],
)
def test_an_index_that_cannot_be_is_refused(root, changes, says):
    change(root, **changes)
    with pytest.raises(ShardError, match=says):
        ShardIndex.load(root)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"a": 1}', "[" * 100000])
def test_a_garbled_index_is_refused(root, content):
    (root / "index.json").write_text(content)
    with pytest.raises(ShardError, match=r"index.json"):
        ShardIndex.load(root)


def test_a_command_is_no_address():
    with pytest.raises(ShardError, match="expected a folder or URL of shards; got a command"):
        ShardIndex.load("pipe:cat /etc/passwd")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(root):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(root))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_shards_at_a_url_read_like_those_in_a_folder(root, server):
    index = ShardIndex.load(server + "/")
    assert index.digest == ShardIndex.load(root).digest
    assert index.url(index.shards("train")[0]) == f"{server}/train-000000.tar"
    assert verify(server).ok
    with pytest.raises(ShardError, match="nowhere"):
        ShardIndex.load(server + "/nowhere")
