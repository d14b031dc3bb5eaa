"""From a teacher and photographs to a student's program and one table."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from depthkit.cli.main import main
from depthkit.cli.training import distil as command
from depthkit.models import from_pretrained, midas_timm, save_network


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    network = midas_timm("test_resnet", pretrained=False, features=8)
    with torch.no_grad():
        for name, bias in network.named_parameters():
            if name.endswith("bias"):
                bias.add_(0.1)  # or the last ReLU of random weights may be dead
    save_network(network, tmp_path / "teacher.ckpt", ambiguity="shift_scale", size=(64, 96))
    return tmp_path / "teacher.ckpt"


def test_a_student_is_labelled_trained_exported_and_compared(teacher, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "STUDENTS", {"lite0": ("test_resnet", None)})  # of the weights there are
    made = command._recipe
    monkeypatch.setattr(command, "_recipe", lambda *words: _without_weights(made(*words)))
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(4):
        noise = np.random.default_rng(number).integers(0, 255, (64, 96, 3), dtype=np.uint8)
        Image.fromarray(noise).save(photos / f"{number}.png")
    out = tmp_path / "out"
    words = ["--out", str(out), "--size", "64", "96", "--steps", "2", "--batch_size", "2", "--format", "pt2"]
    fit = "[--trainer.enable_progress_bar=false, --trainer.enable_model_summary=false]"
    main(["distil", str(teacher), str(photos), *words, "--accelerator", "cpu", "--devices", "1", "--fit", fit])
    printed = capsys.readouterr().out
    assert "4 images labelled with shift_scale disparity" in printed
    assert "the pool, which the student learned from, by the labels of teacher" in printed
    rows = {line.split("  ")[0] for line in printed.splitlines()}
    assert {"teacher, teacher", "student, lite0", "student.pt2"} <= rows
    mae = {
        line.split("  ")[0]: float(line.split()[-1]) for line in printed.splitlines() if line.startswith(("teacher, ", "stu"))
    }
    assert mae["teacher, teacher"] < mae["student.pt2"]
    assert mae["student.pt2"] == pytest.approx(mae["student, lite0"], abs=0.05)
    program = from_pretrained(out / "student.pt2")
    assert program.fixed_size == (64, 96)
    recipe = yaml.safe_load((out / "recipe.yaml").read_text())
    assert recipe["data"]["init_args"]["epoch_size"] == 4


def _without_weights(recipe: dict) -> dict:
    recipe["model"]["init_args"]["model"]["init_args"]["pretrained"] = False
    return recipe


def test_a_size_or_a_teacher_that_cannot_be_is_one_sentence(tmp_path, capsys):
    for words, expected in (
        (["none.ckpt", str(tmp_path), "--size", "65", "96"], "a size of multiples of 32; got 5000 and 65x96"),
        (["none.ckpt", str(tmp_path), "--steps", "0"], "expected a step or more"),
        (["none.ckpt", str(tmp_path)], "expected images in"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["distil", *words, "--out", str(tmp_path / "out")])
        assert stop.value.code == 2
        assert expected in capsys.readouterr().err
