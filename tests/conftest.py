"""What every test shares: one thread each, a fixed seed, the place of the real samples.

One thread, here and in the processes that tests start, because the last digit of a sum depends on how many add it up.
"""

import os
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before torch

import lightning.pytorch  # noqa: F401 - first imported inside a test, its log would go to that test's captured stream
import pytest
import torch

from depthkit.data import ShardWriter
from depthkit.synthetic import SyntheticScenes
from depthkit.types import Views

SAMPLES = Path(os.environ.get("DEPTHKIT_SAMPLES", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(autouse=True, scope="session")
def _threads() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(int(os.environ.get("DEPTHKIT_TEST_SEED", 0)))


@pytest.fixture(scope="session")
def samples_root() -> Path:
    """The folder of real RGB-D samples; tests that need it skip where it is absent."""
    if not SAMPLES.is_dir():
        pytest.skip(f"no real samples at {SAMPLES}; point DEPTHKIT_SAMPLES at a folder of them")
    return SAMPLES


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six rendered rooms in two shards, as training and test split."""
    root = tmp_path_factory.mktemp("scenes")
    for split in ("train", "test"):
        with ShardWriter(root, split=split, dataset="room", samples_per_shard=3) as writer:
            for sample in SyntheticScenes(6, size=(64, 96), kind="room"):
                writer.write(sample)
    return root


@pytest.fixture(scope="session")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six rendered streets with all their views in two shards, as training and test split."""
    root = tmp_path_factory.mktemp("drive")
    for split in ("train", "test"):
        with ShardWriter(root, split=split, dataset="drive", samples_per_shard=3) as writer:
            for sample in SyntheticScenes(6, size=(64, 96), kind="street", views=Views.VIDEO_STEREO):
                writer.write(sample)
    return root
