"""Published files with random weights, in their authors' wrappings, by name: from a server, the hub's cache, a folder."""

import io
import zipfile

import cv2
import pytest
import torch
import transformers
from torch.nn import functional as F
from torch.testing import assert_close

import depthkit.models
from depthkit.cli.models import models
from depthkit.errors import CheckpointError
from depthkit.inference import DepthPredictor
from depthkit.models import (
    PUBLISHED,
    AffineDepth,
    DepthNet,
    LatentDiffusionDepth,
    dpt_dinov2_small,
    dpt_timm,
    from_pretrained,
    latent_diffusion_tiny,
    load_published,
    lrn_efficientnet_b0,
    midas_small,
    midas_timm,
    monodepth2_resnet18,
    pose_from_pretrained,
    pose_resnet18,
    published,
    read_checkpoint,
    save_network,
    zoedepth,
)
from depthkit.models.build import build
from depthkit.models.weights import registry
from depthkit.models.weights.convert import CONVERTERS
from depthkit.models.weights.files import plain_state
from depthkit.types import Ambiguity, Representation
from tests.models.weights.test_convert import _midas_small
from tests.models.weights.test_convert_gp2 import _b0_encoder, _decoder, _file
from tests.models.weights.test_convert_monodepth2 import _depth_file, _encoder_file, _pose_file
from tests.parity.published.files import dinov2

MONO = "monodepth2_mono_640x192"


def packed(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def monodepth2_files():
    encoder, pose_encoder = _encoder_file()[0] | {"height": 192, "width": 640, "use_stereo": False}, _encoder_file(2)[0]
    return {"encoder": encoder, "depth": _depth_file(), "pose_encoder": pose_encoder, "pose": _pose_file(1, 2)}


def zipped(files, folder=""):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"{folder}{name}.pth", packed(content))
    return buffer.getvalue()


def depth_anything_names(state):
    """A DPT network's weights in the names of Depth Anything's authors, written from their layout."""
    rules = {"encoder.backbone.": "pretrained."}
    for k in range(4):
        rules[f"decoder.reassemble.{k}.project."] = f"depth_head.projects.{k}."
        rules[f"decoder.reassemble.{k}.resize."] = f"depth_head.resize_layers.{k}."
        rules[f"decoder.lateral.{k}."] = f"depth_head.scratch.layer{k + 1}_rn."
        rules[f"decoder.fusion.{k}.skip_unit."] = f"depth_head.scratch.refinenet{4 - k}.resConfUnit1."
        rules[f"decoder.fusion.{k}.unit."] = f"depth_head.scratch.refinenet{4 - k}.resConfUnit2."
        rules[f"decoder.fusion.{k}.out."] = f"depth_head.scratch.refinenet{4 - k}.out_conv."
    rules |= {"head.reduce.": "depth_head.scratch.output_conv1.", "head.refine.": "depth_head.scratch.output_conv2.0."}
    rules["head.output."] = "depth_head.scratch.output_conv2.2."
    found = {}
    for key, x in state.items():
        for ours, theirs in rules.items():
            if key.startswith(ours):
                found[theirs + key.removeprefix(ours)] = x
    return found


def same(found, expected):
    assert_close(found.state_dict(), expected.state_dict(), rtol=0, atol=0)
    assert not found.training


@pytest.mark.quick(name=[name for name, entry in PUBLISHED.items() if entry.builder][::8])
@pytest.mark.parametrize("name", [name for name, entry in PUBLISHED.items() if entry.builder])
def test_every_entry_builds_what_it_says(name):
    entry = PUBLISHED[name]
    with torch.device("meta"):
        model = build({"architecture": entry.builder, **entry.arguments})
    assert model.representation == entry.representation
    assert entry.name == name
    assert entry.input_rule.multiple % model.size_multiple == 0


