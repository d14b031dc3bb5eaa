"""The recipe that takes an encoder to semantic segmentation: what is fine-tuned is the depth network's encoder."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from depthkit.errors import RecipeError
from depthkit.models import dpt_timm
from depthkit.synthetic import SyntheticScenes, render

FILE = Path(__file__).parents[1] / "recipes" / "semi_supervised" / "segmentation.py"
spec = spec_from_file_location("segmentation", FILE)
assert spec is not None
assert spec.loader is not None
recipe = module_from_spec(spec)
spec.loader.exec_module(recipe)


@pytest.mark.parametrize(("backbone", "shared"), [("test_resnet", 1.0), ("test_vit", 0.9)])
def test_the_encoder_is_the_depth_networks(backbone, shared):
    pytest.importorskip("segmentation_models_pytorch", reason="needs pip install segmentation-models-pytorch")
    torch.manual_seed(0)
    network = dpt_timm(backbone, pretrained=False, features=16)
    for weight in network.encoder.parameters():
        torch.nn.init.normal_(weight)
    segmentation = recipe.Light(network, 4).eval()
    known = {(*w.shape, float(w.sum())) for w in network.encoder.parameters()}
    taken = [(*w.shape, float(w.sum())) in known for w in segmentation.encoder.parameters()]
    assert np.mean(taken) >= shared
    assert segmentation(torch.rand(1, 3, 160, 160)).shape == (1, 4, 160, 160)


def test_rendered_classes_are_sky_ground_faces_and_the_rest():
    view = render(SyntheticScenes(1, size=(48, 64), kind="street").scene(0), (48, 64))
    classes = recipe._classes(view)
    assert ((classes == 0) == view.sky).all()
    assert (classes[-1] == 1).mean() > 0.5  # a street is what one stands on


def test_a_mask_that_is_missing_is_named(tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "a.png")
    with pytest.raises(RecipeError, match=r"a\.png is missing"):
        recipe.Folder(str(tmp_path), (8, 8), training=False)
    with pytest.raises(RecipeError, match="expected images/NAME"):
        recipe.Folder(str(tmp_path / "nothing"), (8, 8), training=False)


SMALL = {
    "num_queries": 5,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "hidden_dim": 32,
    "feature_size": 32,
    "mask_feature_size": 32,
}
SMALL |= {"num_attention_heads": 2, "encoder_feedforward_dim": 32, "dim_feedforward": 32, "train_num_points": 64}


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
def test_mask2former_learns_by_the_depth_networks_encoder(backbone):
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    network = dpt_timm(backbone, pretrained=False, features=16)
    decoder = recipe.Mask2Former(network, 3, **SMALL)
    module = recipe.Segmentation(decoder, 3, 1e-3, 1e-4)
    image, mask = torch.rand(2, 3, 64, 96), torch.randint(3, (2, 64, 96))
    mask[0, :20] = recipe.IGNORED
    assert decoder(image).shape == (2, 3, 64, 96)
    module.training_step((image, mask), 0).backward()
    used = [p for p in network.encoder.parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    assert len(used) > len(list(network.encoder.parameters())) / 2
    module.trainer = type("Steps", (), {"estimated_stepping_batches": 10})()
    (optimizer,), _ = module.configure_optimizers()
    sizes = [sum(p.numel() for p in group["params"]) for group in optimizer.param_groups]
    assert sizes[0] == sum(p.numel() for p in network.encoder.parameters())
    assert sum(sizes) == sum(p.numel() for p in module.parameters())


def test_scores_are_the_masks_weighted_by_their_classes():
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    decoder = recipe.Mask2Former(dpt_timm("test_resnet", pretrained=False, features=16), 3, **SMALL).eval()
    image = torch.rand(1, 3, 64, 64)
    found, scores = decoder.network(pixel_values=image), decoder(image)
    masks = torch.nn.functional.interpolate(found.masks_queries_logits.sigmoid(), (64, 64), mode="bilinear")[0]
    weights = found.class_queries_logits[0].exp()
    weights = weights / weights.sum(-1, keepdim=True)
    expected = sum(weights[q, :3, None, None] * masks[q] for q in range(5))
    torch.testing.assert_close(scores[0], expected, rtol=1e-4, atol=1e-5)
