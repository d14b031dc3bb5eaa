"""What every test shares: one thread each, a fixed seed, the place of the real samples.

The tests pass with any number of threads and any seed (``DEPTHKIT_TEST_THREADS``, ``DEPTHKIT_TEST_SEED``). One thread each is
fastest, because the tests themselves run side by side; the processes that they start have as many.
"""

import os
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ.get("DEPTHKIT_TEST_THREADS", "1")  # before torch
os.environ["MKL_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"]

import lightning.pytorch  # noqa: F401 - first imported inside a test, its log would go to that test's captured stream
import pytest
import torch

from depthkit.data import ShardWriter
from depthkit.synthetic import SyntheticScenes
from depthkit.types import Views

SAMPLES = Path(os.environ.get("DEPTHKIT_SAMPLES", Path(__file__).parents[2] / "shared" / "data"))


@pytest.hookimpl(tryfirst=True)  # before slow tests are left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out laws that do not concern a case, by their mark ``only``; make cases slow that are not ``quick``.

    Skips are for what this machine lacks.
    """

    def concerned(item: pytest.Item) -> bool:
        values = item.callspec.params if hasattr(item, "callspec") else {}
        wanted = (pair for mark in item.iter_markers("only") for pair in mark.kwargs.items())
        return all(condition(values[name]) for name, condition in wanted if name in values)

    items[:] = filter(concerned, items)
    for item in items:
        values = item.callspec.params if hasattr(item, "callspec") else {}
        for name, chosen in (pair for mark in item.iter_markers("quick") for pair in mark.kwargs.items()):
            if name in values and str(values[name]) not in chosen:
                item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True, scope="session")
def _threads() -> None:
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(int(os.environ.get("DEPTHKIT_TEST_SEED", 0)))


@pytest.fixture(scope="session")
def real() -> Callable[[str], Path]:
    """The folder of some real samples by its name; tests that need one skip where it is absent."""

    def folder(name: str) -> Path:
        if not (SAMPLES / name).is_dir():
            pytest.skip(f"no folder {name} of real samples in {SAMPLES}; set DEPTHKIT_SAMPLES to the folder that has it")
        return SAMPLES / name

    return folder


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six rendered rooms in two shards, as training and test split."""
    root = tmp_path_factory.mktemp("scenes")
    samples = list(SyntheticScenes(6, size=(64, 96), kind="room"))
    for split in ("train", "test"):
        with ShardWriter(root, split=split, dataset="room", samples_per_shard=3) as writer:
            for sample in samples:
                writer.write(sample)
    return root


@pytest.fixture(scope="session")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six rendered streets with all their views in two shards, as training and test split."""
    root = tmp_path_factory.mktemp("drive")
    samples = list(SyntheticScenes(6, size=(64, 96), kind="street", views=Views.VIDEO_STEREO))
    for split in ("train", "test"):
        with ShardWriter(root, split=split, dataset="drive", samples_per_shard=3) as writer:
            for sample in samples:
                writer.write(sample)
    return root
