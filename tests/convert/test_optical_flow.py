"""Laws of RAFT as a flow: any size of picture, its weights from a file, and a sentence where they are not."""

import pickle

import numpy as np
import pytest
import torch

from depthkit.convert.records.optical_flow import Raft
from depthkit.errors import CheckpointError

models = pytest.importorskip("torchvision.models.optical_flow", reason="torchvision is not installed")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    file = tmp_path_factory.mktemp("raft") / "small.pth"
    torch.manual_seed(0)
    torch.save(models.raft_small().state_dict(), file)
    return file


@pytest.mark.parametrize("size", [(40, 61), (128, 136)])
def test_flow_has_the_size_of_the_picture_and_is_the_same_in_another_process(weights, size):
    raft = Raft(weights, size="small", device="cpu")
    first, second = np.random.default_rng(0).integers(0, 256, (2, *size, 3), dtype=np.uint8)
    flow = raft(first, second)
    assert flow.shape == (*size, 2)
    assert np.isfinite(flow).all()
    assert np.array_equal(pickle.loads(pickle.dumps(raft))(first, second), flow)


def test_weights_of_another_network_are_refused(weights):
    with pytest.raises(CheckpointError, match=r"expected weights of RAFT, large, in .*; they cannot be had .*--weights"):
        Raft(weights, size="large", device="cpu").ready()
