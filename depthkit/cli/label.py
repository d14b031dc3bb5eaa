"""``depthkit label``: pseudo-labels for a pool of images, by any teacher, on any number of devices."""

import logging
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from depthkit import __version__
from depthkit.checks import check_choice, check_least
from depthkit.cli.options import OWN_RULES, Resizing
from depthkit.errors import RecipeError
from depthkit.inference.labelling import LabelFolder, Piece, Pool, PoolReader, open_pool, stored_kind
from depthkit.inference.labelling.module import PseudoLabelModule
from depthkit.inference.teacher import load_teacher, weights_sha256
from depthkit.models.weights.transformers_hub import load_sky
from depthkit.precision import Precision
from depthkit.shards import Part
from depthkit.shards.label import DepthFormat
from depthkit.types import Representation

_PRECISION: dict[Precision, Any] = {
    Precision.FLOAT32: "32-true",
    Precision.BF16: "bf16-mixed",
    Precision.FLOAT16: "16-mixed",
}
_SHOWN = 5  # broken images printed one by one


def label(
    teacher: str,
    pool: str,
    out: Path,
    *,
    output: Representation | str | None = None,
    split: str | None = None,
    resize: Resizing = OWN_RULES,
    sky: str | None = None,
    precision: Precision | str = Precision.FLOAT32,
    batch_size: int = 8,
    num_workers: int = 0,
    threads: int = 0,
    accelerator: str = "auto",
    devices: str = "auto",
    num_nodes: int = 1,
    part: str = "1/1",
    depth_format: DepthFormat | str = DepthFormat.PNG_LOG16,
    images_per_shard: int = 1000,
    max_broken_fraction: float = 0.01,
    allow: list[str] | None = None,
) -> None:
    """Label a pool of images with a teacher, as shards to train on. The same command continues after an interruption.

    Args:
        teacher: a checkpoint, a folder, a name that `depthkit models` lists, or `transformers:` and a folder or hub id.
        pool: folder or URL of shards, whose images are kept byte for byte, or a folder of images.
        out: folder of the labelled shards, with the manifest of how they were made beside them.
        output: disparity (of a relative teacher) or depth (of a metric one); needed if transformers does not state it.
        split: split of the pool's shards, if there are several; for a folder of images the name of the split to write.
        resize: what to change of how the teacher sees images, such as `--resize.rule area --resize.side 384`.
        sky: folder or hub id of a segmentation model of transformers with a class sky; sky is labelled as infinitely far.
        precision: of the networks, 32, bf16 or 16; maps are always stored in 16 bits.
        batch_size: number of images of one size that run together.
        num_workers: threads per device, in a process of their own, that read, decode and resize; 0 uses the device's process.
        threads: threads per device that encode labels; 0 takes the cores that are left, at least 2.
        accelerator: kind of devices, such as cpu or gpu.
        devices: number of devices, or auto for all of a node.
        num_nodes: number of nodes of the job; under SLURM those it has.
        part: k/n labels the k-th of n parts of the pool, for n independent jobs; the last to end completes the index.
        depth_format: steps of depth of 0.0244 % (png_log16), or of 1 mm where the range allows (png_linear16); disparity
            has steps of 1/65533 of an image's range.
        images_per_shard: number of images per shard, for a folder of images.
        max_broken_fraction: share of images that may be unreadable before the run stops.
        allow: beginnings of further Python names that may be imported to build the checkpoint's network.

    Raises:
        DepthKitError: the teacher, the pool, the folder or an option does not fit.
    """
    check_least(0, num_workers=num_workers, threads=threads, max_broken_fraction=max_broken_fraction)
    check_least(1, batch_size=batch_size, images_per_shard=images_per_shard)
    precision, stored = check_choice("precision", precision, Precision), check_choice("depth_format", depth_format, DepthFormat)
    if stored == DepthFormat.NPY:
        raise RecipeError("expected depth_format png_log16 or png_linear16 for pseudo-labels; got npy.")
    listing = None if Part.parse(part).count == 1 else out
    images = open_pool(pool, split=split, images_per_shard=images_per_shard, listing=listing)
    pieces = _part(part, images)
    rules: dict[str, Any] = {"input_rule": resize.input_rule, "output_rule": resize.output_rule}
    network = load_teacher(teacher, output=output, allow=allow or (), **rules)
    segmentation = None if sky is None else load_sky(sky)
    facts: dict[str, Any] = {
        "depthkit": __version__,
        "teacher": network.facts(),
        "precision": str(precision),
        "sky": None if segmentation is None else {"name": sky, "weights_sha256": weights_sha256(segmentation)},
        "resized_to_image": network.output,
        "step": _step(network.kind.ambiguity == "shift_scale", stored),
    }
    folder = LabelFolder(out, images, stored_kind(network.kind), facts, depth_format=stored)
    module = PseudoLabelModule(
        network.model,
        network.kind,
        folder,
        PoolReader(images, pieces, resize=network.resize, multiple=network.multiple, batch_size=batch_size),
        sky=segmentation,
        num_workers=num_workers,
        threads=threads or _cores_left(num_workers),
        max_broken_fraction=max_broken_fraction,
    )
    if folder.remaining(pieces):
        logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
        warnings.filterwarnings("ignore", message="predict returned None|.*does not have many workers|.*LeafSpec")
        trainer = Trainer(
            accelerator=accelerator, devices=devices, num_nodes=num_nodes, precision=_PRECISION[precision], logger=False,
            enable_checkpointing=False, enable_model_summary=False, enable_progress_bar=False,
            use_distributed_sampler=False, default_root_dir=out, callbacks=[_Bar(), _Clean()],
        )  # fmt: skip
        try:
            trainer.predict(module, return_predictions=False)
        except SIGTERMException:
            raise
        except SystemExit as stop:  # the trainer's answer to Ctrl-C
            raise KeyboardInterrupt from stop
        if not trainer.is_global_zero:
            return
    _report(out, folder)


