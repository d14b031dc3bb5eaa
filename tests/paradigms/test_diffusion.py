import copy
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("diffusers")

import torch
from lightning import seed_everything
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from torch import Tensor
from torch.testing import assert_close

from depthkit.errors import CheckpointError, LabelError, PredictionError, RecipeError, ShapeError
from depthkit.losses import SILogLoss
from depthkit.models import AffineDepth, LatentDiffusionDepth, LinearDepth, LogDepth, Sampling, latent_diffusion_tiny
from depthkit.paradigms import DiffusionModule, EndToEndDiffusionModule, MultiResolutionNoise
from depthkit.resize import native_map
from depthkit.types import Batch
from tests.contracts.paradigm import FILM, METRIC_DEPTH, Memory, batch, sgd, trainer, weights_after
from tests.contracts.ranks import on_ranks

ROWS = [(0, METRIC_DEPTH)] * 4
SIZE = (16, 24)
KINDS = (METRIC_DEPTH,)
BOTH = [DiffusionModule, EndToEndDiffusionModule]


def network(seed: int = 0, **options: Any) -> LatentDiffusionDepth:
    torch.manual_seed(seed)
    return latent_diffusion_tiny(**{"codec": LogDepth(0.5, 20.0), "unet_channels": (8, 16), "vae_channels": (8, 8), **options})


def module(kind: type = DiffusionModule, seed: int = 0, model: dict[str, Any] | None = None, **options: Any) -> Any:
    return kind(network(seed, **(model or {})), **{"optimizer": sgd, "protocols": "synthetic_metric", **options})


def labelled(**options: Any) -> Batch:
    """Every pixel has a depth but those that the tests take away."""
    b = batch(ROWS, **{"size": SIZE, **options})
    return replace(b, target=b.target.where(b.valid, 3.0), valid=torch.ones_like(b.valid))


def step(m: Any, b: Batch, seed: int = 0) -> dict[str, Tensor]:
    """What one training step logs, with the draws of a numbered batch."""
    m._drawn = seed
    made = m.combine(m, b)
    return {**made.logged, "total": made.total}


def gradient(m: Any, b: Batch) -> Tensor:
    m.zero_grad()
    step(m, b)["total"].backward()
    return torch.cat([p.grad.flatten() for p in m.model.unet.parameters() if p.grad is not None])


