import pytest
import torch
from torch import nn
from torch.testing import assert_close

from depthkit.errors import LabelError
from depthkit.evaluation import PROTOCOLS, evaluate
from depthkit.models import FlipAverage, flip_averaged, monodepth2_timm
from depthkit.types import Ambiguity, Representation


class Brightness(nn.Module):
    """Equivariant to flips."""

    representation, ambiguity, size_multiple = Representation.DISPARITY, Ambiguity.SCALE, 8

    def forward(self, image):
        return image.mean(1, keepdim=True)[..., ::1]


class Ramp(nn.Module):
    """Not equivariant: adds the column."""

    representation = Representation.DISPARITY

    def forward(self, image):
        return image.mean(1, keepdim=True) + torch.linspace(0, 1, image.shape[-1])


@pytest.mark.parametrize("width", [1, 7, 64, 641])
def test_a_flip_equivariant_network_is_left_as_it_is(width):
    image = torch.rand(2, 3, 5, width)
    assert_close(FlipAverage(Brightness())(image), Brightness()(image))


@pytest.mark.parametrize("width", [7, 64, 641])
def test_the_average_is_itself_flip_equivariant_but_for_the_sides(width):
    image = torch.rand(2, 3, 5, width)
    x = torch.linspace(0, 1, width)
    inner = (x >= 0.1) & (x <= 0.9)
    here, there = FlipAverage(Ramp())(image), FlipAverage(Ramp())(image.flip(-1)).flip(-1)
    assert_close(here[..., inner], there[..., inner])


def test_a_network_is_averaged_where_asked_or_where_its_authors_do():
    model = Brightness()
    assert flip_averaged(model) is model
    assert isinstance(flip_averaged(model, True), FlipAverage)
    model.flip = True
    assert isinstance(flip_averaged(model), FlipAverage)
    assert flip_averaged(model, False) is model


def test_the_sides_are_those_of_one_map_each():
    x = torch.linspace(0, 1, 641)
    found = FlipAverage(Ramp())(torch.zeros(1, 3, 2, 641))[0, 0, 0]
    assert_close(found[x <= 0.05], 1 - x[x <= 0.05])  # the mirrored map
    assert_close(found[x >= 0.95], x[x >= 0.95])  # the map
    assert_close(found[(x >= 0.1) & (x <= 0.9)], torch.full_like(x[(x >= 0.1) & (x <= 0.9)], 0.5))
    assert_close(found[48], 0.5 + torch.tensor(0.5) * (0.5 - x[48]), atol=1e-3, rtol=0)  # half way between, at 7.5 %


@pytest.mark.parametrize("representation", [Representation.DEPTH, Representation.LOG_DEPTH])
def test_depth_is_the_plain_mean_of_both(representation):
    """ZoeDepth's, and flip-equivariant everywhere."""
    image = torch.rand(2, 3, 2, 41)
    model = FlipAverage(Ramp(), representation=representation)
    assert_close(model(image), image.mean(1, keepdim=True) + 0.5)
    assert_close(model(image.flip(-1)).flip(-1), model(image))


def test_it_states_what_the_network_states_and_can_be_evaluated():
    model = FlipAverage(Brightness())
    assert (model.representation, model.ambiguity, model.size_multiple) == (Representation.DISPARITY, Ambiguity.SCALE, 8)
    assert FlipAverage(Ramp()).ambiguity is None
    from depthkit.synthetic import SyntheticScenes

    samples = [SyntheticScenes(size=(64, 96), count=1)[0]]
    reports = [evaluate(m, samples, PROTOCOLS["synthetic_median"], progress=False) for m in (model, Brightness())]
    assert reports[0].summary == pytest.approx(reports[1].summary, rel=1e-4)


def test_a_real_network_sees_image_and_mirror_image():
    model = monodepth2_timm("mobilenetv2_035", pretrained=False).eval()
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        seen, mirrored = model(image), model(image.flip(-1)).flip(-1)
        found = FlipAverage(model)(image)
    assert (seen - mirrored).abs().max() > 0
    assert_close(found[..., 12:84], ((seen + mirrored) / 2)[..., 12:84])


def test_a_network_of_unknown_representation_is_refused():
    with pytest.raises(LabelError, match="expected the representation of the model's output, one of depth, disparity"):
        FlipAverage(nn.Identity())
