"""A paper's table on made shards of the right layout: printed, and written as a ledger."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from depthkit.cli.main import main
from depthkit.cli.scoring.evaluate import evaluation_samples
from depthkit.evaluation import PROTOCOLS
from depthkit.inference.teacher import weights_sha256
from depthkit.models import from_pretrained, midas_timm, save_network
from depthkit.shards import ShardWriter
from depthkit.types import Ambiguity, Representation, Sample


@pytest.fixture
def network(tmp_path: Path) -> str:
    torch.manual_seed(0)
    model = midas_timm("mobilenetv2_035", features=8, pretrained=False)
    save_network(model, tmp_path / "mine.ckpt", ambiguity="shift_scale", size=(64, 96))
    return str(tmp_path / "mine.ckpt")


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    rng, root = np.random.default_rng(0), tmp_path / "shards"
    for name, size in (("nyuv2", (480, 640)), ("eth3d", (60, 80)), ("eth3d_gp2", (60, 80))):
        with ShardWriter(root / name, split="test", dataset=name) as writer:
            for i in range(2):
                depth = rng.uniform(1, 9, size).astype(np.float32)
                image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
                writer.write(Sample(f"s{i}", image, depth, depth > 1.5, Ambiguity.METRIC, Representation.DEPTH))
    return root


def test_a_table_is_printed_with_what_is_missing_and_a_ledger(
    network: str, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, row = tmp_path / "ledger.json", "MiDaS v2.1 small 256"
    main(["benchmark", network, "--table", "midas_11", "--shards", str(shards), "--out", str(out), "--row", row])
    printed = capsys.readouterr().out
    for words in (
        f"missing: midas_sintel: depthkit shards write sintel RAW {shards / 'sintel'} --split test",
        f"missing: midas_kitti: depthkit shards write kitti_improved RAW {shards / 'kitti_improved_161'}",
        f"  paper: {row}",
        "mine - paper",
        "MiDaS v3.0 DPT-L 384 (paper)",
        "mean rank",
        "mine: NYU was scored on 2 images, by the paper on 654.",
        "mine: ETH3D was scored on 2 images, by the paper on 454.",
    ):
        assert words in printed
    ledger = json.loads(out.read_text())
    assert ledger["versions"].keys() == {"depthkit", "torch", "numpy", "python"}
    (found,) = ledger["networks"]
    assert found["weights_sha256"] == weights_sha256(from_pretrained(network))
    cells = {cell["column"]: cell for cell in found["columns"]}
    main(["evaluate", network, str(shards / "nyuv2"), "--protocol", "midas_nyu", "--out", str(tmp_path / "reports")])
    alone = json.loads((tmp_path / "reports" / "nyuv2.test.midas_nyu.json").read_text())
    assert cells["NYU"]["ours"] == pytest.approx(alone["summary"]["delta1_error"])
    assert cells["NYU"]["paper"] == pytest.approx(0.1343)
    assert cells["NYU"]["difference"] == pytest.approx(cells["NYU"]["ours"] - 0.1343)
    assert (cells["NYU"]["images"], cells["NYU"]["paper_images"], cells["NYU"]["protocol"]) == (2, 654, "midas_nyu")
    assert cells["Sintel"]["ours"] is None
    assert cells["Sintel"]["without"] == "no shards"
    assert found["mean_rank"] >= 1
    main(["benchmark", network, network, "--table", "midas_10", "--shards", str(shards), "--out", str(out)])
    assert "none of the paper's networks" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--table", "midas_99"], "expected a table among"),
        (["--table", "midas_11", "--row", "nobody"], "expected a row of table midas_11"),
        (["--table", "gp2_3"], "expected shards for a test of table gp2_3"),
    ],
)
def test_mistakes_are_one_sentence(
    options: list[str], words: str, network: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["benchmark", network, *options, "--shards", str(tmp_path / "none"), "--out", str(tmp_path / "ledger.json")])
    assert stop.value.code == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "ledger.json").exists()


def test_a_network_that_no_test_of_a_table_fits_is_named(
    network: str, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["benchmark", network, "--table", "gp2_3", "--shards", str(shards), "--out", str(tmp_path / "ledger.json")])
    assert "mine: ETH3D has no number: no test resolves what the network leaves open." in capsys.readouterr().out


def test_stored_maps_are_scored_as_the_network_that_made_them(network: str, shards: Path, tmp_path: Path, capsys) -> None:
    """A folder per set, under the name of its shards: what another program stored, as maps at the network's size."""
    model = from_pretrained(network)
    for name, protocol in (("nyuv2", "midas_nyu"), ("eth3d", "midas_eth3d")):
        (tmp_path / "maps" / name).mkdir(parents=True)
        for batch in evaluation_samples(shards / name):
            with torch.inference_mode():
                image = PROTOCOLS[protocol].resize_input(batch.image, model.size_multiple)
                np.save(tmp_path / "maps" / name / f"{batch.keys[0]}.npy", model(image)[0, 0].numpy())
    ledgers = []
    said = ["--representation", "disparity", "--ambiguity", "shift_scale"]
    for given, more in (([network], []), (["theirs"], ["--predictions", str(tmp_path / "maps"), *said])):
        out = tmp_path / f"{len(ledgers)}.json"
        main(["benchmark", *given, "--table", "midas_11", "--shards", str(shards), "--out", str(out), *more])
        ledgers.append(json.loads(out.read_text())["networks"][0])
    ours, theirs = ledgers
    assert (theirs["name"], theirs["weights_sha256"]) == ("theirs", None)
    for own, given in zip(ours["columns"], theirs["columns"], strict=True):
        assert given["ours"] == (own["ours"] if own["ours"] is None else pytest.approx(own["ours"], rel=1e-6))
    for folder in (tmp_path / "maps" / "eth3d").iterdir():
        folder.unlink()
    (tmp_path / "maps" / "eth3d").rmdir()
    capsys.readouterr()
    main(
        [
            "benchmark",
            "x",
            "--table",
            "midas_11",
            "--shards",
            str(shards),
            "--predictions",
            str(tmp_path / "maps"),
            *said,
            f"--out={tmp_path / 'x.json'}",
        ]
    )
    assert "x: ETH3D has no number: no stored predictions." in capsys.readouterr().out
