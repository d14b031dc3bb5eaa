from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from depthkit.cli.main import main

QUICKSTART = Path(__file__).parents[2] / "recipes" / "quickstart.yaml"
SMALL = (
    "{class_path: depthkit.models.midas_timm, init_args: {backbone: mobilenetv3_small_050, features: 16, pretrained: false}}"
)


def complaint(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a wrong command prints before it ends with code 2: one line, no traceback."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said.strip().splitlines()[-1]


def recipe(tmp_path: Path, change: str, value: object) -> str:
    config = OmegaConf.load(QUICKSTART)
    OmegaConf.update(config, change, value, force_add=True)
    OmegaConf.save(config, tmp_path / "recipe.yaml")
    return str(tmp_path / "recipe.yaml")


@pytest.mark.parametrize(
    ("change", "value", "culprit"),
    [
        ("model.init_args.gradient_wieght", 1.0, "gradient_wieght"),
        ("data.init_args.batch_sise", 4, "batch_sise"),
        ("trainer.max_epoch", 4, "max_epoch"),
        ("trainerr", {"max_epochs": 1}, "trainerr"),
        ("data.init_args.batch_size", "many", "batch_size"),
        ("model.init_args.loss", {"class_path": "depthkit.losses.SSILoss", "init_args": {"trimm": 0.1}}, "trimm"),
        ("model.init_args.loss", {"class_path": "depthkit.losses.NoSuchLoss"}, "NoSuchLoss"),
    ],
)
def test_a_wrong_key_in_a_recipe_is_named(
    change: str, value: object, culprit: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = complaint(["fit", "--config", recipe(tmp_path, change, value)], capsys)
    assert said.startswith("RecipeError")
    assert culprit in said


@pytest.mark.parametrize(
    ("option", "culprit"),
    [
        ("--model.protocols=nope", "unknown protocol 'nope'"),
        ("--model.encoder_lr=-1", "expected encoder_lr of 0 or more"),
        ("--model.model.init_args.backbone=nosuch", "nosuch"),
    ],
)
def test_what_a_constructor_refuses_is_one_sentence(option: str, culprit: str, capsys: pytest.CaptureFixture[str]) -> None:
    small = f"--model.model={SMALL}"
    assert culprit in complaint(["fit", "--config", str(QUICKSTART), small, option], capsys)


@pytest.mark.parametrize("written", ["--data.sources={}", "--data.sources {}"])
def test_datasets_on_the_command_line_take_the_place_of_the_recipes(written: str, capsys: pytest.CaptureFixture[str]) -> None:
    mine = "[{root: mine}, {root: other}]"  # as many as the recipe has, the second of which hides its labels
    option = [part.format(mine) for part in written.split()]
    with pytest.raises(SystemExit):
        main(["fit", "--config", "semi_supervised/synthetic_student", *option, "--print_config"])
    sources = yaml.safe_load(capsys.readouterr().out)["data"]["init_args"]["sources"]
    plain = {"split": "train", "name": None, "transform": None, "size": None}
    assert sources == [{"root": "mine", **plain}, {"root": "other", **plain}]


def test_there_is_no_last_checkpoint_before_a_first_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--config", str(QUICKSTART), f"--trainer.default_root_dir={tmp_path}", "--ckpt_path=last"]
    assert f"expected a checkpoint of a run under {tmp_path}; there is none" in complaint(["fit", *options], capsys)


def test_a_recipe_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere.yaml" in complaint(["fit", "--config", "nowhere.yaml"], capsys)


def test_shards_that_are_not_there_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [
        f"--data.sources=[{{root: {tmp_path}/none}}]",
        f"--trainer.default_root_dir={tmp_path}",
        f"--model.model={SMALL}",
    ]
    assert f"{tmp_path}/none" in complaint(["fit", "--config", str(QUICKSTART), *options], capsys)


def test_a_checkpoint_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    said = complaint(["test", "--config", str(QUICKSTART), "--ckpt_path", "gone.ckpt"], capsys)
    assert said.startswith("CheckpointError: expected a checkpoint at gone.ckpt")


def test_a_file_that_is_no_checkpoint_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.ckpt").write_text("energy, and the rest of it")
    assert "notes.ckpt" in complaint(["evaluate", str(tmp_path / "notes.ckpt"), "shards"], capsys)


@pytest.mark.parametrize("command", ["fitt", "shard"])
def test_an_unknown_command_is_answered_with_those_there_are(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = complaint([command], capsys)
    assert command in said
    assert "shards" in said


def test_without_a_command_the_commands_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    listed = capsys.readouterr().out
    assert all(name in listed for name in ("fit", "validate", "test", "predict", "shards", "evaluate", "demo"))
