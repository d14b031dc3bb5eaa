"""Ours against the evaluation of the published package ``monodepth2``: depth on KITTI, odometry, flip.

Where to find the package: see ``test_monodepth2.py``.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from depthkit.evaluation import PROTOCOLS, Report
from depthkit.metrics import TrajectoryError
from depthkit.metrics.functional import trajectory_error
from depthkit.models import FlipAverage
from depthkit.types import Ambiguity, LabelKind, Representation
from tests.parity.test_monodepth2 import _folder, assert_same

METRIC_DEPTH = LabelKind(Ambiguity.METRIC, Representation.DEPTH)


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = _folder()
    if folder is None or not (folder / "evaluate_depth.py").is_file():
        pytest.skip("needs DEPTHKIT_MONODEPTH2, the unpacked package that test_monodepth2.py says how to get")
    output = tmp_path_factory.mktemp("oracle") / "evaluation.pt"
    program = Path(__file__).with_name("monodepth2_evaluation_oracle.py")
    run = subprocess.run([sys.executable, str(program), str(folder), str(output)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return torch.load(output, weights_only=True)


def test_odometry(oracle, record_property):
    reference = oracle["odometry"]
    errors = trajectory_error(reference["pred"], reference["target"])
    assert reference["errors"].min() > 0.1
    assert_same([errors], [reference["errors"]], "trajectory error", record_property)
    metric = TrajectoryError()
    metric.update(reference["pred"], reference["target"])
    mean, std = reference["errors"].mean(), reference["errors"].std(correction=0)
    assert_close(metric.compute(), {"trajectory_error": mean, "trajectory_error_std": std}, rtol=0, atol=1e-6)


@pytest.mark.parametrize("split", ["eigen", "improved"])
@pytest.mark.parametrize("scaling", ["", "_metric"])
def test_depth_on_kitti(oracle, record_property, split, scaling):
    protocol = PROTOCOLS[f"monodepth2_{split}{scaling}"]
    found, expected, rows = [], [], []
    for image in oracle["kitti"]["images"]:
        disparity, depth = (image[name][None, None] for name in ("disparity", "depth"))
        scores = protocol.score(disparity, Representation.DISPARITY, depth, depth > 0, kind=METRIC_DEPTH)
        found.append(torch.stack([scores[name][0] for name in protocol.metrics]))
        expected.append(image[split + scaling])
        rows.append({"scale": scores["scale"].item(), "left_out": False, "degenerate": False})
    ours, theirs = torch.stack(found), torch.stack(expected)
    record_property("errors, relative", (ours / theirs - 1)[:, :4].abs().max().item())
    record_property("accuracies", (ours - theirs)[:, 4:].abs().max().item())
    assert_close(ours[:, :4], theirs[:, :4], rtol=2e-5, atol=0)  # OpenCV rounds its weights
    assert_close(ours[:, 4:], theirs[:, 4:], rtol=0, atol=1e-4)  # and so may put a pixel or two across a threshold
    if not scaling:
        ratios = torch.tensor([image[f"{split}_scale"] for image in oracle["kitti"]["images"]], dtype=torch.float64)
        median = ratios.median().item()
        expected_scale = (median, (ratios / median).std(correction=0).item())
        assert Report(protocol, "", {}, rows).scale == pytest.approx(expected_scale, rel=1e-4, abs=1e-5)


class TwoMaps(nn.Module):
    """One map for images, another for mirrored ones, which are told by their first pixel."""

    representation = Representation.DISPARITY

    def __init__(self, seen: torch.Tensor, mirrored: torch.Tensor) -> None:
        super().__init__()
        self.maps = seen[:, None], mirrored[:, None]

    def forward(self, image):
        assert (image[:2, 0, 0, 0] == 0).all()
        assert (image[2:, 0, 0, 0] == 1).all()
        return torch.cat(self.maps)


def test_flip(oracle, record_property):
    reference = oracle["flip"]
    image = torch.linspace(0, 1, 80, dtype=torch.float64).expand(2, 3, 24, 80)
    found = FlipAverage(TwoMaps(reference["seen"], reference["mirrored"]))(image)
    assert_same([found[:, 0]], [reference["averaged"]], "flip", record_property)