class ByRow:
    """Timesteps and noise that depend on the latent of a row alone, not on the batch that it is in."""

    def draw(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        timestep = (latent.flatten(1).mean(1).abs() * 1e4).long() % 1000
        return timestep, latent.flip(-1).roll(1, -2)


class Repeated(ByRow, DiffusionModule):
    pass


@pytest.mark.parametrize("kind", ["v_prediction", "sample", "epsilon"])
@pytest.mark.parametrize("penalty", ["l1", "l2"])
def test_a_network_that_outputs_the_target_has_nothing_to_learn(kind: str, penalty: Any) -> None:
    settings = {"scheduler": {"prediction_type": kind, "rescale_betas_zero_snr": kind != "epsilon"}}
    m, b = module(model=settings, penalty=penalty), labelled()
    drawn: dict[str, Any] = {}
    m.draw = lambda latent: drawn.setdefault("chance", DiffusionModule.draw(m, latent))
    depth, valid, _ = m.depth(b)
    clean = m.model.encode_depth(depth, valid)
    m.model.predict = lambda noisy, image, timestep: m.model.scheduler.target(clean, drawn["chance"][1], timestep)
    assert step(m, b)["total"] == 0
    m.model.predict = lambda noisy, image, timestep: m.model.scheduler.target(clean, drawn["chance"][1], timestep) + 2
    assert_close(step(m, b)["total"], torch.tensor(2.0 if penalty == "l1" else 4.0))


def test_a_pixel_without_depth_masks_its_latent_cell_and_no_other() -> None:
    m, b = module(), labelled()
    m.model.encode_depth = lambda depth, valid: torch.zeros(4, 4, 8, 12)
    whole, errors = torch.rand(4, 4, 8, 12, generator=torch.Generator().manual_seed(1)), []
    m.model.predict = lambda *_: whole
    m.model.scheduler.target = lambda *_: torch.zeros(())
    for row, column in ((3, 5), (2, 4), (0, 0)):
        valid = b.valid.clone()
        valid[1, 0, row, column] = False
        errors.append(step(m, replace(b, valid=valid))["total"])
        kept = torch.ones(4, 8, 12, dtype=torch.bool)
        kept[1, row // 2, column // 2] = False
        assert_close(errors[-1], whole.square().mean(1)[kept].mean())
    assert errors[0] == errors[1] != errors[2]


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("poison", [torch.nan, torch.inf, -1.0, 0.0])
def test_depth_that_is_not_valid_changes_neither_loss_nor_gradient(kind: type, poison: float) -> None:
    m, b = module(kind), labelled()
    valid = b.valid.clone()
    valid[0, 0, 4:9, 3:11] = False
    plain, poisoned = (replace(b, valid=valid, target=b.target.where(valid, x)) for x in (5.0, poison))
    assert step(m, plain)["total"] == step(m, poisoned)["total"]
    assert torch.equal(gradient(m, plain), gradient(m, poisoned))
    assert gradient(m, plain).isfinite().all()


@pytest.mark.parametrize("kind", BOTH)
def test_images_that_teach_nothing_are_counted_and_leave_the_rest_alone(kind: type) -> None:
    m, b = module(kind), labelled()
    nothing = b.valid.clone()
    nothing[1:] = False
    found = step(m, replace(b, valid=nothing))
    assert found["train/excluded"] == 3 / 4
    assert found["total"] > 0
    none = step(m, replace(b, valid=torch.zeros_like(b.valid)))
    assert none["total"] == 0
    assert none["train/excluded"] == 1
    none["total"].backward()
    assert all((p.grad == 0).all() for p in m.model.unet.parameters() if p.grad is not None)


@pytest.mark.parametrize("kind", BOTH)
def test_depth_outside_the_codecs_range_is_counted_and_left_out_or_learned_as_the_bound(kind: type) -> None:
    b = labelled()
    beyond = b.target.clone()
    beyond[:, :, :4] = 500.0
    far, gone, bound = (
        replace(b, target=x, valid=v) for x, v in ((beyond, b.valid), (beyond, beyond < 20), (beyond.clamp(max=20), b.valid))
    )
    assert_close(step(module(kind), far)["train/outside"], torch.tensor(0.25))
    assert step(module(kind), far)["total"] == step(module(kind), gone)["total"]
    assert_close(step(module(kind, tails=True), far)["total"], step(module(kind), bound)["total"])


@pytest.mark.parametrize("kind", BOTH)
def test_gradients_reach_the_unet_and_never_the_vae(kind: type, tmp_path: Path) -> None:
    m = module(kind)
    before = {name: value.clone() for name, value in m.model.state_dict().items()}
    assert gradient(m, labelled()).abs().sum() > 0
    assert all(p.grad is None and not p.requires_grad for p in m.model.vae.parameters())
    run = trainer(tmp_path)
    run.fit(m, datamodule=Memory([labelled()], KINDS))
    held = {id(p) for group in run.optimizers[0].param_groups for p in group["params"]}
    assert held == set(map(id, m.model.unet.parameters()))
    after = m.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items() if name.startswith("vae."))
    assert not all(torch.equal(after[name], value) for name, value in before.items())


def test_attention_alone_is_trained_on_request() -> None:
    trained = {name for name, p in module(trainable="attention").model.unet.named_parameters() if p.requires_grad}
    assert {"conv_in.weight", "conv_in.bias"} < trained
    assert all(".attentions." in name for name in trained - {"conv_in.weight", "conv_in.bias"})


@pytest.mark.parametrize("kind", BOTH)
def test_checkpointing_changes_no_gradient(kind: type) -> None:
    b = labelled()
    assert_close(gradient(module(kind, checkpointing=True).train(), b), gradient(module(kind).train(), b))


def test_the_second_stage_is_the_models_own_one_step_prediction() -> None:
    """Trained as it predicts: same timestep, zeros, z_0 read directly."""
    m, b = module(EndToEndDiffusionModule), labelled()
    assert m.model.sampling == Sampling(steps=1, noise="zeros")
    assert_close(m.predict_once(b.image), m.model(b.image), rtol=1e-3, atol=0)


def test_the_second_stage_may_see_noise() -> None:
    m, b = module(EndToEndDiffusionModule, noise=MultiResolutionNoise(0.0)), labelled()
    assert m.model.sampling.noise == "gaussian"
    assert step(m, b, seed=0)["total"] != step(m, b, seed=1)["total"]
    times = []
    m.start = lambda like, time: (
        times.append(time) or torch.zeros_like(like)
    )  # as at the last timestep, when nothing is annealed
    m.predict_once(b.image)
    assert_close(times[0], torch.ones(len(b)))


def test_a_clipped_pixel_still_learns() -> None:
    m, b = module(EndToEndDiffusionModule), labelled()
    with torch.no_grad():
        m.model.vae.decoder.conv_out.weight *= 100.0
    depth = m.predict_once(b.image)
    assert ((depth > 19.9) | (depth < 0.51)).float().mean() > 0.5
    assert gradient(m, b).abs().max() > 1e-6


def test_the_second_stage_compares_metres_or_what_is_left_of_them() -> None:
    b = labelled()
    m = module(EndToEndDiffusionModule, loss=SILogLoss(variance_focus=0.0))
    log_ratio = m.predict_once(b.image).log() - b.target.log()
    assert_close(step(m, b)["total"], log_ratio.square().mean())
    default = module(EndToEndDiffusionModule)
    assert_close(step(default, b)["total"], log_ratio.abs().mean())
    affine = module(EndToEndDiffusionModule, model={"codec": AffineDepth(0.0, 1.0)})
    moved = replace(b, target=7 * b.target + 2)
    assert_close(step(affine, moved)["total"], step(affine, b)["total"], rtol=1e-4, atol=1e-6)


def ranks_agree(_: int, root: Path, ranks: int) -> list[dict[str, Tensor]]:
    data = [Memory([labelled()], KINDS, split) for split in ((2, 2), (1, 3))]
    return [
        weights_after(module(kind), memory, root, ranks=ranks)
        for memory in data
        for kind in (Repeated, EndToEndDiffusionModule)
    ]


def test_a_step_on_two_ranks_is_the_step_on_one(tmp_path: Path) -> None:
    start = torch.cat([p.detach().flatten() for p in network().parameters()])
    one, two = ranks_agree(0, tmp_path, 1), on_ranks(2, ranks_agree, tmp_path, 2)[0]
    for alone, together in zip(one, two, strict=True):
        flat = [torch.cat([p.flatten() for p in weights.values()]) for weights in (alone, together)]
        change = flat[0] - start
        assert change.norm() > 1e-3
        assert_close(flat[1] - start, change, rtol=0, atol=1e-3 * change.norm().item())


@pytest.mark.parametrize("averaged", [False, True])
def test_a_run_resumed_repeats_the_noise_and_ends_in_the_same_weights_bit_for_bit(averaged: bool, tmp_path: Path) -> None:
    def run(**start: Any) -> tuple[list[Tensor], dict[str, Tensor]]:
        seed_everything(3, verbose=False)
        m = module(optimizer=partial(torch.optim.Adam, lr=1e-3))
        drawn: list[Tensor] = []
        chance = m.draw

        def remembered(latent: Tensor) -> tuple[Tensor, Tensor]:
            drawn.append(chance(latent)[1])
            return m.model.scheduler.length // 2 + torch.zeros(len(latent), dtype=torch.int64), drawn[-1]

        m.draw = remembered
        torch.manual_seed(len(start))  # a new process has drawn something else before
        callbacks = [ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=2, save_top_k=-1)]
        callbacks += [EMAWeightAveraging(decay=0.5)] if averaged else []
        fitting = trainer(tmp_path, max_steps=4, max_epochs=-1, enable_checkpointing=True, callbacks=callbacks)
        fitting.fit(m, datamodule=Memory([labelled(seed=s) for s in range(2)], KINDS), **start)
        return drawn, dict(m.state_dict())

    (noise, whole), (again, resumed) = run(), run(ckpt_path=tmp_path / "step=2.ckpt")
    assert all(torch.equal(x, y) for x, y in zip(noise[2:], again, strict=True))
    assert not torch.equal(noise[0], noise[2])
    for name, value in whole.items():
        assert_close(resumed[name], value, rtol=0, atol=0)


