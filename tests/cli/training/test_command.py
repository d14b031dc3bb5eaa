import os
import re
import shutil
import signal
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import LambdaCallback

from depthkit.cli.main import main
from depthkit.cli.training.command import run
from depthkit.cli.training.resuming import last_checkpoint
from depthkit.inference import DepthPredictor
from depthkit.models import midas_timm, save_network
from depthkit.paradigms import AffineInvariantModule
from depthkit.types import Ambiguity, Representation

QUICKSTART = Path(__file__).parents[3] / "recipes" / "quickstart.yaml"
SMALL = (
    "{class_path: depthkit.models.midas_timm, init_args: {backbone: mobilenetv3_small_050, features: 16, pretrained: false}}"
)


@pytest.fixture(scope="module")
def options(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    root = tmp_path_factory.mktemp("run")
    return [
        f"--config={QUICKSTART}",
        f"--model.model={SMALL}",
        f"--data.sources=[{{root: {scenes}}}]",
        "--data.mixing=depthkit.data.EqualParts",
        f"--data.val_sources=[{{root: {scenes}, split: test}}]",
        f"--data.test_sources=[{{root: {scenes}, split: test}}]",
        "--data.batch_size=2",
        "--data.num_workers=0",
        "--trainer.max_epochs=1",
        "--trainer.enable_progress_bar=false",
        f"--trainer.default_root_dir={root}",
    ]


@pytest.fixture(scope="module")
def checkpoint(options: list[str]) -> Path:
    main(["fit", *options])
    root = next(o for o in options if "default_root_dir" in o).partition("=")[2]
    return next(Path(root).rglob("last.ckpt"))


def test_a_checkpoint_holds_plain_values_and_says_how_to_rebuild_its_network(checkpoint: Path) -> None:
    facts = torch.load(checkpoint, weights_only=True)["depthkit"]
    assert facts["representation"] == "disparity"
    assert facts["ambiguity"] == "shift_scale"
    assert facts["size"] == [96, 128]
    assert facts["model"]["architecture"] == "midas_timm"


def test_what_is_loaded_for_use_is_what_was_trained(checkpoint: Path) -> None:
    module = AffineInvariantModule.load_from_checkpoint(checkpoint).eval()
    predictor = DepthPredictor.from_pretrained(checkpoint)
    assert (predictor.representation, predictor.ambiguity) == (Representation.DISPARITY, Ambiguity.SHIFT_SCALE)
    image = torch.rand(1, 3, 96, 128)
    with torch.no_grad():
        torch.testing.assert_close(module(image), predictor.model(image))


def test_training_goes_on_from_a_checkpoint_and_warns_of_nothing(
    options: list[str],
    checkpoint: Path,
    tmp_path: Path,
    recwarn: pytest.WarningsRecorder,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = shutil.copytree(checkpoint.parents[3], tmp_path / "run")
    main(["fit", *options, f"--trainer.default_root_dir={root}", "--trainer.max_epochs=2", "--ckpt_path=last"])
    newest = max(root.rglob("last*.ckpt"), key=lambda path: path.stat().st_mtime)
    assert torch.load(newest, weights_only=True)["global_step"] == 2 * torch.load(checkpoint, weights_only=True)["global_step"]
    assert [str(warning.message) for warning in recwarn] == []
    assert "Tip" not in caplog.text
    said = capsys.readouterr()
    assert re.search(r"^step 6\n +abs_rel.* images\n-.*\nroom +0\.\d{4}.* \d+$", said.out, re.MULTILINE)
    assert f"MODEL for the other commands: {newest}\n" in said.out
    assert re.search(r"^AffineInvariantModule: [\d,]+ parameters, [\d,]+ of them trained$", said.out, re.MULTILINE)
    assert not {"TPU", "FLOPs", "Loading"} & set(re.findall(r"\w+", caplog.text + said.err + said.out))


@pytest.mark.slow
def test_auto_begins_a_run_and_goes_on_with_it_wherever_its_checkpoints_are(options: list[str], tmp_path: Path) -> None:
    own = f"--trainer.callbacks=[{{class_path: ModelCheckpoint, init_args: {{save_last: true, dirpath: {tmp_path}/own}}}}]"
    logger = ["--trainer.logger=CSVLogger", f"--trainer.logger.save_dir={tmp_path}", "--trainer.logger.name=named"]
    again = ["fit", *options, *logger, f"--trainer.default_root_dir={tmp_path}", "--ckpt_path=auto"]
    for epochs, place, file in (
        (1, [], "named/*/checkpoints/last.ckpt"),
        (2, [own], "own/last.ckpt"),
        (3, [own], "own/last.ckpt"),
    ):
        main([*again, *place, f"--trainer.max_epochs={epochs}"])
        newest = max(tmp_path.glob(file), key=lambda path: path.stat().st_mtime)
        assert torch.load(newest, weights_only=True)["global_step"] == 3 * epochs


def test_sigterm_ends_in_a_code_of_its_own_and_a_checkpoint(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["fit", *options, "--trainer.max_epochs=5", f"--trainer.default_root_dir={tmp_path}"]
    with pytest.raises(SystemExit) as stop:
        run(arguments, [LambdaCallback(on_train_batch_end=lambda *_: os.kill(os.getpid(), signal.SIGTERM))])
    assert stop.value.code == 128 + signal.SIGTERM
    assert "--ckpt_path auto goes on" in capsys.readouterr().err
    assert torch.load(last_checkpoint(tmp_path), weights_only=True)["global_step"] == 1


def test_numbers_that_a_subclass_logs_are_printed_too(
    options: list[str], checkpoint: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scored = AffineInvariantModule._score

    def score(self: AffineInvariantModule, *args: object) -> object:
        self.log("val/own", 0.25, batch_size=1)
        return scored(self, *args)

    monkeypatch.setattr(AffineInvariantModule, "_score", score)
    main(["validate", *options, f"--ckpt_path={checkpoint}"])
    room, own = capsys.readouterr().out.splitlines()[-2:]
    assert own == "val/own: 0.2500"
    assert room.startswith("room ")
    assert len(room.split()) > 5


def test_test_and_evaluate_print_the_same_numbers(
    options: list[str], checkpoint: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["test", *options, f"--ckpt_path={checkpoint}"])
    tested = capsys.readouterr().out
    main(["evaluate", str(checkpoint), f"[{scenes}]", f"--out={tmp_path}"])
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("last "))
    abs_rel = float(row.split()[1])
    assert abs_rel == float(next(line for line in tested.splitlines() if line.startswith("room ")).split()[1])
    assert len(list(tmp_path.glob("*.html"))) == 1


def test_a_checkpoint_of_another_network_is_refused_in_one_sentence(
    options: list[str], checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = SMALL.replace("features: 16", "features: 8")
    with pytest.raises(SystemExit) as stop:
        main(["test", *options, f"--model.model={other}", f"--ckpt_path={checkpoint}"])
    assert stop.value.code == 2
    assert "CheckpointError" in capsys.readouterr().err


def test_a_file_that_is_no_checkpoint_or_was_cut_off_is_one_sentence(
    options: list[str], checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.ckpt").write_text("no weights")
    (tmp_path / "cut.ckpt").write_bytes(checkpoint.read_bytes()[:-1000])
    for file in ("notes.ckpt", "cut.ckpt"):
        with pytest.raises(SystemExit) as stop:
            main(["test", *options, f"--ckpt_path={tmp_path / file}"])
        assert stop.value.code == 2
        assert "it cannot be read: " in capsys.readouterr().err


@pytest.mark.quick(command=["test"])
@pytest.mark.parametrize("command", ["validate", "test"])
def test_a_network_that_was_saved_alone_serves_a_recipe(command: str, options: list[str], tmp_path: Path) -> None:
    model = midas_timm("mobilenetv3_small_050", features=16, pretrained=False).eval()
    save_network(model, tmp_path / "network.ckpt", ambiguity="shift_scale", size=(96, 128))
    main([command, *options, f"--ckpt_path={tmp_path / 'network.ckpt'}"])


def test_training_starts_from_a_network_that_was_saved_alone(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = midas_timm("mobilenetv3_small_050", features=16, pretrained=False)
    save_network(model, tmp_path / "network.ckpt", ambiguity="shift_scale")
    with pytest.raises(SystemExit):
        main(["fit", *options, f"--ckpt_path={tmp_path / 'network.ckpt'}"])
    assert "holds a network alone. Start a new run from its weights: --model.weights" in capsys.readouterr().err
    found = run(
        ["fit", *options, f"--model.weights={tmp_path / 'network.ckpt'}", "--trainer.max_steps=1", "--model.encoder_lr=0"]
    )
    trained, given = found.model.model.encoder.backbone.conv_stem.weight, model.encoder.backbone.conv_stem.weight
    assert torch.equal(trained, given)


@pytest.mark.quick(command=["fit"])
@pytest.mark.parametrize("command", ["fit", "test"])
def test_a_checkpoint_of_another_program_is_one_sentence(
    command: str, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"state_dict": {}, "hyper_parameters": {"lr": 1.0}, "pytorch-lightning_version": "2.6.4"}, tmp_path / "a.ckpt")
    torch.save({"state_dict": {}, "depthkit": tmp_path}, tmp_path / "b.ckpt")
    torch.save([1], tmp_path / "c.ckpt")
    for name in "abc":
        with pytest.raises(SystemExit) as stop:
            main([command, *options, f"--ckpt_path={tmp_path / f'{name}.ckpt'}"])
        assert stop.value.code == 2
        message = capsys.readouterr().err
        assert "expected a checkpoint of `depthkit fit`" in message
        assert "Traceback" not in message
        assert "weights_only" not in message


def test_help_of_fit_names_the_options_of_model_and_data(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--help"])
    assert not stop.value.code
    said = capsys.readouterr().out
    for words in (
        "  AffineInvariantModule ",
        "  optimizer",
        "  sources ",
        "  batch_size = ",
        "  val_sources ",
        "--model.help NAME",
    ):
        assert words in said
    undescribed = [line for line in said.partition("models, --model")[2].splitlines() if len(line.split()) == 1]
    assert undescribed == []
