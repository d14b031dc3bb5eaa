"""No step waits for the device: nothing is read from it, and what is copied to it does not wait, but for what is said here."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor

from depthkit import precision
from depthkit.errors import PredictionError
from depthkit.evaluation import PROTOCOLS, ProtocolMetrics
from depthkit.losses import OrdinalLoss, SILogLoss
from depthkit.models import AffineDepth, LogDepth, latent_diffusion_tiny, monodepth2_timm, pose_cnn, zoedepth
from depthkit.paradigms import (
    AffineInvariantModule,
    DiffusionModule,
    EndToEndDiffusionModule,
    GeometryPreservingModule,
    MetricModule,
    MinNorm,
    MultiResolutionNoise,
    SelfSupervisedVideoModule,
    SemiSupervisedModule,
    VAEDecoderModule,
)
from depthkit.paradigms.terms import combination
from depthkit.types import Ambiguity, Batch, LabelKind, Representation
from tests.contracts.device import Device, moved
from tests.contracts.paradigm import FILM, METRIC_DEPTH, Memory, TinyNet, batch, trainer
from tests.contracts.student import network

NOTHING = LabelKind(Ambiguity.UNLABELLED, Representation.DISPARITY)
PARETO = {"copies to the host: paradigms/terms/pareto.py min_norm_combination": 1}
"""The weights of MGDA are found on the CPU, after the gradients of the datasets and before the step that they make."""
Make = Callable[[], Any]
NEGATIVE = r"expected a positive disparity.*; the network predicts -"


def mixed(seed: int) -> Batch:
    return batch([(0, METRIC_DEPTH), (1, FILM), (2, METRIC_DEPTH), (1, FILM)], seed=seed)


def metric(seed: int) -> Batch:
    return batch([(0, METRIC_DEPTH)] * 2, seed=seed, size=(32, 32))


def partly_labelled(seed: int) -> Batch:
    rows = [(0, METRIC_DEPTH), (1, NOTHING), (1, NOTHING), (1, NOTHING)]
    b = batch(rows, seed=seed)
    return replace(b, valid=b.valid & torch.tensor([True, False, False, False])[:, None, None, None])


def video(seed: int) -> Batch:
    b = batch([(0, METRIC_DEPTH)] * 2, seed=seed, size=(64, 96))
    poses = torch.eye(4).expand(2, 2, 4, 4).clone()
    poses[:, 0, 2, 3], poses[:, 1, 2, 3] = -0.1, 0.1
    camera = torch.tensor([[60.0, 0, 47.5], [0, 60.0, 31.5], [0, 0, 1]]).expand(2, 3, 3)
    frames = torch.stack([b.image.roll(1, -1), b.image.roll(-1, -1)], 1)
    return replace(b, frames=frames, frame_names=("prev", "next"), frames_from_camera=poses, intrinsics=camera)


def affine(**options: Any) -> Any:
    return AffineInvariantModule(TinyNet(norm=True), **options)


def from_video(pose: bool = True, **options: Any) -> Any:
    model = monodepth2_timm("test_resnet", pretrained=False)
    return SelfSupervisedVideoModule(model, pose_cnn() if pose else None, **options)


def diffusion(kind: Any = DiffusionModule, codec: Any = None, **options: Any) -> Any:
    net = latent_diffusion_tiny(codec=codec or LogDepth(0.5, 20.0), unet_channels=(8, 16), vae_channels=(8, 8))
    return kind(net, protocols="synthetic_metric", **options)


def semi(**options: Any) -> Any:
    return SemiSupervisedModule(network(), **{"teacher": network(1), **options})


def bins() -> Any:
    base = {"architecture": "dpt_timm", "backbone": "test_vit", "features": 16}
    return MetricModule(zoedepth(base, pretrained=False), network_size=(32, 32))


CASES: dict[str, tuple[Make, Callable[[int], Batch], dict[str, int]]] = {
    "affine": (affine, mixed, {}),
    "affine ordinal": (partial(affine, loss=OrdinalLoss(pairs=50), gradient_weight=0.0), mixed, {}),
    "affine silog": (partial(affine, loss=SILogLoss(variance_focus=1, factor=0.5), far=0.1), mixed, {}),
    "pareto": (partial(affine, combine=MinNorm()), mixed, PARETO),
    "pareto per dataset": (partial(affine, combine=MinNorm(forward="per_dataset")), mixed, PARETO),
    "pareto last layer": (partial(affine, combine=MinNorm(scope="last_shared_layer", normalisation="loss+")), mixed, PARETO),
    "gp2": (lambda: GeometryPreservingModule(TinyNet(Representation.DISPARITY)), mixed, {}),
    "video": (from_video, video, {}),
    "video known poses": (partial(from_video, pose=False, full_resolution=False, only_visible=True), video, {}),
    "video motion": (partial(from_video, motion_weight=0.1), video, {}),
    "semi-supervised": (semi, partly_labelled, {}),
    "semi-supervised stored": (partial(semi, teacher=None, pseudo_labelled=["set1"], feature_images="all"), mixed, {}),
    "metric": (lambda: MetricModule(TinyNet(Representation.DEPTH)), metric, {}),
    "metric bins": (bins, metric, {}),
    "diffusion": (diffusion, metric, {}),
    "diffusion affine": (partial(diffusion, codec=AffineDepth(), penalty="l1"), metric, {}),
    "end to end": (partial(diffusion, kind=EndToEndDiffusionModule, noise=MultiResolutionNoise()), metric, {}),
    "vae decoder": (partial(diffusion, kind=VAEDecoderModule), metric, {}),
}


def flat_without_autograd(loss: Tensor, parameters: Any, **_: Any) -> Tensor:
    """A gradient of the right shape, for autograd does not run on a pretended device."""
    return torch.cat([(loss.detach() * p.detach()).flatten() for p in parameters])


@pytest.mark.parametrize("name", CASES)
def test_a_step_waits_for_nothing_but_what_is_listed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, data, reasons = CASES[name]
    torch.manual_seed(0)
    module = make()
    module.dataset_names = ("set0", "set1", "set2")
    monkeypatch.setattr(combination, "flat_gradient", flat_without_autograd)
    with Device() as device:
        for part in (module, *(x for x in getattr(module, "outside", ()) if x is not None)):
            moved(part)
        first, second = moved(data(0)), moved(data(1))
        module.combine(module, first)  # tables that are copied once
        device.waits.clear()
        step = module.combine(module, second)
        found = dict(device.waits)
        assert step.total.cpu().isfinite()
    assert found == reasons


@pytest.mark.parametrize("name", [name for name in CASES if "pareto" not in name])
def test_a_backward_pass_waits_for_nothing(name: str) -> None:
    make, data, _ = CASES[name]
    torch.manual_seed(0)
    module = make()
    module.dataset_names = ("set0", "set1", "set2")
    total = module.combine(module, data(1)).total
    with Device(everywhere=True) as device:
        total.backward()
    assert not device.waits


@pytest.mark.quick(name=["affine", "affine silog", "pareto", "gp2", "semi-supervised", "metric bins", "diffusion"])
@pytest.mark.parametrize("name", CASES)
def test_a_device_without_float64_is_never_asked_for_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Apple's: what needs it is computed on the CPU, which ``depthkit.precision`` alone decides."""
    make, data, _ = CASES[name]
    torch.manual_seed(0)
    module = make()
    module.dataset_names = ("set0", "set1", "set2")
    monkeypatch.setattr(precision, "WITHOUT_FLOAT64", {"cuda"})
    monkeypatch.setattr(combination, "flat_gradient", flat_without_autograd)
    expected = module.combine(module, data(0)).total.detach()
    with Device(has_float64=False):
        for part in (module, *(x for x in getattr(module, "outside", ()) if x is not None)):
            moved(part)
        found = module.combine(module, moved(data(0))).total
        torch.testing.assert_close(found.cpu(), expected)


