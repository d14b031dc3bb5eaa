"""From a name: published files on a server and in the hub's cache, with random weights; photos and whole tables out.

Nothing here knows the network by other means than its name: what is served has the authors' formats.
"""

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from PIL import Image

from depthkit.cli.main import main
from depthkit.evaluation import PROTOCOLS, find_table
from depthkit.evaluation.protocols.benchmark_data import place_of
from depthkit.inference import DepthPredictor, load_prediction
from depthkit.inference.teacher import weights_sha256
from depthkit.models import PUBLISHED, dpt_dinov2_small, from_pretrained
from depthkit.models.weights import registry
from depthkit.shards import ShardWriter
from depthkit.types import Ambiguity, Representation, Sample
from tests.contracts.server import serving
from tests.models.weights.test_from_pretrained import MONO, depth_anything_names, monodepth2_files, zipped

SMALL, REPOSITORY = "depth_anything_v2_small", "depth-anything/Depth-Anything-V2-Small"
CPU = ["--accelerator=cpu", "--devices=1"]


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """The hub's cache, as ``huggingface_hub`` lays it out, with the file of the small network."""
    store = tmp_path_factory.mktemp("hub") / f"models--{REPOSITORY.replace('/', '--')}"
    commit = "0" * 40
    (store / "refs").mkdir(parents=True)
    (store / "refs" / "main").write_text(commit)
    (store / "snapshots" / commit).mkdir(parents=True)
    torch.manual_seed(0)
    theirs = dpt_dinov2_small(pretrained=False, hooks="v2")
    torch.save(depth_anything_names(theirs.state_dict()), store / "snapshots" / commit / "depth_anything_v2_vits.pth")
    return store.parent


@pytest.fixture
def cached(hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(hub))
    monkeypatch.setattr(huggingface_hub.file_download, "HF_HUB_CACHE", str(hub), raising=False)


