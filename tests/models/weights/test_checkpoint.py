import pytest
import torch
from torch import nn

from depthkit.errors import CheckpointError
from depthkit.inference import DepthPredictor
from depthkit.models import FlipAverage, midas_timm, read_checkpoint
from depthkit.types import Ambiguity, Representation

NETWORK = {"architecture": "midas_timm", "backbone": "mobilenetv2_035", "features": 8}


@pytest.fixture(scope="module")
def model():
    return midas_timm("mobilenetv2_035", features=8, pretrained=False).eval()


@pytest.fixture
def write(tmp_path, model):
    def written(config=NETWORK, state=None, **facts):
        state = {f"model.{k}": v for k, v in model.state_dict().items()} if state is None else state
        content = {"model": config, "representation": "disparity", "ambiguity": "shift_scale", "size": [64, 96], **facts}
        torch.save({"state_dict": {**state, "loss.weight": torch.ones(1)}, "depthkit": content}, tmp_path / "last.ckpt")
        return tmp_path / "last.ckpt"

    return written


def test_a_checkpoint_predicts_as_the_network_it_was_made_of(write, model):
    predictor = DepthPredictor.from_checkpoint(write())
    image = torch.rand(3, 64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(torch.from_numpy(predictor(image).map), model(image[None])[0, 0])
    assert predictor.representation == Representation.DISPARITY
    assert predictor.ambiguity == Ambiguity.SHIFT_SCALE
    assert predictor.resize.size(480, 720) == (64, 96)


def test_flip_averages_with_the_mirrored_map_of_the_mirrored_image(write, model):
    predictor = DepthPredictor.from_checkpoint(write(), flip=True)
    image = torch.rand(3, 64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(torch.from_numpy(predictor(image).map), FlipAverage(model)(image[None])[0, 0])
    plain = DepthPredictor.from_checkpoint(write())
    assert abs(plain(image).map - predictor(image).map).max() > 0
    assert (predictor.representation, predictor.ambiguity) == (plain.representation, plain.ambiguity)


def test_a_network_remembers_how_it_was_built(write, model):
    assert read_checkpoint(write(model.config)).size == (64, 96)


def test_pretrained_weights_are_never_fetched_for_a_checkpoint(write):
    assert read_checkpoint(write({**NETWORK, "pretrained": "no/such/file.pth"})).ambiguity == Ambiguity.SHIFT_SCALE


@pytest.mark.parametrize("name", ["os.system", "depthkit.models.weights.files.load_file", "builtins.eval", "torch.nn.Conv2d"])
def test_a_checkpoint_cannot_have_other_code_imported(name, write):
    with pytest.raises(CheckpointError, match=rf"the checkpoint asks to import {name}, .* pass allow="):
        read_checkpoint(write({"class_path": name, "init_args": {}}), allow=["mypackage."])


def test_allowed_names_are_imported(write):
    state = {"model.weight": torch.ones(1, 3, 1, 1), "model.bias": torch.zeros(1)}
    config = {"class_path": "torch.nn.Conv2d", "init_args": {"in_channels": 3, "out_channels": 1, "kernel_size": 1}}
    assert isinstance(read_checkpoint(write(config, state), allow=["torch.nn."]).model, nn.Conv2d)


def test_weights_that_do_not_fit_are_listed(write, model):
    state = {f"model.{k}": v for k, v in model.state_dict().items()}
    removed = next(iter(state))
    state["model.extra"] = state.pop(removed)
    with pytest.raises(CheckpointError, match=f"1 missing: {removed.removeprefix('model.')}; 1 unexpected: extra"):
        read_checkpoint(write(state=state))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "that says how its network was built"),
        ({"architecture": "no_such"}, "expected an architecture among .* got 'no_such'"),
        ({**NETWORK, "depth": 3}, "expected arguments of midas_timm .*depth"),
        ({"class_path": "torch.nn.Conv2d"}, "expected to build the network torch.nn.Conv2d of .* got: .*in_channels"),
        ({"class_path": "torch.nn.no_such"}, "expected to build the network torch.nn.no_such"),
        ({"class_path": "torch.nn.init.calculate_gain", "init_args": {"nonlinearity": "relu"}}, "it built a float"),
    ],
)
def test_a_network_that_cannot_be_built_is_refused(config, message, write):
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(write(config), allow=["torch.nn."])


def test_what_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="there is no such file"):
        read_checkpoint(tmp_path / "absent.ckpt")
    (tmp_path / "text.ckpt").write_text("no tensors")
    with pytest.raises(CheckpointError, match="it cannot be read"):
        read_checkpoint(tmp_path / "text.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "plain.ckpt")
    with pytest.raises(CheckpointError, match=r"pass it to DepthPredictor\(model, ambiguity=...\)"):
        read_checkpoint(tmp_path / "plain.ckpt")


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    class Payload:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    torch.save({"state_dict": {}, "depthkit": Payload()}, tmp_path / "evil.ckpt")
    with pytest.raises(CheckpointError, match="it cannot be read"):
        read_checkpoint(tmp_path / "evil.ckpt")
    assert not (tmp_path / "ran").exists()
