"""What people ask of the trainer works with every module: precisions that store weights, searches, loaders of one's own."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    EMAWeightAveraging,
    LearningRateFinder,
    LearningRateMonitor,
    StochasticWeightAveraging,
    Timer,
)
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.tuner import Tuner
from torch import nn
from torch.testing import assert_close
from torch.utils.data import DataLoader

from depthkit.data import DepthDataModule, ShardSource
from depthkit.data.stream.collate import collate
from depthkit.errors import LabelError, RecipeError
from depthkit.models import latent_diffusion_tiny, midas_timm
from depthkit.paradigms import (
    AffineInvariantModule,
    EqualWeights,
    LinearDecay,
    MetricModule,
    VAEDecoderModule,
)
from depthkit.synthetic import SyntheticScenes
from depthkit.types import Representation
from tests.contracts.paradigm import FILM, METRIC_DEPTH, Memory, TinyNet, batch, trainer
from tests.paradigms.test_device import CASES

SIZE = (32, 32)
EPSILON = {"bf16-true": 2**-8, "16-true": 2**-11, "64-true": 2**-20}
DATA = Memory([batch([(0, METRIC_DEPTH)] * 2, size=SIZE, seed=seed) for seed in range(3)], (METRIC_DEPTH,))


def net(**options: Any) -> Any:
    return midas_timm("mobilenetv3_small_050", pretrained=False, features=8, **options)


def tiny_diffusion() -> Any:
    return latent_diffusion_tiny(unet_channels=(8, 16), vae_channels=(8, 8))


def affine(**options: Any) -> AffineInvariantModule:
    torch.manual_seed(0)
    return AffineInvariantModule(TinyNet(norm=True), optimizer=partial(torch.optim.SGD, lr=1e-2), **options)


class Seen(Callback):
    """The loss of each step, and types of weights and statistics during training."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.types: dict[str, torch.dtype] = {}

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *_: Any) -> None:
        assert outputs["loss"].dtype in (torch.float32, torch.float64)
        self.losses.append(float(outputs["loss"]))
        self.types = {name: x.dtype for name, x in module.model.state_dict().items()}


def run(make: Any, data: Any, root: Path, **options: Any) -> tuple[Any, Seen]:
    torch.manual_seed(0)
    module, seen = make(), Seen()
    steps = 1 if options.get("precision") == "16-true" else 2
    trainer(root, max_steps=steps, callbacks=[seen], **options).fit(module, datamodule=data)
    return module, seen


def test_products_have_half_weights_while_they_train_and_all_else_is_float32(tmp_path: Path) -> None:
    module, seen = run(lambda: AffineInvariantModule(net()), DATA, tmp_path, precision="bf16-true")
    layers = {name: type(x) for name, x in module.model.named_modules()}
    for name, dtype in seen.types.items():
        layer = layers[name.rpartition(".")[0]]
        assert dtype in (torch.float32, torch.int64) or (
            dtype == torch.bfloat16 and issubclass(layer, nn.Conv2d | nn.Linear)
        ), name
    assert torch.bfloat16 in seen.types.values()
    assert {x.dtype for x in module.parameters()} == {torch.float32}  # and so it predicts, once the trainer is done
    assert module.eval()(torch.rand(1, 3, *SIZE)).dtype == torch.float32


@pytest.mark.parametrize("callback", [partial(EMAWeightAveraging, decay=0.5), partial(StochasticWeightAveraging, 1e-3, 1)])
def test_averages_of_weights_and_stored_precision_work_together(callback: Any, tmp_path: Path) -> None:
    for precision in ("32-true", "bf16-true"):
        fitting = trainer(tmp_path, max_steps=-1, max_epochs=2, precision=precision, callbacks=[callback()])
        fitting.fit(affine(), datamodule=DATA)
        assert torch.isfinite(fitting.callback_metrics["train/loss"])


@pytest.mark.parametrize("schedule", [None, LinearDecay()])
def test_the_rate_that_a_search_finds_is_the_one_that_trains(schedule: Any, tmp_path: Path) -> None:
    """For all weights but those with a rate of their own, and in the schedule."""
    module = affine(encoder_lr=1e-3, schedule=schedule)
    found = Tuner(trainer(tmp_path, max_steps=4)).lr_find(module, datamodule=DATA, num_training=20, early_stop_threshold=None)
    assert found is not None
    assert module.lr == found.suggestion()
    searched = affine(encoder_lr=1e-3, schedule=schedule)
    steps: list[list[float]] = []
    searched.on_before_optimizer_step = lambda optimizer: steps.append([g["lr"] for g in optimizer.param_groups])  # type: ignore[method-assign]
    search = LearningRateFinder(num_training_steps=20, early_stop_threshold=None)
    trainer(tmp_path, max_steps=2, callbacks=[search]).fit(searched, datamodule=DATA)
    first, second = steps[-2:]
    assert first == [1e-3, searched.lr]
    if schedule is not None:
        assert_close(second, [1e-3 / 2, searched.lr / 2])


