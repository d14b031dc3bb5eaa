"""Every architecture against the contract of depth networks."""

from copy import deepcopy
from functools import cache

import pytest
import torch

from depthkit.models import DepthNet
from tests.contracts.model import ALL_MODELS, ModelContract


@cache
def built(name: str) -> DepthNet:
    return ALL_MODELS[name]().eval()


class TestModels(ModelContract):
    @pytest.fixture(params=ALL_MODELS)
    def model(self, request: pytest.FixtureRequest) -> DepthNet:
        return deepcopy(built(request.param))


@pytest.mark.quick(name=["midas"])
@pytest.mark.parametrize("name", ["midas", "lrn", "dpt_vit"])
def test_a_network_of_each_kind_compiles_in_one_graph(name: str) -> None:
    model = ALL_MODELS[name]().eval()
    size = model.size_multiple
    ModelContract().test_compiles_in_one_graph(model, torch.rand(2, 3, 2 * size, 3 * size))
