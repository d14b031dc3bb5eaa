"""``depthkit predict``: depth of image files, on any number of devices."""

import logging
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch.utils.data import DataLoader

from depthkit.checks import check_device, check_least
from depthkit.cli.options import OWN_RULES, Resizing, set_sampling, with_members
from depthkit.errors import ShapeError
from depthkit.inference.cameras import UNKNOWN, Cameras
from depthkit.inference.files import (
    FAR,
    MAX_EDGE,
    Format,
    Group,
    ImageReader,
    Results,
    Writer,
    left_out,
    listed,
    workers_that_help,
)
from depthkit.inference.film.frames import RATE
from depthkit.inference.film.predicting import FilmRun, film_targets, films_and_photos
from depthkit.inference.outputs import OutputNames
from depthkit.inference.prediction import Prediction, Unit
from depthkit.inference.predictor import DepthPredictor, Loaded
from depthkit.models import Sampling, flip_averaged, from_pretrained
from depthkit.resize import NativeMap, multiple_of

_SHOWN = 5  # files without a result that are printed
CONSOLE = Console(soft_wrap=True, highlight=False)


def predict(
    model: str,
    sources: list[str],
    *,
    out: Path = Path("predictions"),
    format: Literal["png", "npy", "exr", "ply", "glb", "mp4", "kitti"] = "png",
    unit: Literal["relative", "mm", "256"] = "relative",
    range: tuple[float, float] | None = None,
    colour: bool = True,
    stabilise: bool | None = None,
    rate: float = RATE,
    intrinsics: tuple[float, float, float, float] | None = None,
    fov: float | None = None,
    max_edge: float | None = MAX_EDGE,
    far: float | None = FAR,
    flip: bool | None = None,
    confidence: Literal["flip", "ensemble", "head"] | None = None,
    members: list[str] | None = None,
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
    """Predict depth of image files and films; write each map under the name of its image.

    Args:
        model: a checkpoint, a folder, or a name that `depthkit models` lists.
        sources: image files, films, folders of them, and .txt lists with a path in each line.
        out: folder of the results: photos/a/x.jpg has a/x.jpg.png there, and a coloured picture a/x.jpg.colour.png; frames of
            a.mp4 are a.mp4.frames/000000.png and so on.
        format: png (16 bits), npy or exr (float32 as predicted), ply or glb (coloured points), mp4 (of films and folders of
            frames: a film in colours, whose range is in a.mp4.depthkit.json), or kitti: what the server of its depth
            benchmark takes, x.png of 1/256 m for x.png, and no pictures.
        unit: of the codes of a png: relative (steps of the map's range, which the file states), mm, or 256 (1/256 m, as
            KITTI's benchmark wants it). The last two need a network that predicts metres; 0 there is no depth.
        range: lowest and highest predicted value, one scale for the codes, colours and points of all files; a film's colours
            follow its frames slowly without it.
        colour: also write the coloured pictures.
        stabilise: take the flicker out of films (by default), and of folders of images, as frames in the order of their names.
        rate: frames per second of a folder as a film.
        intrinsics: fx fy cx cy [px] of all images; by default those of intrinsics.json beside them or above their folder, or
            by the focal length in their EXIF.
        fov: field of view from left to right [degrees] instead; points of images whose camera is not known have 60.
        max_edge: drop points of pixels that are more than this many times as far as a neighbour; null for none.
        far: drop points more than this many times as far as the median pixel; null for none.
        flip: also predict each mirrored image and average the two; by default as the network's authors do.
        confidence: also write how far to trust each pixel, 1 / (1 + uncertainty) of 16 bits as a/x.jpg.confidence.png: flip
            (compares with the mirror image; for any network), ensemble (of --members, or of the members of a diffusion
            model's sampling) or head (of a network trained with MetricModule's uncertainty_weight).
        members: further networks of an ensemble, such as `'[b.ckpt, c.ckpt]'`; the map is then their mean.
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
    results = Results(Format(format), Unit(unit), range, colour, max_edge, far, confidence is not None)
    cameras = Cameras(intrinsics, fov)
    check_least(0, num_workers=num_workers, max_edge=max_edge, far=far)
    if batch_size < 1 or threads < 1 or not rate > 0:
        raise ShapeError(f"expected batch_size and threads of at least 1, rate above 0; got {batch_size}, {threads}, {rate}.")
    places = listed(sources)
    films, photos = films_and_photos(places, as_films=bool(stabilise) or results.format == Format.MP4)
    names = OutputNames(photos, out, results.endings, stems=results.format == Format.KITTI) if photos or not films else None
    targets = film_targets(films, photos, out, results)
    network: Any = from_pretrained(model, output=output, allow=allow or ())
    results.check(network.ambiguity)
    resize.of_network(network)
    set_sampling(network, sampling, model)
    shown: Any = flip_averaged(network, flip)
    if confidence is not None or members:
        shown = with_members(shown, confidence, members, allow)
    predictor = DepthPredictor(shown, ambiguity=network.ambiguity, precision=precision)
    outcome = Outcome()
    if names is not None:
        writer = Writer(results, names, threads)
        module = PredictModule(
            predictor, writer, names.files, batch_size=batch_size, num_workers=workers_that_help(num_workers), cameras=cameras
        )
        outcome = _images(module, out, accelerator, devices, num_nodes)
        outcome.say(out, f"{outcome.total} images", predictor)
        if outcome.first and (passed := left_out(places)):
            CONSOLE.print(f"left out: {', '.join(f'{count} {why}' for why, count in passed.items())}", markup=False)
    runs = [FilmRun(film, target, results, stabilise is not False, cameras, threads, rate) for film, target in targets.items()]
    if runs and outcome.first and outcome.stopped is None:
        _films(runs, predictor, accelerator, outcome)
    if outcome.first:
        _end(outcome)


@dataclass
class Outcome:
    """What became of the images or frames: how many have results, why others have none, and the signal that ended the run.

    Attributes:
        written: results there are.
        total: there should be.
        broken: why others are not, by name.
        stopped: exit code of a signal.
        first: whether this process speaks for all.
    """

    written: int = 0
    total: int = 0
    broken: dict[str, str] = field(default_factory=dict)
    stopped: int | None = None
    first: bool = True

    def say(self, where: Path, what: str, predictor: DepthPredictor, more: str = "") -> None:
        """Print what was written and where."""
        if self.first:
            kind = f"{predictor.ambiguity} {predictor.representation}"
            CONSOLE.print(f"{where}: {self.written} of {what} predicted, {kind}{more}", markup=False)


def _images(module: "PredictModule", out: Path, accelerator: str, devices: str, num_nodes: int) -> Outcome:
    """Predict images on all devices."""
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
    writer = module.writer
    return Outcome(writer.written, len(module.files), writer.broken, stopped, trainer.is_global_zero)


def _films(runs: Sequence[FilmRun], predictor: DepthPredictor, accelerator: str, outcome: Outcome) -> None:
    """Predict films one by one on one device, as each frame follows from the one before."""
    predictor.to(_device(accelerator))
    with _signals() as stopped, _progress() as bar:
        for run in runs:
            task = bar.add_task(run.source.name, total=None)

            def after_each(run: FilmRun = run, task: TaskID = task) -> bool:
                bar.update(task, advance=1, total=run.total or None)
                return bool(stopped)

            try:
                run(predictor, after_each)
            except KeyboardInterrupt:
                stopped.append(128 + signal.SIGINT)
            part = Outcome(run.written)
            part.say(run.target, f"{run.total} frames of {run.source}", predictor, ", stabilised" * run.stabilise)
            outcome.written, outcome.total = outcome.written + run.written, outcome.total + run.total
            outcome.broken |= run.broken
            if stopped:
                outcome.stopped = stopped[0]
                return


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Note Ctrl-C and SIGTERM, as exit codes, instead of ending at once."""
    found: list[int] = []
    kept = {}
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            kept[number] = signal.signal(number, lambda got, _frame: found.append(128 + got))
    except ValueError:  # only the main thread may
        kept = {}
    try:
        yield found
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def _device(accelerator: str) -> torch.device:
    """Return one device of the accelerator."""
    gpu = accelerator in ("gpu", "cuda") or (accelerator == "auto" and torch.cuda.is_available())
    return check_device("cuda:0" if gpu else "cpu" if accelerator == "auto" else accelerator)


class PredictModule(LightningModule):
    """Read, predict and write the share of one device.

    Args:
        predictor: of the network.
        writer: of its results.
        files: images of all devices.
        batch_size: images that run together.
        num_workers: processes that read.
        cameras: where the images' intrinsics are looked for.
    """

    def __init__(
        self,
        predictor: DepthPredictor,
        writer: Writer,
        files: Sequence[Path],
        *,
        batch_size: int,
        num_workers: int,
        cameras: Cameras = UNKNOWN,
    ) -> None:
        super().__init__()
        self.network = predictor.model  # so that the trainer moves it
        self.predictor, self.writer, self.files = predictor, writer, files
        self.batch_size, self.num_workers, self.cameras = batch_size, num_workers, cameras

    def predict_dataloader(self) -> DataLoader[Group]:
        """List the files of this rank."""
        files = self.files[self.trainer.global_rank :: self.trainer.world_size]
        rule, multiple = self.predictor.input_rule, multiple_of(self.network)
        on_processor = self.trainer.strategy.root_device.type == "cpu"
        reader = ImageReader(files, rule, multiple, self.batch_size, self.cameras, resized=on_processor)
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
            part = NativeMap(found.map[row : row + 1], spread)
            self.writer.make(image.name, partial(self._brought_to_size, image, part))

    def _brought_to_size(self, image: Loaded, found: NativeMap) -> Prediction:
        return next(self.predictor.predictions([image], found))

    def on_predict_end(self) -> None:
        """Wait for the writers, and tell the first rank what the others did."""
        self.writer.collect()
        if dist.is_available() and dist.is_initialized():
            parts: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(parts, (self.writer.written, self.writer.broken))
            self.writer.written = sum(written for written, _ in parts)
            self.writer.broken = {name: why for _, broken in parts for name, why in broken.items()}


def _end(outcome: Outcome) -> None:
    """End in an error if an image or a frame has no result, or as a signal asked."""
    broken = list(outcome.broken.values())
    lines = "\n".join([*broken[:_SHOWN], *([f"and {len(broken) - _SHOWN} more"] if len(broken) > _SHOWN else [])])
    if outcome.stopped is not None:
        sys.stderr.write(f"Stopped by a signal; what was predicted is kept whole.\n{lines}\n")
        sys.exit(outcome.stopped)
    if broken:
        raise ShapeError(f"{len(broken)} of {outcome.total} images have no prediction; the others are written.\n{lines}")


def _progress(*, disable: bool = False) -> Progress:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, disable=disable)


class _Bar(Callback):
    """Images of the first rank, as they are predicted."""

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.bar = _progress(disable=not trainer.is_global_zero)
        loader: Any = trainer.predict_dataloaders
        self.task = self.bar.add_task("predicting", total=len(loader.dataset.files))
        self.bar.start()

    def on_predict_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *place: int) -> None:
        self.bar.advance(self.task, len(batch.images) + len(batch.broken))

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.bar.stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if hasattr(self, "bar"):
            self.bar.stop()
