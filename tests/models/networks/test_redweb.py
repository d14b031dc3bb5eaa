"""The network of Xian et al."""

import torch

from depthkit.models import RedWebDecoder, RedWebHead, redweb_resnet50
from depthkit.models.networks.redweb import FeatureTransfer
from depthkit.types import Representation


def test_it_starts_with_small_normal_weights():
    decoder = RedWebDecoder((8, 16, 32), (4, 8, 16), features=32)
    weights = torch.cat([m.weight.flatten() for m in decoder.modules() if isinstance(m, torch.nn.Conv2d)])
    assert abs(weights.std().item() - 0.01) < 2e-4
    assert abs(weights.mean().item()) < 2e-4


def test_a_transfer_rectifies_the_sum_of_what_it_is_given_and_its_branch():
    transfer = FeatureTransfer(1, 1).eval()
    for module in transfer.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.dirac_(module.weight)
            torch.nn.init.zeros_(module.bias)
    found = transfer(torch.tensor([-1.0, 3.0]).view(1, 1, 1, 2))
    torch.testing.assert_close(found.flatten(), torch.tensor([0.0, 6.0]), rtol=1e-4, atol=0)


def test_on_resnet50_it_predicts_disparity_of_any_sign_at_the_image_size():
    with torch.device("meta"):
        model = redweb_resnet50(pretrained=False)
        assert model(torch.zeros(1, 3, 64, 96)).shape == (1, 1, 64, 96)
    assert model.representation is Representation.DISPARITY
    assert (model.decoder.channels, model.decoder.stride) == (256, 2)
    head = RedWebHead(8, 2)
    assert (head(torch.randn(1, 8, 4, 4)) < 0).any()
