"""A photo's map is the same before a network is stored and after it is loaded, in whatever way: its rules go with it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from PIL import Image

from depthkit.errors import LabelError
from depthkit.inference import DepthPredictor, export_program
from depthkit.models import FlipAverage, calibrated, from_pretrained, latent_diffusion_tiny, monodepth2_timm, save_network
from depthkit.models.weights.registry import run_of
from depthkit.paradigms import MetricModule
from depthkit.resize import InputResize, OutputResize
from depthkit.types import Ambiguity

CAMERA = (80.0, 80.0, 44.5, 29.5)
RULES: dict[str, Any] = {
    "its own": InputResize((64, 96), "minimal", 32, "bilinear", align_corners=True, padding=1.0),
    "stretched by Pillow": InputResize((64, 96), "stretch", interpolation="lanczos"),
    "trained size": None,
}


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (6, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((90, 60), Image.Resampling.BICUBIC).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def network(rule: InputResize | None) -> Any:
    torch.manual_seed(0)
    net: Any = monodepth2_timm("test_resnet", pretrained=False).eval()
    net.ambiguity, net.canonical_focal, net.flip = Ambiguity.METRIC, 500.0, rule is not None
    if rule is None:
        net.trained_size = (64, 96)
    else:
        net.input_rule, net.output_rule = rule, OutputResize(mode="bicubic", align_corners=True)
    return net


def map_of(net: Any, photo: Path) -> np.ndarray:
    """As every command predicts: averaged with the mirror image if the network's authors do."""
    model = FlipAverage(net) if getattr(net, "flip", False) else net
    predictor = DepthPredictor(model, ambiguity=net.ambiguity)
    return predictor(photo, intrinsics=CAMERA).map  # type: ignore[union-attr]


def saved(net: Any, way: str, folder: Path) -> Path:
    if way == "run":
        content: dict[str, Any] = {"pytorch-lightning_version": "2.6.4"}
        module: LightningModule = MetricModule(net)
        content["state_dict"] = module.state_dict()
        module.input_size = net.trained_size if hasattr(net, "trained_size") else (64, 64)
        module.on_save_checkpoint(content)
        torch.save(content, folder / "run.ckpt")
        return folder / "run.ckpt"
    if way == "network":
        save_network(net, folder / "net.ckpt")
        return folder / "net.ckpt"
    if way == "start of a run":
        save_network(net, folder / "net.ckpt")
        net.save_pretrained(folder / "first")
        torch.save(run_of(folder / "first"), folder / "start.ckpt")
        return folder / "start.ckpt"
    if way == "folder":
        return Path(net.save_pretrained(folder / "net"))
    if way == "calibrated":
        save_network(calibrated(net, scale=1.0), folder / "net.ckpt", ambiguity="metric")
        return folder / "net.ckpt"
    suffix, dynamic = way.split()
    return export_program(net, folder / f"net{suffix}", size=(64, 96), ambiguity=net.ambiguity, dynamic=dynamic == "any").path


WAYS = ["run", "network", "start of a run", "folder", "calibrated"]
PROGRAMS = [".pt2 one", ".pt2 any", ".onnx one", ".onnx any"]
CASES = [(rule, way) for rule in RULES for way in WAYS] + [("its own", ".pt2 one")]
SLOW = [pytest.param(rule, way, marks=pytest.mark.slow) for rule in RULES for way in PROGRAMS if (rule, way) not in CASES]


@pytest.mark.parametrize(("rule", "way"), [*CASES, *SLOW])
def test_a_photo_has_the_same_map_before_and_after(rule: str, way: str, photo: Path, tmp_path: Path) -> None:
    net = network(RULES[rule])
    before = map_of(net, photo)
    again: Any = from_pretrained(saved(net, way, tmp_path))
    np.testing.assert_allclose(map_of(again, photo), before, rtol=2e-4)
    assert again.canonical_focal == 500.0


@pytest.mark.slow
def test_a_diffusion_models_folder_keeps_its_rules(photo: Path, tmp_path: Path) -> None:
    net: Any = latent_diffusion_tiny(processing_size=32)
    net.input_rule, net.output_rule = InputResize((32, 48), "stretch", 8), OutputResize(mode="bicubic")
    again = from_pretrained(net.save_pretrained(tmp_path / "net"))
    np.testing.assert_allclose(map_of(again, photo), map_of(net, photo), rtol=1e-4)


def test_what_it_leaves_undetermined_is_told_or_refused(tmp_path: Path) -> None:
    net = monodepth2_timm("test_resnet", pretrained=False)
    for save in (save_network, type(net).save_pretrained):
        with pytest.raises(LabelError, match=r"expected an ambiguity among .*; got None. Pass ambiguity="):
            save(net, tmp_path / "net")
