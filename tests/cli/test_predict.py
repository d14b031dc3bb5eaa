"""The command from end to end: files in, files out, and what is said when something fails."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import OpenEXR
import pytest
import torch
import trimesh
from PIL import Image
from torch import nn

from depthkit.cli import predict as command
from depthkit.cli.main import main
from depthkit.errors import LabelError, PredictionError, RecipeError, ShapeError
from depthkit.inference import DepthPredictor, load_prediction
from depthkit.inference.files import Results
from depthkit.models import midas_timm, save_network
from depthkit.resize import InputResize
from depthkit.types import Ambiguity, Representation

SIZES = {"a.png": (50, 70), "inner/b.jpg": (133, 97), "c.png": (50, 70)}
CPU = ["--accelerator=cpu", "--devices=1"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(3)
    model = midas_timm("mobilenetv2_035", features=8, pretrained=False)
    with torch.no_grad():
        for name, bias in model.named_parameters():
            if name.endswith("bias"):
                bias.add_(0.1)  # or the last ReLU of random weights may be dead
    path = tmp_path_factory.mktemp("run") / "network.ckpt"
    save_network(model, path, ambiguity="shift_scale", size=(64, 96))
    return str(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number, (name, size) in enumerate(SIZES.items()):
        (tmp_path / "photos" / name).parent.mkdir(exist_ok=True, parents=True)
        noise = np.random.default_rng(number).integers(0, 255, (*size, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "photos" / name)
    return tmp_path / "photos"


class Metres(nn.Module):
    """Depth from 1 to 101 m, from left to right."""

    representation, ambiguity, size_multiple = Representation.DEPTH, Ambiguity.METRIC, 1
    input_rule = InputResize(rule="native", multiple=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return (1 + 100 * torch.linspace(0, 1, image.shape[-1])).expand(len(image), 1, *image.shape[-2:])


@pytest.fixture
def metres(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "from_pretrained", lambda *_, **__: Metres())


def files(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def said(capsys: pytest.CaptureFixture[str]) -> str:
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    return " ".join((printed.out + printed.err).split())


def code(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["predict", *arguments])
    return int(stop.value.code or 0)


@pytest.mark.parametrize("options", [[], ["--batch_size=2"], ["--num_workers=2"]])
def test_each_image_has_the_predictors_map_under_its_name(
    options: list[str], checkpoint: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "notes.txt").write_text("no image")
    out = photos.parent / "maps"
    main(["predict", checkpoint, str(photos), f"--out={out}", "--format=npy", *CPU, *options])
    assert files(out) == sorted(f"{name}{end}" for name in SIZES for end in (".colour.png", ".depthkit.json", ".npy"))
    predictor = DepthPredictor.from_pretrained(checkpoint)
    for name, size in SIZES.items():
        found = load_prediction(out / f"{name}.npy")
        assert found.map.shape == size
        np.testing.assert_allclose(found.map, predictor(photos / name).map, rtol=1e-4, atol=1e-6)
    assert "3 of 3 images predicted, shift_scale disparity" in (printed := said(capsys))
    assert "left out: 1 no image files" in printed


def test_files_folders_and_lists_are_sources(checkpoint: str, photos: Path) -> None:
    (photos / "some.txt").write_text("# two of them\na.png\n\ninner/b.jpg\n")
    out = photos.parent / "maps"
    main(["predict", checkpoint, str(photos / "some.txt"), str(photos / "c.png"), "--colour=false", f"--out={out}", *CPU])
    assert files(out) == ["a.png.png", "c.png.png", "inner/b.jpg.png"]
    (photos / "some.txt").write_text("#\n")
    assert code([checkpoint, str(photos / "some.txt"), *CPU]) == 2


def test_what_fails_is_named_the_rest_is_written_and_the_command_fails(
    checkpoint: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (photos / "inner" / "b.jpg").read_bytes()
    (photos / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    assert code([checkpoint, str(photos), f"--out={photos.parent / 'maps'}", *CPU]) == 2
    printed = said(capsys)
    assert "3 of 4 images predicted" in printed
    assert "1 of 4 images have no prediction; the others are written." in printed
    assert "cut.jpg" in printed
    assert len(files(photos.parent / "maps")) == 6


def test_a_map_that_is_not_finite_is_named(photos: Path, metres: None, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    forward = Metres.forward

    def poisoned(self: Metres, image: torch.Tensor) -> torch.Tensor:
        return forward(self, image) * (float("nan") if image.shape[-2] > image.shape[-1] else 1)

    monkeypatch.setattr(Metres, "forward", poisoned)
    assert code(["any", str(photos), f"--out={photos.parent / 'maps'}", *CPU]) == 2
    assert "b.jpg: expected a finite prediction" in said(capsys)
    assert len(files(photos.parent / "maps")) == 4


def test_metres_are_millimetres_or_kittis_codes(photos: Path, metres: None) -> None:
    for unit, per_metre, farthest in (("mm", 1000, 65.535), ("256", 256, 255.9)):
        out = photos.parent / unit
        main(["predict", "any", str(photos / "a.png"), f"--out={out}", "--unit", unit, "--colour=false", *CPU])
        codes = np.asarray(Image.open(out / "a.png.png"))
        assert codes.dtype == np.uint16
        assert int(codes[0, 0]) == pytest.approx(per_metre, abs=per_metre / 10)
        found = load_prediction(out / "a.png.png")
        exact = DepthPredictor(Metres(), ambiguity=Ambiguity.METRIC)(photos / "a.png").map
        near = exact <= farthest
        assert np.abs(found.map - exact)[near].max() <= 0.5 / per_metre + 1e-5
        assert np.isnan(found.map[~near]).all()
        assert (codes[~near] == 0).all()


def test_one_range_serves_all_files(photos: Path, metres: None) -> None:
    out = photos.parent / "maps"
    main(["predict", "any", str(photos), f"--out={out}", "--range", "0", "200", *CPU])
    for name in SIZES:
        codes = np.asarray(Image.open(out / f"{name}.png"), np.float64)
        assert codes.max() == pytest.approx(65535 * 101 / 200, abs=1)
    colours = [np.asarray(Image.open(out / f"{name}.colour.png")) for name in ("a.png", "inner/b.jpg")]
    np.testing.assert_array_equal(colours[0][0, 0], colours[1][0, 0])  # 1 m in both
    assert (colours[0][0, 0] != colours[0][0, -1]).any()  # 1 m and 101 m


def test_exr_holds_the_values(photos: Path, metres: None) -> None:
    out = photos.parent / "maps"
    main(["predict", "any", str(photos), f"--out={out}", "--format", "exr", "--colour=false", *CPU])
    for name in SIZES:
        read = OpenEXR.File(str(out / f"{name}.exr"))
        exact = DepthPredictor(Metres(), ambiguity=Ambiguity.METRIC)(photos / name).map
        np.testing.assert_array_equal(read.channels()["Z"].pixels, exact)
        assert '"ambiguity": "metric"' in read.header()["depthkit"]


@pytest.mark.parametrize("kind", ["ply", "glb"])
def test_points_have_the_camera_given_or_the_angle(kind: str, photos: Path, metres: None) -> None:
    image, out = str(photos / "a.png"), photos.parent
    everything = ["--max_edge", "null", "--far", "null", *CPU]
    cameras = {"angle": ["--fov", "90"], "given": ["--intrinsics", "35", "35", "34.5", "24.5"], "near": ["--range", "0", "50"]}
    for name, options in cameras.items():
        main(["predict", "any", image, f"--out={out / name}", "--format", kind, *options, *everything])
    angle, given, near = (trimesh.load(out / name / f"a.png.{kind}").bounds for name in ("angle", "given", "near"))
    np.testing.assert_allclose(angle, given, rtol=1e-5)
    assert np.abs(angle[:, 2]).max() == pytest.approx(101, rel=1e-4)
    assert np.abs(near[:, 2]).max() <= 50


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--format=ply"], "the shift is not known"),
        (["--unit=mm"], "expected a network that predicts metres for the unit mm"),
        (["--unit=mm", "--format=npy"], "expected format png for the unit mm"),
        (["--range", "3", "1"], "expected a range from a lower to a higher value; got 3 and 1"),
        (["--resize.rule=stretch"], "expected side to be"),
        (["--batch_size=0"], "at least 1"),
    ],
)
def test_what_cannot_be_written_is_refused_before_the_network_runs(
    options: list[str], words: str, checkpoint: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert code([checkpoint, str(photos), f"--out={photos.parent / 'maps'}", *options, *CPU]) == 2
    assert words in said(capsys)
    assert not (photos.parent / "maps").exists()


def test_an_unknown_model_is_answered_with_the_nearest(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert code(["depth_anything_v2_smal", str(photos)]) == 2
    assert "Near it: depth_anything_v2_small" in said(capsys)


def test_the_authors_size_can_be_overruled(checkpoint: str, photos: Path) -> None:
    seen = []
    hook = nn.modules.module.register_module_forward_pre_hook(
        lambda module, args: seen.append(tuple(args[0].shape[-2:])) if type(module).__name__ == "DepthNet" else None
    )
    try:
        for options in (
            [],
            ["--resize.side", "64"],
            ["--resize.side", "32", "96"],
            ["--resize.side=64", "--resize.rule=upper_bound"],
        ):
            main(["predict", checkpoint, str(photos / "a.png"), f"--out={photos.parent / 'maps'}", *options, *CPU])
    finally:
        hook.remove()
    assert seen == [(64, 96), (64, 64), (32, 96), (32, 64)]


def test_a_result_that_cannot_be_written_ends_the_run(
    checkpoint: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos.parent / "maps").write_text("a file, not a folder")
    assert code([checkpoint, str(photos), f"--out={photos.parent / 'maps'}", *CPU]) == 2
    assert "PredictionError: expected to write" in said(capsys)


def test_a_result_is_whole_or_not_there(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prediction = DepthPredictor(Metres(), ambiguity=Ambiguity.METRIC)(photos / "a.png")
    kept = prediction.save(photos.parent / "maps" / "a.png").read_bytes()

    written = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        written(self, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    for save in (prediction.save, prediction.save_colour):
        with pytest.raises(PredictionError, match=r"expected to write .*No space left on device"):
            save(photos.parent / "maps" / "a.png")
    assert files(photos.parent / "maps") == ["a.png"]
    assert (photos.parent / "maps" / "a.png").read_bytes() == kept


@pytest.mark.parametrize(("cause", "expected"), [("sigterm", 143), ("interrupt", 130)])
def test_a_signal_ends_the_run_with_whole_files(
    cause: str, expected: int, checkpoint: str, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    maps, calls = DepthPredictor.maps, []

    def stopping(self: DepthPredictor, batch: list) -> object:
        calls.append(1)
        if cause == "sigterm" and len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        if cause == "interrupt" and len(calls) == 3:
            raise KeyboardInterrupt
        return maps(self, batch)

    monkeypatch.setattr(DepthPredictor, "maps", stopping)
    assert code([checkpoint, str(photos), f"--out={photos.parent / 'maps'}", *CPU]) == expected
    assert "2 of 3 images predicted" in (printed := said(capsys))
    assert "what was predicted is kept whole" in printed
    found = files(photos.parent / "maps")
    assert len(found) == 4
    for name in found:
        Image.open(photos.parent / "maps" / name).load()


@pytest.mark.slow
def test_devices_share_the_files(checkpoint: str, photos: Path) -> None:
    (photos / "broken.png").write_bytes(b"no image")
    out = photos.parent / "maps"
    words = [sys.executable, "-m", "depthkit.cli.main", "predict", checkpoint, str(photos), f"--out={out}"]
    found = subprocess.run(
        [*words, "--accelerator=cpu", "--devices=2"], capture_output=True, text=True, check=False, timeout=300
    )
    assert found.returncode == 2, found.stderr
    assert "3 of 4 images predicted" in found.stdout
    assert found.stderr.count("1 of 4 images have no prediction") == 1
    assert len(files(out)) == 6


def test_results_that_contradict_themselves_are_refused() -> None:
    with pytest.raises(RecipeError, match="expected format png"):
        Results(format="npy", unit="256")
    with pytest.raises(LabelError, match="Choose unit relative"):
        Results(unit="256").check(Ambiguity.SCALE)
    with pytest.raises(ShapeError, match="there is no such file"):
        command.listed(["gone.txt"])


def test_confidence_lies_beside_each_map_in_its_format(checkpoint, photos, tmp_path, capsys):
    predictor = DepthPredictor.from_pretrained(checkpoint, uncertainty="flip")
    expected = predictor(photos / "a.png")
    x = expected.map.astype(np.float64)
    u = expected.uncertainty / np.abs(x - np.median(x)).mean()
    for kind in ("png", "npy", "exr"):
        out = tmp_path / kind
        endings = (f".{kind}", f".confidence.{kind}", *([".depthkit.json"] if kind == "npy" else []))
        words = ["--out", str(out), "--format", kind, "--colour", "false", "--confidence", "flip"]
        main(["predict", checkpoint, str(photos), *words, *CPU])
        assert files(out) == sorted(f"{name}{end}" for name in SIZES for end in endings)
    codes = np.asarray(Image.open(tmp_path / "png" / "a.png.confidence.png"))
    assert codes.dtype == np.uint16
    assert "code / 65535" in Image.open(tmp_path / "png" / "a.png.confidence.png").text["depthkit"]
    np.testing.assert_allclose(codes / 65535, 1 / (1 + u), atol=1e-5)
    np.testing.assert_allclose(np.load(tmp_path / "npy" / "a.png.confidence.npy"), 1 / (1 + u), rtol=1e-5)
    np.testing.assert_allclose(load_prediction(tmp_path / "npy" / "a.png.npy").map, expected.map)
    assert 0 < codes.min() < codes.max()
    said(capsys)
    main(["predict", checkpoint, str(tmp_path), "--out", str(tmp_path / "more"), *CPU])
    assert "3 of 3 images predicted" in said(capsys)  # what was written is no image


def test_confidence_of_metres_is_a_fraction_of_depth(metres, photos, tmp_path):
    predictor = DepthPredictor(Metres(), ambiguity=Ambiguity.METRIC, uncertainty="flip")
    found = predictor(photos / "a.png")
    there = found.map[:, ::-1]
    np.testing.assert_allclose(found.confidence, 1 / (1 + np.abs(found.map - there) / (found.map + there)), rtol=1e-5)
    assert (found.uncertainty_unit, predictor.model.model.size_multiple) == ("the depth of the pixel", 1)
    with pytest.raises(PredictionError, match="expected a prediction with an uncertainty"):
        DepthPredictor(Metres(), ambiguity=Ambiguity.METRIC)(photos / "a.png").save_confidence(tmp_path / "a.png")
    with pytest.raises(ShapeError, match="to save confidence as"):
        found.save_confidence(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--confidence", "head"], "expected a network that was trained to predict its uncertainty"),
        (["--confidence", "ensemble"], "expected several networks"),
        (["--members", "[NET]"], "expected --confidence ensemble with --members"),
        (["--confidence", "flip", "--members", "[NET]"], "for an ensemble alone"),
        (["--confidence", "flip", "--format", "kitti"], "expected no confidence with format kitti"),
    ],
)
def test_a_confidence_that_cannot_be_is_one_sentence(words, expected, checkpoint, photos, tmp_path, capsys):
    words = [word.replace("NET", checkpoint) for word in words]
    assert code([checkpoint, str(photos), "--out", str(tmp_path / "out"), *words, *CPU]) == 2
    assert expected in said(capsys)


def test_an_ensemble_of_networks_is_their_mean(checkpoint, photos, tmp_path):
    out = tmp_path / "out"
    main(
        [
            "predict",
            checkpoint,
            str(photos / "a.png"),
            "--out",
            str(out),
            "--confidence",
            "ensemble",
            "--members",
            f"[{checkpoint}]",
            *CPU,
        ]
    )
    assert np.asarray(Image.open(out / "a.png.confidence.png")).min() == 65535  # of a network with itself
