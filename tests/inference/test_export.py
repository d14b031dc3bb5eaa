"""Programs that run without depthkit predict what the network does."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from depthkit.errors import RecipeError, ShapeError
from depthkit.inference import export_program
from depthkit.models import (
    DepthNet,
    Sampling,
    dpt_timm,
    from_pretrained,
    latent_diffusion_tiny,
    lrn_timm,
    midas_timm,
)
from depthkit.resize import InputResize
from depthkit.types import Ambiguity
from tests.contracts.model import smallest

BUILDERS = {
    "smallest": smallest,
    "midas": lambda: midas_timm("mobilenetv2_035", pretrained=False, features=8),
    "lrn": lambda: lrn_timm("mobilenetv2_035", pretrained=False),
    "dpt": lambda: dpt_timm("test_vit", pretrained=False, features=16),
}


@pytest.fixture(params=["smallest", *(pytest.param(name, marks=pytest.mark.slow) for name in ("midas", "lrn", "dpt"))])
def model(request: pytest.FixtureRequest) -> DepthNet:
    return BUILDERS[request.param]().eval()


def test_a_program_of_torch_predicts_the_same_and_says_what(model: DepthNet, tmp_path: Path) -> None:
    facts = {"depthkit.json": ""}
    written = export_program(model, tmp_path / "a" / "net.pt2", size=(32, 64), ambiguity=Ambiguity.SHIFT_SCALE)
    program = torch.export.load(written.path, extra_files=facts)
    assert written.difference < 1e-4
    image = torch.rand(1, 3, 32, 64)
    with torch.no_grad():
        assert_close(program.module()(image), model(image), rtol=1e-4, atol=1e-4)
    assert json.loads(facts["depthkit.json"])["representation"] == model.representation
    assert json.loads(facts["depthkit.json"])["ambiguity"] == "shift_scale"


def test_a_program_of_onnx_predicts_the_same_and_says_what(model: DepthNet, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path, _ = export_program(model, tmp_path / "net.onnx", size=(32, 64), ambiguity=Ambiguity.METRIC)
    assert [file.name for file in tmp_path.iterdir()] == ["net.onnx"]
    session = onnxruntime.InferenceSession(path)
    image = torch.rand(1, 3, 32, 64)
    with torch.no_grad():
        assert_close(torch.as_tensor(session.run(["map"], {"image": image.numpy()})[0]), model(image), rtol=1e-3, atol=1e-3)
    assert session.get_modelmeta().custom_metadata_map["representation"] == model.representation


ELSEWHERE = """
import sys, numpy
path, image = sys.argv[1], numpy.load("image.npy")
if path.endswith(".onnx"):
    import onnxruntime
    found = onnxruntime.InferenceSession(path).run(["map"], {"image": image})[0]
else:
    import torch
    found = torch.export.load(path).module()(torch.from_numpy(image)).detach().numpy()
numpy.save("map.npy", found)
assert "depthkit" not in sys.modules
"""


def elsewhere(path: Path, image: torch.Tensor) -> torch.Tensor:
    """Run a program in an interpreter that imports torch, or ONNX Runtime, and never depthkit."""
    np.save(path.parent / "image.npy", image.numpy())
    subprocess.run([sys.executable, "-c", ELSEWHERE, str(path)], cwd=path.parent, check=True)
    return torch.from_numpy(np.load(path.parent / "map.npy"))


def check_dynamic(model: DepthNet, path: Path) -> None:
    """It takes any number of images of any size; and `from_pretrained` calls it as the network, by the network's rules."""
    model.input_rule = InputResize(64, "lower_bound", 32)
    export_program(model, path, size=(64, 64), ambiguity=Ambiguity.SCALE, dynamic=True)
    program = from_pretrained(path)
    assert (program.fixed_size, program.input_rule, program.size_multiple) == (None, model.input_rule, model.size_multiple)
    for count, height, width in ((1, 64, 64), (3, 96, 64), (2, 64, 160)):
        image = torch.rand(count, 3, height, width)
        with torch.no_grad():
            assert_close(program(image), model(image), rtol=1e-3, atol=1e-3)


def test_a_dynamic_program_takes_what_the_network_takes(tmp_path: Path) -> None:
    check_dynamic(smallest(), tmp_path / "net.pt2")


@pytest.mark.parametrize(
    ("suffix", "dynamic", "precision"),
    [
        pytest.param("pt2", True, "fp16", marks=pytest.mark.slow),
        ("onnx", True, "fp32"),
        pytest.param("onnx", True, "int8", marks=pytest.mark.slow),
        pytest.param("onnx", False, "fp16", marks=pytest.mark.slow),
    ],
)
def test_a_program_runs_where_there_is_no_depthkit(suffix: str, dynamic: bool, precision: str, tmp_path: Path) -> None:
    if suffix == "onnx":
        pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    model = smallest()
    options = {"dynamic": dynamic, "precision": precision, "ambiguity": Ambiguity.SCALE}
    path, _ = export_program(model, tmp_path / f"net.{suffix}", size=(64, 96), **options)
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        exact = model(image)
    found = elsewhere(path, image)
    assert float((found - exact).abs().max() / exact.abs().max()) < {"fp32": 1e-4, "fp16": 0.02, "int8": 0.2}[precision]
    with torch.no_grad():
        assert_close(from_pretrained(path)(image), found, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["pt2", "onnx"])
