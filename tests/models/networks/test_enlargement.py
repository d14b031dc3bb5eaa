"""Which pixels of a smaller map meet: with corners aligned a ramp stays one to its ends, without it is flat at them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from depthkit.models import DPTHead, LightRefineNetDecoder, RedWebHead
from depthkit.models.networks.heads import LogDisparityHead, MidasHead
from depthkit.models.networks.midas import FusionBlock
from depthkit.models.networks.monodepth2 import UpBlock
from depthkit.models.networks.redweb import FeatureFusion
from depthkit.models.networks.zoedepth import _resized

RAMP = torch.arange(1.0, 7.0).expand(1, 2, 4, 6)
ALIGNED = torch.linspace(1, 6, 12)
NOT_ALIGNED = torch.tensor([1.0, 1.25, 1.75, 2.25, 2.75, 3.25, 3.75, 4.25, 4.75, 5.25, 5.75, 6.0])
REPEATED = torch.arange(1.0, 7.0).repeat_interleave(2)


def passing(module: nn.Module) -> nn.Module:
    """Let the first channel through every convolution as it is; what is added to it, and every norm, does nothing."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.dirac_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        if isinstance(part, FusionBlock):
            part.unit = part.skip_unit = nn.Identity()
    return module.eval()


def refined(x: Tensor) -> Tensor:
    decoder = LightRefineNetDecoder((2, 2), (2, 4))
    decoder.pool = nn.ModuleList([nn.Identity(), nn.Identity()])
    return passing(decoder)([torch.zeros(1, 2, 8, 12), x])


def transferred(x: Tensor) -> Tensor:
    fusion = passing(FeatureFusion(2, 2))
    fusion.skip = fusion.merge = nn.Identity()
    return fusion(x, torch.zeros_like(x))


ENLARGEMENTS: dict[str, tuple[Callable[[Tensor], Tensor], Tensor]] = {
    "MiDaS, fusion": (passing(FusionBlock(2, None, rectified_identity=False, has_skip=False)), ALIGNED),
    "MiDaS, head": (passing(MidasHead(2, 2, output_activation="none")), NOT_ALIGNED),
    "Depth Anything, head": (passing(DPTHead(2, 2, output_activation="none")), ALIGNED),
    "ZoeDepth, bins": (lambda x: _resized(x, torch.zeros(1, 1, 8, 12)), ALIGNED),
    "GP2, decoder": (refined, NOT_ALIGNED),
    "GP2, head": (passing(LogDisparityHead(2, 2)), NOT_ALIGNED),
    "Xian, fusion": (transferred, ALIGNED),
    "Xian, head": (passing(RedWebHead(2, 2)), ALIGNED),
    "Monodepth2, decoder": (lambda x: passing(UpBlock(2, 0, 2))(x, None), REPEATED),
}


@pytest.mark.parametrize("name", ENLARGEMENTS)
def test_a_map_is_doubled_as_in_the_paper(name: str) -> None:
    enlarge, expected = ENLARGEMENTS[name]
    with torch.no_grad():
        found = enlarge(RAMP)[:, :1]
    assert_close(found, expected.expand(1, 1, 8, 12), rtol=1e-4, atol=1e-4)