def test_a_search_for_a_rate_begins_with_the_weights_that_training_starts_from(tmp_path: Path) -> None:
    first = trainer(tmp_path)
    first.fit(earlier := affine(), datamodule=DATA)
    first.save_checkpoint(tmp_path / "earlier.ckpt")

    class Finder(LearningRateFinder):
        def lr_find(self, trainer: Any, module: Any) -> None:
            for name, value in earlier.state_dict().items():
                assert torch.equal(module.state_dict()[name], value), name
            super().lr_find(trainer, module)

    torch.manual_seed(1)
    module = AffineInvariantModule(TinyNet(norm=True), weights=tmp_path / "earlier.ckpt")
    trainer(tmp_path, callbacks=[Finder(num_training_steps=3)]).fit(module, datamodule=DATA)


class Small(AffineInvariantModule):
    """Has memory for so many images, and notes what it was given."""

    memory = 5

    def losses(self, batch: Any) -> Any:
        self.given.append([int(rows) for rows in batch.dataset.bincount(minlength=2)])
        if len(batch) > self.memory:
            raise RuntimeError("CUDA out of memory.")
        return super().losses(batch)


def small(memory: int = 5, **options: Any) -> Any:
    torch.manual_seed(0)
    module = Small(TinyNet(norm=True), optimizer=partial(torch.optim.SGD, lr=1e-2, momentum=0.9), **options)
    module.memory, module.given = memory, []
    return module


def two_sources(scenes: Path, batch_size: int = 6, **options: Any) -> DepthDataModule:
    sources = [ShardSource(str(scenes), split, name=split) for split in ("train", "test")]
    return DepthDataModule(sources, batch_size=batch_size, size=(16, 24), **options)


class Steps(Callback):
    """What the steps of a run learn from, and at what rate; a search has no callbacks."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        self.seen.append((trainer.global_step, trainer.current_epoch, batch_idx, batch.keys, rate))


@pytest.mark.parametrize(("mode", "size"), [("power", 4), ("binsearch", 5)])
def test_a_search_for_a_batch_size_tries_what_it_says_and_leaves_no_trace(
    mode: str, size: int, scenes: Path, tmp_path: Path
) -> None:
    """Also where the recipe's own size, six, does not fit; the schedule ends with the steps that there are then."""
    runs = []
    for how in ("known", "tuner", "callback"):
        search = {"mode": mode, "margin": 0.0}
        module, data = small(schedule=LinearDecay()), two_sources(scenes, size if how == "known" else 6)
        callbacks = [steps := Steps(), *([BatchSizeFinder(**search)] if how == "callback" else [])]  # type: ignore[arg-type]
        fitting = trainer(tmp_path, max_epochs=2, max_steps=-1, callbacks=callbacks)
        if how == "tuner":
            assert Tuner(fitting).scale_batch_size(module, datamodule=data, **search) == size  # type: ignore[arg-type]
        fitting.fit(module, datamodule=data)
        assert data.batch_size == size
        assert all(abs(a - b) <= 1 for a, b in module.given)
        if how != "known":
            assert {2, 4, 8, size} <= {a + b for a, b in module.given} <= {2, 4, 8, 6, size}
        runs.append((steps.seen, module.state_dict()))
    for seen, weights in runs[1:]:
        assert seen == runs[0][0]
        assert_close(weights, runs[0][1], rtol=0, atol=0)


def test_a_search_for_a_size_that_is_not_read_is_refused(scenes: Path, tmp_path: Path) -> None:
    data = DepthDataModule(val_sources=[ShardSource(str(scenes), "test")])
    with pytest.raises(
        RecipeError, match=r"search for val_batch_size.*got one for batch_size.*batch_arg_name='val_batch_size'"
    ):
        Tuner(trainer(tmp_path)).scale_batch_size(small(), datamodule=data, method="validate")


@pytest.mark.parametrize(
    "search", [BatchSizeFinder, partial(LearningRateFinder, num_training_steps=20, early_stop_threshold=None)]
)
def test_a_run_that_goes_on_searches_nothing_anew(search: Any, scenes: Path, tmp_path: Path) -> None:
    runs: list[Any] = []
    for stop, checkpoint in ((5, None), (2, None), (5, tmp_path / "2.ckpt")):
        module, data = small(), two_sources(scenes, 2)
        fitting = trainer(tmp_path, max_steps=stop, callbacks=[search(), steps := Steps()])
        fitting.fit(module, datamodule=data, ckpt_path=checkpoint)
        fitting.save_checkpoint(tmp_path / f"{stop}.ckpt")
        runs.append((steps.seen, module.state_dict(), data.batch_size))
    (whole, weights, size), (begun, _, _), (rest, same, found) = runs
    assert found == size
    assert begun + rest == whole
    assert_close(same, weights)


def samples(count: int = 4) -> list[Any]:
    return list(SyntheticScenes(count, size=(32, 48), kind="room"))


