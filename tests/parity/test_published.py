"""Every published network by its name, from its official file (random weights) to the map of an image file: the authors' map.

Differences are the greatest of a map, in units of its standard deviation. One of each code path runs always; all of them with
``-m slow``, which needs the packages that ``test_gp2.py`` and ``test_monodepth2.py`` name. ``DEPTHKIT_TABLE`` names a file to
which the differences are added, a line per network.
"""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from depthkit.inference import DepthPredictor
from depthkit.models import PUBLISHED
from depthkit.models.weights import registry
from tests.parity.published import files

TOLERANCE, ROUNDED = 1e-4, 1e-3
"""Monodepth2's images are rounded to 8 bits twice."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A photograph as PNG and a frame as JPEG: smooth shapes, edges and noise."""
    folder, made = tmp_path_factory.mktemp("photos"), []
    for name, (height, width) in (("photo.png", (480, 640)), ("frame.jpg", (375, 1242))):
        rng = np.random.default_rng(height)
        coarse = Image.fromarray(rng.integers(0, 256, (height // 40, width // 40, 3), np.uint8))
        image = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
        image[height // 3 : height // 2, width // 4 : width // 2] = rng.integers(0, 256, 3)
        image = (image + rng.integers(-12, 13, image.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(image).save(folder / name, quality=92)
        made.append(folder / name)
    return made


@torch.inference_mode()
def differences(name: str, write, folder: Path, photos: list[Path], side=None) -> list[float]:
    path, reference = write(name, folder, side)
    predictor, found = DepthPredictor.from_pretrained(f"{name}={path}"), []
    if (sampling := getattr(predictor.model, "sampling", None)) is not None:  # the fit of members does not repeat
        predictor.model.sampling = replace(sampling, members=1)
    if side is not None:
        predictor.input_rule = replace(predictor.input_rule, side=side)
    for photo in photos:
        ours, theirs = torch.from_numpy(predictor(photo).map), reference(photo)
        assert ours.shape == theirs.shape == torch.Size(Image.open(photo).size[::-1])
        assert theirs.std() > 1e-3 * theirs.abs().mean()
        found.append(float((ours - theirs).abs().max() / theirs.std()))
    return found


@pytest.mark.quick(
    name=["dpt_swin2_tiny_256", "monodepth2_mono_640x192", "depth_anything_v2_metric_vkitti_small", "zoedepth_nk"]
)
@pytest.mark.parametrize("name", files.QUICK)
def test_one_of_each_kind_predicts_an_image_file_as_its_authors_do(name, tmp_path, photos, monkeypatch):
    if "depth_anything" in name:  # the same path with a small network
        entry = PUBLISHED[name]
        tiny = {"backbone": "test_vit", "features": 16, "options": {"init_values": 1e-5}}
        small = replace(entry, builder="dpt_timm", arguments={**tiny, **entry.arguments, "hooks": "v1"})
        monkeypatch.setattr(registry, "PUBLISHED", {name: small})
    write, image = files.QUICK[name]
    (found,) = differences(name, write, tmp_path, photos[image : image + 1])
    assert found <= TOLERANCE


SMALLER = {
    "dpt_large": 96, "dpt_hybrid": 192, "dpt_beit_large_512": 128, "zoedepth_n": (96, 128), "zoedepth_k": (96, 192),
    "zoedepth_nk": (96, 128), "depth_anything_v1_metric_indoor": (98, 140), "depth_anything_v1_metric_outdoor": (98, 140),
    **{name: 126 for name in PUBLISHED if name.startswith("depth_anything_") and name.endswith(("small", "base", "large"))},
}  # fmt: skip
"""Sides for machines that take minutes for a large network at its authors' size: with ``DEPTHKIT_SMALLER=1``."""


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_network_predicts_an_image_file_as_its_authors_do(name, tmp_path, photos):
    side = SMALLER.get(name) if os.environ.get("DEPTHKIT_SMALLER") else None
    family = files.family(name)
    found = differences(name, family.write, tmp_path, photos, side)
    if table := os.environ.get("DEPTHKIT_TABLE"):
        with Path(table).open("a") as file:
            file.write(f"| `{name}` | {family.reference} | {side or 'own'} | {found[0]:.1e} | {found[1]:.1e} |\n")
    assert max(found) <= (ROUNDED if "monodepth2" in name else TOLERANCE), found
