"""A server and a cache of the hub that hold published files."""

import hashlib
import http.server
import threading
from dataclasses import replace

import huggingface_hub.constants
import pytest

from depthkit.models import PUBLISHED
from depthkit.models.weights import registry


class Server(http.server.ThreadingHTTPServer):
    """Serves ``files`` (path -> bytes) and counts what was asked for; a path in ``cut`` ends after half its bytes."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.cut, self.asked = {}, set(), []
        self.address = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404, "Not Found")
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if self.path in self.server.cut else content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    found = Server()
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield found
    found.shutdown()
    found.server_close()


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
