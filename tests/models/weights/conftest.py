"""A server and a cache of the hub that hold published files."""

import hashlib
from dataclasses import replace

import huggingface_hub.constants
import pytest

from depthkit.models import PUBLISHED
from depthkit.models.weights import registry
from tests.contracts.server import serving


@pytest.fixture
def server():
    with serving() as found:
        yield found


@pytest.fixture
def serve(server, monkeypatch):
    """Put bytes where an entry of the registry fetches its file, with the checksum they have or another."""

    def served(name, content, **changes):
        entry = PUBLISHED[name]
        file = entry.place.rpartition("/")[2]
        server.files[f"/{file}"] = content
        if entry.checksum:
            kind = entry.checksum.partition(":")[0]
            changes = {"checksum": f"{kind}:{hashlib.new(kind, content).hexdigest()}"} | changes
        entries = {**registry.PUBLISHED, name: replace(entry, place=f"{server.address}/{file}", **changes)}
        monkeypatch.setattr(registry, "PUBLISHED", entries)

    return served


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Lay files out as ``huggingface_hub`` caches them, and forbid the network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    root = tmp_path / "hub"

    def cached(repo, write):
        store, commit = root / f"models--{repo.replace('/', '--')}", "0" * 40
        (store / "refs").mkdir(parents=True)
        (store / "refs" / "main").write_text(commit)
        (store / "snapshots" / commit).mkdir(parents=True)
        write(store / "snapshots" / commit)
        return root

    return cached
