import sys

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from depthkit.errors import CheckpointError, LabelError, RecipeError
from depthkit.inference import DepthPredictor
from depthkit.models import FlipAverage, architecture, from_pretrained, midas_timm, read_checkpoint, save_network
from depthkit.models.weights.files import named_as
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
    predictor = DepthPredictor.from_pretrained(write())
    image = torch.rand(3, 64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(torch.from_numpy(predictor(image).map), model(image[None])[0, 0])
    assert predictor.representation == Representation.DISPARITY
    assert predictor.ambiguity == Ambiguity.SHIFT_SCALE
    assert predictor.input_rule.size(480, 720) == (64, 96)


def test_flip_averages_with_the_mirrored_map_of_the_mirrored_image(write, model):
    predictor = DepthPredictor.from_pretrained(write(), flip=True)
    image = torch.rand(3, 64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(torch.from_numpy(predictor(image).map), FlipAverage(model)(image[None])[0, 0])
    plain = DepthPredictor.from_pretrained(write())
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


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": [1]}, {"state_dict": {}, "hyper_parameters": {"lr": 1.0}}, 3.5])
def test_a_foreign_file_is_refused_in_one_sentence(content, tmp_path):
    torch.save(content, tmp_path / "foreign.ckpt")
    with pytest.raises(CheckpointError, match=r"expected a checkpoint of `depthkit fit` at .*foreign.ckpt; it ") as error:
        read_checkpoint(tmp_path / "foreign.ckpt")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", [b"no tensors", b"", b"PK\x03\x04 half a zip", b"cbuiltins\neval\n(S'1'\ntR."])
def test_nobody_is_told_to_load_a_file_unsafely(text, tmp_path):
    (tmp_path / "other.ckpt").write_bytes(text)
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(tmp_path / "other.ckpt")
    assert "weights_only" not in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel, lambda x: torch.compile(nn.DataParallel(x))])
def test_a_wrapped_network_is_saved_as_the_one_inside(wrap, model, tmp_path):
    save_network(wrap(model), tmp_path / "network.ckpt", ambiguity="shift_scale")
    assert_close(read_checkpoint(tmp_path / "network.ckpt").model.state_dict(), model.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "_orig_mod.module.", "module._orig_mod."])
def test_names_of_a_wrapped_network_in_a_run_are_understood(prefix, write, model):
    state = {f"model.{prefix}{key}": x for key, x in model.state_dict().items()}
    assert_close(read_checkpoint(write(model.config, state)).model.state_dict(), model.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel])
def test_a_wrapped_network_starts_from_the_weights_of_a_bare_one_and_the_other_way_round(wrap, model):
    bare, wrapped = nn.ModuleDict({"model": model}).state_dict(), nn.ModuleDict({"model": wrap(model)}).state_dict()
    assert bare.keys() != wrapped.keys()
    assert named_as(wrapped, bare).keys() == bare.keys()
    assert named_as(bare, wrapped).keys() == wrapped.keys()
    both = {**bare, **wrapped}  # names that differ by a wrapper alone keep their weights
    assert named_as(both, both).keys() == both.keys()


def test_an_error_names_a_few_weights_and_holds_all(write):
    with pytest.raises(CheckpointError, match=r"\d+ missing: .*, and \d+ more; 1 unexpected: other") as error:
        read_checkpoint(write(state={"model.other": torch.ones(1)}))
    assert len(str(error.value)) < 600
    assert len(error.value.misfits["missing"]) > 100


def test_an_architecture_of_another_package_is_imported_if_allowed(tmp_path, monkeypatch):
    (tmp_path / "mylab.py").write_text(
        "from depthkit.models import architecture, midas_timm\n\n\n@architecture\ndef mynet(*, features=8):\n"
        "    return midas_timm('mobilenetv2_035', features=features, pretrained=False)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import mylab  # type: ignore[import-not-found]

    from depthkit.models import build as module_of_build

    model = mylab.mynet()
    save_network(model, tmp_path / "network.ckpt", ambiguity="shift_scale")
    assert_close(read_checkpoint(tmp_path / "network.ckpt").model.state_dict(), model.state_dict(), rtol=0, atol=0)
    monkeypatch.delitem(sys.modules, "mylab")
    monkeypatch.delitem(sys.modules[module_of_build.__module__]._ARCHITECTURES, "mynet")  # as in another process
    with pytest.raises(CheckpointError, match=r"asks to import mylab.mynet, .* --allow '\[mylab.\]'"):
        read_checkpoint(tmp_path / "network.ckpt")
    found = read_checkpoint(tmp_path / "network.ckpt", allow=["mylab."]).model
    assert_close(found.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_an_architecture_cannot_take_the_name_of_one_of_depthkit():
    def midas_small():
        return midas_timm("mobilenetv2_035", features=8, pretrained=False)

    with pytest.raises(RecipeError, match="expected another name than midas_small"):
        architecture(midas_small)


def test_a_checkpoint_brings_the_size_it_was_trained_at(tmp_path):
    model = midas_timm("mobilenetv2_035", features=8, pretrained=False)
    save_network(model, tmp_path / "a.ckpt", ambiguity="shift_scale", size=(64, 96))
    model.save_pretrained(tmp_path / "folder", ambiguity="shift_scale", size=(64, 96))
    for name in ("a.ckpt", "folder"):
        found = from_pretrained(tmp_path / name)
        assert found.trained_size == (64, 96)
        assert DepthPredictor.from_pretrained(tmp_path / name).input_rule.size(480, 720, 32) == (64, 96)
    with pytest.raises(LabelError, match="expected --output disparity"):
        from_pretrained(tmp_path / "a.ckpt", output="depth")
