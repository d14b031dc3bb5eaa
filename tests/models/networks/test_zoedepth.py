"""Laws of ZoeDepth's bins: their range, their distribution, what they take over and what they refuse."""

import pytest
import torch
from torch.testing import assert_close

from depthkit.errors import RecipeError
from depthkit.models import build, dpt_timm, midas_timm, zoedepth
from depthkit.models.networks.zoedepth import BinsHead, _log_binomial, _log_choose


def _base(**options):
    return dpt_timm("test_vit", pretrained=False, features=16, **options)


def _levels() -> list[torch.Tensor]:
    return [torch.randn(2, 16, n, n) for n in (2, 4, 8, 16, 32)]


def test_bounded_depth_stays_within_its_range():
    head = BinsHead(16, _base().head, depth_range=(2.0, 5.0))
    depth = head(_levels())
    assert depth.shape == (2, 1, 64, 64)
    assert ((depth >= 2) & (depth <= 5)).all()


def test_seed_bins_split_the_range_and_rise():
    head = BinsHead(16, _base().head, bins=10, depth_range=(0.0, 1.0))
    centres = head._seed_centres(10 * torch.randn(3, 10, 2, 2))
    assert (centres.diff(dim=1) > 0).all()
    assert ((centres > 0) & (centres < 1)).all()
    assert_close(head._seed_centres(torch.zeros(1, 10, 1, 1)).flatten(), (torch.arange(10) + 0.5) / 10)


def test_an_attractor_draws_centres_towards_itself_and_far_ones_hardly():
    head = BinsHead(16, _base().head, bins=3)
    attractor = torch.full((1, 1, 1, 1), 2.0)
    raw = attractor.expm1().log()  # softplus gives 2
    centres = torch.tensor([1.9, 2.0, 12.0]).view(1, 3, 1, 1)
    shift = (head._drawn(centres, raw) - centres).flatten()
    assert_close(shift, torch.tensor([0.1 / (1 + 300 * 0.01), 0.0, -10 / (1 + 300 * 100.0)]), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("depth_range", [None, (0.0, 1.0)])
def test_attractors_leave_the_centres_in_their_order(depth_range):
    """However strong: a centre moves by no more than the next one is away; so nothing is sorted, as the released code does."""
    head = BinsHead(16, _base().head, depth_range=depth_range)
    centres = torch.rand(2, 64, 3, 4).sort(1).values
    for attractors in (1, 4, 16):
        drawn = head._drawn(centres, torch.randn(2, attractors * (2 if depth_range else 1), 3, 4))
        assert (drawn.diff(dim=1) > -1e-6).all()


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_the_distribution_is_binomial_about_n_p_and_sharpens_with_temperature(p):
    n = 63
    raw = torch.tensor([p, 1 - p]).expm1().log()

    def distribution(t: float) -> torch.Tensor:
        return _log_binomial(torch.cat([raw, torch.tensor([t, 1 - t]).expm1().log()]).view(1, 4, 1, 1), n + 1).flatten()

    k = torch.arange(n + 1.0)
    temperature_1 = (1 - 0.0212) / (50 - 0.0212)
    mild = distribution(temperature_1)
    assert_close(mild.sum(), torch.tensor(1.0))
    assert abs(float((k * mild).sum()) - n * p) < 0.6  # of 63; Stirling without its root shifts it a little
    assert abs(float(((k - n * p).square() * mild).sum()) - n * p * (1 - p)) < 0.25 * n * p * (1 - p)
    sharp = distribution(temperature_1 / 20)
    assert float(sharp.max()) > 2 * float(mild.max())
    assert abs(int(sharp.argmax()) - n * p) <= 1


def test_numbers_of_choices_are_stirlings_without_its_root():
    k = torch.arange(1, 63, dtype=torch.double)
    expected = 63 * torch.tensor(63.0).double().log() - k * k.log() - (63 - k) * (63 - k).log()
    assert_close(_log_choose(63.0, k), expected, rtol=0, atol=1e-6)


def test_it_takes_over_the_networks_parts_with_their_weights():
    base = _base()
    model = zoedepth(base)
    assert model.encoder is base.encoder
    assert model.decoder is base.decoder
    assert model.head.relative is base.head
    assert model.config["base"] == base.config
    assert build(model.config).state_dict().keys() == model.state_dict().keys()


def test_a_base_of_ones_own_parts_cannot_be_built_again():
    base = _base()
    base.config = None
    assert zoedepth(base).config is None


def test_a_base_may_be_a_name():
    with torch.device("meta"):
        model = zoedepth("dpt_dinov2_small", pretrained=False)
    assert model.config == {"architecture": "zoedepth", "base": "dpt_dinov2_small", "pretrained": False}
    assert model.size_multiple == 14


@pytest.mark.parametrize(
    ("base", "options", "message"),
    [
        (lambda: midas_timm("test_resnet", pretrained=False, features=16), {}, r"got MidasDecoder and MidasHead\. Take a dpt_"),
        (lambda: _base(max_depth=20.0), {}, r"expected a base that gives disparity; got depth\. Leave out its max_depth"),
        (_base, {"bins": 1}, r"expected 2 bins or more; got 1"),
        (_base, {"depth_range": (10.0, 1.0)}, r"0 <= least < greatest \[m\]; got \(10\.0, 1\.0\)"),
    ],
)
def test_a_wrong_recipe_is_refused(base, options, message):
    with pytest.raises(RecipeError, match=message):
        zoedepth(base(), **options)
