"""What a user, a machine or a disk gets wrong is one sentence and exit code 2, for every command; a defect is a traceback."""

import re
import socket
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from depthkit.cli import main as entry
from depthkit.cli.main import main
from depthkit.cli.training import command
from depthkit.models import midas_timm, save_network

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("net") / "net.ckpt"
    save_network(midas_timm("mobilenetv3_small_050", pretrained=False, features=8), file, ambiguity="shift_scale")
    return file


def stopped(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The sentence of a command that stops with code 2."""
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


FIT = (
    "fit --config quickstart --model.model.backbone mobilenetv3_small_050 --model.model.pretrained false --data.num_workers 0 "
    "--data.sources [{root:SCENES}] --data.val_sources [{root:SCENES,split:test}] --data.mixing EqualParts --data.batch_size 2 "
    "--trainer.enable_progress_bar false --trainer.max_epochs 1"
)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--trainer.accelerator tpu", "Requirement"),
        pytest.param(
            "--trainer.devices 0", "MisconfigurationException: .*not a valid input.*depthkit fit --help", marks=pytest.mark.slow
        ),
        ("--trainer.default_root_dir FILE/x", "NotADirectoryError: .*Give a path that may be read and written"),
        ("--trainer.val_check_interval 1000", "ValueError: .*must be less than or equal"),
        pytest.param(
            "--trainer.devices 3.5",
            "TypeError: `devices` selected with `CPUAccelerator` should be an int > 0",
            marks=pytest.mark.slow,
        ),
        ("--trainer.accumulate_grad_batches 0", "RecipeError: expected trainer.accumulate_grad_batches of at least 1; got 0"),
        pytest.param(
            "--trainer.check_val_every_n_epoch 0",
            "RecipeError: expected trainer.check_val_every_n_epoch of at least 1; got 0",
            marks=pytest.mark.slow,
        ),
        ("--data.multiprocessing_context foo", "RecipeError: expected data.multiprocessing_context among fork, .*; got 'foo'"),
        ("--ckpt_path s3://nope/x.ckpt", "ImportError: .*[sS]3"),
        ("--config FILE", "RecipeError: .*utf-8"),
        (
            "--trainer.callbacks+=EarlyStopping --trainer.callbacks.monitor=val/room/nope",
            "RecipeError: expected a monitor of EarlyStopping that validation logs: val/room/abs_rel, .*; got 'val/room/nope'",
        ),
    ],
)
def test_fit_names_what_the_trainer_refuses(options, expected, scenes, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "file"
    file.write_bytes(b"\xd0\xff")
    words = f"{FIT} {options}".replace("SCENES", str(scenes)).replace("FILE", str(file)).split()
    words = [word.replace("root:", "root: ").replace(",split:", ", split: ") for word in words]
    assert re.match(expected, stopped(words, capsys).replace("ModuleNotFoundError: ", ""))


@pytest.mark.parametrize(
    "words",
    [
        "evaluate NET SCENES --split test --protocol synthetic_affine --out FILE/x",
        "predict NET PHOTOS --out FILE/x",
        "finetune NET SCENES --out FILE/x",
        "label NET PHOTOS FILE/x",
        "export NET FILE/x.pt2 --size [64,64]",
        "distil NET PHOTOS --out FILE/x",
        "recipes quickstart --out FILE/x",
        "compare FILE FILE",
        "shards write synthetic - FILE/x --count 2",
        "shards info FILE",
    ],
)
def test_a_path_in_a_file_is_named(words, net, scenes, tmp_path, capsys):
    file, photo = tmp_path / "file", tmp_path / "photos" / "a.png"
    file.write_text("")
    photo.parent.mkdir()
    Image.new("RGB", (64, 64)).save(photo)
    for name, path in (("NET", net), ("SCENES", scenes), ("PHOTOS", photo.parent), ("FILE", file)):
        words = words.replace(name, str(path))
    message = stopped(words.split(), capsys)
    assert str(file) in message


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."), "Take smaller batches"),
        (torch.distributed.DistNetworkError("The server socket has failed to listen: EADDRINUSE"), "MASTER_PORT"),
        (ConnectionResetError(104, "Connection reset by peer"), "Check the network"),
        (OSError(28, "No space left on device", "run/last.ckpt"), "run/last.ckpt.*on a disk with room"),
    ],
)
def test_errors_of_the_machine_come_with_a_remedy(error, expected, monkeypatch, capsys):
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr(command, "run", fail)
    assert re.search(expected, stopped(["fit"], capsys))


def test_a_defect_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(entry, "_command", lambda arguments: {}["missing"])
    with pytest.raises(KeyError):
        main(["shards"])


def test_the_app_names_what_it_cannot_have(net, capsys, monkeypatch, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        pytest.importorskip("gradio")
        assert f"expected a free port of this machine; {port} cannot be had" in stopped(
            ["app", str(net), "--port", str(port)], capsys
        )
    assert "expected a port between 1 and 65535; got 70000" in stopped(["app", str(net), "--port", "70000"], capsys)
    assert "expected a MODEL at" in stopped(["app", str(tmp_path / "no.ckpt"), "--port", str(port)], capsys)
    assert "expected one MODEL, or two to compare; got 3" in stopped(["app", "a", "b", "c"], capsys)
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert "pip install 'depthkit[app]'" in stopped(["app", str(net)], capsys)
