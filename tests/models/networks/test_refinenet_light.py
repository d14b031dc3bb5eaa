"""GP2's networks: the sizes and costs of the paper, and laws of chained pooling."""

import pytest
import torch
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

import depthkit.models
from depthkit.models.networks.refinenet_light import ChainedPooling
from depthkit.types import Representation


@pytest.mark.parametrize(
    ("name", "millions", "giga_multiply_adds"),
    [
        ("lrn_mobilenetv2", 2.4, 1.17),
        ("lrn_efficientnet_lite0", 3.6, 1.29),
        ("lrn_efficientnet_b0", 4.2, 1.66),
        *(
            pytest.param(f"lrn_efficientnet_{name}", *size, marks=pytest.mark.slow)
            for name, *size in (("b1", 6.7, 2.22), ("b2", 8.0, 2.5), ("b3", 11.0, 3.61), ("b4", 18.0, 5.44), ("b5", 29.0, 8.07))
        ),
    ],
)
def test_size_and_cost_are_those_of_the_paper(name, millions, giga_multiply_adds):
    with torch.device("meta"):
        model = getattr(depthkit.models, name)(pretrained=False).eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, 3, 384, 384))
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.02)
    assert counter.get_total_flops() / 2e9 == pytest.approx(giga_multiply_adds, rel=0.25)
    assert model.representation is Representation.LOG_DISPARITY


def _identity_chain(stages: int, average: bool) -> ChainedPooling:
    chain = ChainedPooling(3, stages=stages, average=average, norm=False)
    for module in chain.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.dirac_(module.weight)
    return chain


@pytest.mark.parametrize("stages", [1, 2, 4])
def test_averaged_chained_pooling_keeps_a_constant(stages):
    x = torch.full((1, 3, 6, 7), 2.5)
    assert_close(_identity_chain(stages, average=True)(x), x)
    assert_close(_identity_chain(stages, average=False)(x), (stages + 1) * x)


def test_each_link_of_the_chain_reaches_two_pixels_further():
    x = torch.zeros(1, 3, 1, 21)
    x[..., 10] = 1
    assert (_identity_chain(4, average=False)(x)[0, 0, 0] > 0).nonzero().flatten().tolist() == list(range(2, 19))
