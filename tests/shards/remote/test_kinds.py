"""Every kind of address is read by range, by what speaks to it, without a network: a local server answers instead."""

import json

import numpy as np
import pytest

from depthkit.shards.remote import fetch as module
from depthkit.shards.remote.fetch import fetch, open_remote

CONTENT = bytes(np.random.default_rng(0).integers(0, 256, 4500, dtype=np.uint8))


def read(url):
    """A range, and the whole file in pieces."""
    assert fetch(url, 100, 2100) == CONTENT[100:2100]
    with open_remote(url, size=len(CONTENT)) as file:
        assert file.read(10) == CONTENT[:10]
        file.seek(3000)
        assert file.read() == CONTENT[3000:]


def test_s3(server, monkeypatch):
    pytest.importorskip("s3fs")
    for name, value in {"ENDPOINT_URL": server.address, "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    server.files["/bucket/folder/a.tar"] = CONTENT
    read("s3://bucket/folder/a.tar")
    assert server.ranges[0] == "bytes=100-2099"
    with pytest.raises(FileNotFoundError):
        fetch("s3://bucket/missing.tar", 0, 10)


def test_hugging_face(server, monkeypatch):
    pytest.importorskip("huggingface_hub")
    from huggingface_hub import HfFileSystem, constants

    HfFileSystem.clear_instance_cache()
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, server.address)
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    repository = "/api/datasets/me/shards"
    server.files[repository] = server.files[f"{repository}/revision/main"] = json.dumps(
        {"id": "me/shards", "sha": "a" * 40}
    ).encode()
    facts = [{"type": "file", "path": "a.tar", "size": len(CONTENT), "oid": "b" * 40}]
    server.files[f"{repository}/tree/main"] = json.dumps(facts).encode()
    server.files["/datasets/me/shards/resolve/main/a.tar"] = CONTENT
    read("hf://datasets/me/shards/a.tar")
    HfFileSystem.clear_instance_cache()


def test_any_other_file_system_of_fsspec(server, monkeypatch):
    import fsspec

    monkeypatch.setitem(module.PACKAGES, "memory", "fsspec")
    fsspec.filesystem("memory").pipe("/shards/a.tar", CONTENT)
    read("memory://shards/a.tar")
    with pytest.raises(FileNotFoundError):
        fetch("memory://shards/missing.tar", 0, 10)
