import numpy as np
import pytest
import torch
from torch.testing import assert_close

from depthkit.errors import PredictionError, RecipeError, ShapeError
from depthkit.evaluation import InputResize
from depthkit.inference import DepthPredictor, diffuse, read_checkpoint
from depthkit.models import AffineDepth, LogDepth, Sampling, latent_diffusion_tiny
from depthkit.types import Ambiguity, Representation

diffusers = pytest.importorskip("diffusers")


@pytest.fixture
def model():
    made = latent_diffusion_tiny(codec=LogDepth(0.5, 40), vae_channels=(8, 8, 16), sampling=Sampling(steps=2)).eval()
    made.vae.decoder.conv_out.weight *= 3  # so that maps vary
    return made


@pytest.mark.parametrize(("size", "side"), [((45, 70), 0), ((45, 70), 40), ((30, 20), 64)])
def test_it_is_the_pipeline_of_diffusers_at_any_size_and_resolution(model, size, side):
    image = torch.rand(2, 3, *size)
    height, width = size if side == 0 else [x * side // max(size) for x in size]
    latents = torch.randn(2, 1, 4, -(-height // 4), -(-width // 4))
    pipeline = diffusers.MarigoldDepthPipeline(
        model.unet, model.vae, diffusers.DDIMScheduler.from_config(model.scheduler.config), None, None, prediction_type="depth"
    )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.empty_text_embedding = model.text_embedding
    theirs = pipeline(
        image, num_inference_steps=2, latents=latents[:, 0], processing_resolution=side, output_type="pt"
    ).prediction
    found = diffuse(model, image, latents=latents, processing_size=side, batch_size=1)
    assert_close((found.y + 1) / 2, theirs, rtol=0, atol=1e-5)
    assert_close(found.depth, model.codec.decode(found.y))
    assert found.uncertainty.max() == 0


@pytest.mark.parametrize("reduction", ["median", "mean"])
def test_an_ensemble_of_identical_members_is_the_member_with_no_uncertainty(model, reduction):
    model.sampling = Sampling(reduction=reduction)
    image, one = torch.rand(2, 3, 16, 24), torch.randn(2, 1, 4, 4, 6)
    alone = diffuse(model, image, latents=one, processing_size=0)
    together = diffuse(model, image, members=4, latents=one.expand(-1, 4, -1, -1, -1), processing_size=0)
    assert_close(together.depth, alone.depth, rtol=1e-4, atol=0)
    assert together.uncertainty.max() < 1e-4


def test_members_are_reduced_in_y_and_their_spread_is_relative_to_depth(model):
    image, latents = torch.rand(2, 3, 16, 24), torch.randn(2, 3, 4, 4, 6)
    members = [diffuse(model, image, latents=latents[:, k : k + 1], processing_size=0) for k in range(3)]
    y = torch.stack([member.y for member in members]).numpy()
    found = diffuse(model, image, members=3, latents=latents, processing_size=0, batch_size=4)
    np.testing.assert_allclose(found.y.numpy(), np.median(y, 0), atol=1e-4)
    spread = np.median(np.abs(y - np.median(y, 0)), 0) * np.log(40 / 0.5) / 2
    np.testing.assert_allclose(found.uncertainty.numpy(), spread, atol=1e-4)
    depths = torch.stack([member.depth for member in members])
    assert (found.depth - depths.median(0).values).abs().max() < 1e-3  # of an odd number, any rising scale has one median
    model.sampling = Sampling(steps=2, reduction="mean")
    mean = diffuse(model, image, members=3, latents=latents, processing_size=0)
    assert_close(mean.depth, depths.log().mean(0).exp(), rtol=1e-4, atol=0)  # the geometric mean, not above it
    assert (mean.depth <= depths.mean(0) * (1 + 1e-5)).all()


def test_a_seed_fixes_the_prediction_and_the_batch_size_does_not_matter(model):
    image = torch.rand(3, 3, 21, 30)

    def run(seed, batch_size=None):
        generator = torch.Generator().manual_seed(seed)
        return diffuse(model, image, members=3, generator=generator, processing_size=24, batch_size=batch_size).depth

    assert_close(run(1), run(1), rtol=0, atol=0)
    assert_close(run(1, batch_size=2), run(1), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(run(2), run(1), rtol=1e-3)


def test_without_noise_given_it_is_the_network_called(model):
    image = torch.rand(2, 3, 16, 24)
    model.sampling = Sampling(steps=3, members=3, seed=4)
    with torch.inference_mode():
        depth, uncertainty = model.with_uncertainty(image)
        assert_close(model(image), depth)
    found = diffuse(model, image, processing_size=0)
    assert_close(found.depth, depth, rtol=1e-4, atol=1e-5)
    assert_close(found.uncertainty, uncertainty, rtol=1e-3, atol=1e-5)
    assert uncertainty.max() > 0


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"latents": torch.zeros(1, 1, 4, 2, 2)}, ShapeError, r"latents of shape \(1, 1, 4, 4, 4\); got \(1, 1, 4, 2, 2\)"),
        ({"latents": torch.zeros(1), "generator": torch.Generator()}, RecipeError, "expected latents or a generator"),
        ({"processing_size": -8}, ShapeError, "something is left at a longer side of -8; got 16x16"),
        ({"steps": 1001}, RecipeError, "expected between 1 and 1000 steps"),
        ({"steps": 0}, RecipeError, "expected one step and one member or more; got 0 and 1"),
        ({"members": 0}, RecipeError, "expected one step and one member or more; got 2 and 0"),
        ({"batch_size": 0}, RecipeError, "expected a batch size of 1 or more; got 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused(model, options, error, message):
    with pytest.raises(error, match=message):
        diffuse(model, torch.rand(1, 3, 16, 16), **{"processing_size": 0, **options})
    with pytest.raises(ShapeError, match=r"something is left at a longer side of 8; got 4x400"):
        diffuse(model, torch.rand(1, 3, 4, 400), processing_size=8)


def test_a_model_that_starts_from_zeros_is_given_nothing_else_but_latents(model):
    image, zeros = torch.rand(2, 3, 16, 24), torch.zeros(2, 1, 4, 4, 6)
    model.sampling = Sampling(noise="zeros")
    assert_close(diffuse(model, image, latents=zeros, processing_size=0).y, diffuse(model, image, processing_size=0).y)
    with pytest.raises(RecipeError, match="expected one member from zeros"):
        diffuse(model, image, members=3)
    with pytest.raises(RecipeError, match="expected no generator for a model that starts from zeros"):
        diffuse(model, image, generator=torch.Generator())


def test_the_predictor_takes_images_of_any_size_and_tells_the_uncertainty_of_an_ensemble(model):
    image = np.random.default_rng(0).integers(0, 255, (37, 53, 3), np.uint8)
    predictor = DepthPredictor(model, ambiguity=model.ambiguity, input_rule=InputResize(32, "upper_bound", 4))
    prediction = predictor(image)
    assert prediction.map.shape == (37, 53)
    assert prediction.uncertainty is None
    assert (prediction.representation, prediction.ambiguity) == (Representation.DEPTH, Ambiguity.METRIC)
    assert 0.49 <= prediction.map.min() < prediction.map.max() <= 40.1
    model.sampling = Sampling(members=3)
    assert predictor(image).uncertainty.shape == (37, 53)
    assert predictor(image).uncertainty.max() > 0
    again = predictor([image, image[::-1].copy(), image], batch_size=3, progress=False)
    np.testing.assert_allclose(again[2].map, predictor(image).map, rtol=1e-4)


def test_the_predictor_resizes_in_y(model):
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    predictor = DepthPredictor(model, ambiguity=model.ambiguity, input_rule=InputResize(16, "upper_bound", 4))
    seen = predictor.input_rule(torch.from_numpy(image).permute(2, 0, 1)[None] / 255, 4)
    with torch.inference_mode():
        small = model(seen)
    y = torch.nn.functional.interpolate(model.codec.encode(small, small > 0), (64, 64), mode="bilinear")
    np.testing.assert_allclose(predictor(image).map, model.codec.decode(y)[0, 0].numpy(), rtol=1e-4)


def test_the_resolution_is_the_models_own_unless_given(model):
    model.processing_size = 24
    assert DepthPredictor(model, ambiguity=model.ambiguity).input_rule.size(60, 100, 4) == (14, 24)  # and is extended to 16
    model.processing_size = 0
    assert DepthPredictor(model, ambiguity=model.ambiguity).input_rule.size(60, 100, 4) == (60, 100)


def test_a_saved_folder_is_a_checkpoint(model, tmp_path):
    pytest.importorskip("transformers")
    model.processing_size = 32
    model.save_pretrained(tmp_path)
    image = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    found = DepthPredictor.from_pretrained(tmp_path)
    np.testing.assert_allclose(found(image).map, DepthPredictor(model, ambiguity=model.ambiguity)(image).map, rtol=1e-4)
    assert read_checkpoint(tmp_path).ambiguity == Ambiguity.METRIC


def test_an_affine_model_leaves_scale_and_shift_open():
    model = latent_diffusion_tiny(codec=AffineDepth(), vae_channels=(8, 8, 16), sampling=Sampling(members=3)).eval()
    model.processing_size = 32
    prediction = DepthPredictor(model, ambiguity=model.ambiguity)(np.zeros((20, 30, 3), np.uint8))
    assert (prediction.ambiguity, prediction.representation) == (Ambiguity.SHIFT_SCALE, Representation.DEPTH)
    assert 0 <= prediction.map.min() <= prediction.map.max() <= 1


def test_an_overflow_of_the_vae_is_named(model):
    model.vae.half()
    model.vae.encoder.conv_out.weight.fill_(6e4)
    with pytest.raises(PredictionError, match="in float16 it overflowed"):
        diffuse(model, torch.rand(1, 3, 16, 16), processing_size=0)
