"""Published weights wherever a checkpoint may stand."""

import pytest
import torch
from torch.testing import assert_close

from depthkit.errors import CheckpointError, LabelError
from depthkit.inference import DepthPredictor
from depthkit.inference.teacher import load_teacher
from depthkit.models import (
    DepthNet,
    LogDisparityHead,
    dpt_timm,
    from_pretrained,
    midas_timm,
    published,
    read_checkpoint,
    save_network,
)
from depthkit.models.networks.refinenet_light import LightRefineNetDecoder
from depthkit.models.weights.convert import CONVERTERS
from depthkit.types import Ambiguity


def network(**options):
    return dpt_timm("test_vit", pretrained=False, features=16, **options)


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A file whose names begin otherwise than ours, and the network in it."""
    model = network()
    monkeypatch.setitem(CONVERTERS, "authors", lambda state: {k.removeprefix("theirs."): x for k, x in state.items()})
    torch.save({f"theirs.{key}": x for key, x in model.state_dict().items()}, tmp_path / "theirs.pth")
    return tmp_path / "theirs.pth", model


def test_a_published_file_fills_a_network(file):
    path, theirs = file
    ours = published(network(), path, source="authors")
    assert_close(ours.state_dict(), theirs.state_dict(), rtol=0, atol=0)
    with pytest.raises(CheckpointError, match="100 unexpected: encoder"):
        published(midas_timm("mobilenetv2_035", features=8, pretrained=False), path, source="authors")


def test_a_network_saved_is_a_checkpoint_to_every_reader(file, tmp_path):
    _, theirs = file
    save_network(theirs, tmp_path / "network.ckpt", ambiguity="shift_scale", size=(64, 96))
    found = read_checkpoint(tmp_path / "network.ckpt")
    assert (found.ambiguity, found.size) == (Ambiguity.SHIFT_SCALE, (64, 96))
    assert_close(from_pretrained(tmp_path / "network.ckpt").state_dict(), theirs.state_dict(), rtol=0, atol=0)
    image = torch.rand(3, 64, 96)
    predictor = DepthPredictor.from_pretrained(tmp_path / "network.ckpt")
    with torch.inference_mode():
        assert_close(torch.from_numpy(predictor(image).map), theirs.eval()(image[None])[0, 0])
    assert str(load_teacher(tmp_path / "network.ckpt").kind) == "shift_scale disparity"


def test_a_metric_network_says_so(tmp_path):
    save_network(network(max_depth=20.0), tmp_path / "network.ckpt", ambiguity=Ambiguity.METRIC)
    assert str(load_teacher(tmp_path / "network.ckpt").kind) == "metric depth"


def test_what_cannot_be_read_again_is_not_written(tmp_path):
    parts = network()
    loose = DepthNet(
        midas_timm("mobilenetv2_035", features=8, pretrained=False).encoder, LightRefineNetDecoder, LogDisparityHead
    )
    with pytest.raises(CheckpointError, match="got one put together from parts"):
        save_network(loose, tmp_path / "network.ckpt", ambiguity="scale")
    with pytest.raises(LabelError, match=r"expected an ambiguity among metric, .*; got 'relative'"):
        save_network(parts, tmp_path / "network.ckpt", ambiguity="relative")
    with pytest.raises(CheckpointError, match=r"in a folder that exists\. Make it first"):
        save_network(parts, tmp_path / "none" / "network.ckpt", ambiguity="scale")


@pytest.mark.parametrize("prefix", ["pretrained.", "module.pretrained.", "core.core.pretrained."])
def test_of_a_file_of_depth_anything_the_encoder_starts_another_one(prefix, tmp_path):
    theirs = network()
    weights = {f"{prefix}{key}": x for key, x in theirs.encoder.backbone.state_dict().items()}
    other = prefix.replace("pretrained.", "depth_head.weight")
    torch.save({"model": weights | {other: torch.ones(1), f"{prefix}mask_token": torch.ones(1)}}, tmp_path / "theirs.pth")
    ours = dpt_timm("test_vit", pretrained=tmp_path / "theirs.pth", features=16, max_depth=20.0)
    assert_close(ours.encoder.state_dict(), theirs.encoder.state_dict(), rtol=0, atol=0)
