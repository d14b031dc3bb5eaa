import numpy as np
import pytest
import torch

from depthkit.errors import LabelError
from depthkit.evaluation import vae_roundtrip
from depthkit.models import AffineDepth, LinearDepth, LogDepth, latent_diffusion_tiny
from depthkit.types import Ambiguity, Representation, Sample

pytest.importorskip("diffusers")


def sample(key, depth, valid=None, ambiguity=Ambiguity.METRIC, representation=Representation.DEPTH):
    valid = np.ones(depth.shape, bool) if valid is None else valid
    image = np.zeros((*depth.shape, 3), np.uint8)
    return Sample(key, image, depth.astype(np.float32), valid, ambiguity, representation)


def perfect(codec):
    """A model whose VAE gives back what it got, times 1 + ``error`` in y."""
    model = latent_diffusion_tiny(codec=codec, vae_channels=(8, 8))

    def encode(depth, valid):
        return codec.encode(depth, valid) * (1 + model.error)

    model.error, model.encode_depth, model.decode_latent = 0.0, encode, lambda latent: latent
    return model


DEPTH = np.random.default_rng(0).uniform(1, 20, (11, 14))


@pytest.mark.parametrize("codec", [LogDepth(0.5, 40), LinearDepth(0.5, 40)], ids=str)
def test_a_vae_without_error_costs_nothing(codec):
    found = vae_roundtrip(perfect(codec), [sample("a", DEPTH), sample("b", 1 / DEPTH, representation=Representation.DISPARITY)])
    assert found.abs_rel == pytest.approx(0, abs=1e-5)
    assert found.y_error == pytest.approx(0, abs=1e-6)
    assert (found.delta1, found.clipped, found.images, found.left_out) == (1, 0, 2, 0)


def test_the_error_of_y_is_what_the_vae_does_to_it():
    model = perfect(LogDepth(1, 100))
    model.error = -0.1
    depth = np.full((8, 8), 100.0)
    found = vae_roundtrip(model, [sample("a", depth)])
    assert found.y_error == pytest.approx(0.1, abs=1e-5)
    assert found.abs_rel == pytest.approx(1 - 100**-0.05, rel=1e-4)


def test_depth_beyond_the_range_and_images_without_metres_are_counted_not_scored():
    far = DEPTH.copy()
    far[:, :7] = 50
    samples = [
        sample("far", far),
        sample("beyond", np.full((8, 8), 90.0)),
        sample("film", DEPTH, ambiguity=Ambiguity.SHIFT_SCALE, representation=Representation.DISPARITY),
        sample("nothing", DEPTH, valid=np.zeros(DEPTH.shape, bool)),
    ]
    found = vae_roundtrip(perfect(LogDepth(0.5, 40)), samples)
    assert (found.images, found.left_out) == (1, 3)
    assert found.clipped == pytest.approx((0.5 + 1) / 2)
    assert found.abs_rel == pytest.approx(0, abs=1e-5)
    assert "abs_rel" in found.table()


@torch.no_grad()
def test_what_stands_in_invalid_pixels_changes_nothing():
    model = latent_diffusion_tiny(codec=LogDepth(0.5, 40), vae_channels=(8, 8))
    valid = np.random.default_rng(1).random(DEPTH.shape) > 0.2
    scores = {vae_roundtrip(model, [sample("a", np.where(valid, DEPTH, poison), valid)]) for poison in (np.nan, 0, -1, 1e6)}
    assert len(scores) == 1


def test_an_affine_codec_has_no_metres_to_compare():
    with pytest.raises(LabelError, match=r"expected a metric codec; got AffineDepth"):
        vae_roundtrip(latent_diffusion_tiny(codec=AffineDepth(), vae_channels=(8, 8)), [])
