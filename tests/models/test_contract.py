"""Every architecture against the contract of depth networks."""

import pytest

from depthkit.models import DepthNet
from tests.contracts.model import ALL_MODELS, ModelContract


class TestModels(ModelContract):
    @pytest.fixture(params=ALL_MODELS)
    def model(self, request: pytest.FixtureRequest) -> DepthNet:
        return ALL_MODELS[request.param]().eval()