@pytest.fixture
def server():
    with serving() as found:
        yield found


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "photos").mkdir()
    for number, size in enumerate([(60, 80), (80, 45)]):
        noise = np.random.default_rng(number).integers(0, 255, (*size, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "photos" / f"{number}.png")
    return tmp_path / "photos"


def code(*arguments):
    with pytest.raises(SystemExit) as stop:
        main(list(map(str, arguments)))
    return stop.value.code


def test_photos_are_predicted_by_the_hubs_file(cached, photos, tmp_path, capsys):
    main(["predict", SMALL, str(photos), f"--out={tmp_path / 'out'}", "--resize.side", "70", *CPU])
    assert "2 of 2 images predicted, shift_scale disparity" in capsys.readouterr().out
    network = from_pretrained(SMALL)
    assert network.input_rule.side == 518
    predictor = DepthPredictor(network, ambiguity=network.ambiguity, input_rule=replace(network.input_rule, side=70))
    for photo in photos.iterdir():
        found = load_prediction(tmp_path / "out" / f"{photo.name}.png")
        exact = predictor(photo).map
        assert np.abs(found.map - exact).max() <= np.ptp(exact) / 65535


SIZES = {"kitti": (375, 1242), "nyu": (480, 640)}


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """One image in each set of table 2, in the folders that `depthkit shards write` makes; DDAD's are not there."""
    root, rng = tmp_path_factory.mktemp("shards"), np.random.default_rng(0)
    for column in find_table("depth_anything_2").columns[::2]:
        place = place_of(column.protocols[0], root, column.images)
        if column.label.startswith("ddad"):
            continue
        size = SIZES.get(column.label.split()[0], (60, 80))
        with ShardWriter(place.folder, split=place.split, dataset=place.folder.name) as writer:
            depth = rng.uniform(1, 9, size).astype(np.float32)
            image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
            writer.write(Sample("s0", image, depth, depth > 1.5, Ambiguity.METRIC, Representation.DEPTH))
    return root


@pytest.mark.slow  # six images at the authors' size, 518 pixels and more
def test_a_papers_table_is_made_from_a_name(cached, shards, tmp_path, capsys):
    out = tmp_path / "ledger.json"
    main(
        [
            "benchmark",
            SMALL,
            "--table",
            "depth_anything_2",
            "--shards",
            str(shards),
            "--row",
            "Depth Anything S",
            f"--out={out}",
        ]
    )
    printed = capsys.readouterr().out
    command = f"depthkit shards write ddad RAW {shards / 'ddad_projection_dgp'} --split val --projection dgp"
    assert f"missing: depth_anything_ddad: {command}" in printed
    for words in (
        SMALL, "  paper: Depth Anything S", f"  {SMALL} - paper", "Depth Anything L (paper)", "mean rank", "mean gain",
        f"{SMALL}: nyu abs_rel was scored on 1 images, by the paper on 654.",
        f"{SMALL}: diode delta1 was scored on 1 images, by the paper on 771.",
    ):  # fmt: skip
        assert words in printed
    ledger = json.loads(out.read_text())
    (row,) = ledger["networks"]
    assert row["weights_sha256"] == weights_sha256(from_pretrained(SMALL))
    assert ledger["versions"].keys() == {"depthkit", "torch", "numpy", "python"}
    cells = {cell["column"]: cell for cell in row["columns"]}
    assert cells["ddad abs_rel"]["without"] == "no shards"
    for column in find_table("depth_anything_2").columns:
        cell = cells[column.label]
        paper = PROTOCOLS[column.protocols[0]].published["Depth Anything S"][column.metric]
        assert cell["paper"] == paper
        if cell["without"] is None:
            assert (cell["protocol"], cell["images"], cell["paper_images"]) == (column.protocols[0], 1, column.images)
            assert cell["difference"] == pytest.approx(cell["ours"] - paper)


@pytest.fixture
def serve(server, tmp_path, monkeypatch):
    """Monodepth2's zip on the server, under its name, into a cache that is empty."""
    content = zipped(monodepth2_files(), "mono_640x192/")
    server.files["/mono_640x192.zip"] = content
    checksum = f"md5:{hashlib.md5(content).hexdigest()}"
    entry = replace(PUBLISHED[MONO], place=f"{server.address}/mono_640x192.zip", checksum=checksum)
    monkeypatch.setattr(registry, "PUBLISHED", {**registry.PUBLISHED, MONO: entry})
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return tmp_path / "cache" / "checkpoints"


def test_photos_are_predicted_by_a_servers_file_which_is_kept(serve, server, photos, tmp_path, capsys):
    for out in ("first", "second"):
        main(["predict", MONO, str(photos), f"--out={tmp_path / out}", "--resize.side", "64", "96", *CPU])
    assert server.asked == ["/mono_640x192.zip"]
    assert [file.name for file in serve.iterdir()] == ["mono_640x192.zip"]
    assert "2 of 2 images predicted, scale disparity" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ("cut", "bytes came. Try again, or put the file at"),
        ("other", "its checksum is not md5:"),
        ("absent", "HTTP Error 404: Not Found"),
        ("gone", "refused"),
        ("offline", "as HF_HUB_OFFLINE is set; it is not there"),
        ("full", "No space left on device"),
        ("damaged", "it is another file, or damaged. Remove it to fetch it again"),
    ],
)
def test_a_download_that_fails_is_one_sentence(trouble, words, serve, server, photos, tmp_path, monkeypatch, capsys):
    if trouble == "cut":
        server.cut.add("/mono_640x192.zip")
    elif trouble == "other":
        server.files["/mono_640x192.zip"] += b"0"
    elif trouble == "absent":
        server.files.clear()
    elif trouble == "gone":
        server.shutdown()
        server.server_close()
        monkeypatch.setattr(server, "shutdown", lambda: None)
    elif trouble == "offline":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    elif trouble == "full":
        if not Path("/dev/full").exists():
            pytest.skip("there is no device that is full")
        serve.mkdir(parents=True)
        (serve / f".{os.getpid()}.mono_640x192.zip.partial").symlink_to("/dev/full")
    else:
        serve.mkdir(parents=True)
        (serve / "mono_640x192.zip").write_bytes(b"0" * 100)
    assert code("predict", MONO, photos, f"--out={tmp_path / 'out'}", *CPU) == 2
    said = capsys.readouterr().err
    lines = [line for line in said.splitlines() if "Error: " in line]
    assert len(lines) == 1
    assert words in lines[0]
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()
    if trouble != "damaged":
        assert not serve.exists() or not list(serve.iterdir())


@pytest.mark.parametrize("trouble", ["nothing cached", "no network"])
def test_a_hub_that_cannot_be_reached_is_one_sentence(trouble, photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", trouble == "nothing cached")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the hub's client tries again, later each time
    assert code("predict", SMALL, photos, f"--out={tmp_path / 'out'}", *CPU) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert len([line for line in said.splitlines() if line.startswith("CheckpointError: ")]) == 1
    assert REPOSITORY in said


def test_a_full_disk_under_the_results_is_one_sentence(serve, photos, tmp_path, capsys):
    if not Path("/dev/full").exists():
        pytest.skip("there is no device that is full")
    out = tmp_path / "out"
    out.mkdir()
    for photo in photos.iterdir():
        (out / f".{os.getpid()}.{photo.name}.png.partial").symlink_to("/dev/full")
    assert code("predict", MONO, photos, f"--out={out}", "--colour=false", "--resize.side", "64", "96", *CPU) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert "PredictionError: expected to write" in said
    assert "No space left on device" in said
    assert [file.name for file in out.iterdir() if file.suffix == ".png" and not file.name.startswith(".")] == []
