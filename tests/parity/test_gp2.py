"""Ours against GP2's networks on the packages they were released on, with the same weights: at most 1e-5 apart.

The packages are no dependencies, and old versions. Unpack them with ``pip install --no-deps --target FOLDER
segmentation-models-pytorch==0.1.0 efficientnet-pytorch==0.6.3 pretrainedmodels==0.7.4 geffnet munch six`` and point
``DEPTHKIT_GP2`` at the folder.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

import depthkit.models
from depthkit.models import load_published

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    packages = os.environ.get("DEPTHKIT_GP2")
    if packages is None:
        pytest.skip("needs DEPTHKIT_GP2, the folder of packages that this file's docstring says how to unpack")
    output, program = tmp_path_factory.mktemp("gp2"), Path(__file__).with_name("gp2_oracle.py")
    command = [sys.executable, str(program), packages, str(output), str(torch.get_num_threads())]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return output


@pytest.mark.parametrize("name", ["mobilenetv2", "efficientnet_lite0", *(f"efficientnet_b{k}" for k in range(6))])
@torch.no_grad()
def test_a_released_file_computes_what_the_released_network_does(oracle, record_property, name):
    reference = torch.load(oracle / f"{name}.pt", weights_only=True)
    options = {} if name == "mobilenetv2" else {"released_taps": True}
    model = getattr(depthkit.models, f"lrn_{name}")(pretrained=False, **options).eval()
    load_published(model, reference["file"], source="gp2")
    for found, expected in zip(model.encode(reference["image"]), reference["maps"], strict=True):
        assert_close(found, expected, rtol=0, atol=TOLERANCE * float(expected.abs().max()))
    difference = float((model(reference["image"]) - reference["log_disparity"]).abs().max())
    record_property("difference", difference)
    record_property("spread", float(reference["log_disparity"].std()))
    assert reference["log_disparity"].std() > 0.1
    assert difference <= TOLERANCE, f"{difference:.1e}"
