"""``depthkit shards write | verify | info``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from depthkit.data.convert import folder, tum
from depthkit.data.shards import DepthFormat, ShardIndex, WriteReport, write_shards
from depthkit.data.shards import verify as verify_shards
from depthkit.errors import RecipeError
from depthkit.types import Ambiguity, Sample, Views

_SPREAD = 16  # shards that a small dataset is spread over, so that several workers and ranks can share them
_LARGEST = 1000  # samples per shard
_SHOWN = 20  # rejects and problems printed one by one


def write(
    dataset: Literal["folder", "tum", "synthetic"],
    root: str,
    out: str,
    split: str = "train",
    holdout: float = 0.0,
    name: str | None = None,
    licence: str = "",
    label: folder.Label = folder.Label.AUTO,
    depth_folder: str = "depth",
    depth_scale: float | None = None,
    ambiguity: Ambiguity | None = None,
    views: Views = Views.SINGLE,
    intrinsics: tuple[float, float, float, float] | None = None,
    first: int = 0,
    stop: int | None = None,
    count: int = 100,
    size: tuple[int, int] = (192, 256),
    kind: str | None = None,
    seed: int = 0,
    depth_format: DepthFormat | None = None,
    samples_per_shard: int | None = None,
    workers: int = 0,
    overwrite: bool = False,
) -> None:
    """Turn a dataset into shards. The same command continues after an interruption.

    Args:
        dataset: layout of the source: ``folder`` (rgb/, depth/, intrinsics.json, ...), ``tum`` (rgb.txt, depth.txt, ...), or
            ``synthetic`` to render scenes.
        root: folder of the source; ``-`` for synthetic.
        out: folder of the shards.
        split: name of the split to write.
        holdout: if greater than 0, write ``train``, and this fraction of the frames, at the end of the sequence, as ``test``.
        name: of the dataset; that of the source folder, or "synthetic", by default.
        licence: of the data.
        label: folder: which label to read.
        depth_folder: folder: where the depth PNGs are.
        depth_scale: metres per integer of a depth PNG; 1/1000 (folder) or 1/5000 (tum) by default.
        ambiguity: folder: what the labels leave undetermined, if not what the files imply.
        views: further views to store with each image. tum has single and video.
        intrinsics: tum: fx, fy, cx, cy [px], if the folder's name does not tell.
        first: position of the first frame to use.
        stop: position after the last.
        count: synthetic: number of scenes.
        size: synthetic: height and width [px].
        kind: synthetic: kind of scenes; the renderer's default if not given.
        seed: synthetic: of the scenes.
        depth_format: how depth is stored; by default log16 for synthetic, and linear16, which keeps millimetres, for others.
        samples_per_shard: at most so many; by default 1000, or fewer so that there are 16 shards.
        workers: processes that make samples; 0 for none but this one.
        overwrite: replace what the split holds.

    Raises:
        DepthKitError: the source or the disk does not allow it.
    """
    console = Console()
    if dataset == "synthetic" and holdout:
        raise RecipeError(
            "expected holdout with recorded sequences; got it with synthetic. Write train and test with different seeds."
        )
    for part, target in (("train", "train"), ("test", "test")) if holdout else ((None, split),):
        source: Sequence[Sample]
        if dataset == "synthetic":
            from depthkit.data.synthetic import SyntheticScenes

            source = SyntheticScenes(count, size=size, seed=seed, **({"kind": kind} if kind else {}))
        elif dataset == "folder":
            source = folder.frames(
                root,
                part,
                holdout=holdout,
                label=label,
                depth_folder=depth_folder,
                depth_scale=depth_scale or folder.DEPTH_SCALE,
                ambiguity=ambiguity,
                views=views,
                first=first,
                stop=stop,
            )
        else:
            if views not in (Views.SINGLE, Views.VIDEO):
                raise RecipeError(
                    f"expected views single or video for a TUM-style sequence; got {views}. It has no second camera."
                )
            source = tum.frames(
                root,
                part,
                holdout=holdout,
                intrinsics=intrinsics,
                depth_scale=depth_scale or tum.DEPTH_SCALE,
                video=views == Views.VIDEO,
                first=first,
                stop=stop,
            )
        synthetic = dataset == "synthetic"
        report = write_shards(
            source,
            out,
            split=target,
            dataset=name or ("synthetic" if synthetic else Path(root).resolve().name),
            licence=licence,
            depth_format=depth_format or (DepthFormat.PNG_LOG16 if synthetic else DepthFormat.PNG_LINEAR16),
            samples_per_shard=samples_per_shard or max(1, min(_LARGEST, -(-len(source) // _SPREAD))),
            originals=None if synthetic else root,
            overwrite=overwrite,
            resume=not overwrite and _cut_short(out, target),
            workers=workers,
            progress=True,
        )
        _print_written(console, out, target, report, getattr(source, "unpaired", ()))


def _cut_short(out: str, split: str) -> bool:
    """Whether an earlier run left the split unfinished."""
    if not (Path(out) / "index.json").exists():
        return False
    splits = ShardIndex.load(out).splits
    return split in splits and not splits[split].complete


def _print_written(console: Console, out: str, split: str, report: WriteReport, unpaired: Sequence[str]) -> None:
    size = sum(shard.bytes for shard in report.shards) / 2**20
    console.print(
        f"{out}: {report.samples} samples in {len(report.shards)} shards of split '{split}', {size:.1f} MiB", soft_wrap=True
    )
    if report.skipped:
        console.print(f"{report.skipped} samples were there already.")
    if unpaired:
        console.print(f"{len(unpaired)} images have no label or partner and were left out, the first: {unpaired[0]}")
    if report.rejects:
        _print_table(console, f"{len(report.rejects)} samples were left out", ("sample", "reason"), report.rejects)


def _print_table(console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(*columns, title=title, caption=f"and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else None)
    for row in rows[:_SHOWN]:
        table.add_row(*row)
    console.print(table)


def verify(root: str, decode: bool = True, workers: int = 0) -> None:
    """Check that shards are what their index says, and that every sample in them reads.

    Args:
        root: folder or URL of the shards.
        decode: whether to decode every sample as well.
        workers: processes that share the work; 0 for none but this one.

    Raises:
        ShardError: something is wrong; everything found is printed before.
    """
    report = verify_shards(root, decode=decode, workers=workers, progress=True)
    console = Console()
    if report.problems:
        _print_table(console, f"{root}: {len(report.problems)} problems", ("shard", "sample", "problem"), report.problems)
        report.check()
    checked = "every sample decodes" if decode else "samples were not decoded"
    console.print(
        f"{root}: {report.samples} samples in {report.shards} shards are what the index says; {checked}.", soft_wrap=True
    )


def info(root: str) -> None:
    """Print what a folder or URL of shards holds.

    Args:
        root: folder or URL of the shards.

    Raises:
        ShardError: there are none.
    """
    index = ShardIndex.load(root)
    table = Table("split", "samples", "shards", "MiB", "label", "views", "intrinsics", "complete", title=index.dataset)
    for name, split in sorted(index.splits.items()):
        size = sum(shard.bytes for shard in split.shards) / 2**20
        facts = [str(split.kind), str(split.views), "yes" if split.intrinsics else "no", "yes" if split.complete else "no"]
        table.add_row(name, str(sum(shard.samples for shard in split.shards)), str(len(split.shards)), f"{size:.1f}", *facts)
    console = Console()
    console.print(table)
    console.print(f"licence: {index.licence or 'not stated'}\ndigest: {index.digest}", soft_wrap=True, highlight=False)
