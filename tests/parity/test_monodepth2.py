"""Ours against the published package ``monodepth2``, with the same weights and random inputs: at most 1e-6 apart.

The package is no dependency. Unpack it with ``pip install --no-deps --target FOLDER monodepth2`` and point
``DEPTHKIT_MONODEPTH2`` at the folder; an installed one is found too.
"""

import importlib.util
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from depthkit.errors import CheckpointError
from depthkit.geometry import invert_pose, pose_from_axis_angle, warp
from depthkit.losses import functional
from depthkit.models import (
    PredictiveMask,
    load_published,
    monodepth2_resnet18,
    monodepth2_resnet50,
    pose_cnn,
    pose_resnet18,
    pose_shared,
)
from depthkit.paradigms import SelfSupervisedVideoModule
from depthkit.representation import sigmoid_to_disparity
from tests.contracts.paradigm import METRIC_DEPTH, batch

TOLERANCE = 1e-6


def _folder() -> Path | None:
    if "DEPTHKIT_MONODEPTH2" in os.environ:
        return Path(os.environ["DEPTHKIT_MONODEPTH2"])
    spec = importlib.util.find_spec("monodepth2")  # the top-level module is not run
    return Path(spec.origin).parent if spec is not None and spec.origin else None


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = _folder()
    if folder is None or not (folder / "networks" / "depth_decoder.py").is_file():
        pytest.skip("needs DEPTHKIT_MONODEPTH2, the unpacked package that test_monodepth2.py says how to get")
    output = tmp_path_factory.mktemp("oracle") / "monodepth2.pt"
    program = Path(__file__).with_name("monodepth2_oracle.py")
    command = [sys.executable, str(program), str(folder), str(output), str(torch.get_num_threads())]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return torch.load(output, weights_only=False)


def assert_same(found, expected, name: str, record) -> None:
    """Every tensor within the tolerance; the greatest difference becomes a property of the test."""
    difference = max((a.double() - b.double()).abs().max().item() for a, b in zip(found, expected, strict=True))
    assert all(a.shape == b.shape for a, b in zip(found, expected, strict=True))
    record(name, difference)
    assert difference <= TOLERANCE, f"{name}: {difference:.1e}"


def _loaded(model: nn.Module, state: dict) -> nn.Module:
    load_published(model, state, source="monodepth2")
    return model.eval()


@pytest.mark.parametrize(("name", "build"), [("resnet18", monodepth2_resnet18), ("resnet50", monodepth2_resnet50)])
@torch.no_grad()
def test_depth_networks(oracle, record_property, name, build):
    reference = oracle[name]
    model = _loaded(build(pretrained=False), {key: reference[key] for key in ("encoder", "depth")})
    features = model.encode(reference["image"])
    assert_same(features, reference["features"], "features", record_property)
    assert_same(model.multiscale_of(features), reference["sigmoids"], "sigmoids", record_property)
    disparity = sigmoid_to_disparity(reference["sigmoids"][0], min_depth=0.1, max_depth=100.0)
    assert (model(reference["image"]) / disparity - 1).abs().max() <= TOLERANCE
    mask = PredictiveMask(model.encoder.channels, model.encoder.strides, sources=2)
    _loaded(mask, {"predictive_mask": reference["predictive_mask"]})
    assert_same(mask(features), reference["masks"], "masks", record_property)


@pytest.mark.parametrize("frames", [2, 3])
@torch.no_grad()
def test_pose_networks(oracle, record_property, frames):
    reference = oracle["poses"][frames]
    nets = {
        "separate": _loaded(
            pose_resnet18(pretrained=False, frames=frames), {k: reference[k] for k in ("pose_encoder", "pose")}
        ),
        "shared": _loaded(pose_shared(frames=frames), {"pose": reference["shared_pose"]}),
        "cnn": _loaded(pose_cnn(frames=frames), {"pose": reference["cnn_pose"]}),
    }
    for name, net in nets.items():
        found = net.motions(reference["maps"] if name == "shared" else reference["frames"])
        expected = [motion[:, : frames - 1, 0] for motion in reference[name]]
        assert max(x.abs().max() for x in expected) > 1e-4
        assert_same(found, expected, name, record_property)


