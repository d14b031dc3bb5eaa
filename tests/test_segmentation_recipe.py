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

pytest.importorskip("segmentation_models_pytorch", reason="needs pip install segmentation-models-pytorch")
FILE = Path(__file__).parents[1] / "recipes" / "semi_supervised" / "segmentation.py"
spec = spec_from_file_location("segmentation", FILE)
assert spec is not None
assert spec.loader is not None
recipe = module_from_spec(spec)
spec.loader.exec_module(recipe)


@pytest.mark.parametrize(("backbone", "shared"), [("test_resnet", 1.0), ("test_vit", 0.9)])
def test_the_encoder_is_the_depth_networks(backbone, shared):
    torch.manual_seed(0)
    network = dpt_timm(backbone, pretrained=False, features=16)
    for weight in network.encoder.parameters():
        torch.nn.init.normal_(weight)
    segmentation = recipe.Segmentation(network, 4, 1e-3, 1e-4).eval()
    known = {(*w.shape, float(w.sum())) for w in network.encoder.parameters()}
    taken = [(*w.shape, float(w.sum())) in known for w in segmentation.network.encoder.parameters()]
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
