"""A loss, a network, a protocol, a paradigm, a mixing and a dataset from outside of depthkit, as CONTRIBUTING says."""

import sys
from pathlib import Path

import pytest

from depthkit.cli.main import main
from depthkit.cli.training.command import run
from depthkit.convert.catalogue import find
from depthkit.errors import RecipeError
from depthkit.shards import ShardIndex, verify

MYLAB = """
from dataclasses import replace

import numpy as np
from torch import Tensor, nn

from depthkit.data import Mixing
from depthkit.evaluation import PROTOCOLS
from depthkit.masked import masked_mean
from depthkit.models import DepthNet, architecture, midas_timm
from depthkit.paradigms import DepthModule, Term
from depthkit.paradigms.terms.labels import DENSE, has_label, labels, readable, unit_range
from depthkit.types import Ambiguity, Representation, Sample


class MyLoss(nn.Module):
    def forward(self, pred: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        return masked_mean((pred - target.where(valid, 0)).abs(), valid)


class MyMixing(Mixing):
    def filled(self, places, samples, labelled):  # three of four from the first dataset
        return np.array([places - places // 4, places // 4])


@architecture
def my_network(*, features: int = 8) -> DepthNet:
    return midas_timm("mobilenetv2_035", pretrained=False, features=features)


MINE = replace(PROTOCOLS["synthetic_affine"], name="mine", max_depth=12.0)


class MyModule(DepthModule):
    accepts = readable(DENSE)
    ambiguity = Ambiguity.SHIFT_SCALE

    def losses(self, batch):
        target, valid = labels(batch, Representation.DISPARITY, DENSE)
        error = (self.model(batch.image) - unit_range(target, valid)).square()
        return {"square": Term(masked_mean(error, valid), has_label(valid))}


def plates(root, split=None, *, count: int, grey: int = 7):
    for n in range(count):
        yield Sample(f"{n}", np.full((8, 9, 3), grey, np.uint8))
"""
RUN = """
seed_everything: 0
model: {class_path: CLASS, init_args: {model: {class_path: mylab.my_network}, protocols: mylab.MINE}}
data:
  class_path: depthkit.data.DepthDataModule
  init_args:
    sources: [{root: SHARDS}, {root: SHARDS, split: test, name: other}]
    mixing: {class_path: mylab.MyMixing}
    val_sources: [{root: SHARDS, split: test}]
    size: [64, 96]
    batch_size: 2
    num_workers: 0
trainer: {max_epochs: 1, accelerator: cpu, logger: false, enable_progress_bar: false, default_root_dir: HERE}
"""


@pytest.mark.filterwarnings("ignore")
def test_parts_of_ones_own_train_and_validate(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mylab.py").write_text(MYLAB)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mylab", raising=False)
    for name, more in (("mylab.MyModule", []), ("depthkit.paradigms.AffineInvariantModule", ["--model.loss", "mylab.MyLoss"])):
        recipe = tmp_path / f"{name}.yaml"
        recipe.write_text(RUN.replace("CLASS", name).replace("SHARDS", str(scenes)).replace("HERE", str(tmp_path)))
        cli = run(["fit", "--config", str(recipe), *more])
        assert any(name.startswith("val/") and value.isfinite() for name, value in cli.trainer.callback_metrics.items())


def test_a_dataset_of_ones_own_is_written_by_its_functions_name_and_options(tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / "mylab.py").write_text(MYLAB)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mylab", raising=False)
    command = ["shards", "write", "mylab:plates", "source", "out", "--split", "val", "--count", "3", "--grey"]
    main([*command, "9"])
    index = ShardIndex.load(tmp_path / "out")
    assert (index.dataset, index.samples("val")) == ("source", 3)
    main([*command, "9"])
    assert "split 'val' is complete" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*command, "8"])
    assert "their grey was 9 and is 8 now" in capsys.readouterr().err
    assert verify(tmp_path / "out").ok


@pytest.mark.parametrize(
    ("name", "says"),
    [("mylab:no", "has no attribute 'no'"), ("nolab:plates", "No module named 'nolab'"), ("mylab:np", "got module")],
)
def test_what_is_no_dataset_of_ones_own_is_one_sentence(tmp_path: Path, monkeypatch, name: str, says: str) -> None:
    (tmp_path / "mylab.py").write_text(MYLAB)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mylab", raising=False)
    with pytest.raises(RecipeError, match=says):
        find(name)