def test_a_copy_for_an_average_of_the_weights_shares_the_factory_of_optimizers_alone() -> None:
    """That of a command holds the trainer, whose processes cannot be copied."""
    factory = partial(sgd, threading.Lock())
    m = module(optimizer=factory)
    copied = copy.deepcopy(m)
    assert copied.optimizer is factory
    assert copied.model.scheduler is not m.model.scheduler
    for (name, ours), (same, theirs) in zip(m.state_dict().items(), copied.state_dict().items(), strict=True):
        assert name == same
        assert torch.equal(ours, theirs)
        assert ours.data_ptr() != theirs.data_ptr()


def test_the_checkpoint_says_how_depth_is_encoded_and_another_range_is_refused(tmp_path: Path) -> None:
    first, data = module(), Memory([labelled()], KINDS)
    run = trainer(tmp_path)
    run.fit(first, datamodule=data)
    run.save_checkpoint(tmp_path / "first.ckpt")
    loaded = DiffusionModule.load_from_checkpoint(tmp_path / "first.ckpt")
    assert loaded.model.codec == LogDepth(0.5, 20.0)
    b = labelled()
    assert_close(loaded.eval()(b.image), first.eval()(b.image))
    second = module(
        EndToEndDiffusionModule, seed=1, weights=tmp_path / "first.ckpt", optimizer=partial(torch.optim.SGD, lr=0.0)
    )
    trainer(tmp_path).fit(second, datamodule=data)
    for name, value in first.model.state_dict().items():
        assert torch.equal(second.model.state_dict()[name], value)
    for settings, message in (
        ({"codec": LogDepth(0.5, 80.0)}, r"learned d_max 80\.0; these learned d_max 20\.0\. Give the model the codec"),
        ({"codec": LinearDepth(0.5, 20.0)}, r"learned codec LinearDepth; these learned codec LogDepth\. Give"),
        ({"scheduler": {"prediction_type": "sample"}}, r"prediction_type sample; these learned prediction_type v_prediction"),
    ):
        wrong = module(EndToEndDiffusionModule, model=settings, weights=tmp_path / "first.ckpt")
        with pytest.raises(CheckpointError, match=message):
            trainer(tmp_path).fit(wrong, datamodule=data)
    filled = module(EndToEndDiffusionModule, model={"codec": LogDepth(0.5, 20.0, fill="near")}, weights=tmp_path / "first.ckpt")
    trainer(tmp_path).fit(filled, datamodule=data)  # what invalid pixels hold may change


