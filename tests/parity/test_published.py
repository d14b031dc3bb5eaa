"""Every published network by its name, from its official file (random weights) to the map of an image file: the authors' map.

Differences are the greatest of a map, in units of its standard deviation, as users compute it and with everything in float64.
One of each code path runs always; all of them with ``-m slow``, which needs the packages that ``test_gp2.py`` and
``test_monodepth2.py`` name. ``DEPTHKIT_TABLE`` names a file to which the differences are added, a line per network.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from depthkit.inference import DepthPredictor
from depthkit.models import PUBLISHED
from depthkit.models.weights import registry
from depthkit.resize import multiple_of, resized_map, shown_part
from tests.parity.published import files, rules

ROUNDED, EXACT = 1e-3, 1e-9
"""In float32, whose roundings random networks enlarge; and in float64."""
TABLES = 1e-6
"""In float64 of diffusion, whose schedules are tables of float32 that we compute in another order."""
QUICK = [
    "dpt_swin2_tiny_256", "monodepth2_mono_640x192", "depth_anything_v1_metric_indoor", "depth_anything_v2_metric_vkitti_small",
    "zoedepth_nk", "marigold_e2e_ft",
]  # fmt: skip


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


class Differences(NamedTuple):
    """The greatest difference on each photo, as computed by users, and with everything in float64, where that can be."""

    usual: list[float]
    exact: list[float]


@torch.inference_mode()
def differences(name: str, write, folder: Path, photos: list[Path], side=None) -> Differences:
    path, reference, network = write(name, folder, side)
    predictor, found = DepthPredictor.from_pretrained(f"{name}={path}"), Differences([], [])
    if (sampling := getattr(predictor.model, "sampling", None)) is not None:  # the fit of members does not repeat
        predictor.model.sampling = replace(sampling, members=1)
    if side is not None:
        predictor.input_rule = replace(predictor.input_rule, side=side)
    for photo in photos:
        found.usual.append(difference(torch.from_numpy(predictor(photo).map), reference(photo), photo))
    if network is not None:
        with in_float64(predictor.model, network):
            found.exact.extend(difference(in_one_piece(predictor, photo), reference(photo), photo) for photo in photos)
    return found


def difference(ours: torch.Tensor, theirs: torch.Tensor, photo: Path) -> float:
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape == torch.Size(Image.open(photo).size[::-1])
    assert theirs.std() > 1e-3 * theirs.abs().mean()
    return float((ours - theirs).abs().max() / theirs.std())


@contextmanager
def in_float64(*models: torch.nn.Module) -> Iterator[None]:
    """Compute by float64; means and deviations of colours have the three digits that they were written with."""
    for model in models:
        for name, x in model.double().named_buffers():
            if name.endswith(("mean", "std")) and x.numel() == 3:
                x.copy_(x.round(decimals=3))
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def in_one_piece(predictor: DepthPredictor, photo: Path) -> torch.Tensor:
    """What the predictor does with a file, but for its rounding of images and maps to float32."""
    model, rule, image = predictor.model, predictor.input_rule, rules.tensor(rules.read(photo)) / 255
    size, multiple = image.shape[-2:], multiple_of(model)
    seen = rule(image, multiple)
    found = shown_part(model(seen), seen.shape[-2:], rule.size(*size, multiple))
    own = {"input_rule": rule, "representation": predictor.representation}
    return resized_map(found, size, model, predictor.output_rule, **own)[0, 0]


def check(name: str, found: Differences) -> None:
    assert max(found.usual) <= ROUNDED, found
    assert max(found.exact, default=0) <= (TABLES if files.family(name).write is files.marigold else EXACT), found


QUICK_SIDES = {
    "depth_anything_v1_metric_indoor": (96, 160), "depth_anything_v2_metric_vkitti_small": 96, "marigold_e2e_ft": 256,
    "marigold_v1_1": 256, "gp2_mobilenetv2": 128, "zoedepth_nk": (96, 128),
}  # fmt: skip
TINY_DINOV2 = {
    "architecture": "dpt_timm", "backbone": "test_vit", "features": 16, "options": {"init_values": 1e-5}, "hooks": "v1",
}  # fmt: skip


@pytest.mark.quick(name=QUICK)
@pytest.mark.parametrize("name", files.QUICK)
def test_one_of_each_kind_predicts_an_image_file_as_its_authors_do(name, tmp_path, photos, monkeypatch):
    entry = PUBLISHED[name]
    if entry.builder == "zoedepth":  # the same path with a small network
        monkeypatch.setattr(registry, "PUBLISHED", {name: replace(entry, arguments={"base": TINY_DINOV2})})
    elif "depth_anything" in name:
        small = {**TINY_DINOV2, **entry.arguments, "hooks": "v1"}
        monkeypatch.setattr(registry, "PUBLISHED", {name: replace(entry, builder=small.pop("architecture"), arguments=small)})
    write, image = files.QUICK[name]
    found = differences(name, write, tmp_path, photos[image : image + 1], QUICK_SIDES.get(name))
    check(name, found)


SMALLER = {
    **{name: 192 for name in PUBLISHED if "marigold" in name or "e2e" in name},
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
            numbers = " | ".join(f"{x:.1e}" for x in (*found.usual, *found.exact))
            file.write(f"| `{name}` | {family.reference} | {side or 'own'} | {numbers} |\n")
    check(name, found)
