"""The command on films: frames as files, films in colours, whole files only, and what is wrong with a film in one sentence."""

import json
import os
import signal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from torch import nn

from depthkit.cli import predict as command
from depthkit.cli.main import main
from depthkit.inference import DepthPredictor, load_prediction
from depthkit.resize import InputResize
from depthkit.types import Ambiguity, Representation

av = pytest.importorskip("av", reason="PyAV is not installed")
TEXTURE = np.kron(np.random.default_rng(0).integers(0, 256, (7, 40, 3), dtype=np.uint8), np.ones((7, 7, 1), np.uint8))
FRAMES = 6


def picture(n: int) -> np.ndarray:
    return np.ascontiguousarray(TEXTURE[:, 2 * n : 2 * n + 63])


def encode(path: Path, frames: int = FRAMES) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt, stream.codec_context.gop_size = 48, 62, "yuv420p", 2
        for n in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(n)[:48, :62].copy(), format="rgb24")
            frame.pts, frame.time_base = n, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


class Metres(nn.Module):
    """Depth of 2 to 3 m by brightness."""

    representation, ambiguity, size_multiple = Representation.DEPTH, Ambiguity.METRIC, 1
    input_rule = InputResize(rule="native", multiple=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return 2 + nn.functional.avg_pool2d(image.mean(1, keepdim=True), 9, 1, 4)


@pytest.fixture(autouse=True)
def _metres(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "from_pretrained", lambda *_, **__: Metres())


@pytest.fixture
def film(tmp_path: Path) -> Path:
    (tmp_path / "films").mkdir()
    return encode(tmp_path / "films" / "a.mp4")


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    (tmp_path / "walk").mkdir()
    for n in range(FRAMES):
        Image.fromarray(picture(n)).save(tmp_path / "walk" / f"{n:03d}.png")
    return tmp_path / "walk"


def files(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def run(*words: object, code: int = 0) -> None:
    arguments = ["predict", "any", *map(str, words), "--accelerator=cpu", "--devices=1"]
    if not code:
        main(arguments)
        return
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == code


def decoded(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_frames_of_a_film_are_files_as_the_predictor_has_them(film: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    run(film, f"--out={out}", "--format=npy", "--colour=false")
    assert files(out) == sorted(f"a.mp4.frames/{n:06d}{end}" for n in range(FRAMES) for end in (".npy", ".depthkit.json"))
    stable = list(DepthPredictor(Metres(), ambiguity=Ambiguity.METRIC).video(film))
    for n, expected in enumerate(stable):
        np.testing.assert_array_equal(load_prediction(out / f"a.mp4.frames/{n:06d}.npy").map, expected.map)
    assert f"6 of 6 frames of {film} predicted, metric depth, stabilised" in capsys.readouterr().out
    run(film, f"--out={tmp_path / 'bare'}", "--format=npy", "--colour=false", "--stabilise", "false")
    bare = load_prediction(tmp_path / "bare/a.mp4.frames/000005.npy").map
    assert np.abs(bare - stable[5].map).max() > 1e-4


def test_a_film_in_colours_says_what_they_mean(film: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(film, f"--out={out}", "--format=mp4", "--range", "1", "4")
    assert files(out) == ["a.mp4.depthkit.json", "a.mp4.mp4"]
    legend = json.loads((out / "a.mp4.depthkit.json").read_text())
    assert (legend["range"], legend["low"], legend["high"]) == ("fixed", 0.25, 1.0)
    assert (legend["frames"], legend["stabilised"], legend["source"]) == (FRAMES, True, "a.mp4")
    shown = decoded(out / "a.mp4.mp4")
    expected = next(DepthPredictor(Metres(), ambiguity=Ambiguity.METRIC).video(film)).colour(low=0.25, high=1.0)
    assert np.abs(shown[0].astype(int) - expected).mean() < 8  # films are lossy
    assert len(shown) == FRAMES
    with av.open(str(out / "a.mp4.mp4")) as container:
        times = [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]
    np.testing.assert_allclose(times, np.arange(FRAMES) / 25, atol=1e-3)


def test_a_folder_of_frames_becomes_a_film_with_a_range_that_runs(frames: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(frames, f"--out={out}", "--format=mp4", "--rate", "10")
    assert files(out) == ["walk.depthkit.json", "walk.mp4"]
    legend = json.loads((out / "walk.depthkit.json").read_text())
    assert legend["range"] == "running"
    assert len(legend["low"]) == len(legend["high"]) == FRAMES
    assert all(0.3 < low < high < 0.55 for low, high in zip(legend["low"], legend["high"], strict=True))
    assert decoded(out / "walk.mp4")[0].shape == (50, 64, 3)  # 49 x 63, made even


def test_a_folder_keeps_its_names_when_it_is_stabilised_and_photos_are_left_alone(frames: Path, tmp_path: Path) -> None:
    predictor = DepthPredictor(Metres(), ambiguity=Ambiguity.METRIC)
    stable = [prediction.map for prediction in predictor.video(frames)]
    alone = predictor(frames / "005.png").map
    run(frames, f"--out={tmp_path / 'a'}", "--format=npy", "--stabilise=true", "--colour=false")
    run(frames, f"--out={tmp_path / 'b'}", "--format=npy", "--colour=false")
    assert files(tmp_path / "a") == files(tmp_path / "b")
    np.testing.assert_array_equal(load_prediction(tmp_path / "a/005.png.npy").map, stable[5])
    np.testing.assert_array_equal(load_prediction(tmp_path / "b/005.png.npy").map, alone)


def test_a_folder_of_both_is_both(film: Path, frames: Path, tmp_path: Path, capsys) -> None:
    film.rename(frames / "a.mp4")
    run(frames, f"--out={frames}", "--colour=false")
    printed = capsys.readouterr().out
    assert "6 of 6 images" in printed
    assert "6 of 6 frames" in printed
    run(frames / "a.mp4", f"--out={frames}", "--format=mp4")
    run(frames, f"--out={tmp_path / 'again'}", "--format=mp4")
    assert files(tmp_path / "again") == [
        "walk.depthkit.json", "walk.mp4", "walk/a.mp4.depthkit.json", "walk/a.mp4.mp4",
    ]  # fmt: skip


def test_no_film_is_written_onto_a_source(film: Path, capsys) -> None:
    encode(film.parent / "a.mp4.mp4")
    before = (film.parent / "a.mp4.mp4").read_bytes()
    run(film.parent, f"--out={film.parent}", "--format=mp4", code=2)
    assert "expected a result of its own for every film" in capsys.readouterr().err
    assert (film.parent / "a.mp4.mp4").read_bytes() == before


@pytest.mark.parametrize(
    ("make", "options", "words"),
    [
        (lambda film: film.write_bytes(b"no film"), [], "expected a video file; it does not open"),
        (lambda film: film.unlink(), [], "found nothing"),
        (lambda film: sound(film), [], "it holds no pictures"),
        (lambda film: None, ["--format=kitti"], "expected images for format kitti"),
        (lambda film: None, ["--intrinsics", "60", "60", "62", "48", "--format=ply"], "as of an image of another size"),
        (lambda film: None, ["--rate=0"], "rate above 0"),
        (
            lambda film: film.rename(film.with_suffix(".png")),
            ["--format=mp4"],
            "expected films or folders of frames for format mp4",
        ),
    ],
)
def test_what_is_wrong_with_a_film_is_a_sentence(make, options, words, film: Path, tmp_path: Path, capsys) -> None:
    make(film)
    source = film if film.exists() or not film.with_suffix(".png").exists() else film.with_suffix(".png")
    run(source, f"--out={tmp_path / 'out'}", *options, code=2)
    assert words in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("format", ["png", "mp4"])
def test_a_folder_that_cannot_be_is_named(format: str, film: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "file").write_text("")
    run(film, f"--out={tmp_path / 'file' / 'x'}", f"--format={format}", code=2)
    assert f"expected to write {tmp_path / 'file'}" in " ".join(capsys.readouterr().err.split())


def sound(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 16000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.parametrize("format", ["png", "mp4"])
def test_of_a_damaged_film_what_decodes_is_kept_and_the_command_fails(format, film: Path, tmp_path: Path, capsys) -> None:
    with av.open(str(film)) as container:
        packets = {round(float(p.pts * p.time_base * 25)): (p.pos, p.size) for p in container.demux(video=0) if p.size}
    data, (place, size) = bytearray(film.read_bytes()), packets[3]
    data[place : place + size] = bytes(size)
    film.write_bytes(data)
    run(film, f"--out={tmp_path / 'out'}", "--colour=false", f"--format={format}", code=2)
    printed = capsys.readouterr()
    assert "5 of 6 frames" in printed.out
    assert "frame 3 (0.120 s)" in printed.err
    if format == "png":
        assert files(tmp_path / "out") == [f"a.mp4.frames/{n:06d}.png" for n in (0, 1, 2, 4, 5)]
    else:
        assert len(decoded(tmp_path / "out" / "a.mp4.mp4")) == 5


@pytest.mark.parametrize("cause", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_keeps_whole_frames_and_names_half_a_film_so(cause, film: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    maps, calls = DepthPredictor.maps, []

    def stopping(self: DepthPredictor, batch: list) -> object:
        calls.append(1)
        if len(calls) % 3 == 0:
            os.kill(os.getpid(), cause)
        return maps(self, batch)

    monkeypatch.setattr(DepthPredictor, "maps", stopping)
    run(film, f"--out={tmp_path / 'out'}", "--colour=false", code=128 + cause)
    run(film, f"--out={tmp_path / 'out'}", "--format=mp4", code=128 + cause)
    assert "what was predicted is kept whole" in capsys.readouterr().err
    names = [f"a.mp4.frames/{n:06d}.png" for n in range(3)]
    assert files(tmp_path / "out") == sorted([*names, "a.mp4.partial.depthkit.json", "a.mp4.partial.mp4"])
    assert len(decoded(tmp_path / "out" / "a.mp4.partial.mp4")) == 3
    for name in names:
        Image.open(tmp_path / "out" / name).load()
    monkeypatch.setattr(DepthPredictor, "maps", maps)
    run(film, f"--out={tmp_path / 'out'}", "--format=mp4")
    assert files(tmp_path / "out") == sorted([*names, "a.mp4.depthkit.json", "a.mp4.mp4"])


def test_points_know_their_camera_and_unit_and_have_no_far_end(frames: Path, tmp_path: Path, monkeypatch) -> None:
    def far(self: Metres, image: torch.Tensor) -> torch.Tensor:
        depth = torch.full((1, 1, *image.shape[-2:]), 2.0)
        depth[..., :10] = 500.0
        depth[..., 30:40] = 3.0
        return depth

    monkeypatch.setattr(Metres, "forward", far)
    (frames / "intrinsics.json").write_text(
        json.dumps({"fx": 126, "fy": 126, "cx": 62.5, "cy": 48.5, "width": 126, "height": 98})
    )
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = 27
    other = tmp_path / "other" / "a.jpg"
    other.parent.mkdir()
    Image.fromarray(picture(0)).save(other, exif=exif)
    for kind in ("ply", "glb"):
        run(frames / "000.png", other, f"--out={tmp_path / kind}", f"--format={kind}", "--colour=false")
        inside, by_exif = (trimesh.load(tmp_path / kind / f"{name}.{kind}") for name in ("walk/000.png", "other/a.jpg"))
        for cloud, focal in ((inside, 63.0), (by_exif, 27 / 43.27 * np.hypot(49, 63))):
            points = np.abs(np.concatenate([g.vertices for g in cloud.geometry.values()]) if kind == "glb" else cloud.vertices)
            assert set(points[:, 2].round(4).tolist()) == {2.0, 3.0}
            assert len(points) == 49 * (63 - 11 - 4)  # without the far columns and the edges
            assert points[:, 0].max() == pytest.approx(31 / focal * 2, rel=0.02)
        data = (tmp_path / kind / f"walk/000.png.{kind}").read_bytes()
        assert (b"comment unit metre" if kind == "ply" else b'"unit":"metre"') in data.replace(b'": "', b'":"')
    run(frames / "000.png", f"--out={tmp_path / 'all'}", "--format=ply", "--max_edge", "null", "--far", "null")
    assert len(trimesh.load(tmp_path / "all" / "000.png.ply").vertices) == 49 * 63
    (frames / "intrinsics.json").write_text(
        json.dumps({"fx": 126, "fy": 126, "cx": 62.5, "cy": 48.5, "width": 126, "height": 70})
    )
    run(frames / "000.png", f"--out={tmp_path / 'crop'}", "--format=ply", code=2)