def test_monodepth2_comes_by_name_from_its_zip_with_its_pose_network(serve, server, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(registry, "_SAID", set())  # by other tests
    files = monodepth2_files()
    serve(MONO, zipped(files, "mono_640x192/"))
    found = from_pretrained(MONO, cache_dir=tmp_path)
    depth, pose = monodepth2_resnet18(pretrained=False), pose_resnet18(pretrained=False)
    load_published(depth, {name: files[name] for name in ("encoder", "depth")}, source="monodepth2")
    load_published(pose, {name: files[name] for name in ("pose_encoder", "pose")}, source="monodepth2")
    same(found, depth)
    assert found.ambiguity == Ambiguity.SCALE
    same(pose_from_pretrained(MONO, cache_dir=tmp_path), pose.eval())
    assert len(server.asked) == 1
    from_pretrained(MONO, cache_dir=tmp_path)
    assert capsys.readouterr().err.count("which forbids commercial use") == 1


@pytest.mark.slow
def test_a_stereo_network_of_monodepth2_gives_metres(serve, tmp_path):
    files = {name: x for name, x in monodepth2_files().items() if "pose" not in name}
    files["encoder"]["use_stereo"] = True
    serve("monodepth2_stereo_640x192", zipped(files))
    found = from_pretrained("monodepth2_stereo_640x192", cache_dir=tmp_path)
    plain = monodepth2_resnet18(pretrained=False)
    load_published(plain, files, source="monodepth2")
    image = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        assert_close(1 / found(image), 5.4 / plain.eval()(image), rtol=1e-5, atol=0)
    assert found.ambiguity == Ambiguity.METRIC
    with pytest.raises(CheckpointError, match="expected a network of Monodepth2 trained on video"):
        pose_from_pretrained("monodepth2_stereo_640x192")


def test_gp2_comes_by_name(serve, tmp_path):
    file = _file(_b0_encoder(), _decoder([32, 24, 40, 112, 320]))
    serve("gp2_b0", packed(file))
    expected = lrn_efficientnet_b0(pretrained=False, released_taps=True)
    load_published(expected, file, source="gp2")
    same(from_pretrained("gp2_b0", cache_dir=tmp_path), expected)


def test_midas_comes_by_name(serve, tmp_path):
    file = _midas_small().state_dict()
    serve("midas_v21_small", packed(file))
    expected = midas_small(pretrained=False)
    load_published(expected, file, source="midas")
    found = from_pretrained("midas_v21_small", cache_dir=tmp_path)
    same(found, expected)
    image = torch.rand(3, 120, 160)
    with torch.inference_mode():
        small = cv2.resize(image.permute(1, 2, 0).double().numpy(), (256, 192), interpolation=cv2.INTER_CUBIC)
        small = torch.from_numpy(small).permute(2, 0, 1)[None].float()
        theirs = F.interpolate(expected.eval()(small), (120, 160), mode="bicubic")[0, 0]
    ours = torch.from_numpy(DepthPredictor(found, ambiguity=found.ambiguity)(image).map)
    assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * float(theirs.std()))


def test_depth_anything_v1_comes_by_name(serve, tmp_path):
    theirs = dpt_dinov2_small(pretrained=False, hooks="v1").eval()
    serve("depth_anything_v1_small", packed(depth_anything_names(theirs.state_dict())))
    found = from_pretrained("depth_anything_v1_small", cache_dir=tmp_path)
    same(found, theirs)
    assert (found.encoder.hooks, found.encoder.position_interpolation) == (theirs.encoder.hooks, "dinov2")


