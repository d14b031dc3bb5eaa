"""Laws of training from a server: what comes is what the same shards give from a disk, whatever the server does."""

import numpy as np
import pytest
import torch

from depthkit.data import DepthDataModule, ShardCache, ShardSource, ShardWriter
from depthkit.errors import ShardError
from depthkit.shards.remote import cache, fetch
from depthkit.types import Sample
from tests.contracts.server import Fault, serving

SAMPLES = 20


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setattr(fetch, "WAITS", (0.01,) * 6)
    monkeypatch.setattr(fetch, "TIMEOUT", 0.4)
    for module in (fetch, cache):
        monkeypatch.setattr(module, "PIECE", 4096)
    with ShardWriter(tmp_path / "shards", split="train", dataset="a", samples_per_shard=4, image_format="png") as writer:
        for n in range(SAMPLES):
            image = np.random.default_rng(n).integers(0, 256, (24, 32, 3), dtype=np.uint8)
            writer.write(Sample(f"s{n:03d}", image))
    with serving() as found:
        found.files = {f"/shards/{file.name}": file.read_bytes() for file in (tmp_path / "shards").glob("*.*")}
        found.stalled = 1
        yield found


def batches(root, folder, workers, **options):
    source, copies = ShardSource(str(root)), ShardCache(str(folder), **options)
    data = DepthDataModule([source], batch_size=4, size=(8, 8), num_workers=workers, cache=copies, shuffle_window=5)
    data.multiprocessing_context = "fork"
    return data.train_dataloader()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("room", ["for all", "for none"])
def test_no_sample_is_lost_or_doubled_by_a_server_that_drops_stalls_refuses_and_lies(server, tmp_path, workers, room):
    count, faults = iter(range(10_000)), [*Fault, Fault.DROP, Fault.BUSY, Fault.SHORT]

    def at_times(path):
        number = next(count)
        return faults[number // 4 % len(faults)] if number % 4 == 3 else None

    server.fault = at_times
    gigabytes = {"for all": 1.0, "for none": 1e-9}[room]
    expected = list(batches(tmp_path / "shards", tmp_path / "unused", workers))
    loader = batches(f"{server.address}/shards?key=1", tmp_path / "copies", workers, gigabytes=gigabytes)
    found = list(loader)
    assert sorted(key for batch in found for key in batch.keys) == [f"s{n:03d}" for n in range(SAMPLES)]
    for one, other in zip(found, expected, strict=True):
        assert one.keys == other.keys
        assert torch.equal(one.image, other.image)
    copies = len(list((tmp_path / "copies").glob("*.tar")))
    assert copies == (SAMPLES // 4 if room == "for all" else 0)
    assert not (tmp_path / "unused").exists()
    if room == "for all":
        asked = len(server.asked)
        assert sorted(key for batch in loader for key in batch.keys) == [f"s{n:03d}" for n in range(SAMPLES)]
        assert len(server.asked) == asked, "the second epoch reads copies"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_server_that_stays_away_ends_the_run_with_its_address(server, tmp_path, workers):
    loader = batches(f"{server.address}/shards", tmp_path / "copies", workers)
    server.fault = lambda path: Fault.BUSY
    with pytest.raises(ShardError, match=f"expected to read {server.address}/shards/train-00000.*7 tries"):
        list(loader)
