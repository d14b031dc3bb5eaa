"""From a network up to scale to one in metres, as KITTI's server wants its depth: calibrate, predict, evaluate."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from depthkit.cli.main import main
from depthkit.inference import DepthPredictor
from depthkit.models import from_pretrained, latent_diffusion_tiny, midas_timm, monodepth2_timm, save_network
from depthkit.shards import ShardWriter
from depthkit.types import Ambiguity, Representation, Sample


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, rng = tmp_path_factory.mktemp("data") / "drive", np.random.default_rng(0)
    for split, size in (("train", (64, 96)), ("val", (352, 1216))):
        with ShardWriter(root, split=split, dataset="drive") as writer:
            for i in range(4 if split == "train" else 1):
                depth = rng.uniform(5, 60, size).astype(np.float32)
                image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
                few = rng.random(depth.shape) < 0.05
                writer.write(Sample(f"{split}{i}", image, depth, few, Ambiguity.METRIC, Representation.DEPTH))
    return root


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("run") / "video.ckpt"
    save_network(monodepth2_timm("test_resnet", pretrained=False), path, ambiguity="scale", size=(64, 96))
    return str(path)


def test_a_video_network_is_scored_in_metres_with_the_scale_of_its_training_images(
    network: str, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The row M of table 9: the median over training images, then metres, without a fit."""
    out = tmp_path / "metres.ckpt"
    main(["calibrate", network, str(shards), "--out", str(out), "--images", "3", "--range", "1", "80"])
    printed = capsys.readouterr().out
    assert "of disparity on 3 images, from which those of the images deviate by" in printed
    reports = tmp_path / "reports"
    for model, protocol in ((network, "monodepth2_improved"), (str(out), "monodepth2_benchmark")):
        main(["evaluate", model, str(shards), "--protocol", protocol, "--split", "val", "--out", str(reports)])
    found = json.loads((reports / "drive.val.monodepth2_benchmark.json").read_text())["summary"]
    fitted = json.loads((reports / "drive.val.monodepth2_improved.json").read_text())["summary"]
    assert found.keys() == {"silog", "sq_rel_percent", "abs_rel", "i_rmse"}
    assert found["abs_rel"] == pytest.approx(fitted["abs_rel"], rel=0.3)  # of noise, all scales are alike
    assert from_pretrained(out).ambiguity == Ambiguity.METRIC


def test_a_network_up_to_a_line_gets_the_line_of_its_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Labels made of the network's own maps by a line in disparity: it is found, and then the metres are right."""
    torch.manual_seed(1)
    model = midas_timm("mobilenetv2_035", features=8, pretrained=False)
    with torch.no_grad():
        for name, bias in model.named_parameters():
            if name.endswith("bias"):
                bias.add_(0.1)  # or the last ReLU of random weights may be dead
    save_network(model, tmp_path / "net.ckpt", ambiguity="shift_scale", size=(64, 96))
    predictor = DepthPredictor.from_pretrained(tmp_path / "net.ckpt")
    rng, per_unit = np.random.default_rng(0), 0.0
    with ShardWriter(tmp_path / "own", split="train", dataset="own", depth_format="npy", image_format="png") as writer:
        for i in range(3):
            image = rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)
            disparity = predictor(image).map
            per_unit = per_unit or 0.5 / float(disparity.mean())
            depth = 1 / (per_unit * disparity + 0.05)
            few = rng.random(depth.shape) < 0.1
            writer.write(Sample(f"s{i}", image, depth, few, Ambiguity.METRIC, Representation.DEPTH))
    main(["calibrate", str(tmp_path / "net.ckpt"), str(tmp_path / "own"), "--out", str(tmp_path / "metres.ckpt")])
    assert f"scale {per_unit:.4g}" in (printed := capsys.readouterr().out)
    assert "and shift 0.05 of disparity on 3 images" in printed or "and shift 0.0500" in printed
    metres = DepthPredictor.from_pretrained(tmp_path / "metres.ckpt")(image)
    assert metres.ambiguity == Ambiguity.METRIC
    np.testing.assert_allclose(metres.depth(), depth, rtol=1e-3)


def test_what_cannot_be_calibrated_is_one_sentence(
    network: str, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    latent_diffusion_tiny().save_pretrained(tmp_path / "diffusion")
    for model, words, options in (
        (str(tmp_path / "diffusion"), "expected a network that a checkpoint can hold, to calibrate it", []),
        (network, "expected a split of", ["--split", "test"]),
        (network, "expected an image that determines a scale", ["--range", "100", "200"]),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["calibrate", model, str(shards), "--out", str(tmp_path / "no.ckpt"), *options])
        assert stop.value.code == 2
        assert words in capsys.readouterr().err
        assert not (tmp_path / "no.ckpt").exists()


def test_kittis_upload_has_the_images_names_and_codes_of_depth(network: str, shards: Path, tmp_path: Path, capsys) -> None:
    """16 bits, 256 per metre, no pixel without depth; up to scale there is none."""
    photos, out = tmp_path / "image", tmp_path / "upload"
    photos.mkdir()
    for i, name in enumerate(("0000000000.png", "0000000001.png")):
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (64, 96, 3), dtype=np.uint8)).save(photos / name)
    cpu = ["--accelerator=cpu", "--devices=1", "--format", "kitti", f"--out={out}"]
    with pytest.raises(SystemExit):
        main(["predict", network, str(photos), *cpu])
    assert "or find its scale by `depthkit calibrate`" in capsys.readouterr().err
    main(["calibrate", network, str(shards), "--out", str(tmp_path / "metres.ckpt")])
    main(["predict", str(tmp_path / "metres.ckpt"), str(photos), *cpu])
    assert sorted(file.name for file in out.iterdir()) == ["0000000000.png", "0000000001.png"]
    main(["predict", str(tmp_path / "metres.ckpt"), str(photos), *cpu[:2], "--format=npy", f"--out={tmp_path / 'npy'}"])
    for file in out.iterdir():
        codes = np.asarray(Image.open(file))
        disparity = np.load(tmp_path / "npy" / f"{file.name}.npy")
        assert codes.dtype == np.uint16
        assert codes.shape == (64, 96)
        assert codes.min() >= 1
        np.testing.assert_allclose(codes / 256, np.clip(1 / disparity, 1 / 256, 65535 / 256), atol=0.5 / 256 + 1e-5)
