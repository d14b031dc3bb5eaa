"""``depthkit predict``: depth of image files, on any number of devices."""

import logging
import signal
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch.distributed as dist
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.data import DataLoader

from depthkit.cli.options import OWN_RULES, Resizing, set_sampling
from depthkit.errors import PredictionError, ShapeError
from depthkit.inference.files import Format, Group, ImageReader, Results, Writer, left_out, listed, workers_that_help
from depthkit.inference.outputs import OutputNames
from depthkit.inference.prediction import Unit
from depthkit.inference.predictor import DepthPredictor
from depthkit.models import Sampling, flip_averaged, from_pretrained
from depthkit.resize import NativeMap, multiple_of

_SHOWN = 5  # files without a result that are printed


def predict(
    model: str,
    sources: list[str],
    *,
    out: Path = Path("predictions"),
    format: Literal["png", "npy", "exr", "ply", "glb", "kitti"] = "png",
    unit: Literal["relative", "mm", "256"] = "relative",
    range: tuple[float, float] | None = None,
    colour: bool = True,
    intrinsics: tuple[float, float, float, float] | None = None,
    field_of_view: float = 60.0,
    max_edge: float | None = None,
    flip: bool | None = None,
    resize: Resizing = OWN_RULES,
    sampling: Sampling | None = None,
    output: Literal["disparity", "depth"] | None = None,
    precision: Literal["32", "bf16", "16"] = "32",
    batch_size: int = 1,
    num_workers: int | None = None,
    threads: int = 2,
    accelerator: str = "auto",
    devices: str = "auto",
    num_nodes: int = 1,
    allow: list[str] | None = None,
) -> None:
    """Predict depth of image files; write each map under the name of its image.

    Args:
        model: a checkpoint, a folder, or a name that `depthkit models` lists.
        sources: image files, folders of them, and .txt lists with a path in each line.
        out: folder of the results: photos/a/x.jpg has a/x.jpg.png there, and a coloured picture a/x.jpg.colour.png.
        format: png (16 bits), npy or exr (float32 as predicted), ply or glb (coloured points), or kitti: what the server of
            its depth benchmark takes, x.png of 1/256 m for x.png, and no pictures.
        unit: of the codes of a png: relative (steps of the map's range, which the file states), mm, or 256 (1/256 m, as
            KITTI's benchmark wants it). The last two need a network that predicts metres; 0 there is no depth.
        range: lowest and highest predicted value, one scale for the codes, colours and points of all files.
        colour: also write the coloured pictures.
        intrinsics: fx fy cx cy [px] of all images, for points.
        field_of_view: from left to right [degrees], for points without intrinsics.
        max_edge: drop points of pixels that are more than this many times as far as a neighbour, such as 1.1.
        flip: also predict each mirrored image and average the two; by default as the network's authors do.
        resize: what to change of the authors' rules, such as `--resize.side 518`.
        sampling: of a latent diffusion model, instead of its own: `--sampling.steps 10 --sampling.members 5`.
        output: what a network of transformers returns that does not say it itself.
        precision: of the network; results are float32 in any case.
        batch_size: neighbours of one size that run together.
        num_workers: processes per device that read images; 0 for none but the device's own.
        threads: per device that write results.
        accelerator: such as cpu or gpu.
        devices: their number, or auto for all of a node.
        num_nodes: of a job; under SLURM as many as it has.
        allow: beginnings of further Python names that may be imported to build a checkpoint's network.

    Raises:
        DepthKitError: the network, a source or an option does not fit; or some images have no prediction, which are named.
    """
    results = Results(Format(format), Unit(unit), range, colour, intrinsics, field_of_view, max_edge)
    if batch_size < 1 or threads < 1:
        raise ShapeError(f"expected batch_size and threads of at least 1; got {batch_size} and {threads}.")
    places = listed(sources)
    names = OutputNames(places, out, results.endings, stems=results.format == Format.KITTI)
    network: Any = from_pretrained(model, output=output, allow=allow or ())
    results.check(network.ambiguity)
    resize.of_network(network)
    set_sampling(network, sampling, model)
    predictor = DepthPredictor(flip_averaged(network, flip), ambiguity=network.ambiguity, precision=precision)
    module = PredictModule(
        predictor, Writer(results, names, threads), batch_size=batch_size, num_workers=workers_that_help(num_workers)
    )
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message="predict returned None|.*does not have many workers|.*LeafSpec")
    trainer = Trainer(
        accelerator=accelerator, devices=devices, num_nodes=num_nodes, logger=False, enable_checkpointing=False,
        enable_model_summary=False, enable_progress_bar=False, use_distributed_sampler=False, default_root_dir=out,
        callbacks=[_Bar()],
    )  # fmt: skip
    stopped: int | None = None
    try:
        trainer.predict(module, return_predictions=False)
    except SIGTERMException:
        stopped = 128 + signal.SIGTERM
    except SystemExit:  # the trainer's answer to Ctrl-C
        stopped = 128 + signal.SIGINT
    finally:
        module.writer.close()
    if trainer.is_global_zero:
        _report(module, places, out, stopped)


