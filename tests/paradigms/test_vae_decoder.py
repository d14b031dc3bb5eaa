from dataclasses import replace

import pytest

pytest.importorskip("diffusers")

import torch

from depthkit.errors import LabelError
from depthkit.models import AffineDepth, LogDepth, build, latent_diffusion_tiny
from depthkit.paradigms import VAEDecoderModule
from tests.contracts.paradigm import METRIC_DEPTH, batch


def module(**options):
    torch.manual_seed(0)
    codec = options.pop("codec", LogDepth(0.5, 20.0))
    return VAEDecoderModule(latent_diffusion_tiny(codec=codec, vae_channels=(16, 16)), **options)


def scenes():
    """Planes that recede from left to right, some pixels of which have no label."""
    b = batch([(0, METRIC_DEPTH)] * 3, size=(16, 24))
    depth = 1 + torch.linspace(0, 1, 24) * torch.tensor([2.0, 5.0, 9.0]).view(3, 1, 1, 1)
    return replace(b, target=depth.expand(3, 1, 16, 24).where(b.valid, torch.nan))


def test_only_the_decoder_learns_and_latents_stay_as_they_are():
    m, b = module(), scenes()
    m.combine(m, b).total.backward()
    reached = {name for name, p in m.model.named_parameters() if p.grad is not None}
    assert reached == {name for name, p in m.model.named_parameters() if p.requires_grad}
    assert {name.split(".")[1] for name in reached} == {"decoder", "post_quant_conv"}
    assert {name.split(".")[1] for name in reached} == {"decoder", "post_quant_conv"}
    assert all(p.grad.isfinite().all() for p in m.model.parameters() if p.grad is not None)


def test_fine_tuning_the_decoder_lowers_the_error_of_the_round_trip():
    m, b = module(), scenes()
    optimizer = torch.optim.Adam([p for p in m.parameters() if p.requires_grad], lr=2e-3)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = m.combine(m, b).total
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 2


def test_a_batch_without_metric_labels_teaches_nothing_and_breaks_nothing():
    m, b = module(), scenes()
    loss = m.combine(m, replace(b, valid=torch.zeros_like(b.valid))).total
    assert float(loss.detach()) == 0
    loss.backward()


def test_what_it_learned_loads_into_the_same_network():
    m = module()
    again = build(m.model.config)
    again.load_state_dict(m.model.state_dict())
    assert not any(p.requires_grad for p in again.vae.parameters())


def test_an_affine_codec_is_refused():
    with pytest.raises(LabelError, match="expected a metric codec to teach the decoder metres; got AffineDepth"):
        module(codec=AffineDepth())
