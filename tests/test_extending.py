"""A loss, a network, a protocol and a paradigm from a package outside of depthkit, as CONTRIBUTING says."""

import os
import subprocess
import sys
from pathlib import Path

MYLAB = """
from dataclasses import replace

from torch import Tensor, nn

from depthkit.evaluation import PROTOCOLS
from depthkit.masked import masked_mean
from depthkit.models import DepthNet, architecture, midas_timm
from depthkit.paradigms import DepthModule, Term
from depthkit.paradigms.terms.labels import DENSE, has_label, labels, readable, unit_range
from depthkit.types import Ambiguity, Representation


class MyLoss(nn.Module):
    def forward(self, pred: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        return masked_mean((pred - target.where(valid, 0)).abs(), valid)


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
"""
RUN = """
seed_everything: 0
model: {class_path: CLASS, init_args: {model: {class_path: mylab.my_network}, protocols: mylab.MINE}}
data:
  class_path: depthkit.data.DepthDataModule
  init_args:
    sources: [{root: SHARDS}]
    val_sources: [{root: SHARDS, split: test}]
    size: [64, 96]
    batch_size: 2
    num_workers: 0
trainer: {max_steps: 2, accelerator: cpu, logger: false, enable_progress_bar: false, default_root_dir: HERE}
"""


def test_parts_of_ones_own_train_and_validate(scenes: Path, tmp_path: Path) -> None:
    (tmp_path / "mylab.py").write_text(MYLAB)
    for name, more in (("mylab.MyModule", []), ("depthkit.paradigms.AffineInvariantModule", ["--model.loss", "mylab.MyLoss"])):
        recipe = tmp_path / f"{name}.yaml"
        recipe.write_text(RUN.replace("CLASS", name).replace("SHARDS", str(scenes)).replace("HERE", str(tmp_path)))
        command = [sys.executable, "-m", "depthkit.cli.main", "fit", "--config", str(recipe), *more]
        path = f"{tmp_path}:{Path(__file__).parents[1]}"
        done = subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