def test_a_metric_network_of_depth_anything_v2_comes_by_name(hub):
    theirs = dpt_dinov2_small(pretrained=False, hooks="v2", max_depth=80.0).eval()
    place = PUBLISHED["depth_anything_v2_metric_vkitti_small"].place.removeprefix("hub:").rpartition("/")
    root = hub(place[0], lambda at: torch.save(depth_anything_names(theirs.state_dict()), at / place[2]))
    found = from_pretrained("depth_anything_v2_metric_vkitti_small", cache_dir=root)
    same(found, theirs)
    assert (found.head.max_depth, found.ambiguity) == (80.0, Ambiguity.METRIC)


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(lambda x: x, marks=pytest.mark.slow),
        lambda x: {"model": {f"module.{k}": v for k, v in x.items()}, "epoch": 3},
    ],
)
def test_depth_anything_comes_by_name_with_its_authors_positions(wrap, hub, tmp_path):
    theirs = dpt_dinov2_small(pretrained=False, hooks="v2", position_interpolation="dinov2").eval()
    file = wrap(depth_anything_names(theirs.state_dict()))
    root = hub("depth-anything/Depth-Anything-V2-Small", lambda at: torch.save(file, at / "depth_anything_v2_vits.pth"))
    found = from_pretrained("depth_anything_v2_small", cache_dir=root)
    same(found, theirs)
    assert (found.input_rule.size(480, 640), found.output_rule.align_corners) == ((518, 686), True)
    image = torch.rand(1, 3, 98, 140)
    with torch.inference_mode():
        assert_close(found(image), theirs(image), rtol=0, atol=0)
        save_network(found, tmp_path / "again.ckpt", ambiguity="shift_scale")
        assert_close(read_checkpoint(tmp_path / "again.ckpt").model(image), theirs(image), rtol=0, atol=0)


def test_zoedepth_remembers_its_authors_positions():
    model = zoedepth(dpt_timm("test_vit", pretrained=False, features=16))
    from depthkit.models.weights.convert import _remember_positions

    _remember_positions(model.config, "dinov2")
    assert build(model.config).encoder.position_interpolation == "dinov2"


def test_marigold_comes_by_name(hub):
    model = latent_diffusion_tiny(codec=AffineDepth()).eval()
    root = hub("prs-eth/marigold-depth-v1-1", model.save_pretrained)
    found = from_pretrained("marigold_v1_1", cache_dir=root)
    assert isinstance(found, LatentDiffusionDepth)
    assert_close(found.state_dict(), model.state_dict(), rtol=0, atol=0)
    assert (found.ambiguity, found.representation) == (Ambiguity.SHIFT_SCALE, Representation.DEPTH)


def test_midas_3_comes_by_name_through_transformers(hub):
    config = transformers.DPTConfig(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=16,
        backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8,
    )  # fmt: skip
    theirs = transformers.DPTForDepthEstimation(config).eval()

    def write(at):
        theirs.save_pretrained(at)
        (at / "preprocessor_config.json").write_text('{"size": {"height": 32, "width": 32}, "image_mean": [0.5, 0.5, 0.5]}')

    found = from_pretrained("dpt_large", cache_dir=hub("Intel/dpt-large", write))
    image = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        expected = theirs((image - 0.5) / torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)).predicted_depth
        assert_close(found(image)[:, 0], expected)
    assert (found.ambiguity, found.representation) == (Ambiguity.SHIFT_SCALE, Representation.DISPARITY)