def test_dynamic_programs_of_all_networks(model: DepthNet, suffix: str, tmp_path: Path) -> None:
    if suffix == "onnx":
        pytest.importorskip("onnxscript")
    check_dynamic(model, tmp_path / f"net.{suffix}")


@pytest.mark.parametrize(
    ("precision", "suffix"),
    [
        ("fp16", "pt2"),
        pytest.param("fp16", "onnx", marks=pytest.mark.slow),
        pytest.param("int8", "onnx", marks=pytest.mark.slow),
    ],
)
def test_a_program_of_few_bits_is_smaller_and_near(precision: str, suffix: str, tmp_path: Path) -> None:
    if suffix == "onnx":
        pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    model = smallest()
    options = {"size": (32, 64), "ambiguity": Ambiguity.SHIFT_SCALE}
    whole, _ = export_program(model, tmp_path / f"whole.{suffix}", **options)
    small, difference = export_program(model, tmp_path / f"small.{suffix}", precision=precision, **options)
    share = small.stat().st_size / whole.stat().st_size
    assert share < {"fp16": 0.75, "int8": 0.6}[precision]
    assert 0 < difference < {"fp16": 0.01, "int8": 0.3}[precision]
    program = from_pretrained(small)
    assert (program.representation, program.ambiguity) == (model.representation, Ambiguity.SHIFT_SCALE)
    image = torch.rand(1, 3, 32, 64)
    with torch.no_grad():
        found, exact = program(image), model(image)
    assert found.dtype == torch.float32
    assert float((found - exact).abs().max() / exact.abs().max()) < {"fp16": 0.02, "int8": 0.4}[precision]


@pytest.mark.slow
@pytest.mark.parametrize("opset", [17, 20])
def test_the_opset_asked_for_is_written(opset: int, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = midas_timm("test_resnet", pretrained=False, features=8)
    path, _ = export_program(model, tmp_path / "net.onnx", opset=opset, size=(32, 64), ambiguity=Ambiguity.SHIFT_SCALE)
    assert {x.domain: x.version for x in onnx.load(path).opset_import}[""] == opset


def test_options_that_a_format_does_not_have_are_refused(tmp_path: Path) -> None:
    model = midas_timm("test_resnet", pretrained=False, features=8)
    options = {"size": (32, 64), "ambiguity": Ambiguity.SHIFT_SCALE}
    for words in ({"opset": 20}, {"precision": "int8"}):
        with pytest.raises(RecipeError, match=r"expected neither opset nor int8 for net\.pt2"):
            export_program(model, tmp_path / "net.pt2", **options, **words)
    with pytest.raises(RecipeError, match=r"expected precision to be one of fp32, fp16, int8; got 'int4'"):
        export_program(model, tmp_path / "net.onnx", precision="int4", **options)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["pt2", "onnx"])
def test_a_latent_diffusion_model_is_a_program_with_its_noise(suffix: str, tmp_path: Path) -> None:
    """It needs no depthkit: an interpreter that never imported it loads and runs the file."""
    if suffix == "onnx":
        pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    model = latent_diffusion_tiny(vae_channels=(8, 8, 16)).eval()
    model.sampling = Sampling(steps=2, members=3, seed=5)
    path, difference = export_program(model, tmp_path / f"net.{suffix}", size=(32, 64), ambiguity=Ambiguity.METRIC)
    assert difference < 1e-3
    image = torch.rand(1, 3, 32, 64)
    with torch.no_grad():
        assert_close(from_pretrained(path)(image), model(image), rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        assert_close(elsewhere(path, image), model(image), rtol=1e-3, atol=1e-3)
    with pytest.raises(RecipeError, match="expected one size and fp32 for a latent diffusion model"):
        export_program(model, path, size=(32, 64), ambiguity=Ambiguity.METRIC, dynamic=True)


def test_a_size_or_a_suffix_that_cannot_be_is_named(tmp_path: Path) -> None:
    model = midas_timm("mobilenetv2_035", pretrained=False, features=8)
    with pytest.raises(ShapeError, match="Resize or pad it to 64x64"):
        export_program(model, tmp_path / "net.pt2", size=(33, 64), ambiguity=Ambiguity.SHIFT_SCALE)
    with pytest.raises(RecipeError, match=r"expected a path that ends in \.pt2 or \.onnx; got net\.trt"):
        export_program(model, tmp_path / "net.trt", size=(32, 64), ambiguity=Ambiguity.SHIFT_SCALE)