def _cores_left(num_workers: int) -> int:
    """Count the cores for each device that neither it nor its readers use, at least 2."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(2, cores // max(1, torch.cuda.device_count()) - num_workers - 1)


def _part(text: str, pool: Pool) -> list[Piece]:
    """List every n-th piece from the k-th on."""
    part = Part.parse(text)
    if part.number > len(pool.pieces):
        raise RecipeError(f"expected at most {len(pool.pieces)} parts, one per shard of the pool; got {text}. Use fewer parts.")
    return [piece for number, piece in enumerate(pool.pieces) if part.has(number)]


def _step(affine: bool, depth_format: DepthFormat) -> str:
    if affine:
        return "disparity: 1/65533 of the range of each map, error at most half of it"
    if depth_format == DepthFormat.PNG_LOG16:
        return "depth: 2**-12 in its logarithm, error at most 0.0123 %; depth.step of meta.json where the range is above 1:3e6"
    return "depth: 1 mm, error at most 0.5 mm; depth.step of meta.json where it exceeds 65 m"


def _report(out: Path, folder: LabelFolder) -> None:
    console, info, records = Console(soft_wrap=True, highlight=False), folder.complete(), folder.records
    rejects = [reject for piece in folder.pool.pieces if piece.shard in records for reject in records[piece.shard].left_out]
    console.print(
        f"{out}: {info.samples if info else 0} images labelled with {folder.kind} in {len(records)} of "
        f"{len(folder.pool.pieces)} shards, {len(rejects)} left out", markup=False,
    )  # fmt: skip
    for name, reason in rejects[:_SHOWN]:
        console.print(f"left out: {name}: {reason}", markup=False)
    if len(rejects) > _SHOWN:
        console.print(f"and {len(rejects) - _SHOWN} more: see records/", markup=False)
    if len(records) < len(folder.pool.pieces):
        console.print("The other parts are not finished: the index is complete when the last of them ends.")


class _Bar(Callback):
    """Progress bar over the images of the first rank."""

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        columns = (TextColumn("labelling"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, disable=not trainer.is_global_zero)
        loader: Any = trainer.predict_dataloaders
        self.task = self.bar.add_task("", total=sum(piece.images for piece in loader.dataset.pieces))
        self.bar.start()

    def on_predict_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *place: int) -> None:
        self.bar.advance(self.task, len(batch.entries) + len(batch.broken))

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.bar.stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if hasattr(self, "bar"):
            self.bar.stop()


class _Clean(Callback):
    """Cleanup of unfinished shards when a run stops."""

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        assert isinstance(pl_module, PseudoLabelModule)
        pl_module.discard()
