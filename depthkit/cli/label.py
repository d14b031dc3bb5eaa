"""``depthkit label``: pseudo-labels for a pool of images, by any teacher, on any number of devices."""

import logging
import warnings
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from depthkit import __version__
from depthkit.errors import RecipeError
from depthkit.inference.labelling import LabelFolder, Pool, PoolReader, open_pool, stored_kind
from depthkit.inference.labelling.module import PseudoLabelModule
from depthkit.inference.teacher import load_teacher, weights_sha256
from depthkit.models.weights.transformers_hub import load_sky
from depthkit.shards import Part

_PRECISION: dict[str, Any] = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}
_SHOWN = 5  # broken images printed one by one


def label(
    teacher: str,
    pool: str,
    out: Path,
    *,
    output: Literal["disparity", "depth"] | None = None,
    split: str | None = None,
    side: int | None = None,
    sky: str | None = None,
    precision: Literal["32", "bf16", "16"] = "32",
    batch_size: int = 8,
    num_workers: int = 0,
    threads: int = 2,
    accelerator: str = "auto",
    devices: str = "auto",
    num_nodes: int = 1,
    part: str = "1/1",
    depth_format: Literal["png_log16", "png_linear16"] = "png_log16",
    images_per_shard: int = 1000,
    max_broken_fraction: float = 0.01,
    allow: list[str] | None = None,
) -> None:
    """Label a pool of images with a teacher, as shards to train on. The same command continues after an interruption.

    Args:
        teacher: a checkpoint of `depthkit fit`, or `transformers:` and the folder or hub id of a depth model.
        pool: folder or URL of shards, whose images are kept byte for byte, or a folder of images.
        out: folder of the labelled shards, with manifest.json beside them.
        output: what the teacher returns, disparity (a relative model) or depth (a metric one); needed for transformers.
        split: of the pool's shards, if there are several; or name of the split to write for a folder of images.
        side: the teacher sees as many pixels as a square of this side has; by default what it was trained with.
        sky: folder or hub id of a segmentation model of transformers with a class sky; sky is labelled as infinitely far.
        precision: of the networks; maps are stored in 16 bits in any case.
        batch_size: images of one size that run together.
        num_workers: processes per device that read, decode and resize; 0 for none but the device's own.
        threads: per device that encode labels.
        accelerator: such as cpu or gpu.
        devices: their number, or auto for all of a node.
        num_nodes: of a job; under SLURM as many as it has.
        part: k/n labels the k-th of n parts of the pool, for n jobs that know nothing of each other; the last one writes the
            index.
        depth_format: how depth is stored, in steps of 0.0244 % (png_log16) or 1 mm where that fits (png_linear16);
            disparity is stored in steps of 1/65533 of an image's range.
        images_per_shard: for a folder of images.
        max_broken_fraction: share of images that may be unreadable before the run stops.
        allow: beginnings of further Python names that may be imported to build the checkpoint's network.

    Raises:
        DepthKitError: the teacher, the pool, the folder or an option does not fit.
    """
    images = open_pool(pool, split=split, images_per_shard=images_per_shard)
    pieces = images.pieces[_part(part, images)]
    network = load_teacher(teacher, output=output, side=side, allow=allow or ())
    segmentation = None if sky is None else load_sky(sky)
    facts: dict[str, Any] = {
        "depthkit": __version__,
        "teacher": network.facts(),
        "precision": precision,
        "sky": None if segmentation is None else {"name": sky, "weights_sha256": weights_sha256(segmentation)},
        "resized_to_image": network.output,
        "step": _step(network.kind.ambiguity == "shift_scale", depth_format),
    }
    folder = LabelFolder(out, images, stored_kind(network.kind), facts, depth_format=depth_format)
    module = PseudoLabelModule(
        network.model,
        network.kind,
        folder,
        PoolReader(images, pieces, resize=network.resize, multiple=network.multiple, batch_size=batch_size),
        sky=segmentation,
        num_workers=num_workers,
        threads=threads,
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
        trainer.predict(module, return_predictions=False)
        if not trainer.is_global_zero:
            return
    _report(out, folder)


def _part(text: str, pool: Pool) -> slice:
    """Every n-th piece from the k-th on."""
    part = Part.parse(text)
    if part.number > len(pool.pieces):
        raise RecipeError(f"expected at most {len(pool.pieces)} parts, one per shard of the pool; got {text}. Use fewer parts.")
    return slice(part.number - 1, None, part.count)


def _step(affine: bool, depth_format: str) -> str:
    if affine:
        return "disparity: 1/65533 of the range of each map, error at most half of it"
    if depth_format == "png_log16":
        return "depth: 2**-12 in its logarithm, error at most 0.0123 %; depth.step of meta.json where the range is above 1:3e6"
    return "depth: 1 mm, error at most 0.5 mm; depth.step of meta.json where it exceeds 65 m"


def _report(out: Path, folder: LabelFolder) -> None:
    console, state = Console(soft_wrap=True, highlight=False), folder.assemble()
    console.print(
        f"{out}: {state.labelled} images labelled with {folder.kind} in {state.finished} of {state.pieces} shards, "
        f"{len(state.broken)} left out", markup=False,
    )  # fmt: skip
    for line in state.broken[:_SHOWN]:
        console.print(f"left out: {line}", markup=False)
    if len(state.broken) > _SHOWN:
        console.print(f"and {len(state.broken) - _SHOWN} more: see records/", markup=False)
    if not state.complete:
        console.print("The other parts are not finished: the index is complete when the last of them ends.")


class _Bar(Callback):
    """Images of the first rank, as they are labelled."""

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
    """Shards under way leave nothing behind when a run stops."""

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        assert isinstance(pl_module, PseudoLabelModule)
        pl_module.discard()
