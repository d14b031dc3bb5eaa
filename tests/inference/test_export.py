"""Programs that run without depthkit predict what the network does."""

import json
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from depthkit.errors import RecipeError, ShapeError
from depthkit.inference import export_program
from depthkit.models import DepthNet, dpt_timm, lrn_timm, midas_timm
from depthkit.types import Ambiguity

BUILDERS = {
    "midas": lambda: midas_timm("mobilenetv2_035", pretrained=False, features=8),
    "lrn": lambda: lrn_timm("mobilenetv2_035", pretrained=False),
    "dpt": lambda: dpt_timm("test_vit", pretrained=False, features=16),
}


@pytest.fixture(params=["midas", *(pytest.param(name, marks=pytest.mark.slow) for name in ("lrn", "dpt"))])
def model(request: pytest.FixtureRequest) -> DepthNet:
    return BUILDERS[request.param]().eval()


def test_a_program_of_torch_predicts_the_same_and_says_what(model: DepthNet, tmp_path: Path) -> None:
    facts = {"depthkit.json": ""}
    program = torch.export.load(
        export_program(model, tmp_path / "a" / "net.pt2", size=(32, 64), ambiguity=Ambiguity.SHIFT_SCALE), extra_files=facts
    )
    image = torch.rand(1, 3, 32, 64)
    with torch.no_grad():
        assert_close(program.module()(image), model(image), rtol=1e-4, atol=1e-4)
    assert json.loads(facts["depthkit.json"])["representation"] == model.representation
    assert json.loads(facts["depthkit.json"])["ambiguity"] == "shift_scale"


def test_a_program_of_onnx_predicts_the_same_and_says_what(model: DepthNet, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path = export_program(model, tmp_path / "net.onnx", size=(32, 64), ambiguity=Ambiguity.METRIC)
    assert [file.name for file in tmp_path.iterdir()] == ["net.onnx"]
    session = onnxruntime.InferenceSession(path)
    image = torch.rand(1, 3, 32, 64)
    with torch.no_grad():
        assert_close(torch.as_tensor(session.run(["map"], {"image": image.numpy()})[0]), model(image), rtol=1e-3, atol=1e-3)
    assert session.get_modelmeta().custom_metadata_map["representation"] == model.representation


def test_a_size_or_a_suffix_that_cannot_be_is_named(tmp_path: Path) -> None:
    model = midas_timm("mobilenetv2_035", pretrained=False, features=8)
    with pytest.raises(ShapeError, match="Resize or pad it to 64x64"):
        export_program(model, tmp_path / "net.pt2", size=(33, 64), ambiguity=Ambiguity.SHIFT_SCALE)
    with pytest.raises(RecipeError, match=r"expected a path that ends in \.pt2 or \.onnx; got net\.trt"):
        export_program(model, tmp_path / "net.trt", size=(32, 64), ambiguity=Ambiguity.SHIFT_SCALE)
