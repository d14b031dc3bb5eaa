"""A server of files, and patience that does not take long."""

import pytest

from depthkit.shards.remote import cache, fetch
from tests.contracts.server import serving


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(fetch, "WAITS", (0.01,) * 4)
    monkeypatch.setattr(fetch, "TIMEOUT", 0.4)
    monkeypatch.setattr(fetch, "PIECE", 1000)
    monkeypatch.setattr(cache, "PIECE", 1000)
    with serving() as found:
        yield found