@pytest.mark.parametrize("protocol", ["synthetic_affine", "synthetic_metric", "midas_kitti", "depth_anything_nyu"])
def test_neither_is_it_by_scores(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "WITHOUT_FLOAT64", {"cuda"})
    rules = PROTOCOLS[protocol]
    known, there = (ProtocolMetrics(rules, **({"scale": 1.0} if rules.scale_of == "set" else {})) for _ in range(2))
    b = metric(0)
    own = Representation.DISPARITY if rules.space == Representation.DISPARITY else Representation.DEPTH
    pred = (b.target if own == Representation.DEPTH else 1 / b.target).nan_to_num(2.0) * 1.1
    known.update(pred, own, b)
    with Device(has_float64=False):
        there.update(moved(pred), own, moved(b))
    for name, value in known.compute().items():
        torch.testing.assert_close(there.compute()[name], value, equal_nan=True)


@pytest.mark.parametrize("wrong", ["affine", "gp2"])
def test_what_cannot_be_looked_at_within_a_step_is_looked_at_when_the_trainer_logs(wrong: str) -> None:
    class Negative(TinyNet):
        def forward(self, image: Tensor) -> Tensor:
            return -super().forward(image)

    made: Any = {
        "affine": lambda: AffineInvariantModule(Negative(), loss=SILogLoss(variance_focus=1), far=0.1),
        "gp2": lambda: GeometryPreservingModule(Negative(Representation.DISPARITY)),
    }[wrong]()
    with pytest.raises(PredictionError, match=NEGATIVE):
        made.losses(mixed(0))
    with Device():
        moved(made)
        made.losses(moved(mixed(0)))
        with pytest.raises(PredictionError, match=NEGATIVE):
            made.raise_late()
    made.raise_late()  # once


def test_lightning_reads_nothing_of_a_step_between_two_logs(tmp_path: Path) -> None:
    class Between(Callback):
        def __init__(self) -> None:
            self.found: list[dict[str, int]] = []

        def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 2:
                self.device = Device(everywhere=True).__enter__()
            if trainer.global_step == 3:
                self.device.__exit__(None, None, None)
                self.found.append({place: n for place, n in self.device.waits.items() if "adam" not in place})

    module = MetricModule(TinyNet(Representation.DEPTH), optimizer=partial(torch.optim.SGD, lr=0.1))
    data = Memory([metric(seed) for seed in range(5)], (METRIC_DEPTH,))
    run = trainer(tmp_path, max_steps=5, callbacks=[between := Between()], log_every_n_steps=5, enable_progress_bar=True)
    run.fit(module, datamodule=data)
    assert between.found == [{}]


def test_a_batch_that_was_moved_is_still_read_on_the_cpu() -> None:
    b = mixed(0)
    with Device() as device:
        there = moved(b)
        device.waits.clear()
        some = there.rows(there.on_host(there.dataset) == 1)
        again = some.rows(some.real)
        changed = replace(there, dataset=there.dataset + 1)
        assert (some.keys, again.on_host(again.dataset).tolist()) == ((b.keys[1], b.keys[3]), [1, 1])
        assert not device.waits
        assert changed.on_host(changed.dataset).tolist() == [1, 2, 3, 2]  # what changed since has to be read
        assert sum(device.waits.values()) == 1
        assert torch.equal(some.target.cpu().nan_to_num(), b.target[[1, 3]].nan_to_num())
