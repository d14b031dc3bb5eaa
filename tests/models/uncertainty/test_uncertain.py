"""Networks that tell how uncertain they are: the map stays, what they leave undetermined is no uncertainty."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from depthkit.errors import LabelError, RecipeError
from depthkit.models import (
    DepthEnsemble,
    FlipAverage,
    FlipUncertainty,
    Sampling,
    dpt_timm,
    from_pretrained,
    heteroscedastic,
    latent_diffusion_tiny,
    save_network,
    uncertain,
    zoedepth,
)
from depthkit.models.networks.heads import LogScale
from depthkit.representation import convert
from depthkit.resize import InputResize, native_map, network_map
from depthkit.types import Ambiguity, Representation

DEPTH, DISPARITY = Representation.DEPTH, Representation.DISPARITY


class Seen(nn.Module):
    """Depth from the colours and the column, times a factor, plus an offset."""

    size_multiple = 1

    def __init__(
        self, representation: Representation = DEPTH, scale: float = 1.0, shift: float = 0.0, tilt: float = 0.0
    ) -> None:
        super().__init__()
        self.representation, self.scale, self.shift, self.tilt = representation, scale, shift, tilt

    def forward(self, image: Tensor) -> Tensor:
        x = 1 + image.mean(1, keepdim=True) + self.tilt * torch.linspace(0, 1, image.shape[-1])
        linear = DEPTH if self.representation in (DEPTH, Representation.LOG_DEPTH) else DISPARITY
        return convert(self.scale * x + self.shift, linear, self.representation)


def image(batch: int = 2) -> Tensor:
    return torch.rand(batch, 3, 9, 15)


def test_half_the_difference_of_mirror_images_is_a_fraction_of_their_mean() -> None:
    x, model = image(), Seen(tilt=0.7)
    found, uncertainty = FlipUncertainty(model, ambiguity=Ambiguity.METRIC).with_uncertainty(x)
    mirrored = model(x.flip(-1)).flip(-1)
    assert_close(found, model(x), rtol=0, atol=0)
    assert_close(uncertainty, (found - mirrored).abs() / (found + mirrored))
    for representation in Representation:
        other = FlipUncertainty(
            nn.Sequential(Seen(tilt=0.7), Converted(representation)), ambiguity=Ambiguity.METRIC, representation=representation
        )
        assert_close(other.with_uncertainty(x)[1], uncertainty, rtol=1e-4, atol=1e-6)


class Converted(nn.Module):
    def __init__(self, representation: Representation) -> None:
        super().__init__()
        self.to = representation

    def forward(self, depth: Tensor) -> Tensor:
        return convert(depth, DEPTH, self.to)


@pytest.mark.parametrize(
    ("ambiguity", "scale", "shift", "representation"),
    [
        (Ambiguity.SCALE, 3.0, 0.0, DEPTH),
        (Ambiguity.SCALE, 3.0, 0.0, Representation.LOG_DISPARITY),
        (Ambiguity.SHIFT_SCALE, 3.0, 2.0, DISPARITY),
        (Ambiguity.SHIFT_SCALE, 3.0, 2.0, Representation.LOG_DISPARITY),
    ],
)
def test_what_is_left_undetermined_is_no_uncertainty(
    ambiguity: Ambiguity, scale: float, shift: float, representation: Representation
) -> None:
    pair = [Seen(representation), Seen(representation, scale, shift)]
    found, uncertainty = DepthEnsemble(pair, ambiguity=ambiguity).with_uncertainty(x := image())
    assert_close(found, pair[0](x), rtol=1e-4, atol=1e-5)
    assert float(uncertainty.max()) < 1e-5
    apart = DepthEnsemble(pair, ambiguity=Ambiguity.METRIC).with_uncertainty(x)[1]
    assert float(apart.min()) > 0.1


def test_an_ensemble_is_the_mean_and_the_mean_distance_from_it() -> None:
    trio = [Seen(tilt=tilt) for tilt in (0.0, 0.5, 1.0)]
    found, uncertainty = DepthEnsemble(trio, ambiguity=Ambiguity.METRIC).with_uncertainty(x := image())
    maps = torch.stack([model(x) for model in trio])
    assert_close(found, maps.mean(0))
    assert_close(uncertainty, (maps - maps.mean(0)).abs().mean(0) / maps.mean(0))
    together = uncertain(trio[0], "ensemble", others=trio[1:], ambiguity=Ambiguity.METRIC)
    assert_close(together(x), found, rtol=0, atol=0)
    assert uncertain(together, "ensemble") is together
    with pytest.raises(LabelError, match="that predict metric depth, as the first does; got one of metric disparity"):
        DepthEnsemble([Seen(), Seen(DISPARITY)], ambiguity=Ambiguity.METRIC)
    with pytest.raises(RecipeError, match="two networks or more"):
        DepthEnsemble([Seen()], ambiguity=Ambiguity.METRIC)
    with pytest.raises(LabelError, match="what the maps leave undetermined"):
        FlipUncertainty(Seen())


def test_an_averaged_network_keeps_its_average() -> None:
    x, model = image(), Seen(tilt=0.7)
    averaged = FlipAverage(model)
    found, uncertainty = uncertain(averaged, "flip", ambiguity=Ambiguity.METRIC).with_uncertainty(x)
    assert_close(found, averaged(x), rtol=0, atol=0)
    assert_close(uncertainty, uncertain(model, "flip", ambiguity=Ambiguity.METRIC).with_uncertainty(x)[1], rtol=0, atol=0)
    assert float(uncertainty.max()) > 0.1


def test_a_map_of_zeros_and_a_constant_one_are_certain() -> None:
    for ambiguity in (Ambiguity.METRIC, Ambiguity.SCALE, Ambiguity.SHIFT_SCALE):
        model = FlipUncertainty(Seen(DISPARITY, scale=0.0), ambiguity=ambiguity)
        assert float(model.with_uncertainty(image())[1].abs().max()) == 0


def test_the_path_of_every_command_carries_it_at_the_images_size() -> None:
    x = torch.rand(1, 3, 10, 13)
    rule = InputResize(16, "upper_bound", 8, "bilinear", extend=True)
    model = FlipUncertainty(Seen(tilt=0.5), ambiguity=Ambiguity.METRIC)
    plain, found = native_map(Seen(tilt=0.5), x, rule), native_map(model, x, rule)
    assert plain.spread is None
    assert_close(found.map, plain.map, rtol=0, atol=0)
    assert found.spread is not None
    assert found.spread.shape == (1, 1, 10, 13)
    padded = native_map(model, x, InputResize(16, "upper_bound", 8, "bilinear", padding=1.0))
    assert padded.spread is not None
    assert padded.spread.shape == (1, 1, 10, 13)


@pytest.fixture(scope="module")
def head() -> Any:
    return heteroscedastic(dpt_timm("test_vit", pretrained=False, features=16, max_depth=10)).eval()


def test_a_part_beside_the_head_leaves_the_map_as_it_is(head: Any, tmp_path: Any) -> None:
    x = torch.rand(2, 3, 32, 48)
    with torch.no_grad():
        plain = dpt_timm("test_vit", pretrained=False, features=16, max_depth=10).eval()
        own = {name: value for name, value in head.state_dict().items() if not name.startswith("log_scale.")}
        plain.load_state_dict(own)
        found, uncertainty = head.with_uncertainty(x)
        assert_close(found, plain(x), rtol=0, atol=0)
        assert_close(network_map(head, x).spread, uncertainty, rtol=0, atol=0)
        assert uncertainty.shape == (2, 1, 32, 48)
        assert float(uncertainty.min()) > 0.03
        assert float(uncertainty.max()) < 0.3
        save_network(head, tmp_path / "net.ckpt", ambiguity="metric")
        again: Any = from_pretrained(tmp_path / "net.ckpt")
        assert_close(again.with_uncertainty(x), (found, uncertainty), rtol=0, atol=0)
        assert uncertain(again, "head") is again
    with pytest.raises(RecipeError, match="expected a network with a part that predicts its uncertainty"):
        plain.with_uncertainty(x)


def test_a_predicted_logarithm_is_bent_towards_its_bound_and_never_stops_learning() -> None:
    part = LogScale(4, 2)
    nn.init.zeros_(part.output.weight)
    nn.init.constant_(part.output.bias, 14.0)
    found = part(torch.zeros(1, 4, 2, 3))
    assert_close(found, torch.full((1, 1, 4, 6), 7 * math.tanh(2)))
    found.sum().backward()
    assert (part.output.bias.grad > 0).all()


def test_every_level_of_zoedepth_ends_in_its_finest() -> None:
    model = heteroscedastic(zoedepth(dpt_timm("test_vit", pretrained=False, features=16))).eval()
    with torch.no_grad():
        found, uncertainty = model.with_uncertainty(x := torch.rand(1, 3, 32, 48))
        assert_close(found, model(x), rtol=0, atol=0)
    assert uncertainty.shape == found.shape


def test_a_kind_that_a_network_has_not_is_named(head: Any) -> None:
    with pytest.raises(RecipeError, match="expected uncertainty to be one of flip, ensemble, head; got 'dropout'"):
        uncertain(head, "dropout")
    with pytest.raises(RecipeError, match="trained to predict its uncertainty; got a Seen"):
        uncertain(Seen(), "head")
    with pytest.raises(RecipeError, match="Give further networks, or take flip"):
        uncertain(head, "ensemble")
    with pytest.raises(RecipeError, match="for an ensemble alone; got 1 for flip"):
        uncertain(Seen(), "flip", others=[Seen()])
    diffusion = latent_diffusion_tiny(vae_channels=(8, 8, 16))
    with pytest.raises(RecipeError, match="Give its sampling 3 members or more"):
        uncertain(diffusion, "ensemble")
    diffusion.sampling = Sampling(members=3)
    assert uncertain(diffusion, "ensemble") is diffusion
    with pytest.raises(RecipeError, match="got a LatentDiffusionDepth without such a part"):
        uncertain(diffusion, "head")
    with pytest.raises(RecipeError, match="publishes its channels and stride"):
        heteroscedastic(diffusion)