def test_validation_is_in_metres_without_alignment(tmp_path: Path) -> None:
    m, b = module(), labelled(size=(32, 32))  # which the protocol leaves as it is
    run = trainer(tmp_path, limit_val_batches=1)
    run.validate(m, datamodule=Memory([b], KINDS), verbose=False)
    with torch.no_grad():
        expected = ((m(b.image) - b.target).abs() / b.target).flatten(1).mean(1).mean()
    assert_close(run.callback_metrics["val/memory/abs_rel"].float(), expected, rtol=1e-3, atol=1e-3)


def test_predictions_are_resized_in_y() -> None:
    m, b = module(), labelled(size=(15, 23))
    small = 0.5 + 19.5 * torch.rand(4, 1, 8, 8)
    m.model.forward = lambda image: small
    y = torch.nn.functional.interpolate(m.model.codec.encode(small, small > 0), (15, 23), mode="bilinear")
    assert_close(native_map(m.model, b.image).map, m.model.codec.decode(y), rtol=1e-3, atol=0)


def test_half_precision_is_the_unets_alone() -> None:
    """The VAE encodes in float32 whatever the trainer's precision, and the loss is float32, too."""
    m, b = module(), labelled()
    seen: dict[str, Tensor] = {}
    m.model.unet.conv_in.register_forward_hook(lambda _, given, output: seen.update(unet=output))
    encode = m.model.encode_depth
    m.model.encode_depth = lambda *arguments: seen.setdefault("latent", encode(*arguments))
    with torch.autocast("cpu", torch.bfloat16):
        loss = step(m, b)["total"]
    assert seen["unet"].dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    assert torch.equal(seen["latent"], encode(*m.depth(b)[:2]))
    assert_close(loss, step(m, b)["total"], rtol=2e-2, atol=0)


@pytest.mark.parametrize("kind", [EndToEndDiffusionModule, pytest.param(DiffusionModule, marks=pytest.mark.slow)])
def test_it_learns(kind: type, tmp_path: Path) -> None:
    batches = [labelled(seed=seed) for seed in range(2)]
    m = module(kind, optimizer=partial(torch.optim.Adam, lr=3e-3), noise=None)

    def total() -> float:
        with torch.no_grad():
            return sum(float(step(m, b, seed)["total"]) for b in batches for seed in range(2))

    before = total()
    trainer(tmp_path, max_steps=25, max_epochs=-1).fit(m, datamodule=Memory(batches, KINDS))
    assert total() < 0.9 * before


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="holds shift_scale disparity labels"):
        trainer(tmp_path).fit(module(), datamodule=Memory([batch([(0, FILM)], size=SIZE)], (FILM,)))
    with pytest.raises(RecipeError, match="penalty to be one of l2, l1; got 'huber'"):
        module(penalty="huber")
    with pytest.raises(RecipeError, match="trainable to be one of all, attention"):
        module(trainable="lora")
    with pytest.raises(RecipeError, match="expected no encoder_lr"):
        module(encoder_lr=1e-5)
    leading = {"scheduler": {"timestep_spacing": "leading"}, "sampling": Sampling(steps=10)}
    with pytest.raises(RecipeError, match="expected several steps, as leading ones do not begin with noise alone"):
        module(EndToEndDiffusionModule, model=leading)
    with pytest.raises(LabelError, match="expected a loss on shift_scale labels"):
        module(EndToEndDiffusionModule, model={"codec": AffineDepth()}, loss=SILogLoss())
    with pytest.raises(ShapeError, match=r"multiples of 2; got 15x24.*16x24, the next legal size"):
        step(module(), batch(ROWS, size=(15, 24)))
    overflowing = module()
    overflowing.model.vae.half()
    with torch.no_grad():
        for p in overflowing.model.vae.parameters():
            p.mul_(1e4)
    with pytest.raises(PredictionError, match="float16 it overflowed"):
        step(overflowing, labelled())