def test_a_network_is_a_folder_and_a_repository(hub, tmp_path):
    model = midas_timm("mobilenetv2_035", features=8, pretrained=False).eval()
    folder = model.save_pretrained(tmp_path / "mine", ambiguity="shift_scale", size=(64, 96), card="Trained on rooms.")
    assert sorted(file.name for file in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert "Trained on rooms." in (folder / "README.md").read_text()
    root = hub("me/mine", lambda at: model.save_pretrained(at, ambiguity="shift_scale"))
    for name in (folder, "hf:me/mine", f"hf:me/mine@{'0' * 40}"):
        found = from_pretrained(name, cache_dir=root)
        same(found, model)
        assert found.ambiguity == Ambiguity.SHIFT_SCALE
        same(DepthNet.from_pretrained(name, cache_dir=root), model)
    with pytest.raises(CheckpointError, match=r"expected me/other on the Hugging Face hub; it cannot be had"):
        from_pretrained("hf:me/other", cache_dir=root)


@pytest.mark.parametrize("name", ["GP2_MobileNetV2", "gp2-mobilenetv2", " gp2_mobilenetv2"])
def test_a_name_may_be_written_with_capitals_and_dashes(name, tmp_path):
    torch.save({"x": torch.zeros(1)}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"1 unexpected: x\b"):  # the file is looked at, so the name was found
        from_pretrained(f"{name}={tmp_path / 'x.pth'}")


def test_a_path_of_ones_own_goes_before_a_name_written_otherwise(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "MIDAS_V21").write_bytes(b"none")
    with pytest.raises(CheckpointError, match="MIDAS_V21"):
        from_pretrained("MIDAS_V21")


def test_what_nobody_has_published_says_so():
    for name, why in (("dpt_levit_224", "LeViT"), ("dpt-next-vit-large-384", "Next-ViT"), ("depth_anything_v2_giant", "giant")):
        with pytest.raises(CheckpointError, match=why):
            from_pretrained(name)


def test_an_unknown_name_gets_the_nearest_ones():
    for ask in (from_pretrained, models):
        with pytest.raises(CheckpointError, match="Near it: depth_anything_v2_small"):
            ask("depth_anything_v2_smal")
    with pytest.raises(CheckpointError, match=r"expected NAME=.*__init__.py .*got 'midas_v22'. Near it: midas_v2"):
        from_pretrained(f"midas_v22={depthkit.models.__file__}")


def zipped_by_a_mac(path, files, folders):
    """Files under each folder, and what a Mac puts beside them."""
    with zipfile.ZipFile(path, "w") as archive:
        for folder in folders:
            for name, content in files.items():
                archive.writestr(f"{folder}/{name}.pth", packed(content))
                archive.writestr(f"__MACOSX/{folder}/{name}.pth", b"resource fork")
    return path


@pytest.mark.slow
def test_a_zip_may_hold_another_folder_and_bear_capitals_but_holds_one_network(tmp_path):
    files = monodepth2_files()
    path = zipped_by_a_mac(tmp_path / "NETWORK.ZIP", files, ["models/my run"])
    found, expected = (monodepth2_resnet18(pretrained=False) for _ in range(2))
    load_published(expected, {name: files[name] for name in ("encoder", "depth")}, source="monodepth2")
    same(published(found, path, source="monodepth2").eval(), expected)
    path = zipped_by_a_mac(tmp_path / "two.zip", files, ["a", "b"])
    with pytest.raises(CheckpointError, match=r"expected one network in .*a/encoder.pth and b/encoder.pth"):
        published(found, path, source="monodepth2")


@pytest.mark.parametrize("name", ["monodepth2_stereo_640x192", "monodepth2_mono_1024x320"])
def test_a_zip_of_another_of_monodepth2s_networks_is_refused(name, tmp_path):
    path = zipped_by_a_mac(tmp_path / "x.zip", monodepth2_files(), ["x"])
    with pytest.raises(CheckpointError, match=r"in the file of monodepth2.*It is of another of Monodepth2's networks"):
        from_pretrained(f"{name}={path}")


def test_a_file_called_as_another_networks_is_refused_and_its_path_alone_is_told_its_name(tmp_path):
    path = tmp_path / "depth_anything_v2_vits.pth"
    torch.save({"x": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match=r"has the name of depth_anything_v2_small's"):
        from_pretrained(f"depth_anything_v2_metric_hypersim_small={path}")
    with pytest.raises(CheckpointError, match=r"expected depth_anything_v2_small=.*got its path alone"):
        from_pretrained(path)
    (tmp_path / "x.ZIP").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"expected NAME=.*got its path alone"):
        from_pretrained(tmp_path / "x.ZIP")


def test_weights_of_depth_anything_may_have_the_names_of_transformers_and_lie_in_a_folder(tmp_path):
    model = transformers.DepthAnythingForDepthEstimation(
        transformers.DepthAnythingConfig(
            backbone_config=dinov2("small", "v2"), reassemble_hidden_size=384, patch_size=14,
            neck_hidden_sizes=[48, 96, 192, 384], fusion_hidden_size=64,
        )
    )  # fmt: skip
    model.save_pretrained(tmp_path)
    found = from_pretrained(f"depth_anything_v2_small={tmp_path}")
    expected = dpt_dinov2_small(pretrained=False, hooks="v2")
    load_published(expected, model.state_dict(), source="transformers")
    same(found, expected)
    assert found.encoder.position_interpolation == "dinov2"
    torch.save({}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"expected one file of weights in .*got 2"):
        from_pretrained(f"depth_anything_v2_small={tmp_path}")


def test_a_file_in_a_folder_of_ours_stands_for_the_folder(tmp_path):
    model = midas_timm("mobilenetv2_035", pretrained=False, features=8)
    model.save_pretrained(tmp_path, ambiguity="shift_scale")
    for name in ("model.safetensors", "config.json"):
        found = from_pretrained(tmp_path / name)
        assert found.ambiguity == "shift_scale"
        assert all(torch.equal(x, found.state_dict()[key]) for key, x in model.state_dict().items())


@pytest.mark.slow
def test_monodepth2s_files_in_a_folder_fill_a_network(tmp_path):
    files = monodepth2_files()
    for name, content in files.items():
        torch.save(content, tmp_path / f"{name}.pth")
    found = published(monodepth2_resnet18(pretrained=False), tmp_path / "encoder.pth", source="monodepth2")
    expected = monodepth2_resnet18(pretrained=False)
    load_published(expected, {name: files[name] for name in ("encoder", "depth")}, source="monodepth2")
    assert_close(found.state_dict(), expected.state_dict(), rtol=0, atol=0)
    assert_close(from_pretrained(f"{MONO}={tmp_path}").state_dict(), expected.state_dict(), rtol=0, atol=0)
    assert pose_from_pretrained(f"{MONO}={tmp_path}").frames == 2
    (tmp_path / "depth.pth").unlink()
    with pytest.raises(CheckpointError, match=r"expected encoder.pth and depth.pth in .*; depth.pth is missing"):
        published(monodepth2_resnet18(pretrained=False), tmp_path / "encoder.pth", source="monodepth2")


def test_a_file_that_is_at_hand_is_not_downloaded(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    torch.save(_midas_small().state_dict(), tmp_path / "mine.pt")
    found = from_pretrained(f"midas_v21_small={tmp_path / 'mine.pt'}", cache_dir=tmp_path / "empty")
    assert found.input_rule.size(480, 640) == (192, 256)
    (tmp_path / "mono.zip").write_bytes(zipped(monodepth2_files()))
    assert from_pretrained(f"{MONO}={tmp_path / 'mono.zip'}").ambiguity == Ambiguity.SCALE
    assert pose_from_pretrained(f"{MONO}={tmp_path / 'mono.zip'}").frames == 2
    with pytest.raises(CheckpointError, match="expected a weight file at"):
        from_pretrained(f"{MONO}={tmp_path / 'gone.zip'}")


def test_training_starts_from_any_model(serve, tmp_path, monkeypatch):
    serve(MONO, zipped(monodepth2_files()))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    started = registry.run_of(MONO)
    depth, pose = from_pretrained(MONO), pose_from_pretrained(MONO)
    parts = {"model": depth, "pose_net": pose}
    assert started["depthkit"]["ambiguity"] == "scale"
    assert started["state_dict"].keys() == {f"{part}.{key}" for part, x in parts.items() for key in x.state_dict()}
    save_network(depth, tmp_path / "net.ckpt", ambiguity="scale")
    assert registry.run_of(tmp_path / "net.ckpt")["state_dict"].keys() == {f"model.{key}" for key in depth.state_dict()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda x: {f"module.{key}": v for key, v in x.items()},
        lambda x: {f"_orig_mod.{key}": v for key, v in x.items()},
        lambda x: {f"module._orig_mod.{key}": v for key, v in x.items()},
        lambda x: {"state_dict": {f"module.{key}": v for key, v in x.items()}, "epoch": 3},
        lambda x: {"model": x, "optimizer": {"state": {}}},
    ],
)
def test_what_training_puts_around_weights_is_taken_off_for_every_source(wrap):
    tensors = {"encoder.conv1.weight": torch.rand(2), "pretrained.norm.bias": torch.rand(3)}
    assert plain_state(wrap(tensors)).keys() == tensors.keys()
    files = monodepth2_files()
    found = CONVERTERS["monodepth2"]({name: wrap(x) for name, x in files.items()})
    assert found.keys() == CONVERTERS["monodepth2"](files).keys()