class PredictModule(LightningModule):
    """Read, predict and write the share of one device.

    Args:
        predictor: of the network.
        writer: of its results.
        batch_size: images that run together.
        num_workers: processes that read.
    """

    def __init__(self, predictor: DepthPredictor, writer: Writer, *, batch_size: int, num_workers: int) -> None:
        super().__init__()
        self.network = predictor.model  # so that the trainer moves it
        self.predictor, self.writer = predictor, writer
        self.batch_size, self.num_workers = batch_size, num_workers

    def predict_dataloader(self) -> DataLoader[Group]:
        """List the files of this rank."""
        files = self.writer.names.files[self.trainer.global_rank :: self.trainer.world_size]
        reader = ImageReader(files, self.predictor.input_rule, multiple_of(self.network), self.batch_size)
        return DataLoader(reader, batch_size=None, num_workers=min(self.num_workers, len(files)))

    def on_predict_start(self) -> None:
        """Follow the trainer to its device."""
        self.predictor.device = self.device

    def predict_step(self, group: Group) -> None:
        """Predict the images of one group, and hand them over.

        Raises:
            SIGTERMException: the process is asked to end; what was predicted is written.
        """
        if self.trainer.received_sigterm:  # the trainer heeds it while it trains only
            raise SIGTERMException(128 + signal.SIGTERM)
        self.writer.broken |= group.broken
        found = self.predictor.maps(group.images) if group.images else None
        for row, image in enumerate(group.images):
            assert found is not None
            spread = None if found.spread is None else found.spread[row : row + 1]
            try:
                prediction = next(self.predictor.predictions([image], NativeMap(found.map[row : row + 1], spread)))
            except PredictionError as error:
                self.writer.broken[image.name] = str(error)
            else:
                self.writer.add(prediction)

    def on_predict_end(self) -> None:
        """Wait for the writers, and tell the first rank what the others did."""
        self.writer.collect()
        if dist.is_available() and dist.is_initialized():
            parts: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(parts, (self.writer.written, self.writer.broken))
            self.writer.written = sum(written for written, _ in parts)
            self.writer.broken = {name: why for _, broken in parts for name, why in broken.items()}


def _report(module: PredictModule, sources: Sequence[Path], out: Path, stopped: int | None) -> None:
    """Say what was written and what was not; end in an error if an image has no result."""
    writer, predictor, total = module.writer, module.predictor, len(module.writer.names.files)
    kind = f"{predictor.ambiguity} {predictor.representation}"
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"{out}: {writer.written} of {total} images predicted, {kind}", markup=False)
    if passed := left_out(sources):
        console.print(f"left out: {', '.join(f'{count} {why}' for why, count in passed.items())}", markup=False)
    broken = list(writer.broken.values())
    lines = "\n".join([*broken[:_SHOWN], *([f"and {len(broken) - _SHOWN} more"] if len(broken) > _SHOWN else [])])
    if stopped is not None:
        sys.stderr.write(f"Stopped by a signal; what was predicted is kept whole.\n{lines}\n")
        sys.exit(stopped)
    if broken:
        raise ShapeError(f"{len(broken)} of {total} images have no prediction; the others are written.\n{lines}")


class _Bar(Callback):
    """Images of the first rank, as they are predicted."""

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        columns = (TextColumn("predicting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, disable=not trainer.is_global_zero)
        loader: Any = trainer.predict_dataloaders
        self.task = self.bar.add_task("", total=len(loader.dataset.files))
        self.bar.start()

    def on_predict_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *place: int) -> None:
        self.bar.advance(self.task, len(batch.images) + len(batch.broken))

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.bar.stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if hasattr(self, "bar"):
            self.bar.stop()
