import json

import pytest
import torch

from depthkit.cli.options import Resizing
from depthkit.errors import CheckpointError, LabelError
from depthkit.inference.teacher import load_teacher, weights_sha256
from depthkit.models import latent_diffusion_tiny, midas_timm
from depthkit.types import Ambiguity, LabelKind, Representation


@pytest.fixture(scope="module")
def model():
    return midas_timm("mobilenetv2_035", features=8, pretrained=False)


@pytest.fixture
def checkpoint(tmp_path, model):
    facts = {"model": model.config, "ambiguity": "shift_scale", "size": [64, 96]}
    torch.save({"state_dict": {f"model.{k}": v for k, v in model.state_dict().items()}, "depthkit": facts}, tmp_path / "a.ckpt")
    return tmp_path / "a.ckpt"


def test_a_checkpoint_says_itself_what_it_predicts_and_at_what_size(checkpoint, model):
    teacher = load_teacher(checkpoint)
    assert teacher.kind == LabelKind(Ambiguity.SHIFT_SCALE, Representation.DISPARITY)
    assert teacher.resize.size(480, 720, teacher.multiple) == (64, 96)
    assert teacher.facts()["weights_sha256"] == weights_sha256(model)
    assert json.loads(json.dumps(teacher.facts())) == teacher.facts()
    assert load_teacher(checkpoint, input_rule=Resizing(side=96).input_rule).resize.size(300, 300) == (96, 96)


def test_an_output_that_contradicts_the_checkpoint_is_an_error(checkpoint):
    assert load_teacher(checkpoint, output="disparity").kind.representation == Representation.DISPARITY
    with pytest.raises(LabelError, match=r"expected --output disparity, as .*a.ckpt predicts shift_scale disparity"):
        load_teacher(checkpoint, output="depth")


def test_the_hash_is_of_the_weights_not_of_the_file(checkpoint, model):
    before = weights_sha256(model)
    assert weights_sha256(load_teacher(checkpoint).model) == before
    with torch.no_grad():
        changed = load_teacher(checkpoint).model
        next(changed.parameters()).view(-1)[0] += 1
    assert weights_sha256(changed) != before


def test_a_folder_of_diffusers_teaches_at_its_own_size(tmp_path):
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    model = latent_diffusion_tiny(vae_channels=(8, 8, 16), processing_size=64)
    model.save_pretrained(tmp_path)
    teacher = load_teacher(tmp_path)
    assert teacher.kind == model.codec.kind
    assert teacher.resize.size(90, 120, model.size_multiple) == (48, 64)
    assert weights_sha256(teacher.model) == weights_sha256(model)


def test_a_teacher_that_is_none_is_one_sentence(tmp_path):
    (tmp_path / "notes.txt").write_text("no weights")
    with pytest.raises(CheckpointError, match=r"expected a MODEL at .*gone.ckpt: .* there is no file"):
        load_teacher(tmp_path / "gone.ckpt")
    with pytest.raises(CheckpointError, match=r"expected config.json of a network in"):
        load_teacher(tmp_path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_teacher(tmp_path / "notes.txt")
    with pytest.raises(CheckpointError, match=r"a folder with config\.json"):
        load_teacher(f"transformers:{tmp_path}", output="depth")