@pytest.mark.parametrize(
    "how", [list, lambda group: collate(group, [0] * len(group)), None], ids=["samples", "batches in bytes", "one sample each"]
)
@pytest.mark.parametrize("precision", ["32-true", "64-true"])
def test_a_loader_of_ones_own_trains_and_scores(how: Any, precision: str, tmp_path: Path) -> None:
    loader: Any = DataLoader(samples(), batch_size=2 if how else None, collate_fn=how or (lambda sample: sample))  # type: ignore[arg-type]
    module = affine()
    fitting = trainer(tmp_path, limit_val_batches=1.0, max_steps=2, precision=precision)
    fitting.fit(module, train_dataloaders=loader, val_dataloaders=loader)
    assert fitting.global_step == 2
    (found,) = fitting.validate(module, dataloaders=loader, verbose=False)
    assert found["val/data/images"] == 4
    assert fitting.test(module, dataloaders=loader, verbose=False)[0]["test/data/images"] == 4


def test_what_a_loader_of_ones_own_yields_is_checked(tmp_path: Path) -> None:
    loader: Any = DataLoader([batch([(0, FILM)])], batch_size=None)  # type: ignore[arg-type]
    with pytest.raises(LabelError, match="dataset 'data' holds shift_scale disparity labels; MetricModule"):
        trainer(tmp_path).fit(MetricModule(TinyNet(Representation.DEPTH)), train_dataloaders=loader)
    loader = DataLoader([batch([(0, METRIC_DEPTH), (1, FILM)])], batch_size=None)  # type: ignore[arg-type]
    module = affine(combine=EqualWeights())
    with pytest.raises(RecipeError, match=r"positions in dataset_names, here data; got 1.*module\.dataset_names = "):
        trainer(tmp_path).fit(module, train_dataloaders=loader)
    module.dataset_names = ("near", "films")
    fitting = trainer(tmp_path)
    fitting.fit(module, train_dataloaders=loader)
    assert {"train/near", "train/films"} <= fitting.callback_metrics.keys()


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"fast_dev_run": True}, 1),
        ({"overfit_batches": 1, "max_epochs": 2}, 2),
        ({"limit_train_batches": 2, "limit_val_batches": 1}, 2),
        ({"limit_train_batches": 0.34}, 1),
        ({"accumulate_grad_batches": 3}, 1),
        ({"gradient_clip_val": 0.1}, 3),
        ({"gradient_clip_val": 0.1, "gradient_clip_algorithm": "value"}, 3),
        ({"detect_anomaly": True}, 3),
        ({"inference_mode": False}, 3),
        ({"reload_dataloaders_every_n_epochs": 1, "max_epochs": 2}, 6),
        ({"val_check_interval": 1}, 3),
        ({"callbacks": [Timer(duration={"hours": 1})]}, 3),
        ({"callbacks": [LearningRateMonitor()], "logger": True}, 3),
    ],
)
def test_options_of_the_trainer_do_what_they_say(options: dict[str, Any], steps: int, scenes: Path, tmp_path: Path) -> None:
    data = DepthDataModule([ShardSource(str(scenes))], batch_size=2, size=SIZE, val_sources=[ShardSource(str(scenes), "test")])
    if options.get("logger"):
        options = options | {"logger": CSVLogger(tmp_path)}
    module = affine()
    fitting = trainer(tmp_path, **{"max_steps": -1, "max_epochs": 1, "limit_val_batches": 1.0, **options})
    fitting.fit(module, datamodule=data)
    assert fitting.global_step == steps
    assert any(name.startswith("val/room/") for name in fitting.callback_metrics)


def test_the_vae_stays_in_float32_where_it_trains(tmp_path: Path) -> None:
    def make() -> Any:
        net = tiny_diffusion()
        return VAEDecoderModule(net, protocols="synthetic_metric")

    _, seen = run(make, DATA, tmp_path, precision="bf16-true")
    assert {dtype for name, dtype in seen.types.items() if name.startswith("vae.")} == {torch.float32}


@pytest.mark.quick(case=["affine"])
@pytest.mark.parametrize("precision", EPSILON)
@pytest.mark.parametrize("case", [name for name in CASES if name not in ("affine ordinal", "diffusion affine")])
def test_a_stored_precision_trains_to_the_loss_of_float32(case: str, precision: str, tmp_path: Path) -> None:
    """To what rounding of the weights and of the products allows."""
    make, data, _ = CASES[case]
    memory = Memory([data(seed) for seed in range(2)], [METRIC_DEPTH] * 3)
    if "pareto" in case and precision == "16-true":
        with pytest.raises(RecipeError, match="without a loss scale for MinNorm"):
            run(make, memory, tmp_path, precision=precision)
        return
    exact, seen = (run(make, memory, tmp_path, **options)[1] for options in ({}, {"precision": precision}))
    tolerance = 16 * EPSILON[precision] if "semi" not in case else 0.2  # whose random colours are drawn in the image's type
    compared = slice(0, 1 if precision == "16-true" else None)  # in float16 the eps of Adam is 0: take another optimizer
    assert_close(seen.losses[compared], exact.losses[compared], rtol=tolerance, atol=tolerance)
