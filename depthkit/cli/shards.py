"""``depthkit shards write | verify | info``."""

import re
from collections.abc import Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from depthkit.cli.sky import SkyFinder
from depthkit.convert.catalogue import CATALOGUE, find
from depthkit.convert.records.sky import WithSky
from depthkit.errors import RecipeError
from depthkit.shards import DepthFormat, Part, ShardIndex, SplitInfo, WriteReport, join_parts, write_part, write_shards
from depthkit.shards import verify as verify_shards
from depthkit.shards.build import check_source
from depthkit.shards.images import ImageFormat
from depthkit.shards.manifest import agree, manifest_file
from depthkit.shards.writer import split_manifest, stored_keys
from depthkit.synthetic import SceneKind, SyntheticScenes
from depthkit.types import Views

_SPREAD = 16  # shards that a small dataset is spread over, so that several workers and ranks can share them
_LARGEST = 1000  # samples per shard
_SHOWN = 20  # rejects and problems printed one by one


def write(
    dataset: str,
    root: str,
    out: str,
    split: str = "train",
    holdout: float = 0.0,
    name: str | None = None,
    licence: str = "",
    split_file: str | None = None,
    label: Literal["auto", "depth", "disparity", "none", "velodyne", "velodyne_forward", "annotated"] | None = None,
    depth_folder: str | None = None,
    depth_scale: float | None = None,
    ambiguity: Literal["metric", "scale", "shift_scale"] | None = None,
    intrinsics: tuple[float, float, float, float] | None = None,
    views: Literal["single", "video", "stereo", "video_stereo"] | None = None,
    spacing: int | None = None,
    max_spacing: int | None = None,
    min_motion: float | None = None,
    every: int | None = None,
    first: int | None = None,
    stop: int | None = None,
    count: int | None = None,
    size: tuple[int, int] | None = None,
    kind: SceneKind | None = None,
    seed: int | None = None,
    moving: float | None = None,
    still: float | None = None,
    sky: str | None = None,
    options: dict[str, Any] | None = None,
    depth_format: Literal["png_log16", "png_linear16", "npy"] | None = None,
    image_format: Literal["jpg", "png"] | None = None,
    samples_per_shard: int | None = None,
    workers: int = 0,
    part: str | None = None,
    overwrite: bool = False,
) -> None:
    """Turn a dataset into shards. The same command continues after an interruption.

    Args:
        dataset: one that ``depthkit shards write --list`` names: a published one, or a layout such as ``folder`` (images
            alone, or rgb/, depth/, intrinsics.json, ...), ``video`` (a file), ``kitti_raw`` (drives or odometry sequences,
            by a list of frames) and ``tum`` (rgb.txt, depth.txt, ...); or ``synthetic`` to render scenes.
        root: folder of the source, or the video file; ``-`` for synthetic.
        out: folder of the shards.
        split: name of the split to write; of a dataset with published splits, one of them.
        holdout: if greater than 0, write ``train``, and this fraction of the frames, at the end of the sequence, as ``test``;
            for a dataset with splits of its own, which share of its scenes is in ``val`` if its authors do not say.
        name: of the dataset; by default that of the source, or of the folder of the shards if it is synthetic.
        licence: of the data; what its authors state by default.
        split_file: kitti_raw: list with a line ``folder frame side`` for each sample.
        label: folder: auto, depth, disparity or none; auto reads the one that more images have. kitti_raw: none, velodyne,
            velodyne_forward (how far ahead of the scanner, as the Eigen test wants it) or annotated (the improved ground
            truth); none by default.
        depth_folder: folder: name of the folder of depth PNGs; ``depth`` by default.
        depth_scale: folder, tum: metres per integer of a depth PNG; 1/1000 and 1/5000 by default.
        ambiguity: folder: what the labels leave undetermined, if not what the files imply.
        intrinsics: folder, video, tum: [fx, fy, cx, cy] in pixels of all images, if no file or folder's name tells them.
        views: further views to store with each image: its neighbours in time (video), the other camera's image (stereo), or
            both (video_stereo); tum and video files have no second camera. None by default.
        spacing: neighbours are so many frames away; 1 by default.
        max_spacing: recordings: where less than min_motion moves, try neighbours up to so many frames away.
        min_motion: recordings: leave out images whose neighbours differ by a mean optical flow of less than so many pixels
            of a picture 416 wide; 1 leaves out what Zhou et al. (2017) leave out as static. 0 by default.
        every: folder, video: use each n-th image only.
        first: folder, video, tum: position of the first frame to use.
        stop: folder, video, tum: position after the last.
        count: synthetic: number of scenes.
        size: synthetic: [height, width] in pixels, such as ``--size [192,256]``.
        kind: synthetic: room, street or mixed.
        seed: synthetic: another seed, other scenes.
        moving: synthetic: share of scenes in which objects move.
        still: synthetic: share of scenes in which the camera does not.
        sky: folder or hub id of a segmentation model of transformers with a class sky; an image with a label gets a valid one,
            infinitely far, where there is none and the model sees sky.
        options: further options of the dataset's converter by name, such as ``--options.benchmark_crop true``.
        depth_format: how depth is stored; png_linear16, which keeps millimetres, for recordings of depth cameras, and
            png_log16 for the others by default; npy is float32.
        image_format: how images are stored that have no JPEG or WebP file of their own; png, lossless, for published tests and
            jpg otherwise by default.
        samples_per_shard: at most so many; by default 1000, or fewer so that there are 16 shards.
        workers: processes that make samples; 0 for none but this one.
        part: k/n writes the k-th of n parts, for n jobs that know nothing of each other, such as a SLURM array; the last one
            joins them.
        overwrite: replace what the split holds.

    Raises:
        DepthKitError: the source or the disk does not allow it.
    """
    chosen = {
        "split_file": split_file,
        "label": label,
        "depth_folder": depth_folder,
        "depth_scale": depth_scale,
        "ambiguity": ambiguity,
        "intrinsics": intrinsics,
        "views": views,
        "spacing": spacing,
        "max_spacing": max_spacing,
        "min_motion": min_motion,
        "every": every,
        "first": first,
        "stop": stop,
        "count": count,
        "size": size,
        "kind": kind,
        "seed": seed,
        "moving": moving,
        "still": still,
        "holdout": holdout or None,
    }
    given = {option: value for option, value in chosen.items() if value is not None} | (options or {})
    known = None if dataset == "synthetic" else find(dataset)
    if sky is not None and known is None:
        raise RecipeError("expected a dataset whose sky is to be found; rendered scenes know theirs. Leave --sky out.")
    asks = known is not None and "sky" in known.options and known.options["sky"].default is None  # needs it for its labels
    model = given.pop("sky", sky) if asks else sky
    finder = None if model is None else SkyFinder(str(model)).ready()
    if asks and finder:
        given["sky"] = finder
    if part and overwrite:
        raise RecipeError("expected part or overwrite; got both. Remove what is to be replaced, for parts do not wait for it.")
    published = known is not None and bool(known.published)  # has splits of its own
    halves = ("train", "test") if holdout and not published else (split if published else None,)
    present = {} if overwrite else _present(out)
    complete = {target for target, info in present.items() if info.complete} & {half or split for half in halves}
    for half in halves:
        source: Any = known.open(root, half, given) if known else _scenes(given)
        source = WithSky(source, finder) if finder and not asks else source
        target = half or split
        stored: dict[str, Any] = {
            "dataset": name or (dataset if published else _name(Path(root if known else out))),
            "licence": licence or (known.licence if known else ""),
            "depth_format": depth_format or (known.depth_format if known else DepthFormat.PNG_LOG16),
            "image_format": image_format or (known.image_format if known else ImageFormat.JPG),
            "samples_per_shard": samples_per_shard or max(1, min(_LARGEST, -(-len(source) // _SPREAD))),
        }
        shaping = {option: value for option, value in given.items() if option != "sky"} | {"sky": model}
        manifest = {"converter": dataset, "source": str(Path(root).resolve()) if known else root, **shaping}
        if target in complete:
            agree(manifest_file(Path(out), target), split_manifest(manifest, **stored, bytes_per_shard=2**30), begun=True)
            check_source(source, stored_keys(Path(out), present[target]), f"split '{target}' of {out}")
            Console().print(f"{out}: split '{target}' is complete.", soft_wrap=True)
            continue
        how: dict[str, Any] = {
            "split": target,
            "manifest": manifest,
            "originals": getattr(source, "root", root) if known else None,
            "workers": workers,
            "progress": True,
            **stored,
        }
        if part:
            report = write_part(source, out, part=Part.parse(part), **how)
            finished, parts = join_parts(out, split=target)
        else:
            resume = target in present and target not in complete
            report = write_shards(source, out, overwrite=overwrite, resume=resume, **how)
            finished, parts = 1, 1
        _print_written(out, target, report, None if finished == parts else f"{finished} of {parts} parts are complete.")


def datasets() -> None:
    """Print every dataset that ``write`` reads: its converter, what its labels are, what was checked, its published size."""
    table = Table("dataset", "converter", "label", "test tree", "real", "published samples", title="datasets")
    for name, entry in sorted(CATALOGUE.items()):
        module = entry.frames.__module__.rpartition(".")[2]
        test = Path(entry.test).stem
        table.add_row(name, module, str(entry.kind or "as the files say"), test, "yes" if entry.real else "no", entry.counts)
    console = Console()
    (console if console.is_terminal else Console(width=160)).print(table)


def _scenes(options: Mapping[str, Any]) -> SyntheticScenes:
    known = signature(SyntheticScenes).parameters.keys()
    if foreign := sorted(options.keys() - known):
        has = ", ".join(sorted(known & signature(write).parameters.keys()))
        raise RecipeError(f"expected options of dataset synthetic: {has}; got {', '.join(foreign)}. Leave {foreign[0]} out.")
    if "count" not in options:
        raise RecipeError("expected the number of scenes to render; got none. Give --count.")
    return SyntheticScenes(**options)


def _name(root: Path) -> str:
    return root.stem if root.is_file() else root.resolve().name


def _present(out: str) -> Mapping[str, SplitInfo]:
    """The splits that earlier runs have finished or begun."""
    return ShardIndex.load(out).splits if (Path(out) / "index.json").exists() else {}


def _print_written(out: str, split: str, report: WriteReport, missing: str | None) -> None:
    console = Console()
    size = sum(shard.bytes for shard in report.shards) / 2**20
    console.print(
        f"{out}: {report.samples} samples in {len(report.shards)} shards of split '{split}', {size:.1f} MiB", soft_wrap=True
    )
    if report.skipped:
        console.print(f"{report.skipped} samples were there already.")
    if missing:
        console.print(f"{missing} The last one joins them and writes the index.")
    else:
        written = ShardIndex.load(out).split(split)
        if written.views != Views.SINGLE and not written.intrinsics:
            console.print("Some samples are without intrinsics: give them, or train with a camera that is learned.")
    if report.rejects:
        reasons: dict[str, list[str]] = {}
        first: dict[str, str] = {}
        for name, reason in report.rejects:
            alike = re.sub(r"\S*(/|\d)\S*", "", reason)  # names and numbers apart
            first.setdefault(alike, reason)
            reasons.setdefault(alike, []).append(name)
        rows = [(str(len(names)), names[0], first[alike]) for alike, names in reasons.items()]
        _print_table(console, f"{len(report.rejects)} samples were left out", ("samples", "the first", "reason"), rows)


def _print_table(console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(title=title, caption=f"and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else None)
    for column in columns:
        table.add_column(column, overflow="fold")
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
