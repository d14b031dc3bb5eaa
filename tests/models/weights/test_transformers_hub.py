import json
import sys
from pathlib import Path

import pytest
import torch

from depthkit.errors import CheckpointError, LabelError, MissingPackageError
from depthkit.models.weights.transformers_hub import TransformersDepth, load_depth, load_sky
from depthkit.types import Ambiguity, LabelKind, Representation

transformers = pytest.importorskip("transformers")
PROCESSOR = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.2, 0.3], "size": {"height": 56, "width": 56}}
PROCESSOR |= {"keep_aspect_ratio": True, "ensure_multiple_of": 14}


def save(model, folder, processor=PROCESSOR):
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return str(folder)


def depth_anything(**options):
    backbone = transformers.Dinov2Config(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, image_size=56, patch_size=14,
        out_indices=[1, 2, 3, 4], apply_layernorm=True, reshape_hidden_states=False,
    )  # fmt: skip
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=16, neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8,
        head_hidden_size=4, **options,
    )  # fmt: skip
    return transformers.DepthAnythingForDepthEstimation(config).eval()


def segformer(names):
    config = transformers.SegformerConfig(
        num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[8, 8], patch_sizes=[7, 3], strides=[4, 2],
        num_attention_heads=[1, 1], mlp_ratios=[2, 2], decoder_hidden_size=8,
        id2label=dict(enumerate(names)), label2id={name: i for i, name in enumerate(names)},
    )  # fmt: skip
    return transformers.SegformerForSemanticSegmentation(config).eval()


@pytest.fixture(scope="module")
def relative(tmp_path_factory):
    return save(depth_anything(), tmp_path_factory.mktemp("relative"))


@pytest.fixture(scope="module")
def metric(tmp_path_factory):
    return save(depth_anything(depth_estimation_type="metric", max_depth=20), tmp_path_factory.mktemp("metric"))


@torch.inference_mode()
def test_a_loaded_model_sees_the_image_as_its_processor_says_and_returns_its_own_map(relative):
    model, image = load_depth(relative, output="disparity"), torch.rand(2, 3, 56, 84)
    plain = transformers.AutoModelForDepthEstimation.from_pretrained(relative).eval()
    mean, std = (torch.tensor(PROCESSOR[name]).view(3, 1, 1) for name in ("image_mean", "image_std"))
    assert torch.equal(model(image)[:, 0], plain(pixel_values=(image - mean) / std).predicted_depth)
    assert model.kind == LabelKind(Ambiguity.SHIFT_SCALE, Representation.DISPARITY)
    assert (model.size, model.size_multiple, model.keep_aspect) == ((56, 56), 14, True)


def test_a_metric_model_returns_metric_depth(metric):
    model = load_depth(metric, output="depth")
    assert model.kind == LabelKind(Ambiguity.METRIC, Representation.DEPTH)
    assert 0 <= float(model(torch.rand(1, 3, 56, 56)).detach().max()) <= 20


@pytest.mark.parametrize("kind", ["relative", "metric"])
@torch.inference_mode()
def test_a_map_of_a_network_in_bfloat16_keeps_the_steps_of_float32(kind, request):
    torch.manual_seed(0)
    output = {"relative": "disparity", "metric": "depth"}[kind]
    model, image = load_depth(request.getfixturevalue(kind), output=output), torch.rand(1, 3, 56, 84)
    torch.manual_seed(0)
    for weight in model.model.parameters():  # fresh ones make a flat map
        torch.nn.init.normal_(weight, std=0.3 if weight.ndim > 1 else 0.1)
    torch.nn.init.constant_(model.model.head.conv3.bias, 1.0)
    full = model(image)
    with torch.autocast("cpu", torch.bfloat16):
        found = model(image)
    assert found.dtype == torch.float32
    assert len(found.unique()) > 0.9 * len(full.unique()) > 600  # in bfloat16 there are at most some hundreds
    assert (found - full).abs().mean() < 0.05 * full.std()


def test_what_a_model_returns_is_its_own_word_and_must_not_be_contradicted(relative, metric):
    for folder, output, message in (
        (relative, "depth", "expected --output disparity, as this model calls itself relative"),
        (metric, "disparity", "expected --output depth, as this model calls itself metric"),
        (relative, "log_depth", "got log_depth"),
    ):
        with pytest.raises(LabelError, match=message):
            load_depth(folder, output=output)
    assert load_depth(relative, output=None).kind.representation == Representation.DISPARITY
    assert load_depth(metric, output=None).kind.representation == Representation.DEPTH


def test_a_model_that_says_nothing_of_itself_is_taken_at_the_users_word():
    config = transformers.DPTConfig(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=16, image_size=32,
        backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8, is_hybrid=False,
    )  # fmt: skip
    model = transformers.DPTForDepthEstimation(config)
    with pytest.raises(LabelError, match="Its model card says which"):
        TransformersDepth(model, {}, output=None)
    assert TransformersDepth(model, {}, output="depth").kind.ambiguity == Ambiguity.METRIC


def test_weights_that_are_missing_are_not_replaced_by_random_ones(relative, tmp_path):
    dinov2 = transformers.Dinov2Model(transformers.AutoConfig.from_pretrained(relative).backbone_config)
    save(dinov2, tmp_path)
    (tmp_path / "config.json").write_text((Path(relative) / "config.json").read_text())
    with pytest.raises(CheckpointError, match=r"are missing, such as .*, and would be random"):
        load_depth(str(tmp_path), output="disparity")


def test_a_folder_without_a_model_or_a_processor_says_so(relative, tmp_path):
    with pytest.raises(CheckpointError, match=r"a folder with config\.json, or a hub id"):
        load_depth(str(tmp_path), output="disparity")
    depth_anything().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json is missing"):
        load_depth(str(tmp_path), output="disparity")


def test_without_a_connection_a_hub_id_is_one_sentence(monkeypatch):
    def offline(*args, **options):
        raise OSError("We couldn't connect to 'https://huggingface.co'\nCheck your internet connection")

    monkeypatch.setattr(transformers.AutoModelForSemanticSegmentation, "from_pretrained", offline)
    with pytest.raises(CheckpointError, match="give a folder that save_pretrained wrote") as found:
        load_sky("nvidia/segformer-b0-finetuned-ade-512-512")
    assert "\n" not in str(found.value)


def test_without_transformers_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'depthkit\[transformers\]"):
        load_depth("a/b", output="depth")


@torch.inference_mode()
def test_sky_is_the_probability_of_the_class_of_that_name(tmp_path):
    folder = save(segformer(["wall", "sky", "tree"]), tmp_path, {"size": 64})
    sky, image = load_sky(folder), torch.rand(2, 3, 64, 64)
    found = sky(image)
    assert found.shape == (2, 1, 16, 16)
    assert torch.equal(found[:, 0], sky.model(sky.normalised(image)).logits.softmax(1)[:, 1])


def test_a_segmentation_model_that_knows_no_sky_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="this one knows wall, skyscraper"):
        load_sky(save(segformer(["wall", "skyscraper"]), tmp_path))