def test_poses_and_warps(oracle, record_property):
    reference = oracle["geometry"]
    pose = pose_from_axis_angle(reference["axis_angle"], reference["translation"])
    assert_same([pose], [reference["pose"]], "pose", record_property)
    inverted = pose_from_axis_angle(reference["axis_angle"], reference["translation"], invert=True)
    assert_same([inverted, invert_pose(pose)], [reference["inverted"]] * 2, "inverted pose", record_property)
    disparity = sigmoid_to_disparity(reference["sigmoid"], min_depth=0.1, max_depth=100.0)
    assert_same([disparity], [reference["disparity"]], "disparity", record_property)
    warped = warp(reference["image"], reference["depth"], reference["intrinsics"], reference["pose"])
    assert (reference["warped"] - reference["image"]).abs().mean() > 0.01
    assert_same([warped], [reference["warped"]], "warp", record_property)


def test_losses(oracle, record_property):
    reference = oracle["losses"]
    target, warped, sources = (reference[key] for key in ("target", "warped", "sources"))
    ssim = functional.photometric_error(warped[:, 0], target, ssim_weight=1.0)
    assert_same([ssim], [reference["ssim"].mean(1, True)], "SSIM", record_property)
    assert_same([functional.photometric_error(warped[:, 0], target)], [reference["error"]], "error", record_property)

    def loss(**options):
        generator = torch.Generator().manual_seed(7)
        return functional.min_reprojection(target, warped, sources, generator=generator, **options)

    rows = {
        "full": loss(),
        "averages": loss(reduction="mean"),
        "min_only": loss(automask=False),
        "mean_only": loss(automask=False, reduction="mean"),
        "predictive": loss(automask=False, predictive_mask=reference["mask"]),
    }
    for name, row in rows.items():
        assert_same([row.loss.mean()], [reference[name]], name, record_property)
    assert torch.equal(rows["full"].selected[:, 0] >= 0, reference["identity_selection"])
    assert 0.1 < reference["identity_selection"].float().mean() < 0.9
    smoothness = functional.edge_aware_smoothness_loss(reference["sigmoid"], target).mean()
    assert_same([smoothness], [reference["smoothness"]], "smoothness", record_property)


def test_a_whole_step_has_the_published_loss_and_gradient(oracle, record_property, monkeypatch):
    """Depth and pose networks, warps, minimum, automask, four scales, smoothness: what the optimizer follows."""
    reference = oracle["step"]
    target, *sources = reference["views"].unbind(1)
    held = replace(
        batch([(0, METRIC_DEPTH)] * 2, size=tuple(target.shape[-2:])),
        image=target,
        frames=torch.stack(sources, 1),
        frames_from_camera=torch.full((2, 2, 4, 4), torch.nan),
        frame_names=("prev", "next"),
        intrinsics=reference["intrinsics"],
    )
    files = (("encoder", "depth"), ("pose_encoder", "pose"))
    parts = monodepth2_resnet18(pretrained=False), pose_resnet18(pretrained=False)
    for part, names in zip(parts, files, strict=True):
        _loaded(part, {name: reference["states"][name] for name in names})
    module = SelfSupervisedVideoModule(*parts).eval()
    noise, draw = torch.Generator().manual_seed(11), torch.randn
    monkeypatch.setattr(torch, "randn", lambda *size, generator=None, **options: draw(*size, generator=noise, **options))
    loss = module.combine(module, held).total
    loss.backward()
    assert_same([loss.detach()], [reference["loss"]], "loss", record_property)
    for part, build, names in zip(parts, (monodepth2_resnet18, pose_resnet18), files, strict=True):
        expected = _loaded(build(pretrained=False), {name: reference["gradients"][name] for name in names})
        pairs = [
            (p.grad, q.detach()) for p, q in zip(part.parameters(), expected.parameters(), strict=True) if p.grad is not None
        ]
        ours, theirs = (torch.cat([pair[i].flatten() for pair in pairs]) for i in (0, 1))
        assert theirs.norm() > 1e-4
        assert (ours - theirs).norm() < 1e-3 * theirs.norm()


def test_files_that_do_not_fit_are_refused_with_every_name(oracle):
    reference = oracle["resnet18"]
    model = monodepth2_resnet18(pretrained=False)
    with pytest.raises(CheckpointError, match=r"28 missing: decoder\.up\.0\.reduce\.weight, "):
        load_published(model, {"encoder": reference["encoder"]}, source="monodepth2")
    with pytest.raises(CheckpointError, match=r"expected Monodepth2's files under their names.*got 'conv1.weight'"):
        load_published(model, {"conv1.weight": torch.zeros(1)}, source="monodepth2")
    both = {"encoder": oracle["resnet50"]["encoder"], "depth": reference["depth"]}
    with pytest.raises(CheckpointError, match="of another shape: "):
        load_published(model, both, source="monodepth2")
